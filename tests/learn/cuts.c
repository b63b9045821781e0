// Under sanitizers: random rankings in memory of exactly their size. All searches agree with each other and with what a cut
// means; lists fit; importance, allotment and loss stay within their arrays and ranges. Prints how many rankings it made.
#include <stdio.h>
#include <stdlib.h>

#include "fieldloop/fl_backward.h"
#include "fieldloop/fl_select.h"

static uint32_t key, drawn;

static uint32_t below(uint32_t n) {
    return fl_random_below(fl_random(key, drawn++), n);
}

static void *room(size_t bytes) {
    void *p = malloc(bytes);
    if (!p) {
        exit(2);
    }
    return p;
}

static void expect(int truth, const char *what, uint32_t round) {
    if (!truth) {
        printf("round %lu: %s\n", (unsigned long)round, what);
        exit(1);
    }
}

static void fill(uint32_t *words, uint32_t n, uint32_t kind, uint32_t shape) {
    const uint32_t shift = below(31);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t word = fl_random(key, drawn++);
        if (shape == 1) {
            word >>= shift;
        } else if (shape == 2 && word & 3) {
            word = 0;
        } else if (shape == 3) {
            word = (word & 0x80ffffffu) | 0x3c000000u;  // f32 of a few octaves
        }
        if (shape == 4) {
            word = key;
        }
        if (kind == FL_KEYS_INT16) {
            word = (uint32_t)((int32_t)(word % 65535u) - 32767);
        } else if (kind == FL_KEYS_U32) {
            word &= 0x7fffffffu;
        }
        words[i] = word;
    }
}

static void one_ranking(uint32_t round) {
    // now and then all of just as many as the histogram's room holds, and one less and more, are equal
    const uint32_t full = round % 50 == 0;
    const uint32_t positions = full ? 1 : 1 + below(40);
    const uint32_t channels = full ? 255 + below(3) : 1 + below(round % 50 == 1 ? 300 : 30);
    const uint32_t n = positions * channels;
    const uint32_t k = 1 + below(below(2) ? n : n / 10 + 1);
    const uint32_t kind = below(4);
    uint32_t *words = room(n * sizeof *words);
    uint16_t *heap = room(k * sizeof *heap);
    fill(words, n, kind, full ? 4 : below(4));
    const fl_ranking_t r = {words, n, kind, fl_random(key, drawn++)};

    const fl_cut_t cut = fl_select_cut(&r, k, FL_SEARCH_HEAP, heap);
    for (uint32_t search = FL_SEARCH_AUTO; search <= FL_SEARCH_THRESHOLD; search++) {
        const fl_cut_t other = fl_select_cut(&r, k, search, heap);
        expect(cut.cut == other.cut && cut.ties_end == other.ties_end, "two searches differ", round);
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        count += (uint32_t)fl_is_kept(&r, &cut, i);
    }
    expect(count == k, "not k are kept", round);
    expect(cut.ties_end > 0 && fl_rank_key(&r, cut.ties_end - 1) == cut.cut, "the cut is no entry's", round);

    fl_list_kept(&r, &cut, positions, channels, heap);
    for (uint32_t i = 0; i < k; i++) {
        const uint32_t c = heap[i] / positions;
        const uint32_t position = heap[i] % positions;
        expect(i == 0 || heap[i] > heap[i - 1], "the list does not ascend", round);
        expect(fl_is_kept(&r, &cut, position * channels + c), "the list has another", round);
    }
    uint32_t *importance = room(channels * sizeof *importance);
    fl_channel_errors(words, kind == FL_KEYS_INT16 ? FL_DELTAS_INT16 : FL_DELTAS_F32, positions, channels, importance);
    for (uint32_t c = 0; c < channels; c++) {
        expect(importance[c] < 1u << 31, "an importance is no key", round);
    }
    fl_channel_activations((const int8_t *)words, (int32_t)below(256) - 128, positions, channels, importance);
    fl_channel_weights((const int8_t *)words, positions, 1, positions, channels, importance);
    fl_drop_others(&r, &cut, words);
    free(importance);
    free(heap);
    free(words);
}

static void one_allotment(uint32_t round) {
    const uint32_t layers = 1 + below(FL_MAX_TRAINABLE);
    uint64_t *cost = room(layers * sizeof *cost);
    uint32_t *n = room(layers * sizeof *n);
    uint32_t *kept = room(layers * sizeof *kept);
    for (uint32_t i = 0; i < layers; i++) {
        n[i] = 1 + below(65535);
        cost[i] = (uint64_t)n[i] * (1 + below(1u << 20));
    }
    const float s_min = (float)below(1001) / 1000.0f;
    const float s_max = s_min + (1.0f - s_min) * ((float)below(1001) / 1000.0f);
    fl_allot(cost, n, layers, s_min, s_max, (float)below(1001) / 1000.0f, kept);
    for (uint32_t i = 0; i < layers; i++) {
        expect(kept[i] >= 1 && kept[i] <= n[i], "an allotment is out of range", round);
    }
    free(kept);
    free(n);
    free(cost);
    const float loss = fl_loss((float)below((1u << 24) + 1) / 16777216.0f);
    expect(loss >= 0.0f && loss < 16.7f, "a loss is out of range", round);
}

int main(int argc, char **argv) {
    const uint32_t rounds = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000;
    for (uint32_t round = 0; round < rounds; round++) {
        key = fl_random_key(1, round, 0);
        drawn = 0;
        one_ranking(round);
        one_allotment(round);
    }
    printf("%lu\n", (unsigned long)rounds);
    return 0;
}
