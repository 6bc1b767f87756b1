/* Keys and their ranks; `Ranks` of kernels/protocol.py says what each kernel does. */
#include "sixteen.h"

#if defined(__AVX512F__)
/* Count the keys of the first n entries of a block, a multiple of 16, and collect those that brackets
 * of more than one key hold; return how many, for which there is room and for 16 more. */
static int look_at_once(int n, const raw *model, const float *base, const Doubt *d,
                        uint32_t *out, Counts *seen) {
    const __m512 low = _mm512_set1_ps(d->low), low_end = _mm512_set1_ps(d->low_end);
    const __m512 high = _mm512_set1_ps(d->high), high_end = _mm512_set1_ps(d->high_end);
    const __mmask16 opens_low = (__mmask16)-d->opens_low, opens_high = (__mmask16)-d->opens_high;
    int filled = 0;
    for (int i = 0; i < n; i += 16) {
        const __m512 x = _mm512_abs_ps(
            _mm512_sub_ps(numbers(model + i), _mm512_loadu_ps(base + i)));
        const __mmask16 under = _mm512_cmp_ps_mask(x, low, _CMP_LT_OQ);
        __mmask16 inside = _mm512_mask_cmp_ps_mask((__mmask16)~under, x, low_end, _CMP_LE_OQ);
        seen->below_low += __builtin_popcount(under);
        seen->at_low += __builtin_popcount(inside);
        inside &= opens_low;
        if (d->asks_high) {
            const __mmask16 before = _mm512_cmp_ps_mask(x, high, _CMP_LT_OQ);
            __mmask16 mine = _mm512_mask_cmp_ps_mask((__mmask16)~before, x, high_end, _CMP_LE_OQ);
            seen->below_high += __builtin_popcount(before);
            seen->at_high += __builtin_popcount(mine);
            inside |= mine & opens_high;
        }
        _mm512_storeu_ps(out + filled, _mm512_maskz_compress_ps(inside, x));
        filled += __builtin_popcount(inside);
    }
    return filled;
}
#endif

/* brackets: (models, 4) keys. counts: (chunks, models, 4). sizes: (chunks, models). kept: rows of
 * `room` keys, `apart` from one another; filled: (models,) zeros. runs: how many entries each chunk
 * has, or null, and then `chunk`. */
void KERNEL(tally)(int64_t chunks, int64_t n, int64_t models, const raw *base, const raw *rows,
                   int64_t stride, int64_t chunk, const int64_t *runs, const uint32_t *brackets,
                   int64_t *counts, int64_t *sizes, uint32_t *kept, int64_t room, int64_t apart,
                   int64_t *filled) {
    float wide[BLOCK], keys[BLOCK];
    int32_t marks[BLOCK], places[BLOCK + 16];
    int64_t at = 0;
    for (int64_t i = 0; i < chunks; i++, counts += 4 * models, sizes += models) {
        int64_t stop = runs ? at + runs[i] : least(n, at + chunk);
        for (int64_t t = 0; t < models; t++) sizes[t] = -filled[t];
        for (; at < stop; at += BLOCK) {
            int m = (int)least(BLOCK, stop - at);
            widen(m, base + at, wide);
            for (int64_t t = 0; t < models; t++) {
                const raw *model = rows + t * stride + at;
                uint32_t *mine = kept + t * apart;
                Doubt d = doubt_of(brackets + 4 * t);
                int done = 0;
#if defined(__AVX512F__)
                if (filled[t] + BLOCK + 16 <= room) {
                    Counts first = {0, 0, 0, 0};
                    done = m / 16 * 16;
                    filled[t] += look_at_once(done, model, wide, &d, mine + filled[t], &first);
                    count(first, &d, counts + 4 * t);
                    if (done == m) continue;
                }
#endif
                Counts seen = look(m - done, model + done, wide + done, &d, keys, marks);
                filled[t] += collect(places_of(m - done, marks, places), places, keys, &d, &seen,
                                     mine, room, filled[t]);
                count(seen, &d, counts + 4 * t);
            }
        }
        at = stop;
        for (int64_t t = 0; t < models; t++) sizes[t] += filled[t];
    }
}

/* What lies on both sides of a key: how many are below it, the largest of these, the least other. */
typedef struct {
    int64_t below;
    int32_t before, after;
} Sides;

static Sides sides_of(int64_t n, const int32_t *restrict keys, int32_t key) {
    Sides found = {0, 0, INT32_MAX};
    for (int64_t first = 0; first < n; first += BLOCK) {
        int m = (int)least(BLOCK, n - first);
        const int32_t *restrict part = keys + first;
        int32_t below = 0, before = found.before, after = found.after;
        for (int i = 0; i < m; i++) {
            int32_t one = part[i], less = -(one < key); /* all bits, or none */
            int32_t low = one & less, high = one | (less & INT32_MAX);
            below -= less;
            before = low > before ? low : before;
            after = high < after ? high : after;
        }
        found.below += below;
        found.before = before;
        found.after = after;
    }
    return found;
}

/* Return the key of that rank, from 1, among n >= rank keys, and its place among its equals.
 *
 * Every look at the keys parts them at one; the first at the `hint`, then further and further from
 * it until the key lies between two, then where it should lie if they were spread evenly, or in the
 * middle. Bounds are keys that are there, so equal ones end it soon. */
static int32_t find(int64_t n, const int32_t *keys, int64_t rank, int32_t hint, int64_t *ordinal) {
    int32_t low = 0, high = INT32_MAX;
    int64_t before = 0, upto = n, step = 1 << 17;
    int bounded = 0;
    int32_t key = hint < INT32_MAX ? hint + 1 : hint;
    for (int tries = 1; low < high; tries++) {
        Sides sides = sides_of(n, keys, key);
        if (rank <= sides.below) {
            high = sides.before;
            upto = sides.below;
            bounded |= 2;
        } else {
            low = sides.after;
            before = sides.below;
            bounded |= 1;
        }
        int64_t gap = (int64_t)high - low, next;
        if (bounded == 2) /* is it the largest of them? then far below */
            next = tries == 1 ? high : (int64_t)high - (step *= 4);
        else if (bounded == 1)
            next = (int64_t)low + (step *= 4);
        else if (tries % 3 == 0)
            next = low + gap / 2 + 1;
        else
            next = low + 1 + (int64_t)((double)gap * ((double)(rank - before) - 0.5) /
                                       (double)(upto - before));
        key = (int32_t)(next <= low ? (int64_t)low + 1 : next > high ? high : next);
    }
    *ordinal = rank - before;
    return low;
}

/* cuts: (n / unit, models, 4). keys: room for `unit`. first < last. */
void KERNEL(cut_units)(int64_t n, int64_t models, const raw *base, const raw *rows, int64_t stride,
                       int64_t unit, int64_t first, int64_t last, int32_t *keys, int64_t *cuts) {
    for (int64_t t = 0; t < models; t++) {
        int32_t low = 0, high = 0;
        int64_t *cut = cuts + 4 * t;
        for (int64_t at = 0; at < n; at += unit, cut += 4 * models) {
            float wide[BLOCK];
            for (int64_t i = 0; i < unit; i += BLOCK) {
                int m = (int)least(BLOCK, unit - i);
                widen(m, base + at + i, wide);
                magnitudes_of(m, rows + t * stride + at + i, wide, (float *)keys + i);
            }
            cut[0] = cut[1] = 0;
            cut[2] = INT32_MAX;
            cut[3] = -1;
            if (first > 0) cut[0] = low = find(unit, keys, first, low, &cut[1]);
            if (last < unit) cut[2] = high = find(unit, keys, last, high, &cut[3]);
        }
    }
}

/* Return the key of that rank, from 1, of n >= rank keys. hint: where it may be. */
int64_t KERNEL(key_of_rank)(int64_t n, const int32_t *keys, int64_t rank, int64_t hint) {
    int64_t ordinal;
    return find(n, keys, rank, (int32_t)hint, &ordinal);
}

void KERNEL(magnitudes)(int64_t n, int64_t models, const raw *base, const raw *rows,
                        int64_t stride, float *out) {
    float wide[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at);
        widen(m, base + at, wide);
        for (int64_t t = 0; t < models; t++)
            magnitudes_of(m, rows + t * stride + at, wide, out + t * n + at);
    }
}

/* Write the key that is number `place` of those from low to end, and its place among its equals, to
 * found, unless there are fewer. */
void KERNEL(select)(int64_t n, const int32_t *keys, int64_t low, int64_t end, int64_t place,
                    int64_t *found) {
    int64_t rank = sides_of(n, keys, (int32_t)low).below + place;
    if (rank > n) return;
    int32_t key = find(n, keys, rank, (int32_t)(low + (end - low) / 2), &found[1]);
    if (key <= end)
        found[0] = key;
    else
        found[1] = 0;
}

/* Of runs of keys count those equal to one, and those from low on that are below it. */
void KERNEL(count_runs)(int64_t runs, const int32_t *keys, const int64_t *starts,
                        const int64_t *sizes, int64_t low, int64_t key, int64_t *equal,
                        int64_t *below) {
    for (int64_t r = 0; r < runs; r++) {
        const int32_t *restrict mine = keys + starts[r];
        const int32_t one = (int32_t)key, from = (int32_t)low;
        int64_t same = 0, less = 0;
        for (int64_t i = 0; i < sizes[r]; i++) {
            same += mine[i] == one;
            less += (mine[i] >= from) & (mine[i] < one);
        }
        equal[r] = same;
        below[r] = less;
    }
}
