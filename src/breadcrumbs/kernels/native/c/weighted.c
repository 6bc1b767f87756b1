/* The election of signs among terms with weights; `Elections.elect_weighted` of kernels/protocol.py. */
#include "terms.h"

static void subtract(int n, const float *restrict kept, const float *restrict base,
                     double *restrict taus) {
    for (int i = 0; i < n; i++) taus[i] = (double)kept[i] - (double)base[i];
}

static uint64_t any_wrong(int n, const uint64_t *restrict wrong) {
    uint64_t found = 0;
    for (int i = 0; i < n; i++) found |= wrong[i];
    return found;
}

/* Returns the squares of the steps; found: whether some sum is not exact, and how many more entries
 * elect 1 than -1. cuts: (units, models, 4), or there are no units. ties: room for 2 * models.
 * limits, steps: or null. */
double KERNEL(elect_weighted)(int64_t n, int64_t models, const raw *base, const raw *rows,
                              int64_t stride, int64_t unit, int64_t units, const int64_t *cuts,
                              int64_t *ties, const uint64_t *keys, int64_t start,
                              const uint32_t *limits, int64_t kind, int64_t majority,
                              const double *weights, const double *shares, double alpha,
                              uint32_t *extent, int narrow, void *out, double *steps,
                              int64_t *kept, int64_t *found) {
    Terms b;
    float wide[TERMS], stays[TERMS];
    double taus[TERMS], step[TERMS], merged[TERMS], lanes[LANES] = {0};
    uint32_t draws[DRAWS];
    uint64_t wrong = 0;
    int64_t votes = 0;
    if (!units) unit = n;
    for (int64_t first = 0, u = 0; u < units || (!units && !u); u++, first += unit) {
        int64_t stop = least(n, first + unit);
        const int64_t *cut = cuts + 4 * models * u;
        if (units) ties_of(models, cut, ties);
        for (int64_t at = first; at < stop; at += TERMS) {
            int m = (int)least(TERMS, stop - at);
            begin_terms(kind, m, &b);
            widen(m, base + at, wide);
            for (int64_t t = 0; t < models; t++) {
                const raw *model = rows + t * stride + at;
                if (units)
                    choose_cut(m, model, wide, cut + 4 * t, ties + 2 * t, stays);
                else if (limits)
                    kept[t] += choose_drawn(m, model, wide, keys[t], start + at, limits[t], draws,
                                            stays);
                else
                    widen(m, model, stays);
                subtract(m, stays, wide, taus);
                add_terms(kind, m, taus, weights[t], t, &b);
            }
            elect_terms(kind, majority, m, shares, &b, step);
            wrong |= any_wrong(m, b.wrong);
            votes += sum_signs(m, b.signs);
            if (steps) memcpy(steps + at, step, m * sizeof *steps);
            merge_step(m, wide, step, alpha, merged, stays, narrow, out, at);
            widen_extents(m, base + at, models, rows + at, stride, extent);
            add_squares(m, step, lanes);
        }
    }
    found[0] = wrong != 0;
    found[1] = votes;
    return add_lanes(lanes);
}
