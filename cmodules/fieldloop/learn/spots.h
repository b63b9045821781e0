// Spots of a delta, a chunk at a time.
#ifndef FIELDLOOP_LEARN_SPOTS_H
#define FIELDLOOP_LEARN_SPOTS_H

#include "kernels/taps.h"
#include "learner.h"

enum { FL_SPOTS = 32 };  // of a chunk: 256 bytes of the walk's stack

typedef struct {
    const fl_word_t *delta;  // [positions, channels]
    uint32_t positions, channels;
    uint32_t width;  // positions of a row of the map
    // which entries: those of a list, those of the channels in a list, or all
    const uint16_t *list, *list_end;
    uint32_t by_channel;
    uint32_t next_channel;
    // where it is
    uint32_t channel;
    uint32_t position, y, x;  // of the next entry of the channel
    // entries that stand for windows of a pool
    const fl_op_t *pool;  // NULL: each is a spot
    fl_map_dims_t map;    // of the pool
    const int8_t *q;      // its input; NULL: not looked at
    int32_t last_y, last_x;  // windows that start at 0..last lie on the map as a whole
    int32_t low, high;    // averages with a q: an input counts where it lies between (neither of them)
    int is_q;
    // the window of an average that is being shared out
    fl_taps_t ty, tx;
    int32_t ky, kx;
    fl_word_t share;
    int is_open;
} fl_spots_t;

// All of a step's entries: the operator has weights and a map, or is a pool that is not fused.
void fl_spots_begin(const fl_learner_t *l, const fl_hop_t *step, fl_spots_t *s);
// Only those that are kept.
void fl_spots_keep(fl_spots_t *s, const fl_kept_t *kept);
// Goes to the next channel, s->channel; 0: there is none. Its spots have all been taken before.
int fl_spots_channel(fl_spots_t *s);
// Up to FL_SPOTS spots of the channel; 0: no more. None is zero.
uint32_t fl_spots_take(fl_spots_t *s, fl_spot_t *chunk);

#endif
