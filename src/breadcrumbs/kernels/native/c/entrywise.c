/* What methods ask that look at each entry of all models; `Entrywise` of kernels/protocol.py. */
#include "terms.h"

/* Write the base and what every model adds to it as float64; return whether all are finite. */
int KERNEL(differences)(int64_t n, int64_t models, const raw *base, const raw *rows,
                        int64_t stride, double *wide, double *taus, int64_t apart) {
    const raw infinite = RAW == 16 ? 0x7F80 : (raw)INFINITE, sign = (raw)~((raw)1 << (RAW - 1));
    raw largest = 0;
    for (int64_t at = 0; at < n; at += TERMS) {
        int m = (int)least(TERMS, n - at);
        double *restrict first = wide + at;
        for (int i = 0; i < m; i++) {
            raw bits = base[at + i] & sign;
            largest = bits > largest ? bits : largest;
            first[i] = (double)number(base[at + i]);
        }
        for (int64_t t = 0; t < models; t++) {
            const raw *restrict model = rows + t * stride + at;
            double *restrict tau = taus + t * apart + at;
            for (int i = 0; i < m; i++) {
                raw bits = model[i] & sign;
                largest = bits > largest ? bits : largest;
                tau[i] = (double)number(model[i]) - first[i];
            }
        }
    }
    return largest < infinite;
}

#if RAW == 32

/* Write the values from low to high and where they are; return how many, and in `below` how many
 * are less. kept, places: room for n. */
int64_t KERNEL(sift)(int64_t n, const double *values, double low, double high, double *kept,
                     uint32_t *places, int64_t *below) {
    int64_t many = 0, less = 0, i = 0;
#if defined(__AVX512F__)
    const __m512d first = _mm512_set1_pd(low), last = _mm512_set1_pd(high);
    for (; i + 8 <= n; i += 8) {
        __m512d x = _mm512_loadu_pd(values + i);
        __mmask8 under = _mm512_cmp_pd_mask(x, first, _CMP_LT_OQ);
        __mmask8 inside = _mm512_cmp_pd_mask(x, last, _CMP_LE_OQ) & (__mmask8)~under;
        less += __builtin_popcount(under);
        for (unsigned left = inside; left; left &= left - 1) {
            int64_t at = i + __builtin_ctz(left);
            kept[many] = values[at];
            places[many++] = (uint32_t)at;
        }
    }
#endif
    for (; i < n; i++) {
        kept[many] = values[i]; /* many <= i */
        places[many] = (uint32_t)i;
        less += values[i] < low;
        many += (values[i] >= low) & (values[i] <= high);
    }
    *below = less;
    return many;
}

/* --- conflict of task vectors --------------------------------------------------------------- */

static void weigh_sizes(int n, const double *restrict taus, double weight, int narrow,
                        double *restrict sizes) {
    if (narrow)
        for (int i = 0; i < n; i++) sizes[i] = weight * (double)(float)fabs(taus[i]);
    else
        for (int i = 0; i < n; i++) sizes[i] = weight * fabs(taus[i]);
}

static void order(int n, double *restrict low, double *restrict high) {
    for (int i = 0; i < n; i++) {
        double x = low[i], y = high[i];
        low[i] = x < y ? x : y;
        high[i] = x < y ? y : x;
    }
}

static void add_conflict(int n, const double *restrict size, double *restrict below,
                         double *restrict total) {
    for (int i = 0; i < n; i++) {
        total[i] += size[i] * below[i];
        below[i] += size[i];
    }
}

static inline void order_two(double *low, double *high) {
    double x = *low, y = *high;
    *low = x < y ? x : y;
    *high = x < y ? y : x;
}

/* The same for four models, or fewer and others of weight 0. */
static void conflict_of_four(int64_t n, const double *restrict a, const double *restrict b,
                             const double *restrict c, const double *restrict d,
                             const double *sizes, int narrow, double *restrict found) {
    const double p = sizes[0], q = sizes[1], r = sizes[2], s = sizes[3];
    for (int64_t i = 0; i < n; i++) {
        double x = fabs(a[i]), y = fabs(b[i]), z = fabs(c[i]), w = fabs(d[i]), total = 0.0;
        x = p * (narrow ? (double)(float)x : x);
        y = q * (narrow ? (double)(float)y : y);
        z = r * (narrow ? (double)(float)z : z);
        w = s * (narrow ? (double)(float)w : w);
        order_two(&x, &y);
        order_two(&z, &w);
        order_two(&x, &z);
        order_two(&y, &w);
        order_two(&y, &z);
        double below = 0.0 + x;
        total += y * below;
        below += y;
        total += z * below;
        below += z;
        total += w * below;
        found[i] = 2.0 * total;
    }
}

/* Write twice the sums of the products of all pairs of magnitudes, added from the smallest up.
 * sizes: magnitudes of weights. room: for models * TERMS. */
void KERNEL(conflicts)(int64_t n, int64_t models, const double *taus, int64_t stride,
                       const double *sizes, int narrow, double *room, double *found) {
    double below[TERMS];
    if (models > 1 && models <= 4) {
        const double four[4] = {sizes[0], sizes[1], models > 2 ? sizes[2] : 0.0,
                                models > 3 ? sizes[3] : 0.0};
        const double *b = taus + stride, *c = models > 2 ? b + stride : b;
        const double *d = models > 3 ? c + stride : c;
        if (narrow)
            conflict_of_four(n, taus, b, c, d, four, 1, found);
        else
            conflict_of_four(n, taus, b, c, d, four, 0, found);
        return;
    }
    for (int64_t at = 0; at < n; at += TERMS) {
        int m = (int)least(TERMS, n - at);
        double *total = found + at;
        for (int64_t t = 0; t < models; t++) {
            weigh_sizes(m, taus + t * stride + at, sizes[t], narrow, room + t * TERMS);
            for (int64_t s = t; s > 0; s--) order(m, room + (s - 1) * TERMS, room + s * TERMS);
        }
        memset(total, 0, m * sizeof *total);
        memset(below, 0, m * sizeof *below);
        for (int64_t t = 0; t < models; t++) add_conflict(m, room + t * TERMS, below, total);
        for (int i = 0; i < m; i++) total[i] = 2.0 * total[i];
    }
}

/* --- variance over models ----------------------------------------------------------------------- */

/* Add a row, less the least, and its squares. */
static void add_spread(int n, const double *restrict row, const double *restrict lowest,
                       double *restrict sums, double *restrict squares) {
    for (int i = 0; i < n; i++) {
        double x = row[i] - lowest[i];
        sums[i] += x;
        squares[i] += x * x;
    }
}

/* Write the squares of the number of models times the variances of terms, added from the smallest
 * term up. room: for models * TERMS. */
void KERNEL(variances)(int64_t n, int64_t models, const double *taus, int64_t stride,
                       const double *weights, double *room, double *found) {
    double sums[TERMS], squares[TERMS];
    for (int64_t at = 0; at < n; at += TERMS) {
        int m = (int)least(TERMS, n - at);
        for (int64_t t = 0; t < models; t++) {
            const double *tau = taus + t * stride + at;
            double *restrict row = room + t * TERMS;
            for (int i = 0; i < m; i++) row[i] = weights[t] * tau[i];
            for (int64_t s = t; s > 0; s--) order(m, room + (s - 1) * TERMS, room + s * TERMS);
        }
        memset(sums, 0, m * sizeof *sums);
        memset(squares, 0, m * sizeof *squares);
        for (int64_t t = 0; t < models; t++)
            add_spread(m, room + t * TERMS, room, sums, squares);
        for (int i = 0; i < m; i++)
            found[at + i] = (double)models * squares[i] - sums[i] * sums[i];
    }
}

/* --- claims of tasks to entries of their sum -------------------------------------------------- */

static void add_claims(int n, const double *restrict taus, double weight,
                       const double *restrict total, const double *restrict rest, double p,
                       double q, int32_t *restrict votes, int32_t *restrict moved) {
    for (int i = 0; i < n; i++) {
        double term = weight * taus[i], left;
        double others = two_sum(total[i], -term, &left);
        others += rest[i] + left;
        votes[i] += q * fabs(term) > p * fabs(others);
        moved[i] |= taus[i] != 0.0;
    }
}

/* Write how many models claim each entry; changed: at how many entries any of them is not the base,
 * and at how many of these none claims it. ps, qs: (models,) their scales, p / q. */
void KERNEL(claims)(int64_t n, int64_t models, const double *taus, int64_t stride,
                    const double *weights, const double *total, const double *rest,
                    const double *ps, const double *qs, int32_t *votes, int64_t *changed) {
    int32_t moved[TERMS];
    int64_t any = 0, none = 0;
    for (int64_t at = 0; at < n; at += TERMS) {
        int m = (int)least(TERMS, n - at);
        int32_t *mine = votes + at, some = 0, unclaimed = 0;
        memset(mine, 0, m * sizeof *mine);
        memset(moved, 0, m * sizeof *moved);
        for (int64_t t = 0; t < models; t++)
            add_claims(m, taus + t * stride + at, weights[t], total + at, rest + at, ps[t], qs[t],
                       mine, moved);
        for (int i = 0; i < m; i++) {
            some += moved[i];
            unclaimed += moved[i] & (mine[i] == 0);
        }
        any += some;
        none += unclaimed;
    }
    changed[0] = any;
    changed[1] = none;
}

/* --- competition ------------------------------------------------------------------------------ */

/* The ends of the magnitudes of one model. */
typedef struct {
    double low, high, first, spread;
} Ends;

static inline double clamp(double x, const Ends *e) {
    double y = x < e->low ? e->low : x;
    return y > e->high ? e->high : y;
}

/* Mark the entries whose product may be the bound or more: not those where an upper limit of it,
 * 1.001 times exp(exponent) * balance, is less. As multiples of the bound; of them exp is off by
 * less than 5e-4, for up to 1000 models. */
static void mark_contenders(int n, const double *restrict taus, double weight,
                            const double *restrict sums, Ends ends, float number, double bound,
                            int32_t *restrict marks) {
    const double inverse = ends.spread > 0.0 ? 1.0 / ends.spread : 0.0, rate = 1.0 / bound;
    const float whole = 0x1.8p23f;
    for (int i = 0; i < n; i++) {
        double term = weight * taus[i];
        float balance = (float)(term * sums[i] * rate);
        float share = (float)((clamp(fabs(term), &ends) - ends.first) * inverse);
        float exponent = number * (share * share - 1.0f) * 0x1.715476p+0f;
        exponent = exponent < -120.0f ? -120.0f : exponent;
        float shifted = exponent + whole, u = (exponent - (shifted - whole)) * 0x1.62e43p-1f;
        float power = 1.0f + u * (1.0f + u * (0.5f + u * (0x1.555556p-3f + u * 0x1.555556p-5f)));
        power = as_float(as_bits(power) + (as_bits(shifted) << 23));
        marks[i] = -!(1.001f * power * balance < 1.0f);
    }
}

/* Make terms of task vectors, balances of sums, and exponents. */
static void balance(int n, double weight, Ends ends, double number, double *restrict terms,
                    double *restrict exponents, double *restrict balances) {
    const int apart = ends.spread > 0.0;
    const double spread = apart ? ends.spread : 1.0;
    for (int i = 0; i < n; i++) {
        double term = weight * terms[i];
        double share = apart ? (clamp(fabs(term), &ends) - ends.first) / spread : 0.0;
        terms[i] = term;
        exponents[i] = number * (share * share - 1.0);
        balances[i] = term * balances[i];
    }
}

/* Write of one model where its product of balances may be `bound` or more, and there its term, the
 * exponent of its first factor, and what the second is the hyperbolic tangent of; return how many.
 * number: of models. All but taus, sums: room for n. */
int64_t KERNEL(contend)(int64_t n, const double *taus, double weight, const double *sums,
                        double low, double high, double number, double bound, uint32_t *places,
                        double *terms, double *exponents, double *balances) {
    int32_t marks[TERMS], found[TERMS + 16];
    double first = low < high ? low : high;
    Ends ends = {low, high, first, high - first};
    int64_t many = 0;
    for (int64_t at = 0; at < n; at += TERMS) {
        int m = (int)least(TERMS, n - at);
        if (bound > 0.0 && number <= 1000.0)
            mark_contenders(m, taus + at, weight, sums + at, ends, (float)number, bound, marks);
        else
            memset(marks, 0xFF, m * sizeof *marks);
        int some = places_of(m, marks, found);
        for (int i = 0; i < some; i++) {
            int64_t place = at + found[i];
            places[many + i] = (uint32_t)place;
            terms[many + i] = taus[place];
            balances[many + i] = sums[place];
        }
        balance(some, weight, ends, number, terms + many, exponents + many, balances + many);
        many += some;
    }
    return many;
}

/* --- sums without any rounding ------------------------------------------------------------------ */

static void add_one(double x, int64_t *units) {
    uint64_t bits = double_bits(x);
    int64_t exponent = (int64_t)(bits >> 52 & 0x7FF);
    int64_t whole = (int64_t)(bits & 0xFFFFFFFFFFFFF);
    if (exponent) whole |= (int64_t)1 << 52;
    if (bits >> 63) whole = -whole;
    int64_t *unit = units + 2 * ((exponent ? exponent : 1) + 51);
    unit[0] += whole >> 26;
    unit[1] += whole & 0x3FFFFFF;
}

/* Add some values as whole numbers of one unit; return whether they are that. */
static int add_alike(int n, const double *restrict values, int64_t *units) {
    const double whole = 0x1.8p52;
    uint64_t largest = 0, wrong = 0;
    int64_t sum = 0;
    for (int i = 0; i < n; i++) {
        uint64_t bits = double_bits(values[i]) & MAGNITUDE64;
        largest = bits > largest ? bits : largest;
    }
    int64_t exponent = (int64_t)(largest >> 52);
    if (exponent < 64 || exponent > 1073) return 0; /* then nothing is lost by scaling */
    const double scale = as_double((uint64_t)(2096 - exponent) << 52); /* to less than 2**51 */
    for (int i = 0; i < n; i++) {
        double x = values[i] * scale, shifted = x + whole;
        wrong |= double_bits(shifted - whole - x);
        sum += (int64_t)(double_bits(shifted) - double_bits(whole));
    }
    if (wrong & MAGNITUDE64) return 0;
    int64_t *unit = units + 2 * (exponent + 53);
    unit[0] += sum >> 26;
    unit[1] += sum & 0x3FFFFFF;
    return 1;
}

/* Add values to units: those of a row are worth 2**(row - 1126), in column 0 2**26 times that. */
void KERNEL(add_units)(int64_t n, const double *values, int64_t *units) {
    for (int64_t at = 0; at < n; at += TERMS) {
        int m = (int)least(TERMS, n - at);
        if (add_alike(m, values + at, units)) continue;
        for (int i = 0; i < m; i++) add_one(values[at + i], units);
    }
}

/* Add values to the pairs of numbers at their places, of which none comes twice; return whether
 * some pair does not hold its sum, which is marked. */
int KERNEL(add_at)(int64_t many, const uint32_t *places, const double *values, double *total,
                   double *rest, uint8_t *inexact) {
    int found = 0;
    for (int64_t i = 0; i < many; i++) {
        double error, again;
        uint32_t p = places[i];
        total[p] = two_sum(total[p], values[i], &error);
        rest[p] = two_sum(rest[p], error, &again);
        if (again != 0.0) inexact[p] = 1, found = 1;
    }
    return found;
}

/* --- one vector for all --------------------------------------------------------------------- */

static void take_elected(int n, const double *restrict total, const double *restrict highest,
                         const double *restrict lowest, double *restrict found) {
    for (int i = 0; i < n; i++) found[i] = (total[i] > 0.0 ? highest[i] : lowest[i]) + 0.0;
}

static void take_agreed(int n, const double *restrict taus, double weight,
                        double *restrict found) {
    for (int i = 0; i < n; i++) {
        double term = weight * taus[i], x = found[i];
        int agrees = ((term > 0.0) & (x > 0.0)) | ((term < 0.0) & (x < 0.0));
        found[i] = agrees ? x : 0.0;
    }
}

/* Write the extreme terms of the signs of the sums, negative where these are 0, and 0 where that of
 * model `row` has another sign, if row is not negative. Mark which sums no pair holds; return
 * whether any is. */
int KERNEL(unify)(int64_t n, int64_t models, const double *taus, int64_t stride,
                  const double *weights, int64_t row, double *found, uint8_t *inexact) {
    double total[TERMS], rest[TERMS], highest[TERMS], lowest[TERMS];
    uint64_t wrong[TERMS];
    int any = 0;
    for (int64_t at = 0; at < n; at += TERMS) {
        int m = (int)least(TERMS, n - at);
        const size_t bytes = m * sizeof(double);
        uint64_t lost = 0;
        memset(total, 0, bytes);
        memset(highest, 0, bytes);
        memset(lowest, 0, bytes);
        memset(inexact + at, 0, m);
        for (int64_t t = 0; t < models; t++) {
            lost |= add_quickly(m, taus + t * stride + at, weights[t], total);
            stretch(m, taus + t * stride + at, weights[t], highest, lowest);
        }
        if (lost) {
            memset(total, 0, bytes);
            memset(rest, 0, bytes);
            memset(wrong, 0, bytes);
            for (int64_t t = 0; t < models; t++)
                add_term(m, taus + t * stride + at, weights[t], total, rest, wrong);
            settle_all(m, total, rest);
            for (int i = 0; i < m; i++) {
                inexact[at + i] = wrong[i] != 0;
                any |= wrong[i] != 0;
            }
        }
        take_elected(m, total, highest, lowest, found + at);
        if (row >= 0) take_agreed(m, taus + row * stride + at, weights[row], found + at);
    }
    return any;
}

#endif
