/* Sums of what stays of task vectors; `Sums` of kernels/protocol.py says what each does. */
#include "blocks.h"

/* Add the models' weights between the bounds, and the base's where they are not. */
static void add_between(int n, const raw *restrict model, const float *restrict base, float first,
                        float last, double *restrict total) {
    for (int i = 0; i < n; i++) {
        float x = number(model[i]), y = base[i], magnitude = fabsf(x - y);
        float kept = (magnitude >= first) & (magnitude <= last) ? x : y;
        total[i] += (double)kept - (double)y;
    }
}

static void keep_between(int n, const float *restrict magnitudes, float first, float last,
                         uint8_t *restrict keep) {
    for (int i = 0; i < n; i++)
        keep[i] = (uint8_t)((magnitudes[i] >= first) & (magnitudes[i] <= last));
}

/* Write what the cuts keep, merged. Returns the squares of the sums; found: whether some are not
 * exact. weights: null where all are 1. ties: room for 2 * models. */
double KERNEL(merge_band)(int64_t n, int64_t models, const raw *base, const raw *rows,
                          int64_t stride, int64_t unit, const int64_t *cuts, int64_t *ties,
                          const double *weights, double alpha, uint32_t *extent, int narrow,
                          void *out, int32_t *found) {
    Block b;
    memset(b.lanes, 0, sizeof b.lanes);
    memset(b.inexact, 0, sizeof b.inexact);
    const int pair = weights != 0;
    for (int64_t first = 0; first < n; first += unit, cuts += 4 * models) {
        int64_t stop = least(n, first + unit);
        for (int64_t t = 0; t < models; t++) {
            ties[2 * t] = cuts[4 * t + 1];
            ties[2 * t + 1] = cuts[4 * t + 3];
        }
        for (int64_t at = first; at < stop; at += BLOCK) {
            int m = (int)least(BLOCK, stop - at);
            widen(m, base + at, b.wide);
            memset(b.total, 0, m * sizeof *b.total);
            if (pair) memset(b.rest, 0, m * sizeof *b.rest);
            for (int64_t t = 0; t < models; t++) {
                const raw *model = rows + t * stride + at;
                Run runs[3];
                int many = runs_of(m, model, b.wide, b.room, bounds_of(cuts + 4 * t), ties + 2 * t,
                                   runs);
                if (pair) magnitudes_of(m, model, b.wide, b.room);
                for (int i = 0, r = 0; r < many; i = runs[r++].end) {
                    int size = runs[r].end - i;
                    if (pair)
                        keep_between(size, b.room + i, runs[r].first, runs[r].last, b.keep + i);
                    else
                        add_between(size, model + i, b.wide + i, runs[r].first, runs[r].last,
                                    b.total + i);
                }
                if (pair)
                    add_pair(m, model, b.wide, b.keep, weights[t], b.total, b.rest, b.inexact);
            }
            finish(&b, m, base + at, rows + at, models, stride, pair, alpha, extent, narrow, out,
                   at);
        }
    }
    *found = pair && any(BLOCK, b.inexact);
    return add_lanes(b.lanes);
}

/* --- merging before the ranks are known ------------------------------------------------------- */

/* Add what stays for certain. */
static void add_certain(int n, const raw *restrict model, const float *restrict base,
                        const float *restrict magnitudes, float above, float under,
                        double *restrict total) {
    for (int i = 0; i < n; i++) {
        float x = number(model[i]), y = base[i];
        float kept = (magnitudes[i] > above) & (magnitudes[i] < under) ? x : y;
        total[i] += (double)kept - (double)y;
    }
}

static void keep_certain(int n, const float *restrict magnitudes, float above, float under,
                         uint8_t *restrict keep) {
    for (int i = 0; i < n; i++)
        keep[i] = (uint8_t)((magnitudes[i] > above) & (magnitudes[i] < under));
}

static void clear_doubtful(int n, const uint8_t *restrict marks, double *restrict total) {
    for (int i = 0; i < n; i++) total[i] = marks[i] ? 0.0 : total[i];
}

/* Do as merge_band where the brackets leave no doubt, and note what is needed to do the rest.
 *
 * brackets: (models, 4); counts, sizes, kept, room, apart: as tally has them. Of entries in doubt,
 * chunk by chunk: how many to `doubts`, their places to `where`, the base and the models to columns
 * (1 + models rows, space apart), as far as there is space; their squares do not count. filled:
 * (models,) zeros. Returns the squares; found: whether some sum is not exact, and how many are in
 * doubt. */
double KERNEL(begin_band)(int64_t n, int64_t models, const raw *base, const raw *rows,
                          int64_t stride, int64_t chunk, const uint32_t *brackets,
                          const double *weights, double alpha, uint32_t *extent, int narrow,
                          void *out, int64_t *counts, int64_t *sizes, uint32_t *kept, int64_t room,
                          int64_t apart, int64_t *filled, int64_t *doubts, uint32_t *where,
                          raw *columns, int64_t space, int64_t *found) {
    Block b;
    uint8_t marks[BLOCK + 8], every[BLOCK + 8];
    uint16_t places[BLOCK + 8];
    memset(b.lanes, 0, sizeof b.lanes);
    memset(b.inexact, 0, sizeof b.inexact);
    const int pair = weights != 0;
    int64_t doubtful = 0;
    for (int64_t first = 0; first < n; first += chunk, counts += 4 * models, sizes += models) {
        int64_t stop = least(n, first + chunk);
        for (int64_t t = 0; t < models; t++) sizes[t] = -filled[t];
        *doubts = -doubtful;
        for (int64_t at = first; at < stop; at += BLOCK) {
            int m = (int)least(BLOCK, stop - at);
            widen(m, base + at, b.wide);
            memset(b.total, 0, m * sizeof *b.total);
            memset(every, 0, m);
            if (pair) memset(b.rest, 0, m * sizeof *b.rest);
            for (int64_t t = 0; t < models; t++) {
                const raw *model = rows + t * stride + at;
                Doubt d = doubt_of(brackets + 4 * t);
                count(look(m, model, b.wide, &d, b.room), &d, counts + 4 * t);
                if (pair) {
                    keep_certain(m, b.room, d.above, d.under, b.keep);
                    add_pair(m, model, b.wide, b.keep, weights[t], b.total, b.rest, b.inexact);
                } else {
                    add_certain(m, model, b.wide, b.room, d.above, d.under, b.total);
                }
                mark(m, b.room, &d, marks, every);
                if (!d.opens_low && !d.opens_high) continue;
                int many = places_of(m, marks, places);
                int fits = (int)least(many, room > filled[t] ? room - filled[t] : 0);
                for (int i = 0; i < fits; i++)
                    kept[t * apart + filled[t] + i] = as_bits(b.room[places[i]]);
                filled[t] += many;
            }
            clear_doubtful(m, every, b.total);
            if (pair) clear_doubtful(m, every, b.rest);
            finish(&b, m, base + at, rows + at, models, stride, pair, alpha, extent, narrow, out,
                   at);
            int many = places_of(m, every, places);
            int fits = (int)least(many, space > doubtful ? space - doubtful : 0);
            for (int i = 0; i < fits; i++) where[doubtful + i] = (uint32_t)(at + places[i]);
            for (int64_t t = 0; t <= models; t++) {
                const raw *from = t ? rows + (t - 1) * stride + at : base + at;
                raw *to = columns + t * space + doubtful;
                for (int i = 0; i < fits; i++) to[i] = from[places[i]];
            }
            doubtful += many;
        }
        *doubts++ += doubtful;
        for (int64_t t = 0; t < models; t++) sizes[t] += filled[t];
    }
    found[0] = pair && any(BLOCK, b.inexact);
    found[1] = doubtful;
    return add_lanes(b.lanes);
}
