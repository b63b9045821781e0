#include "motion.h"

#include "fieldloop/fl_random.h"

#define GRAVITY 9.81f

// A wave of `period` ms between -1 and 1: two parabolas, near enough to a sine, and the same bits everywhere.
static float wave(uint32_t ms, uint32_t period) {
    float phase = (float)(ms % period) / (float)period; // 0..1
    float x = phase < 0.5f ? phase : phase - 0.5f;      // one half after the other
    float hump = 16.0f * x * (0.5f - x);
    return phase < 0.5f ? hump : -hump;
}

// -1..1
static float noise(uint32_t ms, uint32_t seed) {
    return (float)(fl_mix(fl_mix(seed) + ms) >> 8) / 8388608.0f - 1.0f;
}

void motion_at(uint32_t motion, uint32_t ms, uint32_t seed, float xyz[3]) {
    float x = 0.0f, y = 0.0f, z = GRAVITY;
    switch (motion) {
        case 1: // sways slowly from side to side
            x = 5.0f * wave(ms, 900);
            y = 2.0f * wave(ms + 225, 900);
            break;
        case 2: { // knocks twice a second, and rings
            uint32_t since = ms % 500;
            if (since < 160) {
                float left = 1.0f - (float)since / 160.0f;
                x = 9.0f * left * wave(since, 80);
                z += 12.0f * left * wave(since + 20, 80);
            }
            break;
        }
        case 3: // hums: a motor runs
            y = 7.0f * wave(ms, 90);
            z += 9.0f * wave(ms + 30, 90);
            break;
        default:
            break;
    }
    xyz[0] = x + 0.4f * noise(3 * ms, seed);
    xyz[1] = y + 0.4f * noise(3 * ms + 1, seed);
    xyz[2] = z + 0.4f * noise(3 * ms + 2, seed);
}
