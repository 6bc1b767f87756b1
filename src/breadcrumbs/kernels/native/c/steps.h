/* What all kernels share: raw weights as numbers, and loops over a block that stays in the cache.
 *
 * This is compiled once for each kind of raw weights (RAW: 16, the bits of bfloat16, or 32, those of
 * float32) and for each level of the processor (LEVEL). Loops are written for the compiler to
 * vectorise. No operation is fused or reordered, so that all levels give the same bits.
 */
#ifndef STEPS_H
#define STEPS_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define JOIN_(name, raw, level) breadcrumbs_##name##_##raw##_##level
#define JOIN(name, raw, level) JOIN_(name, raw, level)
#if defined(_WIN32)
#define SIZED(name, raw) __declspec(dllexport) JOIN(name, raw, LEVEL)
#else
#define SIZED(name, raw) __attribute__((visibility("default"))) JOIN(name, raw, LEVEL)
#endif
#define KERNEL(name) SIZED(name, RAW)

/* Entries of a block, and numbers that a sum of squares is added up in at once. */
enum { BLOCK = 2048, LANES = 16 };
#define INFINITE 0x7F800000u
#define MAGNITUDE 0x7FFFFFFFu
#define MAGNITUDE64 0x7FFFFFFFFFFFFFFFu

#if RAW == 16
typedef uint16_t raw;
#else
typedef uint32_t raw;
#endif

static inline float as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t as_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline uint64_t double_bits(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline double as_double(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float number(raw x) {
#if RAW == 16
    return as_float((uint32_t)x << 16);
#else
    return as_float(x);
#endif
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* The float64 nearest to x + y, and exactly what it leaves out (Knuth). */
static inline double two_sum(double x, double y, double *left) {
    double total = x + y, back = total - x;
    *left = (x - (total - back)) + (y - back);
    return total;
}

static inline void widen(int n, const raw *restrict from, float *restrict out) {
    for (int i = 0; i < n; i++) out[i] = number(from[i]);
}

static inline void magnitudes_of(int n, const raw *restrict model, const float *restrict base,
                                 float *restrict out) {
    for (int i = 0; i < n; i++) out[i] = fabsf(number(model[i]) - base[i]);
}

/* --- ties: where in a block they begin or end to count ------------------------------------- */

/* Of a cut its keys as numbers: low, the key after it, the key before high, high. */
typedef struct {
    float low, after_low, before_high, high;
} Bounds;

static inline Bounds bounds_of(const int64_t *cut) {
    uint32_t low = (uint32_t)least(cut[0], (int64_t)INFINITE + 1);
    uint32_t after = (uint32_t)least(cut[0] + 1, (int64_t)INFINITE + 1);
    uint32_t high = (uint32_t)least(cut[2], (int64_t)INFINITE);
    Bounds found = {as_float(low), as_float(after), high ? as_float(high - 1) : -1.0f,
                    as_float(high)};
    return found;
}

/* Whether some ties of an end are first and others are not: where those of low stop being cut, and
 * those of high stop being kept. ties: how many of low are still to be cut, of high to be kept. */
static inline int is_parted(const int64_t *ties) { return ties[0] > 0 || ties[1] > 0; }

/* Return whether a tie stays, the next one; where both ends are one key, it must pass both. */
static inline int tie_stays(float x, Bounds bounds, int64_t *ties) {
    int stays = 1;
    if (x == bounds.low) {
        stays &= ties[0] == 0;
        ties[0] -= ties[0] > 0;
    } else {
        stays &= x > bounds.low;
    }
    if (x == bounds.high) {
        stays &= ties[1] != 0;
        ties[1] -= ties[1] > 0;
    } else {
        stays &= x < bounds.high;
    }
    return stays;
}

/* The magnitudes that stay of a block whose ties all stay or all go. */
typedef struct {
    float first, last;
} Range;

static inline Range range_of(Bounds bounds, const int64_t *ties) {
    Range found = {ties[0] < 0 ? bounds.after_low : bounds.low,
                   ties[1] < 0 ? bounds.high : bounds.before_high};
    return found;
}

/* --- brackets of keys ----------------------------------------------------------------------- */

/* What two brackets of keys say: magnitudes from low to low_end and from high to high_end may stay,
 * those between do. Where none is asked for, low lies below all magnitudes, and high is NaN: the
 * difference of two numbers may be infinite, and what is not at least NaN is all. */
typedef struct {
    float low, low_end, high, high_end;
    int asks_low, asks_high, opens_low, opens_high;
} Doubt;

static inline Doubt doubt_of(const uint32_t *b) {
    const float none = as_float(INFINITE + 1);
    Doubt d = {-1.0f, -1.0f, none, none,
               b[0] <= b[1], b[2] <= b[3], b[0] < b[1], b[2] < b[3]};
    if (d.asks_low) d.low = as_float(b[0]), d.low_end = as_float(b[1]);
    if (d.asks_high) d.high = as_float(b[2]), d.high_end = as_float(b[3]);
    return d;
}

/* How many magnitudes are below the beginnings of both brackets, or equal to them. */
typedef struct {
    int32_t below_low, at_low, below_high, at_high;
} Counts;

/* Write the magnitudes of a model, count them, and mark those inside a bracket. */
static inline Counts look(int n, const raw *restrict model, const float *restrict base,
                          const Doubt *d, float *restrict magnitudes, int32_t *restrict marks) {
    int32_t below_low = 0, below_high = 0;
    const float low = d->low, low_end = d->low_end, high = d->high, high_end = d->high_end;
    for (int i = 0; i < n; i++) {
        float x = fabsf(number(model[i]) - base[i]);
        int32_t in_low = -((x >= low) & (x <= low_end)), in_high = -((x >= high) & (x <= high_end));
        magnitudes[i] = x;
        marks[i] = in_low | in_high;
        below_low += x < low;
        below_high += x < high;
    }
    Counts found = {below_low, 0, below_high, 0};
    return found;
}

/* Add what is asked for to the counts of a chunk. */
static inline void count(Counts seen, const Doubt *d, int64_t *counts) {
    if (d->asks_low) counts[0] += seen.below_low;
    if (d->asks_low && !d->opens_low) counts[1] += seen.at_low;
    if (d->asks_high) counts[2] += seen.below_high;
    if (d->asks_high && !d->opens_high) counts[3] += seen.at_high;
}

/* Append the marked keys that brackets of more than one key hold, while there is room, and count
 * those of the others. Returns how many are appended or would be. */
static inline int64_t collect(int many, const int32_t *restrict places,
                              const float *restrict magnitudes, const Doubt *d, Counts *seen,
                              uint32_t *out, int64_t room, int64_t filled) {
    int64_t before = filled;
    int apart = d->low_end < d->high || !d->asks_low || !d->asks_high;
    if (apart && d->opens_low == d->asks_low && d->opens_high == d->asks_high &&
        filled + many <= room) { /* then all that is marked is collected */
        for (int i = 0; i < many; i++) out[filled + i] = as_bits(magnitudes[places[i]]);
        return many;
    }
    for (int i = 0; i < many; i++) {
        float x = magnitudes[places[i]];
        int in_low = x >= d->low && x <= d->low_end, in_high = x >= d->high && x <= d->high_end;
        seen->at_low += in_low & (x == d->low);
        seen->at_high += in_high & (x == d->high);
        if (!((in_low & d->opens_low) | (in_high & d->opens_high))) continue;
        if (filled < room) out[filled] = as_bits(x);
        filled++;
    }
    return filled - before;
}

/* Write where the marks are; return how many. marks: all bits, or none. places: n and 16 more. */
static inline int places_of(int n, const int32_t *restrict marks, int32_t *restrict places) {
    int found = 0, i = 0;
#if defined(__AVX512F__)
    __m512i here = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; i + 16 <= n; i += 16) {
        __mmask16 set = _mm512_movepi32_mask(_mm512_loadu_si512(marks + i));
        _mm512_storeu_si512(places + found, _mm512_maskz_compress_epi32(set, here));
        found += __builtin_popcount(set);
        here = _mm512_add_epi32(here, _mm512_set1_epi32(16));
    }
#endif
    for (; i < n; i++) {
        places[found] = i;
        found -= marks[i];
    }
    return found;
}

/* --- draws ------------------------------------------------------------------------------------ */

/* Room for the draws of a block: they come in pairs. */
enum { DRAWS = BLOCK + 2 };
#define ALL 0xFFFFFFFFu

/* Return draws number `first` to first + n of the stream of a key; kernels/draws.py says which. */
static inline const uint32_t *draw(int n, uint64_t key, int64_t first, uint32_t *restrict room) {
    const uint64_t golden = 0x9E3779B97F4A7C15;
    int odd = (int)(first & 1), words = (odd + n + 1) / 2;
    uint64_t state = key + ((uint64_t)first / 2 + 1) * golden;
    for (int i = 0; i < words; i++, state += golden) {
        uint64_t word = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9;
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB;
        word ^= word >> 31;
        room[2 * i] = (uint32_t)word;
        room[2 * i + 1] = (uint32_t)(word >> 32);
    }
    return room + odd;
}

/* --- which weights stay ------------------------------------------------------------------------ */

/* Write the weights of a model that stay, and the base's for the others, whose difference is 0. */
static inline void keep_drawn(int n, const raw *restrict model, const float *restrict base,
                              const uint32_t *restrict draws, uint32_t limit,
                              float *restrict kept) {
    for (int i = 0; i < n; i++) {
        float x = number(model[i]), y = base[i];
        kept[i] = draws[i] < limit ? x : y;
    }
}

static inline void keep_run(int n, const raw *restrict model, const float *restrict base,
                            float first, float last, float *restrict kept) {
    for (int i = 0; i < n; i++) {
        float x = number(model[i]), y = base[i], magnitude = fabsf(x - y);
        kept[i] = (magnitude >= first) & (magnitude <= last) ? x : y;
    }
}

static inline int count_drawn(int n, const uint32_t *restrict draws, uint32_t limit) {
    int found = 0;
    for (int i = 0; i < n; i++) found += draws[i] < limit;
    return found;
}

/* Write what one model keeps by its draws; return how many that are. limit: ALL keeps all. */
static inline int choose_drawn(int n, const raw *model, const float *base, uint64_t key,
                               int64_t first, uint32_t limit, uint32_t *room, float *kept) {
    if (limit == ALL) {
        widen(n, model, kept);
        return n;
    }
    const uint32_t *draws = draw(n, key, first, room);
    keep_drawn(n, model, base, draws, limit, kept);
    return count_drawn(n, draws, limit);
}

/* Write what lies between both ends, and mark what is equal to one. */
static inline void keep_inside(int n, const raw *restrict model, const float *restrict base,
                               float low, float high, float *restrict kept,
                               int32_t *restrict marks) {
    for (int i = 0; i < n; i++) {
        float x = number(model[i]), y = base[i], magnitude = fabsf(x - y);
        kept[i] = (magnitude > low) & (magnitude < high) ? x : y;
        marks[i] = -((magnitude == low) | (magnitude == high));
    }
}

/* Write what one model keeps by a cut; lower its ties by those that come. */
static inline void choose_cut(int n, const raw *model, const float *base, const int64_t *cut,
                              int64_t *ties, float *kept) {
    const Bounds bounds = bounds_of(cut);
    if (!is_parted(ties)) {
        Range stays = range_of(bounds, ties);
        keep_run(n, model, base, stays.first, stays.last, kept);
        return;
    }
    int32_t marks[BLOCK], places[BLOCK + 16];
    keep_inside(n, model, base, bounds.low, bounds.high, kept, marks);
    int many = places_of(n, marks, places);
    for (int i = 0; i < many; i++) {
        float x = number(model[places[i]]);
        if (tie_stays(fabsf(x - base[places[i]]), bounds, ties)) kept[places[i]] = x;
    }
}

/* Copy how many ties count from the cuts of one unit. ties: (models, 2). */
static inline void ties_of(int64_t models, const int64_t *cuts, int64_t *ties) {
    for (int64_t t = 0; t < models; t++) {
        ties[2 * t] = cuts[4 * t + 1];
        ties[2 * t + 1] = cuts[4 * t + 3];
    }
}

/* --- sums -------------------------------------------------------------------------------------- */

/* Add weight * (kept - base); what rounding leaves over goes to `rest`. Returns bits of what even
 * that cannot hold, 0 if it holds all. */
static inline uint64_t add_weighted(int n, const float *restrict kept, const float *restrict base,
                                    double weight, double *restrict total,
                                    double *restrict rest) {
    uint64_t wrong = 0;
    for (int i = 0; i < n; i++) {
        double lost, error, again, last;
        double tau = two_sum((double)kept[i], -(double)base[i], &lost);
        total[i] = two_sum(total[i], weight * tau, &error);
        double middle = two_sum(rest[i], error, &again);
        rest[i] = two_sum(middle, weight * lost, &last);
        wrong |= double_bits(again) | double_bits(last);
    }
    return wrong & MAGNITUDE64;
}

/* Do the same, and mark the entries of which that is so. */
static inline void add_marking(int n, const float *restrict kept, const float *restrict base,
                               double weight, double *restrict total, double *restrict rest,
                               uint8_t *restrict inexact) {
    for (int i = 0; i < n; i++) {
        double lost, error, again, last;
        double tau = two_sum((double)kept[i], -(double)base[i], &lost);
        total[i] = two_sum(total[i], weight * tau, &error);
        double middle = two_sum(rest[i], error, &again);
        rest[i] = two_sum(middle, weight * lost, &last);
        inexact[i] |= (uint8_t)((again != 0.0) | (last != 0.0));
    }
}

static inline void add_kept(int n, const float *restrict kept, const float *restrict base,
                            double *restrict total) {
    for (int i = 0; i < n; i++) total[i] += (double)kept[i] - (double)base[i];
}

static inline void settle_all(int n, double *restrict total, double *restrict rest) {
    for (int i = 0; i < n; i++) {
        double left;
        total[i] = two_sum(total[i], rest[i], &left);
        rest[i] = left;
    }
}

static inline int any(int n, const uint8_t *restrict flags) {
    uint8_t found = 0;
    for (int i = 0; i < n; i++) found |= flags[i];
    return found != 0;
}

/* Add squares to the lanes: entry i to lane i % LANES, in order. n: any. */
static inline void add_squares(int n, const double *restrict total, double *restrict lanes) {
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += total[i + j] * total[i + j];
    for (int j = 0; i + j < n; j++) lanes[j] += total[i + j] * total[i + j];
}

static inline double add_lanes(double *lanes) {
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

/* --- rounding ---------------------------------------------------------------------------------- */

/* Return how many are zero, NaN, or near the ends of the range of bfloat16. */
static inline int64_t count_unusual(int n, const double *restrict merged) {
    int64_t usual = 0;
    for (int i = 0; i < n; i++) {
        double magnitude = fabs(merged[i]);
        usual += (magnitude >= 0x1p-125) & (magnitude <= 0x1p127);
    }
    return n - usual;
}

static inline void round_single(int n, const double *restrict merged, float *restrict out) {
    for (int i = 0; i < n; i++) out[i] = (float)merged[i];
}

/* Round to bfloat16, once, results that are normal numbers of it. */
static inline void round_usual(int n, const double *restrict merged, uint16_t *restrict out) {
    for (int i = 0; i < n; i++) {
        uint64_t bits = double_bits(merged[i]);
        uint64_t even = (bits >> 45) & 1;
        uint64_t rounded = (bits & 0x7FFFFFFFFFFFFFFF) + 0x0FFFFFFFFFFF + even;
        uint64_t sign = (bits >> 48) & 0x8000;
        out[i] = (uint16_t)(sign | ((rounded >> 45) - ((1023 - 127) << 7)));
    }
}

/* Round to bfloat16, once, whatever the numbers. single: room for n. */
static inline void round_any(int n, const double *restrict merged, float *restrict single,
                             uint16_t *restrict out) {
    round_single(n, merged, single);
    for (int i = 0; i < n; i++) {
        /* Only what lies halfway between two of them after one rounding goes wrong in a second. */
        uint32_t bits = as_bits(single[i]);
        double beyond = fabs(merged[i]) - fabs((double)single[i]);
        uint32_t moved = bits + (uint32_t)(beyond > 0.0) - (uint32_t)(beyond < 0.0);
        bits = (bits & 0xFFFF) == 0x8000 ? moved : bits;
        uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
        uint32_t nan = ((bits >> 16) & 0x8000) | 0x7FC0;
        out[i] = (uint16_t)((bits & MAGNITUDE) > INFINITE ? nan : rounded);
    }
}

static inline void round_out(int n, const double *merged, float *room, int64_t unusual, int narrow,
                             void *out, int64_t at) {
    if (!narrow)
        round_single(n, merged, (float *)out + at);
    else if (unusual)
        round_any(n, merged, room, (uint16_t *)out + at);
    else
        round_usual(n, merged, (uint16_t *)out + at);
}

/* Lower extent[0] to the bits of the smallest nonzero magnitude - 1, raise [1] to the largest's. */
static inline void widen_extent(int n, const raw *restrict from, uint32_t *extent) {
    const raw mask = (raw)~((raw)1 << (RAW - 1));
    raw smallest = (raw)-1, largest = 0;
    for (int i = 0; i < n; i++) {
        raw bits = from[i] & mask, before = (raw)(bits - 1);
        largest = bits > largest ? bits : largest;
        smallest = before < smallest ? before : smallest;
    }
    if (smallest < extent[0]) extent[0] = smallest;
    if (largest > extent[1]) extent[1] = largest;
}

#endif
