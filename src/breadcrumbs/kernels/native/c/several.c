/* Sums of what stays of several small tensors; `Sums` of kernels/protocol.py says what it does. */
#include "votes.h"

/* A kernel as it is called. */
#define OTHER(name) JOIN(name, RAW, LEVEL)

void KERNEL(cut_units)(int64_t n, int64_t models, const raw *base, const raw *rows, int64_t stride,
                       int64_t unit, int64_t first, int64_t last, int32_t *keys, int64_t *cuts);
double KERNEL(merge_band)(int64_t units, int64_t n, int64_t models, const raw *base,
                          const raw *rows, int64_t stride, int64_t unit, const int64_t *runs,
                          const int64_t *cuts, int64_t *ties, const double *weights, double alpha,
                          uint32_t *extent, int narrow, void *out, int32_t *found);
double KERNEL(merge_drawn)(int64_t n, int64_t models, const raw *base, const raw *rows,
                           int64_t stride, const uint64_t *keys, int64_t start,
                           const uint32_t *limits, const double *weights, double alpha,
                           uint32_t *extent, int narrow, void *out, int64_t *kept,
                           int32_t *found);

double KERNEL(elect_band)(int64_t n, int64_t models, const raw *base, const raw *rows,
                          int64_t stride, int64_t unit, int64_t units, const int64_t *cuts,
                          int64_t *ties, int64_t kind, int64_t majority, double alpha,
                          uint32_t *extent, int narrow, void *out, double *found, uint32_t *where,
                          void *other, void *poll);
double KERNEL(elect_drawn)(int64_t n, int64_t models, const raw *base, const raw *rows,
                           int64_t stride, const uint64_t *keys, int64_t start,
                           const uint32_t *limits, int64_t kind, int64_t majority, double alpha,
                           uint32_t *extent, int narrow, void *out, double *found, int64_t *kept);

/* sizes: (count,) entries of each. ranks: (count, 3) unit, first and last, or null; cuts: room for
 * the units of one tensor; room: keys of one unit; ties: 2 * models. keys: (count, models) or null,
 * as limits. extents: (count, 2); kept: (count, models); squares, inexact: (count,). */
void KERNEL(merge_several)(int64_t count, const int64_t *sizes, int64_t models, const raw *base,
                           const raw *rows, int64_t stride, const int64_t *ranks, int64_t *cuts,
                           int32_t *room, int64_t *ties, const uint64_t *keys,
                           const uint32_t *limits, int64_t kind, const double *weights, double alpha,
                           uint32_t *extents, int narrow, char *out, int64_t *kept,
                           double *squares, int32_t *inexact) {
    for (int64_t j = 0, at = 0; j < count; at += sizes[j++]) {
        const int64_t n = sizes[j];
        const raw *mine = rows + at;
        void *to = out + at * (narrow ? 2 : 4);
        if (!ranks) {
            const uint64_t *streams = limits ? keys + j * models : 0;
            squares[j] = kind == TOTAL
                             ? OTHER(merge_drawn)(n, models, base + at, mine, stride, streams, 0,
                                                  limits, weights, alpha, extents + 2 * j, narrow,
                                                  to, kept + j * models, inexact + j)
                             : OTHER(elect_drawn)(n, models, base + at, mine, stride, streams, 0,
                                                  limits, kind, 1, alpha, extents + 2 * j, narrow,
                                                  to, 0, kept + j * models);
            continue;
        }
        const int64_t unit = ranks[3 * j], first = ranks[3 * j + 1], last = ranks[3 * j + 2];
        if (first < last) {
            OTHER(cut_units)(n, models, base + at, mine, stride, unit, first, last, room, cuts);
        } else { /* nothing stays */
            for (int64_t i = 0; i < n / unit * models; i++) {
                cuts[4 * i] = INT32_MAX;
                cuts[4 * i + 1] = -1;
                cuts[4 * i + 2] = cuts[4 * i + 3] = 0;
            }
        }
        squares[j] = kind == TOTAL
                         ? OTHER(merge_band)(n / unit, n, models, base + at, mine, stride, unit, 0,
                                             cuts, ties, weights, alpha, extents + 2 * j, narrow,
                                             to, inexact + j)
                         : OTHER(elect_band)(n, models, base + at, mine, stride, unit, n / unit,
                                             cuts, ties, kind, 1, alpha, extents + 2 * j, narrow,
                                             to, 0, 0, 0, 0);
    }
}
