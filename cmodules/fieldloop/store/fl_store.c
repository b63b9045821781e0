#include "fieldloop/fl_store.h"

#include <string.h>

#include "fieldloop/fl_crc.h"
#include "fl_store_write.h"

fl_store_key_t *fl_store_key(fl_store_t *st, uint16_t type, const uint8_t *uid) {
    for (unsigned i = 0; i < FL_STORE_KEYS; i++) {
        fl_store_key_t *key = &st->keys[i];
        if (key->count > 0 && key->type == type && memcmp(key->uid, uid, FL_STORE_UID_BYTES) == 0) {
            return key;
        }
    }
    return NULL;
}

fl_store_key_t *fl_store_victim(fl_store_t *st) {
    fl_store_key_t *victim = &st->keys[0];
    for (unsigned i = 0; i < FL_STORE_KEYS; i++) {
        fl_store_key_t *key = &st->keys[i];
        if (key->count == 0) {
            return key;
        }
        if (key->live[0].seq < victim->live[0].seq) {
            victim = key;
        }
    }
    return victim;
}

static fl_store_rec_t rec_of(const fl_store_key_t *key, unsigned i) {
    const fl_store_live_t *live = &key->live[i];
    fl_store_rec_t rec = {.seq = live->seq, .len = live->len, .crc = live->crc, .off = live->off,
        .sector_seq = live->sector_seq, .sector = live->sector, .type = key->type};
    memcpy(rec.uid, key->uid, FL_STORE_UID_BYTES);
    return rec;
}

// Where a live record lies now: it may have been carried since the card was filled.
static int resolve(const fl_store_t *st, const fl_store_rec_t *rec, fl_store_rec_t *now) {
    for (unsigned i = 0; i < FL_STORE_KEYS; i++) {
        const fl_store_key_t *key = &st->keys[i];
        for (unsigned j = 0; j < key->count; j++) {
            if (key->live[j].seq == rec->seq && key->type == rec->type
                && memcmp(key->uid, rec->uid, FL_STORE_UID_BYTES) == 0) {
                *now = rec_of(key, j);
                return FL_OK;
            }
        }
    }
    return FL_ENOENT;
}

/// Reading ///

int fl_store_each(const fl_store_t *st, unsigned index, fl_store_rec_t *rec) {
    for (unsigned i = 0; i < FL_STORE_KEYS; i++) {
        const fl_store_key_t *key = &st->keys[i];
        if (index < key->count) {
            *rec = rec_of(key, index);
            return FL_OK;
        }
        index -= key->count;
    }
    return FL_ENOENT;
}

int fl_store_find(const fl_store_t *st, uint16_t type, const uint8_t uid[FL_STORE_UID_BYTES], unsigned nth,
    fl_store_rec_t *rec) {
    uint32_t below = UINT32_MAX; // no record has this number or more
    for (;; nth--) {
        bool found = false;
        fl_store_rec_t candidate;
        for (unsigned i = 0; fl_store_each(st, i, &candidate) == FL_OK; i++) {
            bool matches = (type == FL_STORE_ANY || candidate.type == type)
                && memcmp(candidate.uid, uid, FL_STORE_UID_BYTES) == 0;
            if (matches && candidate.seq < below && (!found || candidate.seq > rec->seq)) {
                *rec = candidate;
                found = true;
            }
        }
        if (!found) {
            return FL_ENOENT;
        }
        if (nth == 0) {
            return FL_OK;
        }
        below = rec->seq;
    }
}

int fl_store_read(const fl_store_t *st, const fl_store_rec_t *rec, uint32_t off, void *buf, uint32_t n) {
    if (off > rec->len || n > rec->len - off) {
        return FL_EINVAL;
    }
    fl_store_rec_t now;
    fl_log_cursor_t cur;
    int err = resolve(st, rec, &now);
    if (err == FL_OK) {
        err = fl_log_seek(&cur, st->flash, &now, off);
    }
    return err == FL_OK ? fl_log_next(&cur, buf, n) : err;
}

int fl_store_verify(const fl_store_t *st, const fl_store_rec_t *rec) {
    fl_store_rec_t now;
    int err = resolve(st, rec, &now);
    return err == FL_OK ? fl_log_record_whole(st->flash, &now) : err;
}

/// Appending ///

// What one append is about to do.
typedef struct {
    fl_store_t *st;
    fl_store_key_t *slot;     // of the key; another key's that is to be given up, when `is_new`
    bool is_new;
    fl_store_rec_t rec;
    fl_sectors_t blocked;     // sectors that live records touch
    uint32_t free_sectors;    // all the others
    bool rule_a, rule_b;      // which of the space rules holds (fl_store.h)
} plan_t;

// Live records of `key` that have to survive: before the new record is whole, or after.
static unsigned live_count(const plan_t *p, const fl_store_key_t *key, bool after) {
    if (key != p->slot) {
        return key->count;
    }
    if (p->is_new) {
        return 0;
    }
    return after && key->count > 1 ? 1 : key->count;
}

static int mark_record(const fl_flash_t *flash, const fl_store_live_t *live, fl_sectors_t *set) {
    uint32_t sector = live->sector;
    fl_sectors_add(set, sector);
    // Only a record that starts its sector goes on behind it, so this counts its sectors exactly.
    uint32_t more = fl_log_record_sectors(flash, live->len) - 1;
    for (uint32_t i = 1; i <= more; i++) {
        int err = fl_log_find_continuation(flash, sector, live->sector_seq + i, &sector);
        if (err) {
            return err == FL_ENOENT ? FL_OK : err;
        }
        fl_sectors_add(set, sector);
    }
    return FL_OK;
}

static int mark_live(const plan_t *p, bool after, fl_sectors_t *set) {
    memset(set, 0, sizeof(*set));
    for (unsigned i = 0; i < FL_STORE_KEYS; i++) {
        const fl_store_key_t *key = &p->st->keys[i];
        unsigned n = live_count(p, key, after);
        for (unsigned j = 0; j < n; j++) {
            int err = mark_record(p->st->flash, &key->live[j], set);
            if (err) {
                return err;
            }
        }
    }
    return FL_OK;
}

static uint32_t count_free(const fl_flash_t *flash, const fl_sectors_t *taken) {
    uint32_t n = 0;
    for (uint32_t sector = 0; sector < flash->sector_count; sector++) {
        n += fl_sectors_has(taken, sector) ? 0 : 1;
    }
    return n;
}

// Applies the space rules to the keys in use, the new record among them.
static void apply_rules(plan_t *p) {
    const fl_flash_t *flash = p->st->flash;
    uint64_t bytes = 0;
    uint64_t sectors = 0;
    uint64_t most = 0;
    for (unsigned i = 0; i < FL_STORE_KEYS; i++) {
        const fl_store_key_t *key = &p->st->keys[i];
        unsigned n = live_count(p, key, false);
        if (n == 0 && key != p->slot) {
            continue;
        }
        uint32_t longest = key == p->slot ? p->rec.len : 0;
        for (unsigned j = 0; j < n; j++) {
            longest = key->live[j].len > longest ? key->live[j].len : longest;
        }
        uint64_t k = fl_log_record_sectors(flash, longest);
        bytes += 2 * (uint64_t)fl_log_record_bytes(flash, longest);
        sectors += 2 * k;
        most = k > most ? k : most;
    }
    p->rule_a = sectors + most <= flash->sector_count;
    p->rule_b = bytes <= fl_log_data_bytes(flash);
    uint64_t needed = (sectors + most) * flash->sector_bytes;
    p->st->needed = needed > UINT32_MAX ? UINT32_MAX : (uint32_t)needed;
    p->st->available = flash->sector_count * flash->sector_bytes;
}

static bool fits_open_sector(const plan_t *p) {
    const fl_flash_t *flash = p->st->flash;
    return p->st->open_off != 0
        && fl_log_record_bytes(flash, p->rec.len) <= flash->sector_bytes - p->st->open_off;
}

// May the record simply be added, nothing moved? Under rule (A) always; under (B) only while a free
// sector remains, into which the next append can carry what is live.
static int may_add(const plan_t *p, bool *may) {
    const fl_flash_t *flash = p->st->flash;
    bool fits = fits_open_sector(p);
    *may = fits || fl_log_record_sectors(flash, p->rec.len) <= p->free_sectors;
    if (!*may || p->rule_a) {
        return FL_OK;
    }
    fl_sectors_t after;
    int err = mark_live(p, true, &after);
    fl_sectors_add(&after,
        fits ? p->st->last_sector : fl_sectors_next(&p->blocked, p->st->last_sector, flash->sector_count));
    *may = count_free(flash, &after) > 0;
    return err;
}

// Copies every record that stays live into the sector just opened. With `update`, nothing is written:
// the table learns where the copies lie.
static int carry_live(plan_t *p, bool update) {
    fl_store_t *st = p->st;
    uint32_t off = fl_log_data_start(st->flash);
    for (unsigned i = 0; i < FL_STORE_KEYS; i++) {
        fl_store_key_t *key = &st->keys[i];
        for (unsigned j = live_count(p, key, true); j-- > 0;) {
            fl_store_live_t *live = &key->live[j];
            if (update) {
                live->sector = (uint16_t)st->last_sector;
                live->sector_seq = st->sector_seq;
                live->off = off;
                live->settled = 1;
            } else {
                fl_store_rec_t from = rec_of(key, j);
                fl_store_rec_t to = from;
                int err = fl_store_write_record(st, &p->blocked, &to, FL_LOG_CARRIED, &(fl_payload_t){.from = &from});
                if (err) {
                    return err;
                }
            }
            off += fl_log_record_bytes(st->flash, live->len);
        }
    }
    return FL_OK;
}

static void add_to_table(plan_t *p) {
    fl_store_key_t *key = p->slot;
    if (p->is_new) {
        *key = (fl_store_key_t){.type = p->rec.type};
        memcpy(key->uid, p->rec.uid, FL_STORE_UID_BYTES);
    }
    key->live[1] = key->live[0];
    key->live[0] = (fl_store_live_t){.seq = p->rec.seq, .len = p->rec.len, .crc = p->rec.crc, .off = p->rec.off,
        .sector_seq = p->rec.sector_seq, .sector = p->rec.sector, .settled = 1};
    key->count = key->count == 0 ? 1 : 2;
}

static int write_planned(plan_t *p, bool carry, const fl_payload_t *payload) {
    fl_store_t *st = p->st;
    int err = FL_OK;
    if (carry || !fits_open_sector(p)) {
        err = fl_store_open_sector(st, &p->blocked, 0);
    }
    if (err == FL_OK && carry) {
        err = carry_live(p, false);
    }
    if (err == FL_OK) {
        err = fl_store_write_record(st, &p->blocked, &p->rec, 0, payload);
    }
    if (err == FL_OK && st->flash->sync != NULL) {
        err = st->flash->sync(st->flash->ctx);
    }
    if (err) {
        // The flash may yet hold the whole record: only a mount may say which state it is.
        st->failed = 1;
        return err;
    }
    if (carry) {
        carry_live(p, true);
    }
    add_to_table(p);
    return FL_OK;
}

static int append(fl_store_t *st, const fl_store_rec_t *rec, const fl_payload_t *payload) {
    plan_t p = {.st = st, .rec = *rec};
    if (st->failed) {
        return FL_EIO;
    }
    // One append opens each sector once at most.
    if (st->next_seq == UINT32_MAX || st->sector_seq > UINT32_MAX - st->flash->sector_count) {
        return FL_EBADMSG;
    }
    p.slot = fl_store_key(st, rec->type, rec->uid);
    p.is_new = p.slot == NULL;
    p.slot = p.is_new ? fl_store_victim(st) : p.slot;
    apply_rules(&p);
    if (!p.rule_a && !p.rule_b) {
        return FL_ENOSPC;
    }
    bool add = false;
    int err = mark_live(&p, false, &p.blocked);
    p.free_sectors = count_free(st->flash, &p.blocked);
    if (err == FL_OK) {
        err = may_add(&p, &add);
    }
    if (err) {
        return err;
    }
    if (!add && (!p.rule_b || p.free_sectors == 0)) {
        return FL_ENOSPC;
    }
    p.rec.seq = st->next_seq++;
    return write_planned(&p, !add, payload);
}

int fl_store_append(fl_store_t *st, uint16_t type, const uint8_t uid[FL_STORE_UID_BYTES],
    const fl_store_piece_t *pieces, size_t n_pieces) {
    if (type == FL_STORE_ANY || type == UINT16_MAX || (pieces == NULL && n_pieces > 0)) {
        return FL_EINVAL;
    }
    fl_store_rec_t rec = {.type = type};
    memcpy(rec.uid, uid, FL_STORE_UID_BYTES);
    for (size_t i = 0; i < n_pieces; i++) {
        if (pieces[i].len > FL_LOG_PAYLOAD_MAX - rec.len) {
            return FL_EINVAL;
        }
        rec.len += pieces[i].len;
        rec.crc = fl_crc32(rec.crc, pieces[i].data, pieces[i].len);
    }
    return append(st, &rec, &(fl_payload_t){.pieces = pieces, .n_pieces = n_pieces});
}

int fl_store_copy(fl_store_t *st, const fl_store_rec_t *rec) {
    fl_store_rec_t from;
    int err = resolve(st, rec, &from);
    return err == FL_OK ? append(st, &from, &(fl_payload_t){.from = &from}) : err;
}
