/* Elections among float64 terms, whatever made them. No sum of these is exact in one number, so
 * each is a pair. */
#ifndef TERMS_H
#define TERMS_H

#include "votes.h"

/* Entries of a block, whose state then stays in a fast cache. */
enum { TERMS = 512 };

/* A block: sums of the terms above 0 and of the magnitudes of those below, with what these leave
 * out; the extreme terms; numbers of the signs of all sums; as bits which models have a term above
 * 0, and from bit 32 on which have one below; and bits of what no pair holds. */
typedef struct {
    double up[TERMS], up_rest[TERMS], down[TERMS], down_rest[TERMS];
    double highest[TERMS], lowest[TERMS], signs[TERMS];
    uint64_t voters[TERMS], wrong[TERMS];
} Terms;

/* --- steps: each one loop over one block ------------------------------------------------------ */

/* Return x where all bits are set, y where none is. */
static inline double pick(uint64_t bits, double x, double y) {
    return as_double((double_bits(x) & bits) | (double_bits(y) & ~bits));
}

/* Add terms to sums; return bits of what rounding these leaves out. */
static inline uint64_t add_quickly(int n, const double *restrict taus, double weight,
                                   double *restrict total) {
    uint64_t lost = 0;
    for (int i = 0; i < n; i++) {
        double error;
        total[i] = two_sum(total[i], weight * taus[i], &error);
        lost |= double_bits(error);
    }
    return lost & MAGNITUDE64;
}

/* Add terms to pairs of numbers; mark what no pair holds. */
static inline void add_term(int n, const double *restrict taus, double weight,
                            double *restrict total, double *restrict rest,
                            uint64_t *restrict wrong) {
    for (int i = 0; i < n; i++) {
        double error, again;
        total[i] = two_sum(total[i], weight * taus[i], &error);
        rest[i] = two_sum(rest[i], error, &again);
        wrong[i] |= double_bits(again) & MAGNITUDE64;
    }
}

/* Add terms above 0 to one pair, and the magnitudes of those below to the other. */
static inline void add_sides(int n, const double *restrict taus, double weight,
                             double *restrict up, double *restrict up_rest,
                             double *restrict down, double *restrict down_rest,
                             uint64_t *restrict wrong) {
    for (int i = 0; i < n; i++) {
        double term = weight * taus[i], error, again;
        uint64_t above = 0 - (uint64_t)(term > 0.0); /* all bits, or none */
        double high = up[i], high_rest = up_rest[i], low = down[i], low_rest = down_rest[i];
        double after = two_sum(pick(above, high, low), fabs(term), &error);
        double rest = two_sum(pick(above, high_rest, low_rest), error, &again);
        up[i] = pick(above, after, high);
        up_rest[i] = pick(above, rest, high_rest);
        down[i] = pick(above, low, after);
        down_rest[i] = pick(above, low_rest, rest);
        wrong[i] |= double_bits(again) & MAGNITUDE64;
    }
}

/* Note which models have a term above 0, and which below. */
static inline void note_voters(int n, const double *restrict taus, double weight, int64_t t,
                               uint64_t *restrict voters) {
    const uint64_t above = (uint64_t)1 << t, below = above << 32;
    for (int i = 0; i < n; i++) {
        double term = weight * taus[i];
        voters[i] |= (term > 0.0 ? above : 0) | (term < 0.0 ? below : 0);
    }
}

static inline void stretch(int n, const double *restrict taus, double weight,
                           double *restrict highest, double *restrict lowest) {
    for (int i = 0; i < n; i++) {
        double term = weight * taus[i], high = highest[i], low = lowest[i];
        highest[i] = term > high ? term : high;
        lowest[i] = term < low ? term : low;
    }
}

/* Write numbers of the signs of the sums of all terms. */
static inline void compare_sides(int n, const double *restrict up, const double *restrict up_rest,
                                 const double *restrict down, const double *restrict down_rest,
                                 double *restrict signs, uint64_t *restrict wrong) {
    for (int i = 0; i < n; i++) {
        double error, lost, again;
        double total = two_sum(up[i], -down[i], &error);
        double rest = two_sum(up_rest[i], -down_rest[i], &lost);
        signs[i] = total + two_sum(error, rest, &again);
        wrong[i] |= (double_bits(lost) | double_bits(again)) & MAGNITUDE64;
    }
}

static inline void choose_side(int n, const Terms *restrict b, double least,
                               double *restrict step) {
    for (int i = 0; i < n; i++) {
        double above = b->up[i] + b->up_rest[i], below = b->down[i] + b->down_rest[i];
        step[i] = b->signs[i] > least ? above : 0.0 - below;
    }
}

static inline void choose_extreme(int n, const Terms *restrict b, double least,
                                  double *restrict step) {
    for (int i = 0; i < n; i++) {
        double high = b->highest[i], low = b->lowest[i];
        step[i] = (b->signs[i] > least ? high : low) + 0.0;
    }
}

/* Divide by the share of the models that won. */
static inline void divide_by_share(int n, const Terms *restrict b, double least,
                                   const double *restrict shares, double *restrict step) {
    double share[TERMS];
    for (int i = 0; i < n; i++) {
        uint64_t both = b->voters[i];
        share[i] = shares[b->signs[i] > least ? both & 0xFFFFFFFF : both >> 32];
    }
    for (int i = 0; i < n; i++) step[i] /= share[i] != 0.0 ? share[i] : 1.0;
}

/* --- a block ------------------------------------------------------------------------------------ */

static inline void begin_terms(int64_t kind, int n, Terms *b) {
    const size_t bytes = n * sizeof(double);
    memset(b->up, 0, bytes);
    memset(b->up_rest, 0, bytes);
    memset(b->down, 0, bytes);
    memset(b->down_rest, 0, bytes);
    memset(b->wrong, 0, bytes);
    if (kind == MEAN) memset(b->voters, 0, bytes);
    if (kind == LARGEST) memset(b->highest, 0, bytes), memset(b->lowest, 0, bytes);
}

/* Add the terms of model t, weight * taus. */
static inline void add_terms(int64_t kind, int n, const double *taus, double weight, int64_t t,
                             Terms *b) {
    add_sides(n, taus, weight, b->up, b->up_rest, b->down, b->down_rest, b->wrong);
    if (kind == MEAN) note_voters(n, taus, weight, t, b->voters);
    if (kind == LARGEST) stretch(n, taus, weight, b->highest, b->lowest);
}

/* Turn both sides of every entry into its step. shares: of each set of models, for a mean. */
static inline void elect_terms(int64_t kind, int64_t majority, int n, const double *shares,
                               Terms *b, double *step) {
    double least = over(majority);
    compare_sides(n, b->up, b->up_rest, b->down, b->down_rest, b->signs, b->wrong);
    if (kind == LARGEST) {
        choose_extreme(n, b, least, step);
        return;
    }
    choose_side(n, b, least, step);
    if (kind == MEAN) divide_by_share(n, b, least, shares, step);
}

#endif
