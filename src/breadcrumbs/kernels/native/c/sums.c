/* Sums of what stays of task vectors; `Sums` of kernels/protocol.py says what each does. */
#include "blocks.h"

/* Models that are merged at once. */
enum { MOST = 32 };

#if defined(__AVX512F__)
static inline __m512 numbers(const raw *from) {
#if RAW == 16
    __m256i bits = _mm256_loadu_si256((const __m256i *)from);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
#else
    return _mm512_loadu_ps((const float *)from);
#endif
}
#endif

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
    int64_t at = 0;
    for (int64_t u = 0; u < units; u++, cuts += 4 * models) {
        int64_t stop = runs ? at + runs[u] : least(n, at + unit);
        ties_of(models, cuts, ties);
        for (; at < stop; at += BLOCK) {
            int m = (int)least(BLOCK, stop - at);
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
            finish(&b, m, base + at, rows + at, models, stride, pair, alpha, extent, narrow, out,
                   at);
        }
        at = stop;
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

#if defined(__AVX512F__)
/* Do that for all models, 16 entries at a time, which takes half of the time. n: a multiple. */
static void add_all_certain(int n, int64_t models, const raw *rows, int64_t stride,
                            const float *base, const Doubt *doubts, Counts *seen, int32_t *marks,
                            double *totals) {
    for (int i = 0; i < n; i += 16) {
        const __m512 y = _mm512_loadu_ps(base + i);
        const __m512d low_y = _mm512_cvtps_pd(_mm512_castps512_ps256(y));
        const __m512d high_y = _mm512_cvtps_pd(_mm512_extractf32x8_ps(y, 1));
        __m512d low_total = _mm512_setzero_pd(), high_total = _mm512_setzero_pd();
        __mmask16 doubtful = 0;
        for (int64_t t = 0; t < models; t++) {
            const Doubt *d = doubts + t;
            __m512 x = numbers(rows + t * stride + i);
            __m512 magnitude = _mm512_abs_ps(_mm512_sub_ps(x, y));
            __mmask16 below = _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(d->low), _CMP_LT_OQ);
            __mmask16 upto = _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(d->low_end), _CMP_LE_OQ);
            __mmask16 under = _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(d->high), _CMP_NGE_UQ);
            __mmask16 most =
                _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(d->high_end), _CMP_LE_OQ);
            doubtful |= (upto & (__mmask16)~below) | (most & (__mmask16)~under);
            seen[t].below_low += __builtin_popcount(below);
            seen[t].below_high += __builtin_popcount(under);
            x = _mm512_mask_mov_ps(y, under & (__mmask16)~upto, x);
            __m512d low_x = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
            __m512d high_x = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
            low_total = _mm512_add_pd(low_total, _mm512_sub_pd(low_x, low_y));
            high_total = _mm512_add_pd(high_total, _mm512_sub_pd(high_x, high_y));
        }
        _mm512_storeu_si512(marks + i, _mm512_movm_epi32(doubtful));
        _mm512_storeu_pd(totals + i, low_total);
        _mm512_storeu_pd(totals + i + 8, high_total);
    }
}
#endif

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
    int64_t doubtful = 0;
    for (int64_t first = 0; first < n; first += chunk, counts += 4 * models) {
        int64_t stop = least(n, first + chunk);
        *doubts = -doubtful;
        for (int64_t at = first; at < stop; at += BLOCK) {
            int m = (int)least(BLOCK, stop - at);
            widen(m, base + at, b.wide);
            memset(b.total, 0, m * sizeof *b.total);
            memset(b.marks, 0, m * sizeof *b.marks);
            if (pair) memset(b.rest, 0, m * sizeof *b.rest);
            if (pair) memset(b.merged, 0, m * sizeof *b.merged);
            int done = 0;
#if defined(__AVX512F__)
            if (!pair && models <= MOST) {
                Doubt doubts[MOST];
                Counts seen[MOST] = {{0, 0, 0, 0}};
                done = m / 16 * 16;
                for (int64_t t = 0; t < models; t++) doubts[t] = doubt_of(brackets + 4 * t);
                add_all_certain(done, models, rows + at, stride, b.wide, doubts, seen, b.marks,
                                b.total);
                for (int64_t t = 0; t < models; t++) count(seen[t], doubts + t, counts + 4 * t);
            }
#endif
            for (int64_t t = 0; t < models; t++) {
                const raw *model = rows + t * stride + at;
                const Doubt d = doubt_of(brackets + 4 * t);
                double *total = b.total;
                if (pair) {
                    keep_certain(m, model, b.wide, d.low_end, d.high, b.kept);
                    add_marking(m, b.kept, b.wide, weights[t], b.total, b.rest, b.inexact);
                    total = b.merged; /* room for sums that nobody asks for */
                }
                Counts seen = add_certain(m - done, model + done, b.wide + done, &d,
                                          b.marks + done, total + done);
                count(seen, &d, counts + 4 * t);
            }
            int many = places_of(m, b.marks, b.places);
            clear(many, b.places, b.total);
            if (pair) clear(many, b.places, b.rest);
            finish(&b, m, base + at, rows + at, models, stride, pair, alpha, extent, narrow, out,
                   at);
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
