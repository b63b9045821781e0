// From the entries of a delta that take part to spots, channel by channel: what the kernels of maps walk on. Where a pool is
// fused into a convolution, an entry is a window of the convolution's outputs: a maximum hands its delta to the first largest
// of them, an average shares it out. Nothing is written down on the way: a chunk of spots is all there ever is.
#include "spots.h"

#include "core/image.h"

void fl_spots_begin(const fl_learner_t *l, const fl_hop_t *step, fl_spots_t *s) {
    const fl_model_t *m = l->model;
    const fl_op_t *op = &m->ops[step->op];
    const fl_op_t *pool = fl_has_weights(op) ? NULL : op;
    *s = (fl_spots_t){.delta = fl_words(l, step->delta), .is_q = fl_is_q(l)};
    if (step->pool != FL_NONE) {
        pool = &m->ops[l->way[step->pool].op];
        s->low = op->act_min;
        s->high = op->act_max;
    }
    const fl_tensor_t *map = &m->tensors[pool ? pool->out[0] : op->out[0]];
    s->channels = (uint32_t)map->shape[3];
    s->width = (uint32_t)map->shape[2];
    s->positions = (uint32_t)map->shape[1] * s->width;
    if (pool) {
        s->pool = pool;
        s->map = fl_learner_dims(m, pool);
        // an average of its own asks for nothing there, and a plan may not have held it whole
        s->q = pool != op || pool->opcode == FL_OP_MAX_POOL ? fl_model_tensor(m, pool->in[0]) : NULL;
        s->last_y = s->map.in_h - pool->p.conv.kernel_h;
        s->last_x = s->map.in_w - pool->p.conv.kernel_w;
    }
}

void fl_spots_keep(fl_spots_t *s, const fl_kept_t *kept) {
    if (kept->list) {
        s->list = kept->list;
        s->list_end = kept->list + kept->count;
        s->by_channel = kept->channels;
    }
}

int fl_spots_channel(fl_spots_t *s) {
    s->position = 0;
    s->y = 0;
    s->x = 0;
    if (!s->list) {
        s->channel = s->next_channel++;
        return s->channel < s->channels;
    }
    if (s->list == s->list_end) {
        return 0;
    }
    s->channel = s->by_channel ? *s->list++ : *s->list / s->positions;
    return 1;
}

static int is_zero(fl_word_t w) {
    return (w.q & 0x7fffffff) == 0;  // f32 and integers alike
}

// The next entry of the channel that is not zero, as a spot of the entries' own map; 0: no more.
static inline int next_entry(fl_spots_t *s, fl_spot_t *entry) {
    const fl_word_t *delta = s->delta + s->channel;
    if (s->list && !s->by_channel) {
        uint32_t first = s->channel * s->positions;
        while (s->list < s->list_end && *s->list < first + s->positions) {
            uint32_t position = *s->list++ - first;
            entry->delta = delta[position * s->channels];
            if (!is_zero(entry->delta)) {
                entry->y = (uint16_t)(position / s->width);
                entry->x = (uint16_t)(position - entry->y * s->width);
                return 1;
            }
        }
        return 0;
    }
    int found = 0;
    while (!found && s->position < s->positions) {
        entry->delta = delta[s->position * s->channels];
        entry->y = (uint16_t)s->y;
        entry->x = (uint16_t)s->x;
        found = !is_zero(entry->delta);
        s->position++;
        s->x++;
        if (s->x == s->width) {
            s->x = 0;
            s->y++;
        }
    }
    return found;
}

static inline const int8_t *input_at(const fl_spots_t *s, int32_t iy, int32_t ix) {
    return s->q + (iy * s->map.in_w + ix) * s->map.in_c + (int32_t)s->channel;
}

// Moves a spot from its window to the first largest input in it. Every window touches the map (image_windows.c).
static inline void to_largest(const fl_spots_t *s, fl_spot_t *spot) {
    const fl_conv_params_t *p = &s->pool->p.conv;
    int32_t y = spot->y * p->stride_h - p->pad_top;
    int32_t x = spot->x * p->stride_w - p->pad_left;
    int32_t rows = p->kernel_h;
    int32_t columns = p->kernel_w;
    if (y < 0 || y > s->last_y || x < 0 || x > s->last_x) {  // only a part of it lies on the map
        fl_taps_t ty = fl_taps(spot->y, p->stride_h, p->pad_top, 1, p->kernel_h, s->map.in_h);
        fl_taps_t tx = fl_taps(spot->x, p->stride_w, p->pad_left, 1, p->kernel_w, s->map.in_w);
        y += ty.first;
        x += tx.first;
        rows = ty.end - ty.first;
        columns = tx.end - tx.first;
    }
    const int8_t *row = input_at(s, y, x);
    int32_t best_y = 0;
    int32_t best_x = 0;
    if (rows == 2 && columns == 2) {  // what pools mostly are
        const int8_t *below = row + s->map.in_w * s->map.in_c;
        int32_t top = row[0];
        int32_t bottom = below[0];
        int32_t top_right = row[s->map.in_c] > top;
        int32_t bottom_right = below[s->map.in_c] > bottom;
        top = top_right ? row[s->map.in_c] : top;
        bottom = bottom_right ? below[s->map.in_c] : bottom;
        best_y = bottom > top;
        best_x = best_y ? bottom_right : top_right;
        rows = 0;
    }
    int32_t best = *row;
    for (int32_t i = 0; i < rows; i++) {
        const int8_t *at = row;
        for (int32_t k = 0; k < columns; k++) {
            if (*at > best) {
                best = *at;
                best_y = i;
                best_x = k;
            }
            at += s->map.in_c;
        }
        row += s->map.in_w * s->map.in_c;
    }
    spot->y = (uint16_t)(y + best_y);
    spot->x = (uint16_t)(x + best_x);
}

// A window's delta divided by its inputs; of 16 bits: rounded, halves away from zero.
static fl_word_t shared(fl_word_t delta, int32_t count, int is_q) {
    if (!is_q) {
        return (fl_word_t){.f = delta.f / (float)count};
    }
    int32_t m = delta.q < 0 ? -delta.q : delta.q;
    int32_t rounded = (m + count / 2) / count;
    return (fl_word_t){.q = delta.q < 0 ? -rounded : rounded};
}

// The next input of the open window that counts; closes it behind the last one.
static int next_share(fl_spots_t *s, fl_spot_t *spot) {
    while (s->is_open) {
        int32_t iy = s->ty.start + s->ky;
        int32_t ix = s->tx.start + s->kx;
        if (++s->kx == s->tx.end) {
            s->kx = s->tx.first;
            s->is_open = ++s->ky < s->ty.end;
        }
        if (s->q) {
            int8_t q = *input_at(s, iy, ix);
            if (q <= s->low || q >= s->high) {
                continue;
            }
        }
        *spot = (fl_spot_t){(uint16_t)iy, (uint16_t)ix, s->share};
        return 1;
    }
    return 0;
}

// The next spot of an average.
static int next_of_average(fl_spots_t *s, fl_spot_t *spot) {
    const fl_conv_params_t *p = &s->pool->p.conv;
    if (s->is_open && next_share(s, spot)) {
        return 1;
    }
    while (next_entry(s, spot)) {
        s->ty = fl_taps(spot->y, p->stride_h, p->pad_top, 1, p->kernel_h, s->map.in_h);
        s->tx = fl_taps(spot->x, p->stride_w, p->pad_left, 1, p->kernel_w, s->map.in_w);
        s->share = shared(spot->delta, (s->ty.end - s->ty.first) * (s->tx.end - s->tx.first), s->is_q);
        s->ky = s->ty.first;
        s->kx = s->tx.first;
        s->is_open = !is_zero(s->share);
        if (s->is_open && next_share(s, spot)) {
            return 1;
        }
    }
    return 0;
}

uint32_t fl_spots_take(fl_spots_t *s, fl_spot_t *chunk) {
    uint32_t count = 0;
    if (!s->pool) {
        while (count < FL_SPOTS && next_entry(s, &chunk[count])) {
            count++;
        }
    } else if (s->pool->opcode == FL_OP_MAX_POOL) {
        for (; count < FL_SPOTS && next_entry(s, &chunk[count]); count++) {
            to_largest(s, &chunk[count]);
        }
    } else {
        while (count < FL_SPOTS && next_of_average(s, &chunk[count])) {
            count++;
        }
    }
    return count;
}
