/* What stays of task vectors by the ranks of their entries, and what that comes to;
 * `Ranks.keep_by_rank` and `Elections.merge_by_rank` of kernels/protocol.py.
 *
 * The ranks of a unit are found by a radix sort of codes: its keys less the smallest that is not 0,
 * without the trailing zeros that all have, which in bfloat16 are many. */
#include "terms.h"

/* Bits that one pass of a sort looks at, at most and in small units: bins are cleared and added up.
 * Units of FEW entries and fewer are sorted by insertion. A sort takes MOST passes at most. */
enum { WIDEST = 11, NARROW = 8, MANY = 256, FEW = 16, MOST = 4 };

/* --- steps: each one loop ------------------------------------------------------------------- */

/* All bits that are set, and the smallest key that is not 0 and the largest. */
typedef struct {
    uint32_t every, smallest, largest;
} Bits;

static Bits bits_of(int64_t n, const uint32_t *restrict keys) {
    uint32_t every = 0, before = UINT32_MAX, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t key = keys[i], one = key - 1;
        every |= key;
        before = one < before ? one : before;
        largest = key > largest ? key : largest;
    }
    Bits found = {every, before + 1, largest};
    return found;
}

static void keys_of(int n, const raw *restrict model, const float *restrict base,
                    uint32_t *restrict keys) {
    for (int i = 0; i < n; i++) keys[i] = as_bits(fabsf(number(model[i]) - base[i]));
}

/* Write words of a code, which orders as the key, and the position. */
static void words_of(int64_t n, const uint32_t *restrict keys, uint32_t smallest, int shift,
                     uint64_t *restrict words) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t key = keys[i], code = ((key - smallest) >> shift) + 1;
        words[i] = (uint64_t)(key ? code : 0) << 32 | (uint64_t)i;
    }
}

/* Digits of words: where each begins, which bits it has and its bins. */
typedef struct {
    int shift;
    uint64_t mask;
    uint32_t *bins;
} Digit;

static void count_one(int64_t n, const uint64_t *restrict words, Digit d) {
    for (int64_t i = 0; i < n; i++) d.bins[(words[i] >> d.shift) & d.mask]++;
}

/* Count two digits at once: where many are alike, each waits for the one before. */
static void count_two(int64_t n, const uint64_t *restrict words, Digit d, Digit e) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t word = words[i];
        d.bins[(word >> d.shift) & d.mask]++;
        e.bins[(word >> e.shift) & e.mask]++;
    }
}

/* Turn counts into how many entries come before each bin. */
static void starts_of(int64_t n, uint32_t *bins) {
    uint32_t before = 0;
    for (int64_t b = 0; b < n; b++) {
        uint32_t more = bins[b];
        bins[b] = before;
        before += more;
    }
}

static void scatter(int64_t n, const uint64_t *restrict words, Digit d, uint64_t *restrict out) {
    uint32_t *restrict bins = d.bins;
    for (int64_t i = 0; i < n; i++) {
        uint64_t word = words[i];
        out[bins[(word >> d.shift) & d.mask]++] = word;
    }
}

/* Do the last pass: write at the position of each word the chance of its rank. */
static void look_up(int64_t n, const uint64_t *restrict words, Digit d,
                    const double *restrict chances, double *restrict chance) {
    uint32_t *restrict bins = d.bins;
    for (int64_t i = 0; i < n; i++) {
        uint64_t word = words[i];
        chance[word & UINT32_MAX] = chances[bins[(word >> d.shift) & d.mask]++];
    }
}

/* Do all of it for a few keys, or for those that are all the same. */
static void insert(int64_t n, const uint32_t *keys, uint64_t *words, const double *chances,
                   double *chance) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t word = (uint64_t)keys[i] << 32 | (uint64_t)i;
        int64_t j = i;
        for (; j > 0 && words[j - 1] > word; j--) words[j] = words[j - 1];
        words[j] = word;
    }
    for (int64_t i = 0; i < n; i++) chance[words[i] & UINT32_MAX] = chances[i];
}

/* Write the chance of each entry of a unit by its rank, from 0, by (key, position). words, others:
 * room for n; bins: for MOST digits. */
static void rank_unit(int64_t n, const uint32_t *keys, uint64_t *words, uint64_t *others,
                      uint32_t *bins, const double *chances, double *chance) {
    Bits bits = bits_of(n, keys);
    if (n <= FEW || bits.every == 0) {
        insert(n, keys, words, chances, chance);
        return;
    }
    int shift = 0, left = 0;
    while (!((bits.every >> shift) & 1)) shift++;
    words_of(n, keys, bits.smallest, shift, words);
    for (uint64_t code = ((bits.largest - bits.smallest) >> shift) + (uint64_t)1; code >> left;)
        left++;
    const int widest = n >= MANY ? WIDEST : NARROW;
    const int passes = (left + widest - 1) / widest;
    Digit digits[MOST];
    for (int p = 0, at = 32; p < passes; p++) {
        int width = (left + passes - p - 1) / (passes - p);
        Digit d = {at, ((uint64_t)1 << width) - 1, bins + ((int64_t)p << WIDEST)};
        memset(d.bins, 0, sizeof *bins << width);
        digits[p] = d;
        at += width;
        left -= width;
    }
    for (int p = 0; p < passes; p += 2) {
        if (p + 1 < passes)
            count_two(n, words, digits[p], digits[p + 1]);
        else
            count_one(n, words, digits[p]);
    }
    for (int p = 0; p < passes; p++) starts_of((int64_t)digits[p].mask + 1, digits[p].bins);
    for (int p = 0; p + 1 < passes; p++) {
        scatter(n, words, digits[p], others);
        uint64_t *sorted = others;
        others = words;
        words = sorted;
    }
    look_up(n, words, digits[passes - 1], chances, chance);
}

/* Write what stays, divided by its chance or not. A draw stays if it is below floor(p * 2^32). */
static void keep_divided(int n, const raw *restrict model, const float *restrict base,
                         const uint32_t *restrict draws, const double *restrict chance,
                         double *restrict taus) {
    for (int i = 0; i < n; i++) {
        double p = chance[i], tau = ((double)number(model[i]) - (double)base[i]) / p;
        double next = (double)(int32_t)(draws[i] ^ 0x80000000u) + 2147483649.0; /* the draw's + 1 */
        taus[i] = next <= p * 0x1p32 ? tau : 0.0;
    }
}

static void keep_whole(int n, const raw *restrict model, const float *restrict base,
                       const uint32_t *restrict draws, const double *restrict chance,
                       double *restrict taus) {
    for (int i = 0; i < n; i++) {
        double p = chance[i], tau = (double)number(model[i]) - (double)base[i];
        double next = (double)(int32_t)(draws[i] ^ 0x80000000u) + 2147483649.0;
        taus[i] = next <= p * 0x1p32 ? tau : 0.0;
    }
}

static void mark_kept(int n, const uint32_t *restrict draws, const double *restrict chance,
                      uint8_t *restrict kept) {
    for (int i = 0; i < n; i++) {
        double next = (double)(int32_t)(draws[i] ^ 0x80000000u) + 2147483649.0;
        kept[i] = next <= chance[i] * 0x1p32;
    }
}

/* --- a run of whole units ---------------------------------------------------------------------- */

/* Room for the keys and chances of a run, and to sort a unit. */
typedef struct {
    uint32_t *keys;
    double *chance;
    uint64_t *words, *others;
} Room;

/* Rank the entries of a run; write their chances to the room. */
static void rank_run(int64_t n, const raw *base, const raw *model, int64_t unit,
                     const double *chances, const Room *room) {
    float wide[BLOCK];
    uint32_t bins[MOST << WIDEST];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at);
        widen(m, base + at, wide);
        keys_of(m, model + at, wide, room->keys + at);
    }
    for (int64_t u = 0; u < n; u += unit)
        rank_unit(unit, room->keys + u, room->words, room->others, bins, chances,
                  room->chance + u);
}

/* Write what stays of a run that is ranked, and to ``kept``, of bytes, what that is. start: of its
 * draws. */
static void keep_by_draws(int64_t n, const raw *base, const raw *model, uint64_t key, int64_t start,
                     int divide, const double *chance, double *taus, uint8_t *kept) {
    float wide[BLOCK];
    uint32_t space[DRAWS];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at);
        const uint32_t *draws = draw(m, key, start + at, space);
        widen(m, base + at, wide);
        if (divide)
            keep_divided(m, model + at, wide, draws, chance + at, taus + at);
        else
            keep_whole(m, model + at, wide, draws, chance + at, taus + at);
        mark_kept(m, draws, chance + at, kept + at);
    }
}

static int64_t count_marks(int64_t n, const uint8_t *marks) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) found += marks[i];
    return found;
}

/* --- kernels ------------------------------------------------------------------------------------ */

/* step: how many entries are ranked at once, whole units. keys, chance: room for these; words,
 * others: for a unit. */
void KERNEL(keep_by_rank)(int64_t n, const raw *base, const raw *model, int64_t unit, int64_t step,
                          uint64_t key, int64_t start, const double *chances, int divide,
                          double *taus, uint8_t *kept, uint32_t *keys, double *chance,
                          uint64_t *words, uint64_t *others) {
    Room room = {keys, chance, words, others};
    for (int64_t first = 0; first < n; first += step) {
        int64_t m = least(n - first, step);
        rank_run(m, base + first, model + first, unit, chances, &room);
        keep_by_draws(m, base + first, model + first, key, start + first, divide, chance, taus + first,
                 kept + first);
    }
}

/* Write the totals or elected steps of a block of terms; return bits of what no pair holds. */
static uint64_t decide(int64_t kind, int64_t majority, int n, int64_t models, const double *taus,
                       int64_t stride, const double *weights, const double *shares, Terms *b,
                       double *total) {
    uint64_t wrong = 0;
    begin_terms(kind, n, b);
    for (int64_t t = 0; t < models; t++) {
        const double *mine = taus + t * stride;
        if (kind == TOTAL)
            add_term(n, mine, weights[t], b->up, b->up_rest, b->wrong);
        else
            add_terms(kind, n, mine, weights[t], t, b);
    }
    if (kind == TOTAL) {
        settle_all(n, b->up, b->up_rest);
        memcpy(total, b->up, n * sizeof *total);
    } else {
        elect_terms(kind, majority, n, shares, b, total);
    }
    for (int i = 0; i < n; i++) wrong |= b->wrong[i];
    return wrong;
}

/* Returns the squares of what is added; odd: whether there is a sum that no pair holds. taus:
 * (models, step) room, marks: for step; the others as above. found: or null. */
double KERNEL(merge_by_rank)(int64_t n, int64_t models, const raw *base, const raw *rows,
                             int64_t stride, int64_t unit, int64_t step, const uint64_t *draws,
                             int64_t start, const double *chances, const uint8_t *divide,
                             const double *weights, int64_t kind, int64_t majority,
                             const double *shares, double factor, uint32_t *extent, int narrow,
                             void *out, double *found, int64_t *kept, double *taus, uint8_t *marks,
                             uint32_t *keys, double *chance, uint64_t *words, uint64_t *others,
                             int32_t *odd) {
    Room room = {keys, chance, words, others};
    Terms b;
    float wide[TERMS], narrowed[TERMS];
    double total[TERMS], added[TERMS], merged[TERMS], lanes[LANES] = {0};
    uint64_t wrong = 0;
    for (int64_t first = 0; first < n; first += step) {
        int64_t run = least(n - first, step);
        for (int64_t t = 0; t < models; t++) {
            const raw *model = rows + t * stride + first;
            rank_run(run, base + first, model, unit, chances + t * unit, &room);
            keep_by_draws(run, base + first, model, draws[t], start + first, divide[t], chance,
                     taus + t * step, marks);
            kept[t] += count_marks(run, marks);
        }
        for (int64_t at = first; at < first + run; at += TERMS) {
            int m = (int)least(TERMS, first + run - at);
            wrong |= decide(kind, majority, m, models, taus + (at - first), step, weights, shares,
                            &b, total);
            if (found) memcpy(found + at, total, m * sizeof *found);
            widen(m, base + at, wide);
            add_step(m, wide, total, factor, added, merged);
            round_out(m, merged, narrowed, count_unusual(m, merged), narrow, out, at);
            widen_extents(m, base + at, models, rows + at, stride, extent);
            add_squares(m, added, lanes);
        }
    }
    *odd = wrong != 0;
    return add_lanes(lanes);
}
