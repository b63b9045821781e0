// In assembly: 0.94 instruction a multiply-accumulate and 3 an accumulator for two pixels (1.3 together of a lone quad, whose
// inputs stay in registers), 1.3 and 2 for one. The quads are a loop of four that is entered so that it ends with the last.
#include "sum_tile_dsp.h"

#include "dsp.h"
#include "kernels/variants.h"

#if FL_KERNELS == 1

#if FL_DSP_ASSEMBLY

// 16 products: x in r0, weights in r1 and r10, sums in r6 to r9 (channel a of pixels 0 and 1, channel b of them).
#define QUAD                             \
    "ldmia r0!, {r2, r3, r4, r5}\n"      \
    PRODUCTS("[r1], #4", "r6", "r7")     \
    PRODUCTS("[r10], #4", "r8", "r9")
// Of one channel; x in r2 to r5.
#define PRODUCTS(from, acc0, acc1)           \
    "ldr ip, " from "\n"                     \
    "sxtb16 lr, ip, ror #8\n"                \
    "sxtb16 ip, ip\n"                        \
    "smlad " acc0 ", ip, r2, " acc0 "\n"     \
    "smlad " acc1 ", ip, r4, " acc1 "\n"     \
    "smlad " acc0 ", lr, r3, " acc0 "\n"     \
    "smlad " acc1 ", lr, r5, " acc1 "\n"

// ADR counts from the word it is in, so the function begins at one.
__attribute__((naked, noinline, aligned(4))) void fl_sum_two_dsp(const fl_sum_tile_t *t __attribute__((unused))) {
    __asm__(
        // at sp: x, acc, acc1, row, skip, acc_end, where the quads begin
        "push {r4-r11, lr}\n"
        "sub sp, sp, #28\n"
        "ldmia r0, {r1-r9}\n"
        "adr r10, 20f\n"
        "and r9, r9, #3\n"
        "ldrsh r9, [r10, r9, lsl #1]\n"
        "mov r11, r7\n"
        "add r7, r10, r9\n"
        "orr r7, r7, #1\n"
        "stmia sp, {r1-r7}\n"
        "mov r0, r1\n"
        "mov r1, r8\n"
        "add r10, r8, r4\n"
        "1:\n"
        "ldrd r6, r8, [r2]\n"
        "ldrd r7, r9, [r3]\n"
        "ldr pc, [sp, #24]\n"
        "10:\n" QUAD
        "11:\n" QUAD
        "12:\n" QUAD
        "13:\n" QUAD
        "cmp r0, r11\n"
        "bne 10b\n"
        "ldmia sp, {r0, r2, r3, r4, r5, ip}\n"
        "strd r6, r8, [r2], #8\n"
        "strd r7, r9, [r3], #8\n"
        "strd r2, r3, [sp, #4]\n"
        "add r1, r10, r5\n"
        "add r10, r1, r4\n"
        "cmp r2, ip\n"
        "bne 1b\n"
        "add sp, sp, #28\n"
        "pop {r4-r11, pc}\n"
        ".balign 4\n"
        "20:\n"
        ".hword 10b - 20b, 13b - 20b, 12b - 20b, 11b - 20b\n"
        ".balign 4\n");
}

// A pair of channels: weights in r1, `row` in r10, accumulators in r0 and r11.
#define PAIR                             \
    "ldrd r6, r8, [r0]\n"                \
    "ldrd r7, r9, [r11]\n"               \
    PRODUCTS("[r1]", "r6", "r7")         \
    PRODUCTS("[r1, r10]", "r8", "r9")    \
    "add r1, r1, r10, lsl #1\n"          \
    "strd r6, r8, [r0], #8\n"            \
    "strd r7, r9, [r11], #8\n"

__attribute__((naked, noinline)) void fl_sum_quad_dsp(const fl_sum_tile_t *t __attribute__((unused))) {
    __asm__(
        // at sp: acc_end
        "ldrd r2, r3, [r0]\n"  // x, acc
        "ldr r1, [r0, #20]\n"
        "push {r1, r4-r11, lr}\n"
        "ldrd r11, r10, [r0, #8]\n"  // acc1, row
        "sub r5, r1, r3\n"
        "ldr r1, [r0, #28]\n"  // w
        "mov r0, r3\n"
        "lsls r5, r5, #28\n"  // 8 bytes a pair: an odd number of them?
        "ldmia r2, {r2-r5}\n"
        "bmi 2f\n"
        "1:\n" PAIR
        "2:\n" PAIR
        "ldr ip, [sp]\n"
        "cmp r0, ip\n"
        "bne 1b\n"
        "pop {r1, r4-r11, pc}\n");
}

// Eight products of a row of weights that is loaded from `from`: x in r2 and r3.
#define ROW(from, acc)                \
    "ldr lr, " from "\n"              \
    "sxtb16 ip, lr\n"                 \
    "sxtb16 lr, lr, ror #8\n"         \
    "smlad " acc ", ip, r2, " acc "\n" \
    "smlad " acc ", lr, r3, " acc "\n"
// Four rows, `row` in r4, three of them in r5.
#define ROWS                     \
    "ldrd r2, r3, [r0], #8\n"    \
    ROW("[r1, r4]", "r7")         \
    ROW("[r1, r4, lsl #1]", "r8") \
    ROW("[r1, r5]", "r9")         \
    ROW("[r1], #4", "r6")

__attribute__((naked, noinline, aligned(4))) void fl_sum_one_dsp(const fl_sum_tile_t *t __attribute__((unused))) {
    __asm__(
        // at sp: x, skip, acc_end, where the quads begin
        "push {r4-r11, lr}\n"
        "sub sp, sp, #20\n"
        "ldmia r0, {r1-r9}\n"
        "adr ip, 20f\n"
        "and r9, r9, #3\n"
        "ldrsh r9, [ip, r9, lsl #1]\n"
        "mov r10, r7\n"
        "mov r11, r2\n"
        "add r7, ip, r9\n"
        "orr r7, r7, #1\n"
        "stmia sp, {r1, r5, r6, r7}\n"
        "mov r0, r1\n"
        "mov r1, r8\n"
        "add r5, r4, r4, lsl #1\n"
        "1:\n"
        "ldmia r11, {r6-r9}\n"
        "ldr pc, [sp, #12]\n"
        "10:\n" ROWS
        "11:\n" ROWS
        "12:\n" ROWS
        "13:\n" ROWS
        "cmp r0, r10\n"
        "bne 10b\n"
        "stmia r11!, {r6-r9}\n"
        "ldmia sp, {r0, r2, r3}\n"
        "add r1, r1, r2\n"
        "cmp r11, r3\n"
        "bne 1b\n"
        "add sp, sp, #20\n"
        "pop {r4-r11, pc}\n"
        ".balign 4\n"
        "20:\n"
        ".hword 10b - 20b, 13b - 20b, 12b - 20b, 11b - 20b\n"
        ".balign 4\n");
}

_Static_assert(sizeof(fl_sum_tile_t) == 36, "the assembly has its offsets in it");

#else

void fl_sum_two_dsp(const fl_sum_tile_t *t) {
    const int8_t *w = t->w;
    for (int32_t c = 0; t->acc + c != t->acc_end; c++) {
        uint32_t p0 = (uint32_t)t->acc[c], p1 = (uint32_t)t->acc1[c];
        for (const uint32_t *x = t->x; x != t->x_end; x += 4) {
            const uint32_t word = fl_word(w + (x - t->x));
            const uint32_t even = fl_sxtb16(word), odd = fl_sxtb16_odd(word);
            p0 = fl_smlad(odd, x[1], fl_smlad(even, x[0], p0));
            p1 = fl_smlad(odd, x[3], fl_smlad(even, x[2], p1));
        }
        t->acc[c] = (int32_t)p0;
        t->acc1[c] = (int32_t)p1;
        w += t->row;
    }
}

void fl_sum_quad_dsp(const fl_sum_tile_t *t) {
    fl_sum_two_dsp(t);
}

void fl_sum_one_dsp(const fl_sum_tile_t *t) {
    const int8_t *w = t->w;
    for (int32_t *acc = t->acc; acc != t->acc_end; acc++) {
        uint32_t sum = (uint32_t)*acc;
        for (const uint32_t *x = t->x; x != t->x_end; x += 2) {
            const uint32_t word = fl_word(w + 2 * (x - t->x));
            sum = fl_smlad(fl_sxtb16_odd(word), x[1], fl_smlad(fl_sxtb16(word), x[0], sum));
        }
        *acc = (int32_t)sum;
        w += t->row;
    }
}

#endif

#else
typedef int fl_no_sum_tile_dsp_t;  // a translation unit may not be empty
#endif
