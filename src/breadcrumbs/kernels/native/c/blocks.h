/* What kernels of sums share: the room for a block, and how its sums become weights. */
#ifndef BLOCKS_H
#define BLOCKS_H

#include "steps.h"

/* What a block is merged with. */
typedef struct {
    float wide[BLOCK], room[BLOCK];
    double total[BLOCK], rest[BLOCK], merged[BLOCK], lanes[LANES];
    uint8_t inexact[BLOCK];
    float kept[BLOCK];
    int32_t marks[BLOCK], places[BLOCK + 16];
} Block;

/* Give exact zeros the sign that `Raw.sign_zeros` states. */
static inline void sign_zeros(int n, const float *base, int64_t models, const raw *rows, int64_t stride,
                       const double *total, double *merged) {
    for (int i = 0; i < n; i++) {
        if (merged[i] != 0.0) continue;
        int same = models > 0;
        float first = same ? number(rows[i]) : 0.0f;
        for (int64_t t = 0; t < models; t++) {
            float x = number(rows[t * stride + i]);
            same &= x == 0.0f && !signbit(x) == !signbit(first);
        }
        if (same)
            merged[i] = first;
        else if (total[i] == 0.0)
            merged[i] = base[i];
    }
}

static inline void merge_total(int n, const float *restrict base, const double *restrict total,
                        double alpha, double *restrict merged) {
    for (int i = 0; i < n; i++) merged[i] = (double)base[i] + alpha * total[i];
}

static inline void merge_pair(int n, const float *restrict base, const double *restrict total,
                       const double *restrict rest, double alpha, double *restrict merged) {
    for (int i = 0; i < n; i++) {
        double lost, nearest = two_sum((double)base[i], alpha * total[i], &lost);
        merged[i] = nearest + (lost + alpha * rest[i]);
    }
}

/* Write what is added, and the whole; where nothing is added a zero keeps the base's sign. */
static inline void add_step(int n, const float *restrict base, const double *restrict total,
                            double factor, double *restrict step, double *restrict merged) {
    for (int i = 0; i < n; i++) {
        double more = factor * total[i], x = (double)base[i], sum = x + more;
        step[i] = more;
        merged[i] = more != 0.0 ? sum : x;
    }
}

static inline void widen_extents(int n, const raw *base, int64_t models, const raw *rows,
                                 int64_t stride, uint32_t *extent) {
    widen_extent(n, base, extent);
    for (int64_t t = 0; t < models; t++) widen_extent(n, rows + t * stride, extent);
}

/* Round the sums of a block. */
static inline void finish(Block *b, int n, const raw *rows, int64_t models, int64_t stride,
                          int pair, double alpha, int narrow, void *out, int64_t at) {
    if (pair) {
        settle_all(n, b->total, b->rest);
        merge_pair(n, b->wide, b->total, b->rest, alpha, b->merged);
    } else {
        merge_total(n, b->wide, b->total, alpha, b->merged);
    }
    int64_t unusual = count_unusual(n, b->merged);
    if (unusual) sign_zeros(n, b->wide, models, rows, stride, b->total, b->merged);
    round_out(n, b->merged, b->room, unusual, narrow, out, at);
    add_squares(n, b->total, b->lanes);
}

#endif
