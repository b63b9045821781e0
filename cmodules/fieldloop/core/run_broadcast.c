// How two shapes broadcast against each other.
#include "core/image.h"
#include "core/run.h"

// Steps of an input along the output's last four axes: shapes are aligned at their ends.
static void steps_of(const fl_tensor_t *t, int32_t step[4]) {
    int32_t distance = 1;
    for (int32_t i = 3, axis = t->ndim - 1; i >= 0; i--, axis--) {
        const int32_t n = axis >= 0 ? t->shape[axis] : 1;
        step[i] = n > 1 ? distance : 0;
        distance *= n;
    }
}

fl_broadcast_t fl_broadcast_of(const fl_tensor_t *a, const fl_tensor_t *b, const fl_tensor_t *y) {
    const uint32_t n = fl_elements(y);
    if (fl_elements(a) == n && fl_elements(b) == n) {
        return (fl_broadcast_t){{1, 1, 1, (int32_t)n}, {0, 0, 0, 1}, {0, 0, 0, 1}};
    }
    fl_broadcast_t d;
    for (int32_t i = 3, axis = y->ndim - 1; i >= 0; i--, axis--) {
        d.n[i] = axis >= 0 ? y->shape[axis] : 1;
    }
    steps_of(a, d.a);
    steps_of(b, d.b);
    return d;
}
