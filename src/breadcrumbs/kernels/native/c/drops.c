/* Sums of what stays of task vectors by draws; `Sums` of kernels/protocol.py says what each does. */
#include "fused.h"

/* What each model keeps, by keys, the first draw and limits; no limits where it is all. */
typedef struct {
    const uint64_t *keys;
    int64_t start;
    const uint32_t *limits;
    int64_t *kept;
} Drawn;

/* Write to b->room what model t keeps of a block that begins at `at`. */
static void choose(Block *b, int n, const raw *model, const Drawn *d, int64_t t, int64_t at,
                   uint32_t *draws) {
    if (!d->limits)
        widen(n, model, b->room);
    else
        d->kept[t] += choose_drawn(n, model, b->wide, d->keys[t], d->start + at, d->limits[t],
                                   draws, b->room);
}

/* total, and rest and inexact or null: (n,), added to. */
void KERNEL(add_drawn)(int64_t n, int64_t models, const raw *base, const raw *rows, int64_t stride,
                       const uint64_t *keys, int64_t start, const uint32_t *limits,
                       const double *weights, double *total, double *rest, uint8_t *inexact,
                       int64_t *kept) {
    Block b;
    uint32_t draws[DRAWS];
    const Drawn d = {keys, start, limits, kept};
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at);
        widen(m, base + at, b.wide);
        for (int64_t t = 0; t < models; t++) {
            choose(&b, m, rows + t * stride + at, &d, t, at, draws);
            if (rest)
                add_marking(m, b.room, b.wide, weights[t], total + at, rest + at, inexact + at);
            else
                add_kept(m, b.room, b.wide, total + at);
        }
    }
}

/* Write what stays, merged. Returns the squares of the sums; found: whether some are not exact.
 * weights: null where all are 1. */
double KERNEL(merge_drawn)(int64_t n, int64_t models, const raw *base, const raw *rows,
                           int64_t stride, const uint64_t *keys, int64_t start,
                           const uint32_t *limits, const double *weights, double alpha,
                           uint32_t *extent, int narrow, void *out, int64_t *kept,
                           int32_t *found) {
    Block b;
    uint32_t draws[DRAWS];
    const Drawn d = {keys, start, limits, kept};
    const int pair = weights != 0;
    Merging how = {models, stride, base, rows, 1, alpha, b.lanes, narrow, 0, 0, out};
    uint64_t wrong = 0;
    memset(b.lanes, 0, sizeof b.lanes);
    int64_t at = 0;
    for (int m; at < n; at += m) {
        uint32_t block[2];
        m = (int)least(BLOCK, n - at);
        how.base = base + at, how.rows = rows + at;
        note_extent(m, &how, block, extent);
        if (!pair) {
            int done = do_draws_at_once(TOTAL, m, &how, keys, start + at, limits, block, kept, at,
                                        0, 0);
            at += done;
            m -= done;
            if (m <= 0) continue;
        }
        widen(m, base + at, b.wide);
        memset(b.total, 0, m * sizeof *b.total);
        if (pair) memset(b.rest, 0, m * sizeof *b.rest);
        for (int64_t t = 0; t < models; t++) {
            choose(&b, m, rows + t * stride + at, &d, t, at, draws);
            if (pair)
                wrong |= add_weighted(m, b.room, b.wide, weights[t], b.total, b.rest);
            else
                add_kept(m, b.room, b.wide, b.total);
        }
        finish(&b, m, rows + at, models, stride, pair, alpha, narrow, out, at);
    }
    *found = wrong != 0;
    return add_lanes(b.lanes);
}
