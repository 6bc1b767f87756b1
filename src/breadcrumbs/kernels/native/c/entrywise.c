/* What methods ask that look at each entry of all models; `Entrywise` of kernels/protocol.py. */
#include "terms.h"

/* Write the base and what every model adds to it as float64. */
void KERNEL(differences)(int64_t n, int64_t models, const raw *base, const raw *rows,
                         int64_t stride, double *restrict wide, double *taus, int64_t apart) {
    for (int64_t at = 0; at < n; at += TERMS) {
        int m = (int)least(TERMS, n - at);
        for (int i = 0; i < m; i++) wide[at + i] = (double)number(base[at + i]);
        for (int64_t t = 0; t < models; t++) {
            const raw *model = rows + t * stride + at;
            double *restrict tau = taus + t * apart + at;
            for (int i = 0; i < m; i++) tau[i] = (double)number(model[i]) - wide[at + i];
        }
    }
}

#if RAW == 32

/* Write the values from low to high and where they are; return how many, and in `below` how many
 * are less. kept, places: room for n. */
int64_t KERNEL(sift)(int64_t n, const double *values, double low, double high, double *kept,
                     uint32_t *places, int64_t *below) {
    int32_t marks[BLOCK], found[BLOCK + 16];
    int64_t many = 0, less = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at), under = 0;
        const double *mine = values + at;
        for (int i = 0; i < m; i++) {
            marks[i] = -((mine[i] >= low) & (mine[i] <= high));
            under += mine[i] < low;
        }
        less += under;
        int inside = places_of(m, marks, found);
        for (int i = 0; i < inside; i++) {
            kept[many + i] = mine[found[i]];
            places[many + i] = (uint32_t)(at + found[i]);
        }
        many += inside;
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

/* Write twice the sums of the products of all pairs of magnitudes, added from the smallest up.
 * sizes: magnitudes of weights. room: for models * TERMS. */
void KERNEL(conflicts)(int64_t n, int64_t models, const double *taus, int64_t stride,
                       const double *sizes, int narrow, double *room, double *found) {
    double below[TERMS];
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

/* Mark the entries whose product may be `least` or more: not those where an upper bound of it is
 * less. The bound is 1.001 times exp(exponent) * min(balance, 1), of which exp is off by 1e-4. */
static void mark_contenders(int n, const double *restrict taus, double weight,
                            const double *restrict sums, Ends ends, double number, double bound,
                            int32_t *restrict marks) {
    const double inverse = ends.spread > 0.0 ? 1.0 / ends.spread : 0.0, whole = 0x1.8p52;
    for (int i = 0; i < n; i++) {
        double term = weight * taus[i], balance = term * sums[i];
        double share = (clamp(fabs(term), &ends) - ends.first) * inverse;
        double exponent = number * (share * share - 1.0) * 0x1.71547652b82fep+0;
        exponent = exponent < -1000.0 ? -1000.0 : exponent;
        double shifted = exponent + whole, u = (exponent - (shifted - whole)) * 0x1.62e42fefa39efp-1;
        double power = 1.0 + u * (1.0 + u * (0.5 + u * (0x1.5555555555555p-3 + u * 0x1.5555555555555p-5)));
        power = as_double(double_bits(power) + (double_bits(shifted) << 52));
        double limit = balance < 1.0 ? balance : 1.0;
        marks[i] = -!(1.001 * (power * limit) + 1e-300 < bound);
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
        if (bound > 0.0)
            mark_contenders(m, taus + at, weight, sums + at, ends, number, bound, marks);
        else
            memset(marks, 0xFF, m * sizeof *marks);
        int some = places_of(m, marks, found);
        for (int i = 0; i < some; i++) {
            int64_t place = at + found[i];
            double term = weight * taus[place], share = 0.0;
            if (ends.spread > 0.0) share = (clamp(fabs(term), &ends) - first) / ends.spread;
            places[many + i] = (uint32_t)place;
            terms[many + i] = term;
            exponents[many + i] = number * (share * share - 1.0);
            balances[many + i] = term * sums[place];
        }
        many += some;
    }
    return many;
}

/* --- sums without any rounding ------------------------------------------------------------------ */

/* Add the mantissas of all values to units by their exponents: units[place][0] their upper halves,
 * [1] their lower ones. */
void KERNEL(add_units)(int64_t n, const double *values, int64_t *units) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits = double_bits(values[i]);
        int64_t exponent = (int64_t)(bits >> 52 & 0x7FF);
        int64_t whole = (int64_t)(bits & 0xFFFFFFFFFFFFF);
        if (exponent) whole |= (int64_t)1 << 52;
        if (bits >> 63) whole = -whole;
        int64_t *unit = units + 2 * ((exponent ? exponent : 1) + 51);
        unit[0] += whole >> 26;
        unit[1] += whole & 0x3FFFFFF;
    }
}

#endif
