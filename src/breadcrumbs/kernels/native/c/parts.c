/* The parts that sums of task vectors are merged in; `Sums` of kernels/protocol.py. */
#include "blocks.h"

/* total, and rest and inexact or null: (n,), added to. ties: room for 2 * models. */
void KERNEL(add_band)(int64_t n, int64_t models, const raw *base, const raw *rows, int64_t stride,
                      int64_t unit, int64_t units, const int64_t *cuts, int64_t *ties,
                      const double *weights, double *total, double *rest, uint8_t *inexact) {
    float wide[BLOCK], kept[BLOCK];
    for (int64_t u = 0; u < units; u++, cuts += 4 * models) {
        int64_t stop = least(n, (u + 1) * unit);
        ties_of(models, cuts, ties);
        for (int64_t at = u * unit; at < stop; at += BLOCK) {
            int m = (int)least(BLOCK, stop - at);
            widen(m, base + at, wide);
            for (int64_t t = 0; t < models; t++) {
                choose_cut(m, rows + t * stride + at, wide, cuts + 4 * t, ties + 2 * t, kept);
                if (rest)
                    add_marking(m, kept, wide, weights[t], total + at, rest + at, inexact + at);
                else
                    add_kept(m, kept, wide, total + at);
            }
        }
    }
}

/* rest: null where there is none. */
void KERNEL(merge)(int64_t n, const raw *base, const double *total, const double *rest,
                   double alpha, double *merged) {
    float wide[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at);
        widen(m, base + at, wide);
        if (rest)
            merge_pair(m, wide, total + at, rest + at, alpha, merged + at);
        else
            merge_total(m, wide, total + at, alpha, merged + at);
    }
}

#if RAW == 32
void KERNEL(settle)(int64_t n, double *total, double *rest) {
    for (int64_t at = 0; at < n; at += BLOCK)
        settle_all((int)least(BLOCK, n - at), total + at, rest + at);
}
#endif
