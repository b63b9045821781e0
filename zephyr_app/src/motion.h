// What an accelerometer on a machine would read: a few motions, as functions of time. Plain C without an OS, so that the
// host trains on what the board's emulated sensor plays (zephyr_app/train_motion.py).
#ifndef FIELDLOOP_APP_MOTION_H
#define FIELDLOOP_APP_MOTION_H

#include <stdint.h>

// 0 rest, 1 sway, 2 knock, 3 hum
enum { MOTION_COUNT = 4 };

// Acceleration in m/s2 at `ms` of a motion; `seed` draws the noise. An unknown motion is rest.
void motion_at(uint32_t motion, uint32_t ms, uint32_t seed, float xyz[3]);

#endif
