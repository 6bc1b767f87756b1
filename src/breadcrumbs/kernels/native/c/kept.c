/* Entries that a task file keeps; `Kept` of kernels/protocol.py says what each kernel does. */
#include "blocks.h"

#if RAW == 32
/* places: of each byte the places of its ones (256, 8), which are ones[byte]. Bits beyond n, and
 * more ones than `room`, give -1. */
int64_t KERNEL(from_bitmap)(int64_t bytes, const uint8_t *bitmap, const uint32_t *restrict places,
                            const uint8_t *ones, int64_t n, int64_t room, uint32_t *restrict out) {
    int64_t found = 0;
    for (int64_t i = 0; i < bytes; i++) {
        const uint8_t byte = bitmap[i];
        const uint32_t *mine = places + 8 * (int64_t)byte, first = (uint32_t)(8 * i);
        if (found + 8 <= room) { /* what is written beyond its ones is written again */
            for (int j = 0; j < 8; j++) out[found + j] = first + mine[j];
        } else {
            if (found + ones[byte] > room) return -1;
            for (int j = 0; j < ones[byte]; j++) out[found + j] = first + mine[j];
        }
        found += ones[byte];
    }
    return found && out[found - 1] >= n ? -1 : found;
}

static int64_t gap_at(const void *gaps, int64_t i, int size) {
    uint16_t wide;
    if (size == 1) return ((const uint8_t *)gaps)[i];
    memcpy(&wide, (const uint8_t *)gaps + 2 * i, sizeof wide);
    return wide;
}

/* Write the positions of whole runs of 16 short gaps, as far as there are such; return how many.
 * at: the position before, raised. */
static inline int64_t short_gaps(int64_t number, const uint8_t *gaps, int64_t *at, uint32_t *out) {
    int64_t i = 0;
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
    const __m512i none = _mm512_setzero_si512(), one = _mm512_set1_epi32(1);
    __m512i before = _mm512_set1_epi32((int32_t)*at);
    for (; i + 16 <= number; i += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(gaps + i));
        if (_mm_cmpeq_epi8_mask(bytes, _mm_set1_epi8(-1))) break;
        __m512i sum = _mm512_add_epi32(_mm512_cvtepu8_epi32(bytes), one);
        sum = _mm512_add_epi32(sum, _mm512_alignr_epi32(sum, none, 15));
        sum = _mm512_add_epi32(sum, _mm512_alignr_epi32(sum, none, 14));
        sum = _mm512_add_epi32(sum, _mm512_alignr_epi32(sum, none, 12));
        sum = _mm512_add_epi32(sum, _mm512_alignr_epi32(sum, none, 8));
        sum = _mm512_add_epi32(sum, before);
        _mm512_storeu_si512(out + i, sum);
        before = _mm512_permutexvar_epi32(_mm512_set1_epi32(15), sum);
    }
    *at = (int32_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(before));
#else
    (void)number, (void)gaps, (void)at, (void)out;
#endif
    return i;
}

static inline int64_t from_gaps(int64_t number, const void *gaps, int size, int64_t n,
                                int64_t room, uint32_t *out) {
    const int64_t longest = size == 1 ? 0xFF : 0xFFFF;
    const int quick = size == 1 && n < 1 << 30 && room < 1 << 22; /* no position passes 2^31 */
    int64_t found = 0, at = -1;
    for (int64_t i = 0; i < number;) {
        if (quick) {
            int64_t many = short_gaps(least(number - i, room - found), (const uint8_t *)gaps + i,
                                      &at, out + found);
            i += many, found += many;
            if (at >= n) return -1;
        }
        for (int64_t stop = least(number, i + 16); i < stop; i++) {
            int64_t gap = gap_at(gaps, i, size);
            if (gap == longest) {
                at += gap;
                if (at >= n || i == number - 1) return -1;
                continue;
            }
            at += gap + 1;
            if (at >= n || found == room) return -1;
            out[found++] = (uint32_t)at;
        }
    }
    return found;
}

/* size: bytes of a gap, 1 or 2. */
int64_t KERNEL(from_gaps)(int64_t number, const void *gaps, int64_t size, int64_t n, int64_t room,
                          uint32_t *out) {
    return size == 1 ? from_gaps(number, gaps, 1, n, room, out)
                     : from_gaps(number, gaps, 2, n, room, out);
}

int64_t KERNEL(places)(int64_t n, const uint8_t *restrict keep, int64_t room,
                       uint32_t *restrict out) {
    int64_t found = 0, i = 0;
#if defined(__AVX512F__) && defined(__AVX512BW__)
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; i + 64 <= n && found + 64 <= room; i += 64) {
        uint64_t set = _mm512_test_epi8_mask(_mm512_loadu_si512(keep + i),
                                             _mm512_set1_epi8(-1));
        for (int j = 0; j < 64; j += 16) {
            __mmask16 mine = (__mmask16)(set >> j);
            __m512i here = _mm512_add_epi32(first, _mm512_set1_epi32((int32_t)(i + j)));
            _mm512_storeu_si512(out + found, _mm512_maskz_compress_epi32(mine, here));
            found += __builtin_popcount(mine);
        }
    }
#endif
    for (; i < n; i++) {
        if (!keep[i]) continue;
        if (found == room) return -1;
        out[found++] = (uint32_t)i;
    }
    return found;
}

enum { WIDTH = 1024 };

/* Add rank rows of `right`, each times a number of `left`, to out, in order. */
static void add_rows(int n, int64_t rank, const float *restrict left, const float *restrict right,
                     int64_t apart, double *restrict out) {
    int64_t k = 0;
    for (; k + 4 <= rank; k += 4) {
        const float *restrict r = right + k * apart;
        const double a = left[k], b = left[k + 1], c = left[k + 2], d = left[k + 3];
        for (int i = 0; i < n; i++) {
            double sum = out[i] + a * (double)r[i];
            sum += b * (double)r[apart + i];
            sum += c * (double)r[2 * apart + i];
            out[i] = sum + d * (double)r[3 * apart + i];
        }
    }
    for (; k < rank; k++) {
        const double factor = left[k];
        for (int i = 0; i < n; i++) out[i] += factor * (double)right[k * apart + i];
    }
}

/* left: (rows, rank). right: (rank, n). */
void KERNEL(product)(int64_t size, int64_t rank, int64_t n, const float *left, const float *right,
                     int64_t start, double *out) {
    for (int64_t at = 0; at < size;) {
        int64_t row = (start + at) / n, column = (start + at) % n;
        int m = (int)least(WIDTH, least(n - column, size - at));
        memset(out + at, 0, m * sizeof *out);
        add_rows(m, rank, left + row * rank, right + column, n, out + at);
        at += m;
    }
}
#endif

/* planes: where the bytes of all values lie, plane by plane from the lowest on. */
void KERNEL(from_planes)(int64_t n, const uint8_t *const *planes, raw *restrict out) {
#if RAW == 16
    const uint8_t *restrict a = planes[0], *restrict b = planes[1];
    for (int64_t i = 0; i < n; i++) out[i] = (raw)(a[i] | b[i] << 8);
#else
    const uint8_t *restrict a = planes[0], *restrict b = planes[1];
    const uint8_t *restrict c = planes[2], *restrict d = planes[3];
    for (int64_t i = 0; i < n; i++)
        out[i] = a[i] | (raw)b[i] << 8 | (raw)c[i] << 16 | (raw)d[i] << 24;
#endif
}

/* Return the first of ascending positions that is not below `start`. */
static int64_t first_from(int64_t n, const uint32_t *positions, int64_t start) {
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (positions[middle] < start)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void KERNEL(take)(int64_t n, const raw *restrict values, const uint32_t *restrict positions,
                  raw *restrict out) {
    for (int64_t i = 0; i < n; i++) out[i] = values[positions[i]];
}

void KERNEL(fill)(int64_t n, raw *out, int64_t start, int64_t number, const uint32_t *positions,
                  const raw *values) {
    for (int64_t i = first_from(number, positions, start); i < number; i++) {
        int64_t at = positions[i] - start;
        if (at < 0 || at >= n) break;
        out[at] = values[i];
    }
}

void KERNEL(changed)(int64_t n, const raw *restrict base, const raw *restrict model,
                     uint8_t *restrict keep) {
    for (int64_t i = 0; i < n; i++) keep[i] = base[i] != model[i];
}

/* Of those kept already; and zeros of another sign. */
void KERNEL(changed_cut)(int64_t n, const raw *restrict base, const raw *restrict model,
                         uint8_t *restrict keep) {
    const raw mask = (raw)~((raw)1 << (RAW - 1));
    for (int64_t i = 0; i < n; i++) {
        uint8_t differs = model[i] != base[i], zeros = ((model[i] | base[i]) & mask) == 0;
        keep[i] = differs & (zeros | (keep[i] != 0));
    }
}

int64_t KERNEL(zeros)(int64_t n, const raw *values) {
    const raw mask = (raw)~((raw)1 << (RAW - 1));
    int64_t found = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at);
        int32_t here = 0;
        for (int i = 0; i < m; i++) here += (values[at + i] & mask) == 0;
        found += here;
    }
    return found;
}

/* Mark what a cut keeps of the magnitudes of a block; lower its ties by those that come. */
static void mark_cut(int n, const float *restrict magnitudes, Bounds bounds, int64_t *ties,
                     uint8_t *restrict keep) {
    if (is_parted(ties)) {
        for (int i = 0; i < n; i++) keep[i] = (uint8_t)tie_stays(magnitudes[i], bounds, ties);
        return;
    }
    const Range stays = range_of(bounds, ties);
    for (int i = 0; i < n; i++)
        keep[i] = (uint8_t)((magnitudes[i] >= stays.first) & (magnitudes[i] <= stays.last));
}

/* cuts: (units, 4). */
void KERNEL(keep_band)(int64_t n, const raw *base, const raw *model, int64_t unit, int64_t units,
                       const int64_t *cuts, uint8_t *keep) {
    float wide[BLOCK], room[BLOCK];
    for (int64_t u = 0; u < units; u++, cuts += 4) {
        int64_t stop = least(n, (u + 1) * unit), ties[2];
        const Bounds bounds = bounds_of(cuts);
        ties_of(1, cuts, ties);
        for (int64_t at = u * unit; at < stop; at += BLOCK) {
            int m = (int)least(BLOCK, stop - at);
            widen(m, base + at, wide);
            magnitudes_of(m, model + at, wide, room);
            mark_cut(m, room, bounds, ties, keep + at);
        }
    }
}

/* --- merging --------------------------------------------------------------------------------- */

/* Add the kept entries of one model in a block, from number i on; return where the next begin. */
static int64_t add_places(int64_t i, int64_t end, const uint32_t *positions, const raw *values,
                          uint32_t first, int n, const float *wide, double *total) {
    for (; i < end; i++) {
        uint32_t at = positions[i] - first;
        if (at >= (uint32_t)n) break;
        total[at] += (double)number(values[i]) - (double)wide[at];
    }
    return i;
}

/* Do the same with a weight, as add_weighted has it. */
static int64_t add_places_pair(int64_t i, int64_t end, const uint32_t *positions,
                               const raw *values, uint32_t first, int n, const float *wide,
                               double weight, double *total, double *rest, uint64_t *wrong) {
    uint64_t lost_bits = 0;
    for (; i < end; i++) {
        uint32_t at = positions[i] - first;
        if (at >= (uint32_t)n) break;
        double lost, error, again, last;
        double tau = two_sum((double)number(values[i]), -(double)wide[at], &lost);
        total[at] = two_sum(total[at], weight * tau, &error);
        double middle = two_sum(rest[at], error, &again);
        rest[at] = two_sum(middle, weight * lost, &last);
        lost_bits |= double_bits(again) | double_bits(last);
    }
    *wrong |= lost_bits & MAGNITUDE64;
    return i;
}

/* next: (models,) where each begins, raised. ends: where they end. weights: null where all are 1.
 * carried: (2, n), or null. Returns the squares of the sums, if these are the last models. */
double KERNEL(merge_kept)(int64_t n, int64_t models, const raw *base, int64_t *next,
                          const int64_t *ends, const uint32_t *positions, const raw *values,
                          const double *weights, double alpha, uint32_t *extent, int narrow,
                          void *out, double *carried, int last, int32_t *found) {
    Block b;
    const int pair = weights != 0;
    uint64_t wrong = 0;
    memset(b.lanes, 0, sizeof b.lanes);
    for (int64_t t = 0; t < models; t++)
        for (int64_t i = next[t]; i < ends[t]; i += BLOCK)
            widen_extent((int)least(BLOCK, ends[t] - i), values + i, extent);
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at);
        const size_t bytes = m * sizeof(double);
        widen(m, base + at, b.wide);
        if (carried) {
            memcpy(b.total, carried + at, bytes);
            if (pair) memcpy(b.rest, carried + n + at, bytes);
        } else {
            memset(b.total, 0, bytes);
            if (pair) memset(b.rest, 0, bytes);
        }
        for (int64_t t = 0; t < models; t++)
            next[t] = pair ? add_places_pair(next[t], ends[t], positions, values, (uint32_t)at, m,
                                             b.wide, weights[t], b.total, b.rest, &wrong)
                           : add_places(next[t], ends[t], positions, values, (uint32_t)at, m,
                                        b.wide, b.total);
        if (last) {
            finish(&b, m, base + at, 0, 0, pair, alpha, narrow, out, at);
            widen_extent(m, base + at, extent);
        }
        if (carried) {
            memcpy(carried + at, b.total, bytes);
            if (pair) memcpy(carried + n + at, b.rest, bytes);
        }
    }
    *found = wrong != 0;
    return add_lanes(b.lanes);
}
