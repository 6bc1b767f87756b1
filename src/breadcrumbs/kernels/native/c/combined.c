/* Sums of all of task vectors, rounded before they are added; `Sums.combine` of
 * kernels/protocol.py says what comes out. */
#include "blocks.h"

/* Do as add_weighted, and also return bits of what a difference of two weights leaves out. */
static uint64_t add_whole(int n, const raw *restrict model, const float *restrict base,
                          double weight, double *restrict total, double *restrict rest) {
    uint64_t wrong = 0;
    for (int i = 0; i < n; i++) {
        double lost, error, again;
        double tau = two_sum((double)number(model[i]), -(double)base[i], &lost);
        total[i] = two_sum(total[i], weight * tau, &error);
        rest[i] = two_sum(rest[i], error, &again);
        wrong |= double_bits(lost) | double_bits(again);
    }
    return wrong & MAGNITUDE64;
}

static void add_all(int n, const raw *restrict model, const float *restrict base,
                    double *restrict total) {
    for (int i = 0; i < n; i++) total[i] += (double)number(model[i]) - (double)base[i];
}

/* Returns the squares of what is added; found: whether some sum is not exact. weights: null where
 * all are 1. */
double KERNEL(combine)(int64_t n, int64_t models, const raw *base, const raw *rows, int64_t stride,
                       double own, const double *weights, double factor, uint32_t *extent,
                       int narrow, void *out, int32_t *found) {
    Block b;
    float none[BLOCK] = {0};
    uint64_t wrong = 0;
    memset(b.lanes, 0, sizeof b.lanes);
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at);
        widen(m, base + at, b.wide);
        memset(b.total, 0, m * sizeof *b.total);
        if (weights) {
            memset(b.rest, 0, m * sizeof *b.rest);
            for (int64_t t = 0; t < models; t++)
                wrong |= add_whole(m, rows + t * stride + at, b.wide, weights[t], b.total, b.rest);
            if (own != 0.0) wrong |= add_whole(m, base + at, none, own, b.total, b.rest);
            settle_all(m, b.total, b.rest);
        } else {
            for (int64_t t = 0; t < models; t++)
                add_all(m, rows + t * stride + at, b.wide, b.total);
        }
        add_step(m, b.wide, b.total, factor, b.rest, b.merged);
        round_out(m, b.merged, b.room, count_unusual(m, b.merged), narrow, out, at);
        widen_extent(m, base + at, extent);
        for (int64_t t = 0; t < models; t++) widen_extent(m, rows + t * stride + at, extent);
        add_squares(m, b.rest, b.lanes);
    }
    *found = wrong != 0;
    return add_lanes(b.lanes);
}
