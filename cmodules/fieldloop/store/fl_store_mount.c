#include <string.h>

#include "fl_log.h"

typedef struct {
    fl_store_t *st;
    const uint8_t (*uids)[FL_STORE_UID_BYTES]; // NULL: all
    size_t n_uids;
    uint32_t max_seq; // of every record seen, whole or not: no number is given twice
    bool add_keys;
} scan_t;

static bool is_listed(const scan_t *scan, const uint8_t *uid) {
    if (scan->uids == NULL) {
        return true;
    }
    for (size_t i = 0; i < scan->n_uids; i++) {
        if (memcmp(scan->uids[i], uid, FL_STORE_UID_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

// FL_OK with *whole told, or the error of the flash.
static int check_whole(const fl_flash_t *flash, const fl_store_rec_t *rec, bool *whole) {
    int err = fl_log_record_whole(flash, rec);
    *whole = err == FL_OK;
    return err == FL_EBADMSG ? FL_OK : err;
}

static bool is_better(const fl_store_live_t *a, const fl_store_live_t *b) {
    if (a->settled != b->settled) {
        return a->settled > b->settled;
    }
    return a->sector_seq > b->sector_seq;
}

// Gives a whole record its place among the live ones, if it has one. Payloads are read only for records
// that would get in, newest sector first, so that few are.
static int offer(const scan_t *scan, const fl_store_rec_t *rec, bool settled) {
    fl_store_t *st = scan->st;
    fl_store_live_t live = {.seq = rec->seq, .len = rec->len, .crc = rec->crc, .off = rec->off,
        .sector_seq = rec->sector_seq, .sector = rec->sector, .settled = settled};
    fl_store_key_t *key = fl_store_key(st, rec->type, rec->uid);
    bool is_new_key = key == NULL;
    unsigned place = 0;
    bool replace = false;
    if (is_new_key) {
        key = fl_store_victim(st);
        if (!scan->add_keys || (key->count > 0 && key->live[0].seq > rec->seq)) {
            return FL_OK;
        }
    } else {
        while (place < key->count && key->live[place].seq > rec->seq) {
            place++;
        }
        replace = place < key->count && key->live[place].seq == rec->seq;
        if (place == 2 || (replace && !is_better(&live, &key->live[place]))) {
            return FL_OK;
        }
    }
    bool whole;
    int err = check_whole(st->flash, rec, &whole);
    if (err || !whole) {
        return err;
    }
    if (is_new_key) {
        *key = (fl_store_key_t){.type = rec->type};
        memcpy(key->uid, rec->uid, FL_STORE_UID_BYTES);
    }
    if (!replace) {
        if (place == 0) {
            key->live[1] = key->live[0];
        }
        key->count = key->count == 0 ? 1 : 2;
    }
    key->live[place] = live;
    return FL_OK;
}

// Copies carried into a sector count once the record they were carried for is whole: the first original
// behind them.
static int is_settled(const fl_flash_t *flash, uint32_t sector, const fl_log_sector_t *head, bool *settled) {
    uint32_t off = fl_log_data_start(flash) + head->cont;
    *settled = false;
    for (;;) {
        fl_log_record_t r;
        int err = fl_log_record_read(flash, sector, head, off, &r);
        if (err) {
            return err == FL_ENOENT ? FL_OK : err;
        }
        if (!(r.flags & FL_LOG_CARRIED)) {
            return check_whole(flash, &r.rec, settled);
        }
        off = fl_log_record_end(flash, &r.rec);
    }
}

static int scan_sector(scan_t *scan, uint32_t sector, const fl_log_sector_t *head) {
    const fl_flash_t *flash = scan->st->flash;
    uint32_t off = fl_log_data_start(flash) + head->cont;
    bool knows_settled = false;
    bool settled = true;
    for (;;) {
        fl_log_record_t r;
        int err = fl_log_record_read(flash, sector, head, off, &r);
        if (err) {
            return err == FL_ENOENT ? FL_OK : err;
        }
        bool carried = (r.flags & FL_LOG_CARRIED) != 0;
        if (carried && !knows_settled) {
            err = is_settled(flash, sector, head, &settled);
            knows_settled = true;
        }
        if (r.rec.seq > scan->max_seq) {
            scan->max_seq = r.rec.seq;
        }
        if (err == FL_OK && is_listed(scan, r.rec.uid)) {
            err = offer(scan, &r.rec, !carried || settled);
        }
        if (err) {
            return err;
        }
        off = fl_log_record_end(flash, &r.rec);
    }
}

static int scan_store(scan_t *scan) {
    const fl_flash_t *flash = scan->st->flash;
    for (uint32_t i = 0; i < flash->sector_count; i++) {
        uint32_t sector = (scan->st->last_sector + flash->sector_count - i) % flash->sector_count;
        fl_log_sector_t head;
        int err = fl_log_sector_read(flash, sector, &head);
        if (err == FL_OK) {
            err = scan_sector(scan, sector, &head);
        }
        if (err && err != FL_ENOENT) {
            return err;
        }
    }
    return FL_OK;
}

static int find_last_sector(fl_store_t *st) {
    const fl_flash_t *flash = st->flash;
    st->last_sector = flash->sector_count - 1;
    for (uint32_t sector = 0; sector < flash->sector_count; sector++) {
        fl_log_sector_t head;
        int err = fl_log_sector_read(flash, sector, &head);
        if (err == FL_OK && head.seq > st->sector_seq) {
            st->sector_seq = head.seq;
            st->last_sector = sector;
        }
        if (err && err != FL_ENOENT) {
            return err;
        }
    }
    return FL_OK;
}

int fl_store_mount(fl_store_t *st, const fl_flash_t *flash, const uint8_t (*uids)[FL_STORE_UID_BYTES],
    size_t n_uids) {
    memset(st, 0, sizeof(*st));
    int err = fl_flash_check(flash, 2);
    if (err) {
        return err;
    }
    st->flash = flash;
    st->failed = 1; // until the table is whole: an append would take what is not in it for free space
    err = find_last_sector(st);
    if (err) {
        return err;
    }
    // The first pass finds which keys are in use. A key that had lost its slot to a newer one and came
    // back may lack its second record: the second pass fills those in.
    scan_t scan = {.st = st, .uids = uids, .n_uids = n_uids, .add_keys = true};
    err = scan_store(&scan);
    if (err == FL_OK) {
        scan.add_keys = false;
        err = scan_store(&scan);
    }
    st->next_seq = scan.max_seq + 1;
    st->failed = err != FL_OK;
    return err;
}

int fl_store_format(fl_store_t *st, const fl_flash_t *flash) {
    memset(st, 0, sizeof(*st));
    int err = fl_flash_check(flash, 2);
    if (err) {
        return err;
    }
    st->flash = flash;
    st->failed = 1;
    err = find_last_sector(st);
    if (err && err != FL_ENOTSUP) {
        return err;
    }
    // The ring from behind the newest sector is oldest first: a cut here does not make an old record
    // the newest, as far as sectors were used in turn.
    uint32_t first = st->last_sector + 1;
    for (uint32_t i = 0; i < flash->sector_count; i++) {
        err = flash->erase(flash->ctx, (first + i) % flash->sector_count);
        if (err) {
            return err;
        }
    }
    err = flash->sync != NULL ? flash->sync(flash->ctx) : FL_OK;
    st->next_seq = 1;
    st->sector_seq = 0; // every sector was erased to the end: numbers begin again
    st->failed = err != FL_OK;
    return err;
}
