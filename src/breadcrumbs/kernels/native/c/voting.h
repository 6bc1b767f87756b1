/* A block of an election: the votes of its entries, and the steps that these elect.
 *
 * In place of the terms of all models, which would fill the cache, a block keeps their sum and that
 * of their magnitudes: the terms of one sign are half of the two's sum or difference. Of the largest
 * term it keeps the weight. */
#ifndef VOTING_H
#define VOTING_H

#include "votes.h"

/* Entries of a block: its arrays and the models just fill the first-level cache. */
enum { SIZE = 1024 };
/* What a term below the base adds to the counts of an entry; one above it adds 1. */
enum { BELOW = 1 << 16 };

/* A block: its totals, which become steps, and what the kind of the election asks for. */
typedef struct {
    float wide[SIZE], kept[SIZE], highest[SIZE], lowest[SIZE];
    double step[SIZE], size[SIZE], merged[SIZE];
    int32_t counts[SIZE];
} Votes;

/* --- steps: each one loop over one block ------------------------------------------------------ */

static inline void add_sizes(int n, const float *restrict kept, const float *restrict base,
                      double *restrict total, double *restrict size) {
    for (int i = 0; i < n; i++) {
        double tau = (double)kept[i] - (double)base[i];
        total[i] += tau;
        size[i] += fabs(tau);
    }
}

static inline void add_counts(int n, const float *restrict kept, const float *restrict base,
                       int32_t *restrict counts) {
    for (int i = 0; i < n; i++)
        counts[i] += (kept[i] > base[i]) + BELOW * (kept[i] < base[i]);
}

static inline void add_range(int n, const float *restrict kept, const float *restrict base,
                      double *restrict total, float *restrict highest, float *restrict lowest) {
    for (int i = 0; i < n; i++) {
        float x = kept[i], high = highest[i], low = lowest[i];
        total[i] += (double)x - (double)base[i];
        highest[i] = x > high ? x : high;
        lowest[i] = x < low ? x : low;
    }
}

/* Turn totals into the sums of the terms that are positive, where they are over `least`. */
static inline void take_sum(int n, const double *restrict size, double least, double *restrict step) {
    for (int i = 0; i < n; i++) {
        double total = step[i], both = size[i];
        step[i] = 0.5 * (total + (total > least ? both : -both));
    }
}

static inline void take_mean(int n, const double *restrict size, const int32_t *restrict counts,
                      double least, double *restrict step) {
    for (int i = 0; i < n; i++) {
        double total = step[i], both = size[i];
        double above = (double)(counts[i] & (BELOW - 1)), below = (double)(counts[i] >> 16);
        double number = total > least ? above : below;
        double sum = 0.5 * (total + (total > least ? both : -both));
        step[i] = sum / (number > 1.0 ? number : 1.0);
    }
}

static inline void take_largest(int n, const float *restrict base, const float *restrict highest,
                         const float *restrict lowest, double least, double *restrict step) {
    for (int i = 0; i < n; i++) {
        double high = (double)highest[i], low = (double)lowest[i];
        step[i] = (step[i] > least ? high : low) - (double)base[i];
    }
}

/* Mark the sums of 0 of terms that are not. */
static inline void mark_opposite(int n, const double *restrict total, const double *restrict size,
                          int32_t *restrict marks) {
    for (int i = 0; i < n; i++) marks[i] = -((total[i] == 0.0) & (size[i] > 0.0));
}

static inline void mark_range(int n, const double *restrict total, const float *restrict base,
                       const float *restrict highest, int32_t *restrict marks) {
    for (int i = 0; i < n; i++)
        marks[i] = -((total[i] == 0.0) & ((double)highest[i] > (double)base[i]));
}

static inline double sum_squares(int n, const double *step) {
    double sum = 0.0;
    for (int i = 0; i < n; i++) sum += step[i] * step[i];
    return sum;
}

/* --- a block ------------------------------------------------------------------------------------ */

/* Begin the votes of n entries from `at` on, whose base is known. */
static inline void begin(int64_t kind, int at, int n, Votes *v) {
    memset(v->step + at, 0, n * sizeof *v->step);
    if (kind == LARGEST) {
        memcpy(v->highest + at, v->wide + at, n * sizeof *v->wide);
        memcpy(v->lowest + at, v->wide + at, n * sizeof *v->wide);
        return;
    }
    memset(v->size + at, 0, n * sizeof *v->size);
    if (kind == MEAN) memset(v->counts + at, 0, n * sizeof *v->counts);
}

/* Add what one model keeps of them, which is in v->kept. */
static inline void add_votes(int64_t kind, int at, int n, Votes *v) {
    const float *kept = v->kept + at, *wide = v->wide + at;
    if (kind == LARGEST) {
        add_range(n, kept, wide, v->step + at, v->highest + at, v->lowest + at);
        return;
    }
    add_sizes(n, kept, wide, v->step + at, v->size + at);
    if (kind == MEAN) add_counts(n, kept, wide, v->counts + at);
}

/* Turn the totals of n entries from `at` on into their steps. */
static inline void elect(int64_t kind, int64_t majority, int at, int n, Votes *v) {
    double least = over(majority), *step = v->step + at;
    if (kind == LARGEST)
        take_largest(n, v->wide + at, v->highest + at, v->lowest + at, least, step);
    else if (kind == MEAN)
        take_mean(n, v->size + at, v->counts + at, least, step);
    else
        take_sum(n, v->size + at, least, step);
}

#endif
