/* Sums of what stays of task vectors; `Sums` of kernels/protocol.py says what each does. */
#include "fused.h"

/* Write what the cuts keep, merged. runs: how many entries each unit has, or null, and then `unit`.
 * Returns the squares of the sums; found: whether some are not exact. weights: null where all are
 * 1. ties: room for 2 * models. */
double KERNEL(merge_band)(int64_t units, int64_t n, int64_t models, const raw *base,
                          const raw *rows, int64_t stride, int64_t unit, const int64_t *runs,
                          const int64_t *cuts, int64_t *ties, const double *weights, double alpha,
                          uint32_t *extent, int narrow, void *out, int32_t *found) {
    Block b;
    memset(b.lanes, 0, sizeof b.lanes);
    memset(b.inexact, 0, sizeof b.inexact);
    const int pair = weights != 0;
    Merging how = {models, stride, base, rows, 1, alpha, b.lanes, narrow, 0, 0, out};
    int64_t at = 0;
    for (int64_t u = 0; u < units; u++, cuts += 4 * models) {
        const int64_t stop = runs ? at + runs[u] : least(n, at + unit);
        ties_of(models, cuts, ties);
        for (int m; at < stop; at += m) {
            uint32_t block[2];
            m = (int)least(BLOCK, stop - at);
            how.base = base + at, how.rows = rows + at;
            note_extent(m, &how, block, extent);
            if (!pair) {
                int done = do_cuts_at_once(TOTAL, m, &how, cuts, ties, block, at, 0, 0);
                at += done;
                m -= done;
                if (m <= 0) continue;
            }
            widen(m, base + at, b.wide);
            memset(b.total, 0, m * sizeof *b.total);
            if (pair) memset(b.rest, 0, m * sizeof *b.rest);
            for (int64_t t = 0; t < models; t++) {
                const raw *model = rows + t * stride + at;
                choose_cut(m, model, b.wide, cuts + 4 * t, ties + 2 * t, b.kept);
                if (pair)
                    add_marking(m, b.kept, b.wide, weights[t], b.total, b.rest, b.inexact);
                else
                    add_kept(m, b.kept, b.wide, b.total);
            }
            finish(&b, m, rows + at, models, stride, pair, alpha, narrow, out, at);
        }
    }
    *found = pair && any(BLOCK, b.inexact);
    return add_lanes(b.lanes);
}

/* --- merging before the ranks are known ------------------------------------------------------- */

/* Do as `look`, add what stays for certain, and mark what is in doubt for all models too. */
static Counts add_certain(int n, const raw *restrict model, const float *restrict base,
                          const Doubt *d, int32_t *restrict marks, double *restrict total) {
    int32_t below_low = 0, below_high = 0;
    const float low = d->low, low_end = d->low_end, high = d->high, high_end = d->high_end;
    for (int i = 0; i < n; i++) {
        float x = number(model[i]), y = base[i], magnitude = fabsf(x - y);
        int32_t in_low = -((magnitude >= low) & (magnitude <= low_end));
        int32_t in_high = -((magnitude >= high) & (magnitude <= high_end));
        float kept = (magnitude > low_end) & !(magnitude >= high) ? x : y;
        total[i] += (double)kept - (double)y;
        marks[i] |= in_low | in_high;
        below_low += magnitude < low;
        below_high += magnitude < high;
    }
    Counts found = {below_low, 0, below_high, 0};
    return found;
}

static void keep_certain(int n, const raw *restrict model, const float *restrict base,
                         float low_end, float high, float *restrict kept) {
    for (int i = 0; i < n; i++) {
        float x = number(model[i]), y = base[i], magnitude = fabsf(x - y);
        kept[i] = (magnitude > low_end) & !(magnitude >= high) ? x : y;
    }
}

static void clear(int many, const int32_t *places, double *total) {
    for (int i = 0; i < many; i++) total[places[i]] = 0.0;
}

/* Merge what is certain of n entries from `from` on of a block that begins at `at`; count their
 * keys, and write the places of those in doubt. Returns how many these are. */
static int begin_rest(Block *b, int n, const Merging *how, int from, int64_t at,
                      const uint32_t *brackets, const double *weights, int64_t *counts,
                      int32_t *places) {
    const int64_t models = how->models, stride = how->stride;
    const raw *base = how->base + from, *rows = how->rows + from;
    const int pair = weights != 0;
    widen(n, base, b->wide);
    memset(b->total, 0, n * sizeof *b->total);
    memset(b->marks, 0, n * sizeof *b->marks);
    if (pair) memset(b->rest, 0, n * sizeof *b->rest);
    if (pair) memset(b->merged, 0, n * sizeof *b->merged);
    for (int64_t t = 0; t < models; t++) {
        const raw *model = rows + t * stride;
        const Doubt d = doubt_of(brackets + 4 * t);
        double *total = b->total;
        if (pair) {
            keep_certain(n, model, b->wide, d.low_end, d.high, b->kept);
            add_marking(n, b->kept, b->wide, weights[t], b->total, b->rest, b->inexact);
            total = b->merged; /* room for sums that nobody asks for */
        }
        Counts seen = add_certain(n, model, b->wide, &d, b->marks, total);
        count(seen, &d, counts + 4 * t);
    }
    const int many = places_of(n, b->marks, places);
    clear(many, places, b->total);
    if (pair) clear(many, places, b->rest);
    finish(b, n, rows, models, stride, pair, how->alpha, how->narrow, how->out, at + from);
    for (int i = 0; i < many; i++) places[i] += from;
    return many;
}

/* Do as merge_band where the brackets leave no doubt, and note what is needed to do the rest.
 *
 * brackets: (models, 4); counts: (chunks, models, 4), of which those of equal keys are not counted.
 * Of the entries in doubt, chunk by chunk: how many to `doubts`, their places to `where`, the base
 * and the models to columns (1 + models rows, space apart), as far as there is space; their squares
 * do not count. Returns the squares; found: whether some sum is not exact, and how many are in
 * doubt. */
double KERNEL(begin_band)(int64_t n, int64_t models, const raw *base, const raw *rows,
                          int64_t stride, int64_t chunk, const uint32_t *brackets,
                          const double *weights, double alpha, uint32_t *extent, int narrow,
                          void *out, int64_t *counts, int64_t *doubts, uint32_t *where,
                          raw *columns, int64_t space, int64_t *found) {
    Block b;
    memset(b.lanes, 0, sizeof b.lanes);
    memset(b.inexact, 0, sizeof b.inexact);
    const int pair = weights != 0;
    Merging how = {models, stride, base, rows, 1, alpha, b.lanes, narrow, 0, 0, out};
    int64_t doubtful = 0;
    for (int64_t first = 0; first < n; first += chunk, counts += 4 * models) {
        const int64_t stop = least(n, first + chunk);
        *doubts = -doubtful;
        for (int64_t at = first; at < stop; at += BLOCK) {
            uint32_t block[2];
            const int m = (int)least(BLOCK, stop - at);
            how.base = base + at, how.rows = rows + at;
            note_extent(m, &how, block, extent);
            int many = 0;
            const int done =
                pair ? 0 : begin_at_once(m, &how, brackets, block, at, counts, b.places, &many);
            if (done < m)
                many += begin_rest(&b, m - done, &how, done, at, brackets, weights, counts,
                                   b.places + many);
            int fits = (int)least(many, space > doubtful ? space - doubtful : 0);
            for (int i = 0; i < fits; i++) where[doubtful + i] = (uint32_t)(at + b.places[i]);
            for (int64_t t = 0; t <= models; t++) {
                const raw *from = t ? rows + (t - 1) * stride + at : base + at;
                raw *to = columns + t * space + doubtful;
                for (int i = 0; i < fits; i++) to[i] = from[b.places[i]];
            }
            doubtful += many;
        }
        *doubts++ += doubtful;
    }
    found[0] = pair && any(BLOCK, b.inexact);
    found[1] = doubtful;
    return add_lanes(b.lanes);
}
