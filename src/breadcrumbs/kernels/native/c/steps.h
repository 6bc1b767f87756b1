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

#define JOIN_(name, raw, level) breadcrumbs_##name##_##raw##_##level
#define JOIN(name, raw, level) JOIN_(name, raw, level)
#if defined(_WIN32)
#define KERNEL(name) __declspec(dllexport) JOIN(name, RAW, LEVEL)
#else
#define KERNEL(name) __attribute__((visibility("default"))) JOIN(name, RAW, LEVEL)
#endif

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

static inline int count_equal(int n, const float *restrict magnitudes, float key) {
    int found = 0;
    for (int i = 0; i < n; i++) found += magnitudes[i] == key;
    return found;
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

/* A run of entries that keeps magnitudes from first to last; it ends before `end`. */
typedef struct {
    int end;
    float first, last;
} Run;

/* Return up to where the ties of a key count as first; lower `ordinal` by those that come. */
static inline int split(int n, const raw *model, const float *base, float *room, float key,
                        int64_t *ordinal) {
    if (*ordinal <= 0) return *ordinal == 0 ? 0 : n;
    magnitudes_of(n, model, base, room);
    int ties = count_equal(n, room, key);
    if (ties <= *ordinal) {
        *ordinal -= ties;
        return n;
    }
    int64_t left = *ordinal;
    *ordinal = 0;
    for (int i = 0; i < n; i++)
        if (room[i] == key && --left == 0) return i + 1;
    return n;
}

/* Split a block where ties begin or end to count; return how many runs it has, three at most. ties:
 * how many of low are still to be cut, and of high to be kept; they are lowered. */
static inline int runs_of(int n, const raw *model, const float *base, float *room, Bounds bounds,
                          int64_t *ties, Run *runs) {
    int low = split(n, model, base, room, bounds.low, &ties[0]);
    int high = split(n, model, base, room, bounds.high, &ties[1]);
    int found = 0;
    for (int i = 0; i < n;) {
        int end = n;
        if (i < low && low < end) end = low;
        if (i < high && high < end) end = high;
        runs[found].end = end;
        runs[found].first = i < low ? bounds.after_low : bounds.low;
        runs[found].last = i < high ? bounds.high : bounds.before_high;
        found++;
        i = end;
    }
    return found;
}

/* --- brackets of keys ----------------------------------------------------------------------- */

/* What two brackets of keys say: magnitudes above `above` and below `under` stay, those from low to
 * low_end and from high to high_end may. open: whether keys are collected of a bracket. */
typedef struct {
    float low, low_end, above, under, high, high_end;
    int asks_low, asks_high, opens_low, opens_high;
} Doubt;

static inline Doubt doubt_of(const uint32_t *b) {
    const float none = as_float(INFINITE + 1);
    Doubt d = {none, none, -1.0f, as_float(INFINITE), none, none,
               b[0] <= b[1], b[2] <= b[3], b[0] < b[1], b[2] < b[3]};
    if (d.asks_low) d.low = as_float(b[0]), d.low_end = d.above = as_float(b[1]);
    if (d.asks_high) d.high = d.under = as_float(b[2]), d.high_end = as_float(b[3]);
    return d;
}

/* How many magnitudes are below the beginnings of both brackets, or equal to them. */
typedef struct {
    int32_t below_low, at_low, below_high, at_high;
} Counts;

/* Write the magnitudes of a model, and count them. */
static inline Counts look(int n, const raw *restrict model, const float *restrict base, const Doubt *d,
                   float *restrict magnitudes) {
    int32_t below_low = 0, at_low = 0, below_high = 0, at_high = 0;
    const float low = d->low, high = d->high;
    for (int i = 0; i < n; i++) {
        float magnitude = fabsf(number(model[i]) - base[i]);
        magnitudes[i] = magnitude;
        below_low += magnitude < low;
        at_low += magnitude <= low;
        below_high += magnitude < high;
        at_high += magnitude <= high;
    }
    Counts found = {below_low, at_low - below_low, below_high, at_high - below_high};
    return found;
}

/* Add what is asked for to the counts of a chunk. */
static inline void count(Counts seen, const Doubt *d, int64_t *counts) {
    if (d->asks_low) counts[0] += seen.below_low;
    if (d->asks_low && !d->opens_low) counts[1] += seen.at_low;
    if (d->asks_high) counts[2] += seen.below_high;
    if (d->asks_high && !d->opens_high) counts[3] += seen.at_high;
}

/* Mark what lies in the brackets of more than one key, and add all that lies in any to `every`. */
static inline void mark(int n, const float *restrict x, const Doubt *d, uint8_t *restrict marks,
                        uint8_t *restrict every) {
    const float low = d->low, low_end = d->low_end, high = d->high, high_end = d->high_end;
    const uint8_t opens_low = (uint8_t)d->opens_low, opens_high = (uint8_t)d->opens_high;
    for (int i = 0; i < n; i++) {
        uint8_t in_low = (x[i] >= low) & (x[i] <= low_end);
        uint8_t in_high = (x[i] >= high) & (x[i] <= high_end);
        marks[i] = (in_low & opens_low) | (in_high & opens_high);
        every[i] |= in_low | in_high;
    }
}

/* Write where the marks are, eight at a time; return how many. marks: n and up to 7 more. */
static inline int places_of(int n, uint8_t *marks, uint16_t *places) {
    int found = 0;
    memset(marks + n, 0, 8);
    for (int i = 0; i < n; i += 8) {
        uint64_t word;
        memcpy(&word, marks + i, 8);
        if (!word) continue;
        for (int j = 0; j < 8; j++) {
            places[found] = (uint16_t)(i + j);
            found += marks[i + j];
        }
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

/* Write what one model keeps by a cut. ties: as runs_of has them. */
static inline void choose_cut(int n, const raw *model, const float *base, const int64_t *cut,
                              int64_t *ties, float *kept) {
    Run runs[3];
    int many = runs_of(n, model, base, kept, bounds_of(cut), ties, runs);
    for (int i = 0, r = 0; r < many; i = runs[r++].end)
        keep_run(runs[r].end - i, model + i, base + i, runs[r].first, runs[r].last, kept + i);
}

/* Copy how many ties count from the cuts of one unit. ties: (models, 2). */
static inline void ties_of(int64_t models, const int64_t *cuts, int64_t *ties) {
    for (int64_t t = 0; t < models; t++) {
        ties[2 * t] = cuts[4 * t + 1];
        ties[2 * t + 1] = cuts[4 * t + 3];
    }
}

/* --- sums -------------------------------------------------------------------------------------- */

/* Add weight * (model - base) where `keep` says so; what rounding leaves over goes to `rest`. */
static inline void add_pair(int n, const raw *restrict model, const float *restrict base,
                            const uint8_t *restrict keep, double weight, double *restrict total,
                            double *restrict rest, uint8_t *restrict inexact) {
    for (int i = 0; i < n; i++) {
        double lost, error, again, last;
        double tau = two_sum((double)number(model[i]), -(double)base[i], &lost);
        double term = keep[i] ? weight * tau : 0.0;
        lost = keep[i] ? weight * lost : 0.0;
        total[i] = two_sum(total[i], term, &error);
        double middle = two_sum(rest[i], error, &again);
        rest[i] = two_sum(middle, lost, &last);
        inexact[i] |= (uint8_t)((again != 0.0) | (last != 0.0));
    }
}

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
