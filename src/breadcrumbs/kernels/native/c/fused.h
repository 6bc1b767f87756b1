/* A block of an election or a sum in one loop: of sixteen entries the terms of all models are added,
 * and what that comes to is added to the base and rounded before the next ones, where the processor
 * has AVX-512. */
#ifndef FUSED_H
#define FUSED_H

#include "sixteen.h"
#include "voting.h"

/* What the block is of, and how it is merged. lanes: of squares, added to. asks: whether votes and
 * undecided entries are asked for; keeps: whether the steps are. */
typedef struct {
    int64_t models, stride;
    const raw *base, *rows;
    int64_t majority;
    double alpha, *lanes;
    int narrow, asks, keeps;
    void *out;
} Merging;

/* What is told of a block, where it is asked for. places: of undecided entries. */
typedef struct {
    int64_t votes;
    int undecided;
    int32_t places[SIZE + 16];
} Asked;

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
/* The votes of sixteen entries, as `Votes` has them; sums as whole numbers where there is a scale. */
typedef struct {
    Doubles total, size;
    __m512i whole_total, whole_size;
    __m512 highest, lowest;
    __m512i counts;
} Sixteen;

INLINE void count_terms(__mmask16 keep, __m512 x, __m512 y, __m512i *counts) {
    const __mmask16 above = _mm512_mask_cmp_ps_mask(keep, x, y, _CMP_GT_OQ);
    const __mmask16 below = _mm512_mask_cmp_ps_mask(keep, x, y, _CMP_LT_OQ);
    *counts = _mm512_mask_add_epi32(*counts, above, *counts, _mm512_set1_epi32(1));
    *counts = _mm512_mask_add_epi32(*counts, below, *counts, _mm512_set1_epi32(BELOW));
}

/* Return the votes of entries whose base is y. scaled: whether there is a scale. number: by model,
 * how many stay, added to where streams say so. */
INLINE Sixteen vote(int64_t kind, int scaled, const Merging *m, int i, __m512 y,
                    const Range *ranges, Stream *streams, Scale scale, int32_t *number) {
    const Doubles none = {_mm512_setzero_pd(), _mm512_setzero_pd()};
    const __m512i zeros = _mm512_setzero_si512();
    Sixteen s = {none, none, zeros, zeros, y, y, zeros};
    const Doubles wide = doubles(y);
    const __m512i from = whole(y, scale);
    for (int64_t t = 0; t < m->models; t++) {
        const raw *model = m->rows + t * m->stride + i;
        const __m512 x = numbers(model);
        const __mmask16 keep = streams ? next_of(streams + t) : in_range(x, y, ranges[t]);
        _mm_prefetch(model + BLOCK, _MM_HINT_T0);
        if (streams) number[t] += __builtin_popcount(keep);
        if (scaled) {
            const __m512i tau = _mm512_sub_epi32(whole(x, scale), from);
            const __m512i size = _mm512_abs_epi32(tau);
            s.whole_total = _mm512_mask_add_epi32(s.whole_total, keep, s.whole_total, tau);
            if (kind == MEAN || kind == SUM)
                s.whole_size = _mm512_mask_add_epi32(s.whole_size, keep, s.whole_size, size);
        } else {
            const Doubles tau = minus(doubles(x), wide);
            s.total = plus_where(keep, s.total, tau);
            if (kind == MEAN || kind == SUM) s.size = plus_where(keep, s.size, sizes_of(tau));
        }
        if (kind == MEAN) count_terms(keep, x, y, &s.counts);
        if (kind != LARGEST) continue;
        s.highest = _mm512_mask_max_ps(s.highest, keep, x, s.highest);
        s.lowest = _mm512_mask_min_ps(s.lowest, keep, x, s.lowest);
    }
    return s;
}

/* Return which sums are over 0, or, below the majority, not under it. */
INLINE __mmask16 are_over(int scaled, int none_too, const Sixteen *s) {
    if (!scaled) return over_all(s->total, none_too ? -0x1p-1074 : 0.0);
    return _mm512_cmpgt_epi32_mask(s->whole_total, _mm512_set1_epi32(-(none_too != 0)));
}

/* Return x / number. Most numbers are 0, 1 and 2: these take no division. */
INLINE Doubles divided(Doubles x, __m512i number) {
    const __m512i one = _mm512_set1_epi32(1), twice = _mm512_set1_epi64(0x7FE0000000000000);
    number = _mm512_max_epi32(number, one);
    const __m512d low = _mm512_cvtepi32_pd(_mm512_castsi512_si256(number));
    const __m512d high = _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(number, 1));
    if (_mm512_test_epi32_mask(number, _mm512_sub_epi32(number, one))) {
        Doubles found = {_mm512_div_pd(x.low, low), _mm512_div_pd(x.high, high)};
        return found;
    }
    const Doubles inverse = { /* of powers of 2 */
        _mm512_castsi512_pd(_mm512_sub_epi64(twice, _mm512_castpd_si512(low))),
        _mm512_castsi512_pd(_mm512_sub_epi64(twice, _mm512_castpd_si512(high)))};
    return times(x, inverse);
}

/* Return the sums of the terms of the elected sign: half of the two sums' sum, or difference. */
INLINE Doubles sums_of(int scaled, __mmask16 above, const Sixteen *s, Scale scale) {
    if (scaled) {
        const __m512i zeros = _mm512_setzero_si512();
        const __m512i size = _mm512_mask_sub_epi32(s->whole_size, (__mmask16)~above, zeros,
                                                   s->whole_size);
        return from_whole(_mm512_add_epi32(s->whole_total, size), 0.5 * scale.down);
    }
    const __m512d sign = _mm512_set1_pd(-0.0);
    const Doubles less = {_mm512_xor_pd(s->size.low, sign), _mm512_xor_pd(s->size.high, sign)};
    return times(all_of(0.5), plus(s->total, pick_where(above, s->size, less)));
}

/* Return what votes elect, or the sum of all terms. majority: see `Elections`. */
INLINE Doubles elected(int64_t kind, int scaled, int64_t majority, __m512 y, const Sixteen *s,
                       Scale scale) {
    if (kind == TOTAL) return scaled ? from_whole(s->whole_total, scale.down) : s->total;
    const __mmask16 above = are_over(scaled, majority >= 0, s);
    if (kind == LARGEST)
        return minus(doubles(_mm512_mask_blend_ps(above, s->lowest, s->highest)), doubles(y));
    const Doubles sum = sums_of(scaled, above, s, scale);
    if (kind != MEAN) return sum;
    const __m512i ups = _mm512_and_si512(s->counts, _mm512_set1_epi32(BELOW - 1));
    return divided(sum, _mm512_mask_blend_epi32(above, _mm512_srai_epi32(s->counts, 16), ups));
}

/* Count the signs of sums; note the sums of 0 of terms that are not, and what is needed of these. */
INLINE void ask(int64_t kind, int scaled, int i, __m512 y, const Sixteen *s, Scale scale, Votes *v,
                Asked *asked) {
    const __mmask16 above = are_over(scaled, 0, s), upto = are_over(scaled, 1, s);
    asked->votes += __builtin_popcount(above) + __builtin_popcount(upto) - 16;
    __mmask16 open = upto & (__mmask16)~above;
    if (kind == LARGEST)
        open = _mm512_mask_cmp_ps_mask(open, s->highest, y, _CMP_GT_OQ);
    else if (scaled)
        open = _mm512_mask_test_epi32_mask(open, s->whole_size, s->whole_size);
    else
        open &= over_all(s->size, 0.0);
    if (!open) return;
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i here = _mm512_add_epi32(_mm512_set1_epi32(i), first);
    _mm512_storeu_si512(asked->places + asked->undecided, _mm512_maskz_compress_epi32(open, here));
    asked->undecided += __builtin_popcount(open);
    if (kind == LARGEST) {
        _mm512_storeu_ps(v->highest + i, s->highest);
        _mm512_storeu_ps(v->lowest + i, s->lowest);
        return;
    }
    store(scaled ? from_whole(s->whole_size, scale.down) : s->size, v->size + i);
    if (kind == MEAN) _mm512_storeu_si512(v->counts + i, s->counts);
}

/* Write sixteen entries of which some are 0, NaN or near the ends of the range. */
static __attribute__((noinline)) void write_unusual(int64_t kind, const Merging *m, int i,
                                                    int64_t at, __m512 y, Doubles step,
                                                    Doubles merged) {
    float wide[16], room[16];
    double steps[16], sums[16];
    _mm512_storeu_ps(wide, y);
    store(step, steps);
    store(merged, sums);
    if (kind == TOTAL)
        sign_zeros(16, wide, m->models, m->rows + i, m->stride, steps, sums);
    else
        keep_zeros(16, wide, steps, m->alpha, sums);
    round_out(16, sums, room, 1, m->narrow, m->out, at + i);
}

/* Add a step to the base, and its square to those of all; write the sum, rounded. */
INLINE void write_sixteen(int64_t kind, const Merging *m, int i, int64_t at, __m512 y,
                          Doubles step, Doubles *squares) {
    const Doubles merged = plus(doubles(y), times(all_of(m->alpha), step));
    *squares = plus(*squares, times(step, step));
    if (round_sixteen(merged, m->narrow, m->out, at + i))
        write_unusual(kind, m, i, at, y, step, merged);
}

/* Do the first n entries, a multiple of 16. kept: by model, added to where streams say what is. */
INLINE void do_all(int64_t kind, int scaled, int n, const Merging *m, const Range *ranges,
                   Stream *streams, Scale scale, int64_t *kept, int64_t at, Votes *v,
                   Asked *asked) {
    Doubles squares = loaded(m->lanes);
    int32_t number[MOST_MODELS] = {0};
    for (int i = 0; i < n; i += 16) {
        const __m512 y = numbers(m->base + i);
        const Sixteen s = vote(kind, scaled, m, i, y, ranges, streams, scale, number);
        _mm_prefetch(m->base + i + BLOCK, _MM_HINT_T0);
        if (kind != TOTAL && m->asks) ask(kind, scaled, i, y, &s, scale, v, asked);
        const Doubles step = elected(kind, scaled, m->majority, y, &s, scale);
        if (kind != TOTAL && (m->asks || m->keeps)) {
            _mm512_storeu_ps(v->wide + i, y);
            store(step, v->step + i);
        }
        write_sixteen(kind, m, i, at, y, step, &squares);
    }
    store(squares, m->lanes);
    if (streams)
        for (int64_t t = 0; t < m->models; t++) kept[t] += number[t];
}

/* Return how many entries of a block of n are done at once: all in whole sixteens. */
INLINE int do_at_once(int64_t kind, int n, const Merging *m, const Range *ranges, Stream *streams,
                      const uint32_t *extent, int64_t *kept, int64_t at, Votes *v, Asked *asked) {
    const Scale scale = scale_of(extent, m->models);
    n = n / 16 * 16;
#define DO(kind)                                                                 \
    if (scale.up != 0.0f)                                                        \
        do_all(kind, 1, n, m, ranges, streams, scale, kept, at, v, asked);       \
    else                                                                         \
        do_all(kind, 0, n, m, ranges, streams, scale, kept, at, v, asked)
    if (kind == TOTAL) {
        DO(TOTAL);
    } else if (kind == LARGEST) {
        DO(LARGEST);
    } else if (kind == MEAN) {
        DO(MEAN);
    } else {
        DO(SUM);
    }
#undef DO
    return n;
}

/* --- sums before the ranks are known ---------------------------------------------------------- */

/* What is known of sixteen entries: the sum of what stays for certain, and which are in doubt. */
typedef struct {
    Doubles total;
    __m512i whole_total;
    __mmask16 doubtful;
} Certain;

INLINE Certain add_certain_sixteen(int scaled, const Merging *m, int i, __m512 y,
                                   const Doubt *doubts, Counts *seen, Scale scale) {
    const Doubles none = {_mm512_setzero_pd(), _mm512_setzero_pd()};
    const Doubles wide = doubles(y);
    const __m512i from = whole(y, scale);
    Certain s = {none, _mm512_setzero_si512(), 0};
    for (int64_t t = 0; t < m->models; t++) {
        const Doubt *d = doubts + t;
        const raw *model = m->rows + t * m->stride + i;
        const __m512 x = numbers(model), size = _mm512_abs_ps(_mm512_sub_ps(x, y));
        _mm_prefetch(model + BLOCK, _MM_HINT_T0);
        const __mmask16 below = _mm512_cmp_ps_mask(size, _mm512_set1_ps(d->low), _CMP_LT_OQ);
        const __mmask16 upto = _mm512_cmp_ps_mask(size, _mm512_set1_ps(d->low_end), _CMP_LE_OQ);
        const __mmask16 under = _mm512_cmp_ps_mask(size, _mm512_set1_ps(d->high), _CMP_NGE_UQ);
        const __mmask16 most = _mm512_cmp_ps_mask(size, _mm512_set1_ps(d->high_end), _CMP_LE_OQ);
        const __mmask16 keep = under & (__mmask16)~upto;
        s.doubtful |= (upto & (__mmask16)~below) | (most & (__mmask16)~under);
        seen[t].below_low += __builtin_popcount(below);
        seen[t].below_high += __builtin_popcount(under);
        if (scaled)
            s.whole_total = _mm512_mask_add_epi32(s.whole_total, keep, s.whole_total,
                                                  _mm512_sub_epi32(whole(x, scale), from));
        else
            s.total = plus_where(keep, s.total, minus(doubles(x), wide));
    }
    if (scaled) s.total = from_whole(s.whole_total, scale.down);
    return s;
}

/* Merge the first n entries, a multiple of 16; those in doubt get the base. Writes the places of
 * these; returns how many they are. */
INLINE int begin_all(int scaled, int n, const Merging *m, const Doubt *doubts, Counts *seen,
                     Scale scale, int64_t at, int32_t *places) {
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const Doubles none = {_mm512_setzero_pd(), _mm512_setzero_pd()};
    Doubles squares = loaded(m->lanes);
    int many = 0;
    for (int i = 0; i < n; i += 16) {
        const __m512 y = numbers(m->base + i);
        const Certain s = add_certain_sixteen(scaled, m, i, y, doubts, seen, scale);
        const __m512i here = _mm512_add_epi32(_mm512_set1_epi32(i), first);
        _mm_prefetch(m->base + i + BLOCK, _MM_HINT_T0);
        _mm512_storeu_si512(places + many, _mm512_maskz_compress_epi32(s.doubtful, here));
        many += __builtin_popcount(s.doubtful);
        write_sixteen(TOTAL, m, i, at, y, pick_where(s.doubtful, none, s.total), &squares);
    }
    store(squares, m->lanes);
    return many;
}
#endif

/* Whether a block of that extent is done at once: only if it is finite, and of not too many models. */
INLINE int may_fuse(const Merging *m, const uint32_t *extent) {
    return m->models <= MOST_MODELS && extent[1] < INFINITE >> (32 - RAW);
}

/* Do the first entries of a block by cuts, if no ties are parted in it; return how many. extent: of
 * the block. */
INLINE int do_cuts_at_once(int64_t kind, int n, const Merging *m, const int64_t *cuts,
                           const int64_t *ties, const uint32_t *extent, int64_t at, Votes *v,
                           Asked *asked) {
#if defined(__AVX512F__)
    Range ranges[MOST_MODELS];
    if (!may_fuse(m, extent)) return 0;
    for (int64_t t = 0; t < m->models; t++) {
        if (is_parted(ties + 2 * t)) return 0;
        ranges[t] = range_of(bounds_of(cuts + 4 * t), ties + 2 * t);
    }
    return do_at_once(kind, n, m, ranges, 0, extent, 0, at, v, asked);
#else
    (void)kind, (void)n, (void)m, (void)cuts, (void)ties, (void)extent, (void)at, (void)v;
    (void)asked;
    return 0;
#endif
}

/* Do them by draws from number `first` on; without limits all stay. */
INLINE int do_draws_at_once(int64_t kind, int n, const Merging *m, const uint64_t *keys,
                            int64_t first, const uint32_t *limits, const uint32_t *extent,
                            int64_t *kept, int64_t at, Votes *v, Asked *asked) {
#if defined(__AVX512F__)
    Stream streams[MOST_MODELS];
    int64_t all[MOST_MODELS] = {0};
    if (!may_fuse(m, extent) || (first & 1)) return 0;
    for (int64_t t = 0; t < m->models; t++)
        streams[t] = stream_of(limits ? keys[t] : 0, first, limits ? limits[t] : ALL);
    return do_at_once(kind, n, m, 0, streams, extent, limits ? kept : all, at, v, asked);
#else
    (void)kind, (void)n, (void)m, (void)keys, (void)first, (void)limits, (void)extent;
    (void)kept, (void)at, (void)v, (void)asked;
    return 0;
#endif
}

/* Merge what is certain of the first entries of a block, and count their keys; return how many are
 * done. places, many: of those in doubt. */
INLINE int begin_at_once(int n, const Merging *m, const uint32_t *brackets, const uint32_t *extent,
                         int64_t at, int64_t *counts, int32_t *places, int *many) {
#if defined(__AVX512F__)
    Doubt doubts[MOST_MODELS];
    Counts seen[MOST_MODELS] = {{0, 0, 0, 0}};
    if (!may_fuse(m, extent)) return 0;
    for (int64_t t = 0; t < m->models; t++) doubts[t] = doubt_of(brackets + 4 * t);
    const Scale scale = scale_of(extent, m->models);
    n = n / 16 * 16;
    *many = scale.up != 0.0f ? begin_all(1, n, m, doubts, seen, scale, at, places)
                             : begin_all(0, n, m, doubts, seen, scale, at, places);
    for (int64_t t = 0; t < m->models; t++) count(seen[t], doubts + t, counts + 4 * t);
    return n;
#else
    (void)n, (void)m, (void)brackets, (void)extent, (void)at, (void)counts, (void)places;
    (void)many;
    return 0;
#endif
}

/* Write the extent of a block, and widen that of all. */
static inline void note_extent(int n, const Merging *m, uint32_t *block, uint32_t *extent) {
    block[0] = UINT32_MAX, block[1] = 0;
    widen_extents(n, m->base, m->models, m->rows, m->stride, block);
    if (block[0] < extent[0]) extent[0] = block[0];
    if (block[1] > extent[1]) extent[1] = block[1];
}

#endif
