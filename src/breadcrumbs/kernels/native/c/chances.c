/* What stays of task vectors by the ranks of their entries, and what that comes to;
 * `Ranks.keep_by_rank` and `Elections.merge_by_rank` of kernels/protocol.py.
 *
 * The ranks of a unit are found by a radix sort of its keys, by their lower bits and then by the
 * upper ones. In bfloat16 most keys have no lower bits: these are in order already, and are ranked
 * where they are, without being moved. */
#include "terms.h"

/* Bits that one pass of a sort looks at, at most and in small units: bins are cleared and added up.
 * Units of FEW entries and fewer are sorted by insertion. Lower bits take MOST passes at most; the
 * upper ones have bins from FIRST to 1 << WIDEST, by the size of the unit. */
enum { WIDEST = 11, NARROW = 8, MANY = 256, FEW = 16, MOST = 3, FIRST = 256 };

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

static int64_t count_fine(int64_t n, const uint32_t *restrict keys, uint32_t fine) {
    int64_t found = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        const int m = (int)least(BLOCK, n - at);
        int32_t here = 0;
        for (int i = 0; i < m; i++) here += (keys[at + i] & fine) != 0;
        found += here;
    }
    return found;
}

/* Write words of a key and its position. */
static void words_of(int64_t n, const uint32_t *restrict keys, uint64_t *restrict words) {
    for (int64_t i = 0; i < n; i++) words[i] = (uint64_t)keys[i] << 32 | (uint64_t)i;
}

/* Do the same for the keys that have bits of `fine`. */
static void fine_words_of(int64_t n, const uint32_t *restrict keys, uint32_t fine,
                          uint64_t *restrict words) {
    int32_t marks[BLOCK], places[BLOCK + 16];
    for (int64_t at = 0; at < n; at += BLOCK) {
        const int m = (int)least(BLOCK, n - at);
        for (int i = 0; i < m; i++) marks[i] = -((keys[at + i] & fine) != 0);
        const int many = places_of(m, marks, places);
        for (int i = 0; i < many; i++) {
            int64_t place = at + places[i];
            *words++ = (uint64_t)keys[place] << 32 | (uint64_t)place;
        }
    }
}

/* Turn keys into their bins: 0 of a zero, from 1 by the upper bits, and `none` if there are bits of
 * `fine`. */
static void bins_of(int64_t n, uint32_t *restrict keys, uint32_t fine, int shift, uint32_t before,
                    uint32_t none) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t key = keys[i], bin = key ? (key >> shift) - before : 0;
        keys[i] = key & fine ? none : bin;
    }
}

/* Digits of words: where each begins, which bits it has and its bins. */
typedef struct {
    int shift;
    uint64_t mask;
    uint32_t *bins;
} Digit;

static void count_bins(int64_t n, const uint32_t *restrict which, uint32_t *restrict bins) {
    for (int64_t i = 0; i < n; i++) bins[which[i]]++;
}

/* Write the chance of the next rank of each bin. */
static void look_up(int64_t n, const uint32_t *restrict which, uint32_t *restrict bins,
                    const double *restrict chances, double *restrict chance) {
    for (int64_t i = 0; i < n; i++) chance[i] = chances[bins[which[i]]++];
}

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

/* Count words by the upper bits of their keys, as `bins_of` has them. */
static void count_upper(int64_t n, const uint64_t *restrict words, int shift, uint32_t before,
                        uint32_t *restrict bins) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t key = words[i] >> 32;
        bins[key ? (uint32_t)(key >> shift) - before : 0]++;
    }
}

/* Do the last pass: write at the position of each word the chance of its rank. */
static void look_up_words(int64_t n, const uint64_t *restrict words, int shift, uint32_t before,
                          uint32_t *restrict bins, const double *restrict chances,
                          double *restrict chance) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t word = words[i], key = word >> 32;
        uint32_t bin = key ? (uint32_t)(key >> shift) - before : 0;
        chance[word & UINT32_MAX] = chances[bins[bin]++];
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

/* Sort words by `left` bits from `at` on, stably; return where they are. bins: for MOST digits. */
static uint64_t *sort_words(int64_t n, uint64_t *words, uint64_t *others, uint32_t *bins, int at,
                            int left) {
    const int widest = n >= MANY ? WIDEST : NARROW;
    const int passes = (left + widest - 1) / widest;
    Digit digits[MOST];
    for (int p = 0; p < passes; p++) {
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
    for (int p = 0; p < passes; p++) {
        starts_of((int64_t)digits[p].mask + 1, digits[p].bins);
        scatter(n, words, digits[p], others);
        uint64_t *sorted = others;
        others = words;
        words = sorted;
    }
    return words;
}

/* Write the chance of each entry of a unit by its rank, from 0, by (key, position). keys are lost;
 * words, others: room for n; bins: for MOST digits; upper: bins for the upper bits, and 2 more. */
static void rank_unit(int64_t n, uint32_t *keys, uint64_t *words, uint64_t *others, uint32_t *bins,
                      uint32_t *upper, const double *chances, double *chance) {
    Bits bits = bits_of(n, keys);
    if (n <= FEW || bits.every == 0) {
        insert(n, keys, words, chances, chance);
        return;
    }
    int lowest = 0;
    while (!((bits.every >> lowest) & 1)) lowest++;
    const uint32_t room = (uint32_t)least(1 << WIDEST, n / 2 > FIRST ? n / 2 : FIRST);
    int shift = lowest;
    while ((bits.largest >> shift) - (bits.smallest >> shift) >= room) shift++;
    const uint32_t fine = (uint32_t)(((uint64_t)1 << shift) - 1);
    const uint32_t before = (bits.smallest >> shift) - 1, none = (bits.largest >> shift) - before + 1;
    memset(upper, 0, (none + 1) * sizeof *upper);
    int64_t many = shift > lowest ? count_fine(n, keys, fine) : 0;
    const int moves = many > n / 2;
    if (moves) {
        many = n;
        words_of(n, keys, words);
    } else {
        if (many) fine_words_of(n, keys, fine, words);
        bins_of(n, keys, fine, shift, before, none);
        count_bins(n, keys, upper);
    }
    count_upper(many, words, shift, before, upper);
    starts_of(none, upper);
    if (!moves) {
        upper[none] = 0; /* those get any chance, and their own below */
        look_up(n, keys, upper, chances, chance);
    }
    words = sort_words(many, words, others, bins, 32 + lowest, shift - lowest);
    look_up_words(many, words, shift, before, upper, chances, chance);
}

/* Mark what stays: a draw below floor(p * 2^32). Returns how many do. marks: all bits, or none. */
static int mark_drawn(int n, const uint32_t *restrict draws, const double *restrict chance,
                      int32_t *restrict marks, uint8_t *restrict kept) {
    int found = 0;
    for (int i = 0; i < n; i++) {
        double next = (double)(int32_t)(draws[i] ^ 0x80000000u) + 2147483649.0; /* the draw's + 1 */
        int stays = next <= chance[i] * 0x1p32;
        marks[i] = -stays;
        kept[i] = (uint8_t)stays;
        found += stays;
    }
    return found;
}

static void write_whole(int n, const raw *restrict model, const float *restrict base,
                        const int32_t *restrict marks, double *restrict taus) {
    for (int i = 0; i < n; i++) {
        double tau = (double)number(model[i]) - (double)base[i];
        taus[i] = marks[i] ? tau : 0.0;
    }
}

static void write_divided(int n, const raw *restrict model, const float *restrict base,
                          const int32_t *restrict marks, const double *restrict chance,
                          double *restrict taus) {
    for (int i = 0; i < n; i++) {
        double tau = ((double)number(model[i]) - (double)base[i]) / chance[i];
        taus[i] = marks[i] ? tau : 0.0;
    }
}

/* Write the few that stay, and zeros: no division for those that do not. */
static void write_few(int n, int64_t many, const raw *model, const float *base,
                      const int32_t *places, int divide, const double *chance, double *taus) {
    memset(taus, 0, n * sizeof *taus);
    for (int64_t i = 0; i < many; i++) {
        int32_t at = places[i];
        double tau = (double)number(model[at]) - (double)base[at];
        taus[at] = divide ? tau / chance[at] : tau;
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
    uint32_t bins[MOST << WIDEST], upper[(1 << WIDEST) + 2];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at);
        widen(m, base + at, wide);
        keys_of(m, model + at, wide, room->keys + at);
    }
    for (int64_t u = 0; u < n; u += unit)
        rank_unit(unit, room->keys + u, room->words, room->others, bins, upper,
                  chances, room->chance + u);
}

/* Write what stays of a run that is ranked, and to ``kept``, of bytes, what that is; return how many
 * that are. start: of its draws. */
static int64_t keep_by_draws(int64_t n, const raw *base, const raw *model, uint64_t key,
                             int64_t start, int divide, const double *chance, double *taus,
                             uint8_t *kept) {
    float wide[BLOCK];
    uint32_t space[DRAWS];
    int32_t marks[BLOCK], places[BLOCK + 16];
    int64_t found = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at);
        const uint32_t *draws = draw(m, key, start + at, space);
        widen(m, base + at, wide);
        int many = mark_drawn(m, draws, chance + at, marks, kept + at);
        if (many <= m / 4)
            write_few(m, places_of(m, marks, places), model + at, wide, places, divide,
                      chance + at, taus + at);
        else if (divide)
            write_divided(m, model + at, wide, marks, chance + at, taus + at);
        else
            write_whole(m, model + at, wide, marks, taus + at);
        found += many;
    }
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
            kept[t] += keep_by_draws(run, base + first, model, draws[t], start + first, divide[t],
                                     chance, taus + t * step, marks);
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
