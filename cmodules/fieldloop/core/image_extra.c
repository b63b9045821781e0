// Labels, trainable layers and the rehearsal set.
#include "core/image.h"
#include "fieldloop/fl_error.h"

// Bytes of the UTF-8 sequence at `s`, or 0 where it is not one (overlong, surrogate, beyond U+10FFFF, cut off).
// A NUL ends the string, so nothing is read beyond the section, whose last byte is one.
static uint32_t utf8_length(const uint8_t *s) {
    const uint32_t lead = s[0];
    if (lead < 0x80) {
        return 1;
    }
    uint32_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4) {
        return 0;
    }
    for (uint32_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if ((lead == 0xe0 && s[1] < 0xa0) || (lead == 0xed && s[1] >= 0xa0) || (lead == 0xf0 && s[1] < 0x90) ||
        (lead == 0xf4 && s[1] >= 0x90)) {
        return 0;
    }
    return length;
}

int fl_check_labels(const uint8_t *data, uint32_t bytes) {
    if (bytes < sizeof(uint32_t)) {
        return FL_EBADMSG;
    }
    const uint32_t count = *(const uint32_t *)(const void *)data;
    if (count > 0 && (bytes == sizeof(uint32_t) || data[bytes - 1] != 0)) {
        return FL_EBADMSG;
    }
    uint32_t at = sizeof(uint32_t);
    for (uint32_t i = 0; i < count; i++) {
        if (at >= bytes) {
            return FL_EBADMSG;
        }
        while (data[at] != 0) {
            uint32_t length = utf8_length(data + at);
            if (length == 0) {
                return FL_EBADMSG;
            }
            at += length;
        }
        at++;
    }
    return at == bytes ? FL_OK : FL_EBADMSG;
}

int fl_check_trainables(const fl_view_t *v, const uint8_t *data, uint32_t bytes) {
    const fl_trainable_t *trainables = (const fl_trainable_t *)(const void *)data;
    const uint32_t count = bytes / (uint32_t)sizeof(*trainables);
    if (count == 0 || bytes % sizeof(*trainables) != 0) {
        return FL_EBADMSG;
    }
    for (uint32_t i = 0; i < count; i++) {
        const fl_trainable_t *t = &trainables[i];
        if (t->op >= v->op_count || !fl_is_weighted(v->ops[t->op].opcode) ||
            (i > 0 && t->op <= trainables[i - 1].op) || !fl_positive(t->lr_scale)) {
            return FL_EBADMSG;
        }
        if (t->flags != 0) {
            return FL_ENOTSUP;
        }
    }
    return FL_OK;
}

int fl_check_rehearsal(const fl_view_t *v, const uint8_t *data, uint32_t bytes) {
    const fl_rehearsal_set_t *set = (const fl_rehearsal_set_t *)(const void *)data;
    if (bytes < sizeof(*set)) {
        return FL_EBADMSG;
    }
    const uint64_t labels = ((uint64_t)set->count + 15) & ~(uint64_t)15;
    if (set->sample_bytes != v->tensors[v->io[0]].bytes ||
        bytes != sizeof(*set) + labels + (uint64_t)set->count * set->sample_bytes) {
        return FL_EBADMSG;
    }
    const uint32_t classes = fl_elements(&v->tensors[v->io[v->input_count]]);
    for (uint32_t i = 0; i < set->count; i++) {
        if (data[sizeof(*set) + i] >= classes) {
            return FL_EBADMSG;
        }
    }
    return FL_OK;
}
