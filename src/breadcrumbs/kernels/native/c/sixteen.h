/* Sixteen entries of all models at a time, in registers, where the processor has AVX-512.
 *
 * Each does what a loop of steps.h does for a block of one model, to the same bits: those loops are
 * for other processors, and for the last entries of a block. */
#ifndef SIXTEEN_H
#define SIXTEEN_H

#include "steps.h"

/* Models that are done at once. */
enum { MOST_MODELS = 32 };

#if defined(__AVX512F__)
typedef struct {
    __m512d low, high;
} Doubles;

static inline __m512 numbers(const raw *from) {
#if RAW == 16
    __m256i bits = _mm256_loadu_si256((const __m256i *)from);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
#else
    return _mm512_loadu_ps((const float *)from);
#endif
}

static inline Doubles doubles(__m512 x) {
    Doubles found = {_mm512_cvtps_pd(_mm512_castps512_ps256(x)),
                     _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))};
    return found;
}

static inline Doubles loaded(const double *from) {
    Doubles found = {_mm512_loadu_pd(from), _mm512_loadu_pd(from + 8)};
    return found;
}

static inline Doubles minus(Doubles x, Doubles y) {
    Doubles found = {_mm512_sub_pd(x.low, y.low), _mm512_sub_pd(x.high, y.high)};
    return found;
}

static inline Doubles plus(Doubles x, Doubles y) {
    Doubles found = {_mm512_add_pd(x.low, y.low), _mm512_add_pd(x.high, y.high)};
    return found;
}

static inline Doubles times(Doubles x, Doubles y) {
    Doubles found = {_mm512_mul_pd(x.low, y.low), _mm512_mul_pd(x.high, y.high)};
    return found;
}

static inline Doubles all_of(double x) {
    Doubles found = {_mm512_set1_pd(x), _mm512_set1_pd(x)};
    return found;
}

/* Return which are over a number. */
static inline __mmask16 over_all(Doubles x, double least) {
    const __m512d y = _mm512_set1_pd(least);
    return (__mmask16)(_mm512_cmp_pd_mask(x.low, y, _CMP_GT_OQ) |
                       _mm512_cmp_pd_mask(x.high, y, _CMP_GT_OQ) << 8);
}

static inline __mmask16 below_zero(Doubles x) {
    const __m512d none = _mm512_setzero_pd();
    return (__mmask16)(_mm512_cmp_pd_mask(x.low, none, _CMP_LT_OQ) |
                       _mm512_cmp_pd_mask(x.high, none, _CMP_LT_OQ) << 8);
}

static inline Doubles pick_where(__mmask16 first, Doubles x, Doubles y) {
    Doubles found = {_mm512_mask_blend_pd((__mmask8)first, y.low, x.low),
                     _mm512_mask_blend_pd((__mmask8)(first >> 8), y.high, x.high)};
    return found;
}

static inline Doubles sizes_of(Doubles x) {
    Doubles found = {_mm512_abs_pd(x.low), _mm512_abs_pd(x.high)};
    return found;
}

static inline Doubles plus_where(__mmask16 keep, Doubles total, Doubles more) {
    Doubles found = {
        _mm512_mask_add_pd(total.low, (__mmask8)keep, total.low, more.low),
        _mm512_mask_add_pd(total.high, (__mmask8)(keep >> 8), total.high, more.high)};
    return found;
}

static inline void store(Doubles x, double *to) {
    _mm512_storeu_pd(to, x.low);
    _mm512_storeu_pd(to + 8, x.high);
}

/* --- whole numbers ---------------------------------------------------------------------------- */

/* What makes all weights of a block whole numbers, whose sums and differences then are exact in 32
 * bits; by 0 there is no such factor. */
typedef struct {
    float up;
    double down;
} Scale;

/* Return the scale of weights of that extent, and sums over so many models. */
static inline Scale scale_of(const uint32_t *extent, int64_t models) {
    Scale found = {0.0f, 0.0};
#if RAW == 16
    int first = (int)((extent[0] + 1) >> 7), last = (int)(extent[1] >> 7), more = 1;
    while (((int64_t)1 << more) < 2 * models) more++;
    if (extent[1] == 0 || first < 8 || last - first + 8 + more > 30) return found;
    found.up = as_float((uint32_t)(127 + 134 - first) << 23);
    found.down = as_double((uint64_t)(1023 - 134 + first) << 52);
#else
    (void)extent, (void)models;
#endif
    return found;
}

static inline __m512i whole(__m512 x, Scale scale) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(scale.up)));
}

/* Return whole numbers as they were, times a number of which they are multiples. */
static inline Doubles from_whole(__m512i x, double unit) {
    const __m512d down = _mm512_set1_pd(unit);
    Doubles found = {
        _mm512_mul_pd(_mm512_cvtepi32_pd(_mm512_castsi512_si256(x)), down),
        _mm512_mul_pd(_mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(x, 1)), down)};
    return found;
}

/* --- rounding --------------------------------------------------------------------------------- */

/* Write x rounded to float32; return which results are 0 or NaN. */
static inline __mmask16 round_to_single(Doubles x, float *out) {
    __m512 single = _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(x.low)),
                                       _mm512_cvtpd_ps(x.high), 1);
    _mm512_storeu_ps(out, single);
    return _mm512_fpclass_ps_mask(single, 0x01 | 0x02 | 0x04 | 0x80);
}

/* Write x rounded once to bfloat16; return which are near the ends of its range or beyond, of which
 * what is written is not right. The lower halves of doubles only tell whether there is more. */
static inline __mmask16 round_to_half(Doubles x, uint16_t *out) {
    const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28,
                                            30);
    const __m512i one = _mm512_set1_epi32(1), odds = _mm512_or_si512(evens, one);
    const __m512i low = _mm512_castpd_si512(x.low), high = _mm512_castpd_si512(x.high);
    const __m512i rest = _mm512_permutex2var_epi32(low, evens, high);
    __m512i bits = _mm512_permutex2var_epi32(low, odds, high);
    bits = _mm512_mask_or_epi32(bits, _mm512_test_epi32_mask(rest, rest), bits, one);
    const __m512i least = _mm512_set1_epi32((1023 - 125) << 21);
    const __mmask16 unusual = _mm512_cmpge_epu32_mask(
        _mm512_sub_epi32(_mm512_slli_epi32(bits, 1), least), _mm512_set1_epi32(252 << 21));
    const __m512i even = _mm512_and_si512(_mm512_srli_epi32(bits, 13), one);
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(even, _mm512_set1_epi32(0xFFF)));
    rounded = _mm512_sub_epi32(_mm512_srli_epi32(rounded, 13),
                               _mm512_set1_epi32((1023 - 127) << 7));
    /* the sign, and 15 bits of the others */
    rounded = _mm512_ternarylogic_epi32(_mm512_set1_epi32(0x8000), _mm512_srli_epi32(bits, 16),
                                        rounded, 0xCA);
    _mm256_storeu_si256((__m256i *)out, _mm512_cvtepi32_epi16(rounded));
    return unusual;
}

/* Write x rounded once; return which are not written right. */
static inline __mmask16 round_sixteen(Doubles x, int narrow, void *out, int64_t at) {
    return narrow ? round_to_half(x, (uint16_t *)out + at) : round_to_single(x, (float *)out + at);
}

/* --- which weights stay ----------------------------------------------------------------------- */

/* Return which magnitudes of x - y are in a range. */
static inline __mmask16 in_range(__m512 x, __m512 y, Range stays) {
    __m512 magnitude = _mm512_abs_ps(_mm512_sub_ps(x, y));
    __mmask16 found = _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(stays.first), _CMP_GE_OQ);
    return _mm512_mask_cmp_ps_mask(found, magnitude, _mm512_set1_ps(stays.last), _CMP_LE_OQ);
}

/* --- draws ------------------------------------------------------------------------------------ */

/* The words of the next sixteen draws of a model, before they are mixed, as `draw` has them. */
typedef struct {
    __m512i state;
    uint32_t limit;
} Stream;

/* Return the stream from draw `first`, an even one, on. */
static inline Stream stream_of(uint64_t key, int64_t first, uint32_t limit) {
    const uint64_t golden = 0x9E3779B97F4A7C15;
    uint64_t words[8];
    for (int i = 0; i < 8; i++) words[i] = key + ((uint64_t)first / 2 + 1 + i) * golden;
    Stream found = {_mm512_loadu_si512(words), limit};
    return found;
}

/* Return which of the next sixteen entries stay; limit: ALL keeps all. */
static inline __mmask16 next_of(Stream *s) {
    if (s->limit == ALL) return (__mmask16)-1;
    const __m512i once = _mm512_set1_epi64((int64_t)0xBF58476D1CE4E5B9);
    const __m512i twice = _mm512_set1_epi64((int64_t)0x94D049BB133111EB);
    const __m512i ahead = _mm512_set1_epi64((int64_t)(8 * 0x9E3779B97F4A7C15));
    __m512i word = s->state;
    s->state = _mm512_add_epi64(word, ahead);
    word = _mm512_mullo_epi64(_mm512_xor_si512(word, _mm512_srli_epi64(word, 30)), once);
    word = _mm512_mullo_epi64(_mm512_xor_si512(word, _mm512_srli_epi64(word, 27)), twice);
    word = _mm512_xor_si512(word, _mm512_srli_epi64(word, 31));
    return _mm512_cmplt_epu32_mask(word, _mm512_set1_epi32((int32_t)s->limit));
}
#endif

#endif
