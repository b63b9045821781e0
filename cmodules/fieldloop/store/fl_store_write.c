#include "fl_store_write.h"

#include <string.h>

typedef struct {
    fl_store_t *st;
    fl_sectors_t *taken;
    uint32_t left;                   // bytes of the record, padding included, not programmed yet
    uint32_t fill;                   // bytes waiting in `unit`
    uint8_t unit[FL_FLASH_PROG_MAX]; // a program unit that two pieces share
} writer_t;

uint32_t fl_sectors_next(const fl_sectors_t *taken, uint32_t sector, uint32_t sector_count) {
    for (uint32_t i = 1; i <= sector_count; i++) {
        uint32_t candidate = (sector + i) % sector_count;
        if (!fl_sectors_has(taken, candidate)) {
            return candidate;
        }
    }
    return sector_count;
}

int fl_store_open_sector(fl_store_t *st, fl_sectors_t *taken, uint32_t cont) {
    const fl_flash_t *flash = st->flash;
    st->open_off = 0;
    uint32_t sector = fl_sectors_next(taken, st->last_sector, flash->sector_count);
    if (sector == flash->sector_count) {
        return FL_ENOSPC;
    }
    fl_sectors_add(taken, sector);
    int err = flash->erase(flash->ctx, sector);
    if (err) {
        return err;
    }
    // The number is used up even if the header fails half-way.
    st->sector_seq++;
    st->last_sector = sector;
    uint8_t head[FL_LOG_CHUNK];
    uint32_t n = fl_log_sector_pack(flash, &(fl_log_sector_t){.seq = st->sector_seq, .cont = cont}, head);
    err = flash->prog(flash->ctx, sector * flash->sector_bytes, head, n);
    if (err) {
        return err;
    }
    st->open_off = n;
    return FL_OK;
}

// Programs n bytes, whole units, at the open place.
static int program(writer_t *w, const uint8_t *data, uint32_t n) {
    fl_store_t *st = w->st;
    const fl_flash_t *flash = st->flash;
    while (n > 0) {
        int err = FL_OK;
        if (st->open_off == flash->sector_bytes) {
            uint32_t room = fl_log_data_bytes(flash);
            err = fl_store_open_sector(st, w->taken, w->left < room ? w->left : room);
        }
        if (err) {
            return err;
        }
        uint32_t run = flash->sector_bytes - st->open_off;
        run = run < n ? run : n;
        err = flash->prog(flash->ctx, st->last_sector * flash->sector_bytes + st->open_off, data, run);
        if (err) {
            return err;
        }
        st->open_off += run;
        w->left -= run;
        data += run;
        n -= run;
    }
    return FL_OK;
}

static int put(writer_t *w, const void *data, uint32_t n) {
    const uint8_t *in = data;
    uint32_t unit = w->st->flash->prog_bytes;
    while (n > 0) {
        if (w->fill == 0 && n >= unit) {
            uint32_t run = n / unit * unit;
            int err = program(w, in, run);
            if (err) {
                return err;
            }
            in += run;
            n -= run;
            continue;
        }
        uint32_t take = unit - w->fill < n ? unit - w->fill : n;
        memcpy(w->unit + w->fill, in, take);
        w->fill += take;
        in += take;
        n -= take;
        if (w->fill == unit) {
            w->fill = 0;
            int err = program(w, w->unit, unit);
            if (err) {
                return err;
            }
        }
    }
    return FL_OK;
}

static int put_pieces(writer_t *w, const fl_payload_t *payload) {
    for (size_t i = 0; i < payload->n_pieces; i++) {
        int err = put(w, payload->pieces[i].data, payload->pieces[i].len);
        if (err) {
            return err;
        }
    }
    return FL_OK;
}

static int put_record(writer_t *w, const fl_store_rec_t *from) {
    fl_log_cursor_t cur;
    int err = fl_log_seek(&cur, w->st->flash, from, 0);
    for (uint32_t done = 0; done < from->len && err == FL_OK;) {
        uint8_t chunk[FL_LOG_CHUNK];
        uint32_t n = from->len - done < sizeof(chunk) ? from->len - done : (uint32_t)sizeof(chunk);
        err = fl_log_next(&cur, chunk, n);
        if (err == FL_OK) {
            err = put(w, chunk, n);
        }
        done += n;
    }
    return err;
}

static int write_record(writer_t *w, const fl_store_rec_t *rec, uint8_t flags, const fl_payload_t *payload) {
    uint8_t head[FL_LOG_RECORD_HEADER];
    fl_log_record_pack(rec, flags, head);
    int err = put(w, head, sizeof(head));
    if (err == FL_OK) {
        err = payload->pieces == NULL && payload->from != NULL ? put_record(w, payload->from) : put_pieces(w, payload);
    }
    if (err == FL_OK && w->fill > 0) {
        uint32_t unit = w->st->flash->prog_bytes;
        memset(w->unit + w->fill, 0xFF, unit - w->fill);
        err = program(w, w->unit, unit);
    }
    return err;
}

int fl_store_write_record(fl_store_t *st, fl_sectors_t *taken, fl_store_rec_t *rec, uint8_t flags,
    const fl_payload_t *payload) {
    rec->sector = (uint16_t)st->last_sector;
    rec->off = st->open_off;
    rec->sector_seq = st->sector_seq;
    writer_t w = {.st = st, .taken = taken, .left = fl_log_record_bytes(st->flash, rec->len)};
    int err = write_record(&w, rec, flags, payload);
    if (err == FL_OK) {
        // A payload whose source was damaged, or a flash that programmed something else, ends here.
        err = fl_log_record_whole(st->flash, rec);
        err = err == FL_EBADMSG ? FL_EIO : err;
    }
    return err;
}
