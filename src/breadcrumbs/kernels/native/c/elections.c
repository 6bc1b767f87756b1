/* Elections of signs; `Elections` of kernels/protocol.py says what each kernel does.
 *
 * In place of the terms of all models, which would fill the cache, a block keeps their sum and that
 * of their magnitudes: the terms of one sign are half of the two's sum or difference. Of the largest
 * term it keeps the weight. */
#include "votes.h"

/* Entries of a block: its arrays and the models just fill the first-level cache. */
enum { SIZE = 1024 };
/* What a term below the base adds to the counts of an entry; one above it adds 1. */
enum { BELOW = 1 << 16 };

/* A block: its totals, which become steps, and what the kind of the election asks for. */
typedef struct {
    float wide[SIZE], kept[SIZE], highest[SIZE], lowest[SIZE];
    double step[SIZE], size[SIZE], merged[SIZE];
    int32_t counts[SIZE];
} Votes;

/* --- steps: each one loop over one block ------------------------------------------------------ */

static void add_sizes(int n, const float *restrict kept, const float *restrict base,
                      double *restrict total, double *restrict size) {
    for (int i = 0; i < n; i++) {
        double tau = (double)kept[i] - (double)base[i];
        total[i] += tau;
        size[i] += fabs(tau);
    }
}

static void add_counts(int n, const float *restrict kept, const float *restrict base,
                       int32_t *restrict counts) {
    for (int i = 0; i < n; i++)
        counts[i] += (kept[i] > base[i]) + BELOW * (kept[i] < base[i]);
}

static void add_range(int n, const float *restrict kept, const float *restrict base,
                      double *restrict total, float *restrict highest, float *restrict lowest) {
    for (int i = 0; i < n; i++) {
        float x = kept[i], high = highest[i], low = lowest[i];
        total[i] += (double)x - (double)base[i];
        highest[i] = x > high ? x : high;
        lowest[i] = x < low ? x : low;
    }
}

/* Turn totals into the sums of the terms that are positive, where they are over `least`. */
static void take_sum(int n, const double *restrict size, double least, double *restrict step) {
    for (int i = 0; i < n; i++) {
        double total = step[i], both = size[i];
        step[i] = 0.5 * (total + (total > least ? both : -both));
    }
}

static void take_mean(int n, const double *restrict size, const int32_t *restrict counts,
                      double least, double *restrict step) {
    for (int i = 0; i < n; i++) {
        double total = step[i], both = size[i];
        double above = (double)(counts[i] & (BELOW - 1)), below = (double)(counts[i] >> 16);
        double number = total > least ? above : below;
        double sum = 0.5 * (total + (total > least ? both : -both));
        step[i] = sum / (number > 1.0 ? number : 1.0);
    }
}

static void take_largest(int n, const float *restrict base, const float *restrict highest,
                         const float *restrict lowest, double least, double *restrict step) {
    for (int i = 0; i < n; i++) {
        double high = (double)highest[i], low = (double)lowest[i];
        step[i] = (step[i] > least ? high : low) - (double)base[i];
    }
}

/* Mark the sums of 0 of terms that are not. */
static void mark_opposite(int n, const double *restrict total, const double *restrict size,
                          int32_t *restrict marks) {
    for (int i = 0; i < n; i++) marks[i] = -((total[i] == 0.0) & (size[i] > 0.0));
}

static void mark_range(int n, const double *restrict total, const float *restrict base,
                       const float *restrict highest, int32_t *restrict marks) {
    for (int i = 0; i < n; i++)
        marks[i] = -((total[i] == 0.0) & ((double)highest[i] > (double)base[i]));
}

static double sum_squares(int n, const double *step) {
    double sum = 0.0;
    for (int i = 0; i < n; i++) sum += step[i] * step[i];
    return sum;
}

/* --- a block ------------------------------------------------------------------------------------ */

static void begin(int64_t kind, int n, const raw *base, Votes *v) {
    widen(n, base, v->wide);
    memset(v->step, 0, n * sizeof *v->step);
    if (kind == LARGEST) {
        memcpy(v->highest, v->wide, n * sizeof *v->wide);
        memcpy(v->lowest, v->wide, n * sizeof *v->wide);
        return;
    }
    memset(v->size, 0, n * sizeof *v->size);
    if (kind == MEAN) memset(v->counts, 0, n * sizeof *v->counts);
}

/* Add what one model keeps, which is in v->kept. */
static void add_votes(int64_t kind, int n, Votes *v) {
    if (kind == LARGEST) {
        add_range(n, v->kept, v->wide, v->step, v->highest, v->lowest);
        return;
    }
    add_sizes(n, v->kept, v->wide, v->step, v->size);
    if (kind == MEAN) add_counts(n, v->kept, v->wide, v->counts);
}

/* Turn the total of every entry into its step. */
static void elect(int64_t kind, int64_t majority, int n, Votes *v) {
    double least = over(majority);
    if (kind == LARGEST)
        take_largest(n, v->wide, v->highest, v->lowest, least, v->step);
    else if (kind == MEAN)
        take_mean(n, v->size, v->counts, least, v->step);
    else
        take_sum(n, v->size, least, v->step);
}

/* --- what undecided entries would be with the other majority ---------------------------------- */

/* What is told about undecided entries, and the room for that. */
typedef struct {
    int64_t room, votes, undecided;
    double more;
} Poll;

/* Write the places of a block's undecided entries; return how many. Totals are not yet steps. */
static int find_undecided(int64_t kind, int n, const Votes *v, int32_t *places) {
    int32_t marks[SIZE];
    if (kind == LARGEST)
        mark_range(n, v->step, v->wide, v->highest, marks);
    else
        mark_opposite(n, v->step, v->size, marks);
    return places_of(n, marks, places);
}

/* Write where they are and what they would be. Totals are steps now. at: of the block. */
static void elect_otherwise(int64_t kind, int64_t majority, int n, const Votes *v,
                            const int32_t *places, double alpha, int narrow, int64_t at,
                            uint32_t *where, void *other, Poll *poll) {
    Votes o;
    uint32_t turned[SIZE];
    double taken = 0.0;
    for (int i = 0; i < n; i++) {
        int p = places[i];
        o.wide[i] = v->wide[p];
        o.step[i] = 0.0;
        if (kind == LARGEST) {
            o.highest[i] = v->highest[p];
            o.lowest[i] = v->lowest[p];
        } else {
            o.size[i] = v->size[p];
            if (kind == MEAN) o.counts[i] = v->counts[p];
        }
        taken += v->step[p] * v->step[p];
    }
    elect(kind, -majority, n, &o);
    merge_step(n, o.wide, o.step, alpha, o.merged, o.kept, narrow, turned, 0);
    poll->more += sum_squares(n, o.step) - taken;
    int64_t left = poll->room - poll->undecided, fits = left < 0 ? 0 : least(n, left);
    int64_t bytes = narrow ? 2 : 4;
    if (fits) memcpy((char *)other + poll->undecided * bytes, turned, (size_t)(fits * bytes));
    for (int64_t i = 0; i < fits; i++) where[poll->undecided + i] = (uint32_t)(at + places[i]);
    poll->undecided += n;
}

/* --- kernels ------------------------------------------------------------------------------------ */

/* Returns the squares of the steps. ties: room for 2 * models. found, where, other: or null. */
double KERNEL(elect_band)(int64_t n, int64_t models, const raw *base, const raw *rows,
                          int64_t stride, int64_t unit, int64_t units, const int64_t *cuts,
                          int64_t *ties, int64_t kind, int64_t majority, double alpha,
                          uint32_t *extent, int narrow, void *out, double *found, uint32_t *where,
                          void *other, Poll *poll) {
    Votes v;
    int32_t places[SIZE + 16];
    double lanes[LANES] = {0};
    for (int64_t u = 0; u < units; u++, cuts += 4 * models) {
        int64_t stop = least(n, (u + 1) * unit);
        ties_of(models, cuts, ties);
        for (int64_t at = u * unit; at < stop; at += SIZE) {
            int m = (int)least(SIZE, stop - at), undecided = 0;
            begin(kind, m, base + at, &v);
            for (int64_t t = 0; t < models; t++) {
                const raw *model = rows + t * stride + at;
                choose_cut(m, model, v.wide, cuts + 4 * t, ties + 2 * t, v.kept);
                add_votes(kind, m, &v);
            }
            if (where) {
                poll->votes += sum_signs(m, v.step);
                undecided = find_undecided(kind, m, &v, places);
            }
            elect(kind, majority, m, &v);
            if (undecided)
                elect_otherwise(kind, majority, undecided, &v, places, alpha, narrow, at, where,
                                other, poll);
            if (found) memcpy(found + at, v.step, m * sizeof *found);
            merge_step(m, v.wide, v.step, alpha, v.merged, v.kept, narrow, out, at);
            widen_extents(m, base + at, models, rows + at, stride, extent);
            add_squares(m, v.step, lanes);
        }
    }
    return add_lanes(lanes);
}

/* Returns the squares of the steps. limits, found: or null. */
double KERNEL(elect_drawn)(int64_t n, int64_t models, const raw *base, const raw *rows,
                           int64_t stride, const uint64_t *keys, int64_t start,
                           const uint32_t *limits, int64_t kind, int64_t majority, double alpha,
                           uint32_t *extent, int narrow, void *out, double *found, int64_t *kept) {
    Votes v;
    uint32_t draws[DRAWS];
    double lanes[LANES] = {0};
    for (int64_t at = 0; at < n; at += SIZE) {
        int m = (int)least(SIZE, n - at);
        begin(kind, m, base + at, &v);
        for (int64_t t = 0; t < models; t++) {
            const raw *model = rows + t * stride + at;
            if (limits)
                kept[t] += choose_drawn(m, model, v.wide, keys[t], start + at, limits[t], draws,
                                        v.kept);
            else
                widen(m, model, v.kept);
            add_votes(kind, m, &v);
        }
        elect(kind, majority, m, &v);
        if (found) memcpy(found + at, v.step, m * sizeof *found);
        merge_step(m, v.wide, v.step, alpha, v.merged, v.kept, narrow, out, at);
        widen_extents(m, base + at, models, rows + at, stride, extent);
        add_squares(m, v.step, lanes);
    }
    return add_lanes(lanes);
}
