/* Exact sums and elections of float64 terms; `Terms` of kernels/protocol.py. Entries of which a
 * pair of numbers does not hold a sum are marked, for others to do once more. */
#include "terms.h"

#if RAW == 32

/* Write which are wrong; return whether any is. */
static int64_t mark_wrong(int n, const uint64_t *restrict wrong, uint8_t *restrict inexact) {
    uint64_t found = 0;
    for (int i = 0; i < n; i++) {
        inexact[i] = wrong[i] != 0;
        found |= wrong[i];
    }
    return found != 0;
}

/* taus: (terms, n). Write the rounded sums, what these leave out, and which are wrong; return whether
 * any is. */
int64_t KERNEL(exact_pair)(int64_t n, int64_t terms, const double *taus, int64_t stride,
                           const double *weights, double *total, double *rest, uint8_t *inexact) {
    uint64_t wrong[TERMS], lost = 0;
    int64_t found = 0;
    for (int64_t at = 0; at < n; at += TERMS) {
        int m = (int)least(TERMS, n - at);
        memset(total + at, 0, m * sizeof *total);
        memset(rest + at, 0, m * sizeof *rest);
        /* Most sums are exact in one number; where one was not, no more are tried. */
        for (int64_t t = 0; t < terms && !lost; t++)
            lost = add_quickly(m, taus + t * stride + at, weights ? weights[t] : 1.0, total + at);
        if (!lost) {
            memset(inexact + at, 0, m);
            continue;
        }
        memset(total + at, 0, m * sizeof *total);
        memset(wrong, 0, m * sizeof *wrong);
        for (int64_t t = 0; t < terms; t++)
            add_term(m, taus + t * stride + at, weights ? weights[t] : 1.0, total + at, rest + at,
                     wrong);
        settle_all(m, total + at, rest + at);
        found |= mark_wrong(m, wrong, inexact + at);
    }
    return found;
}

/* Write the steps of an election, and which are wrong; return whether any is. */
int64_t KERNEL(elected)(int64_t n, int64_t terms, const double *taus, int64_t stride,
                        const double *weights, int64_t kind, int64_t majority,
                        const double *shares, double *steps, uint8_t *inexact) {
    Terms b;
    int64_t found = 0;
    for (int64_t at = 0; at < n; at += TERMS) {
        int m = (int)least(TERMS, n - at);
        begin_terms(kind, m, &b);
        for (int64_t t = 0; t < terms; t++)
            add_terms(kind, m, taus + t * stride + at, weights[t], t, &b);
        elect_terms(kind, majority, m, shares, &b, steps + at);
        found |= mark_wrong(m, b.wrong, inexact + at);
    }
    return found;
}

void KERNEL(add_step)(int64_t n, const double *restrict base, const double *restrict step,
                      double *restrict merged) {
    for (int64_t i = 0; i < n; i++) {
        double sum = base[i] + step[i];
        merged[i] = step[i] != 0.0 ? sum : base[i];
    }
}

#endif
