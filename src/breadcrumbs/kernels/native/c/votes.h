/* What the elections of signs share. */
#ifndef VOTES_H
#define VOTES_H

#include "blocks.h"

/* What the step of an entry is of the task vectors of its elected sign; or the sum of all. */
enum { MEAN, SUM, LARGEST, TOTAL };

/* Return what a sum has to be over to be of the elected sign 1: any 0 if that is the majority's. */
static inline double over(int64_t majority) { return majority < 0 ? 0.0 : -0x1p-1074; }

static inline int64_t sum_signs(int n, const double *restrict total) {
    int64_t above = 0, below = 0;
    for (int i = 0; i < n; i++) {
        above += total[i] > 0.0;
        below += total[i] < 0.0;
    }
    return above - below;
}

/* Where nothing is added keep the base's zero, with its sign. */
static inline void keep_zeros(int n, const float *restrict base, const double *restrict step,
                              double alpha, double *restrict merged) {
    for (int i = 0; i < n; i++)
        if (merged[i] == 0.0 && alpha * step[i] == 0.0) merged[i] = base[i];
}

/* Write base + alpha * step, rounded. merged, room: for n. */
static inline void merge_step(int n, const float *base, const double *step, double alpha,
                              double *merged, float *room, int narrow, void *out, int64_t at) {
    merge_total(n, base, step, alpha, merged);
    int64_t unusual = count_unusual(n, merged);
    if (unusual) keep_zeros(n, base, step, alpha, merged);
    round_out(n, merged, room, unusual, narrow, out, at);
}

#endif
