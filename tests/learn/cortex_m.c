// Bare metal: learns the samples in case.h on the image in case.h, prints the CRC-32 of the state after every step.
#include <stdio.h>

#include "case.h"
#include "fieldloop/fl_backward.h"
#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_learn.h"

static _Alignas(16) uint8_t model_arena[1 << 15];
static _Alignas(16) uint8_t arena[1 << 16];

int main(void) {
    static fl_model_t m;
    static fl_learner_t l;
    fl_learner_config_t config = {CASE_CONFIG};
    int err = fl_float_mode_check();
    if (!err) {
        err = fl_model_open(&m, case_image, sizeof case_image);
    }
    if (!err) {
        err = fl_model_bind(&m, FL_PLAN_LEARN, model_arena, sizeof model_arena);
    }
    if (!err) {
        err = fl_learner_init(&l, &m, &config, arena, sizeof arena);
    }
    for (unsigned i = 0; !err && i < sizeof case_labels; i++) {
        err = fl_learner_step(&l, case_samples[i], case_labels[i], NULL);
        printf("%08lx\n", (unsigned long)fl_crc32(0, fl_learner_state(&l), l.sizes.state_bytes));
    }
    printf("end %d\n", err);
    return 0;
}
