// Runs images under the sanitizers: every image lies in a heap block of exactly its size, every arena in one of exactly
// the planned size, full of garbage before the run.
//
//   run_images FILE > OUTPUTS
//
// FILE: records of u32 plan kind, u32 image bytes, the image, and the bytes of its inputs one after the other. OUTPUTS: the
// bytes of all outputs of each, one after the other.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fieldloop/fl_error.h"
#include "fieldloop/fl_model.h"

static void give_up(const char *what, int code) {
    fprintf(stderr, "%s: %d\n", what, code);
    exit(2);
}

static void take(FILE *f, void *to, size_t bytes) {
    if (fread(to, 1, bytes, f) != bytes) {
        give_up("the file ends too early", 0);
    }
}

static void run(FILE *f, uint32_t kind, uint32_t bytes) {
    uint8_t *image = malloc(bytes);
    take(f, image, bytes);
    fl_model_t m;
    int err = fl_model_open(&m, image, bytes);
    if (err) {
        give_up("open", err);
    }
    const size_t need = fl_model_arena_bytes(&m, kind);
    uint8_t *arena = malloc(need);
    memset(arena, 0xa5, need);
    err = fl_model_bind(&m, kind, arena, need);
    if (err) {
        give_up("bind", err);
    }
    for (uint32_t i = 0; i < m.input_count; i++) {
        take(f, fl_model_input(&m, i), fl_model_input_info(&m, i)->bytes);
    }
    err = fl_model_run(&m);
    if (err) {
        give_up("run", err);
    }
    for (uint32_t i = 0; i < m.output_count; i++) {
        fwrite(fl_model_output(&m, i), 1, fl_model_output_info(&m, i)->bytes, stdout);
    }
    free(arena);
    free(image);
}

int main(int argc, char **argv) {
    FILE *f = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (!f) {
        fprintf(stderr, "usage: run_images FILE > OUTPUTS\n");
        return 2;
    }
    uint32_t head[2];
    while (fread(head, 1, sizeof head, f) == sizeof head) {
        run(f, head[0], head[1]);
    }
    fclose(f);
    return 0;
}
