/* Elections of signs; `Elections` of kernels/protocol.py says what each kernel does. */
#include "fused.h"

/* --- what undecided entries would be with the other majority ---------------------------------- */

/* What is told about undecided entries, and the room for that. */
typedef struct {
    int64_t room, votes, undecided;
    double more;
} Poll;

/* Note the signs and the places of the undecided ones of n entries from `at` on. Totals are not yet
 * steps. */
static void ask_rest(int64_t kind, int at, int n, const Votes *v, Asked *asked) {
    int32_t marks[SIZE], *places = asked->places + asked->undecided;
    asked->votes += sum_signs(n, v->step + at);
    if (kind == LARGEST)
        mark_range(n, v->step + at, v->wide + at, v->highest + at, marks);
    else
        mark_opposite(n, v->step + at, v->size + at, marks);
    int many = places_of(n, marks, places);
    for (int i = 0; i < many; i++) places[i] += at;
    asked->undecided += many;
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
    elect(kind, -majority, 0, n, &o);
    merge_step(n, o.wide, o.step, alpha, o.merged, o.kept, narrow, turned, 0);
    poll->more += sum_squares(n, o.step) - taken;
    int64_t left = poll->room - poll->undecided, fits = left < 0 ? 0 : least(n, left);
    int64_t bytes = narrow ? 2 : 4;
    if (fits) memcpy((char *)other + poll->undecided * bytes, turned, (size_t)(fits * bytes));
    for (int64_t i = 0; i < fits; i++) where[poll->undecided + i] = (uint32_t)(at + places[i]);
    poll->undecided += n;
}

/* --- kernels ------------------------------------------------------------------------------------ */

/* Elect and merge the last entries of a block, from `from` on, whose votes are known. */
static void do_rest(int64_t kind, int64_t majority, int from, int n, const Merging *m, int64_t at,
                    Votes *v, Asked *asked) {
    if (m->asks) ask_rest(kind, from, n, v, asked);
    elect(kind, majority, from, n, v);
    merge_step(n, v->wide + from, v->step + from, m->alpha, v->merged, v->kept, m->narrow, m->out,
               at + from);
    add_squares(n, v->step + from, m->lanes);
}

/* Returns the squares of the steps. ties: room for 2 * models. found, where, other: or null. */
double KERNEL(elect_band)(int64_t n, int64_t models, const raw *base, const raw *rows,
                          int64_t stride, int64_t unit, int64_t units, const int64_t *cuts,
                          int64_t *ties, int64_t kind, int64_t majority, double alpha,
                          uint32_t *extent, int narrow, void *out, double *found, uint32_t *where,
                          void *other, Poll *poll) {
    Votes v;
    Asked asked;
    double lanes[LANES] = {0};
    uint32_t block[2];
    Merging m = {models, stride, base, rows, majority, alpha, lanes, narrow, where != 0,
                 found != 0, out};
    for (int64_t u = 0; u < units; u++, cuts += 4 * models) {
        int64_t stop = least(n, (u + 1) * unit);
        ties_of(models, cuts, ties);
        for (int64_t at = u * unit; at < stop; at += SIZE) {
            const int size = (int)least(SIZE, stop - at);
            m.base = base + at, m.rows = rows + at;
            asked.votes = asked.undecided = 0;
            note_extent(size, &m, block, extent);
            const int done = do_cuts_at_once(kind, size, &m, cuts, ties, block, at, &v, &asked);
            const int left = size - done;
            if (left) {
                widen(left, m.base + done, v.wide + done);
                begin(kind, done, left, &v);
                for (int64_t t = 0; t < models; t++) {
                    choose_cut(left, m.rows + t * stride + done, v.wide + done, cuts + 4 * t,
                               ties + 2 * t, v.kept + done);
                    add_votes(kind, done, left, &v);
                }
                do_rest(kind, majority, done, left, &m, at, &v, &asked);
            }
            if (where) poll->votes += asked.votes;
            if (asked.undecided)
                elect_otherwise(kind, majority, asked.undecided, &v, asked.places, alpha, narrow,
                                at, where, other, poll);
            if (found) memcpy(found + at, v.step, size * sizeof *found);
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
    Asked asked = {0, 0, {0}}; /* nothing */
    uint32_t draws[DRAWS], block[2];
    double lanes[LANES] = {0};
    Merging m = {models, stride, base, rows, majority, alpha, lanes, narrow, 0, found != 0,
                 out};
    for (int64_t at = 0; at < n; at += SIZE) {
        const int size = (int)least(SIZE, n - at);
        m.base = base + at, m.rows = rows + at;
        note_extent(size, &m, block, extent);
        const int done = do_draws_at_once(kind, size, &m, keys, start + at, limits, block, kept,
                                          at, &v, &asked);
        const int left = size - done;
        if (left) {
            widen(left, m.base + done, v.wide + done);
            begin(kind, done, left, &v);
            for (int64_t t = 0; t < models; t++) {
                const raw *model = m.rows + t * stride + done;
                if (limits)
                    kept[t] += choose_drawn(left, model, v.wide + done, keys[t],
                                            start + at + done, limits[t], draws, v.kept + done);
                else
                    widen(left, model, v.kept + done);
                add_votes(kind, done, left, &v);
            }
            do_rest(kind, majority, done, left, &m, at, &v, &asked);
        }
        if (found) memcpy(found + at, v.step, size * sizeof *found);
    }
    return add_lanes(lanes);
}
