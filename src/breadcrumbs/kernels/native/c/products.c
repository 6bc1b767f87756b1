/* Inner products of weights; `Products` of kernels/protocol.py says in which order they are added. */
#include "steps.h"

/* Entries whose products are added one after the other, and numbers that are added at once: PART and
 * LANES of kernels/constants.py. Entries of a block, and lanes of it that all pairs of rows are done
 * for, so that these stay in the fastest cache. */
enum { PART = 1 << 14, WIDTH = 256, TURNS = 8, SIZE = TURNS * WIDTH, SLICE = 64 };
/* Room for a slice of one row of a block; rows begin at other places of the cache. */
enum { ROOM = TURNS * SLICE + 8 };

/* --- steps: each one loop over one block ------------------------------------------------------ */

static void to_double(int n, const raw *restrict from, double *restrict out) {
    for (int i = 0; i < n; i++) out[i] = (double)number(from[i]);
}

static void to_task_vector(int n, const raw *restrict from, const double *restrict base,
                           double *restrict out) {
    for (int i = 0; i < n; i++) out[i] = (double)number(from[i]) - base[i];
}

/* Add the products of n entries, up to WIDTH. */
static void add_few(int n, const double *restrict x, const double *restrict y,
                    double *restrict lanes) {
    for (int j = 0; j < n; j++) lanes[j] += x[j] * y[j];
}

/* Add those of a slice of a block, whose turns are so far apart; each lane is read and written once
 * for all of it. */
static inline void add_one(int64_t apart, const double *restrict x, const double *restrict y,
                           double *restrict lanes) {
    for (int j = 0; j < SLICE; j++) {
        double sum = lanes[j];
        for (int k = 0; k < TURNS; k++) sum += x[k * apart + j] * y[k * apart + j];
        lanes[j] = sum;
    }
}

/* Do the same for one row with two others. */
static inline void add_two(int64_t apart, const double *restrict x, const double *restrict y,
                           const double *restrict z, double *restrict first,
                           double *restrict second) {
    for (int j = 0; j < SLICE; j++) {
        double a = first[j], b = second[j];
        for (int k = 0; k < TURNS; k++) {
            double one = x[k * apart + j];
            a += one * y[k * apart + j];
            b += one * z[k * apart + j];
        }
        first[j] = a;
        second[j] = b;
    }
}

/* --- all rows ----------------------------------------------------------------------------------- */

/* Add the products of all pairs of rows in a slice. lanes: (rows, rows, WIDTH), of which SLICE. */
static inline void add_slice(int64_t apart, int64_t rows, const double *from, int64_t stride,
                             double *lanes) {
    for (int64_t s = 0; s < rows; s++) {
        const double *x = from + s * stride;
        double *mine = lanes + s * rows * WIDTH;
        int64_t t = 0;
        for (; t < s; t += 2)
            add_two(apart, x, from + t * stride, from + (t + 1) * stride, mine + t * WIDTH,
                    mine + (t + 1) * WIDTH);
        if (t == s) add_one(apart, x, x, mine + t * WIDTH);
    }
}

/* Add those of n entries, up to WIDTH. */
static void add_rest(int n, int64_t rows, const double *from, int64_t stride, double *lanes) {
    for (int64_t s = 0; s < rows; s++)
        for (int64_t t = 0; t <= s; t++)
            add_few(n, from + s * stride, from + t * stride, lanes + (s * rows + t) * WIDTH);
}

static double fold(double *lanes) {
    for (int half = WIDTH / 2; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

static void fold_all(int64_t rows, double *lanes, double *out) {
    for (int64_t s = 0; s < rows; s++)
        for (int64_t t = 0; t <= s; t++)
            out[s * rows + t] = out[t * rows + s] = fold(lanes + (s * rows + t) * WIDTH);
}

/* --- kernels ------------------------------------------------------------------------------------ */

/* Write n entries of the base and the task vectors to rows of the room, from `to` on. */
static void spread(int n, int64_t models, const raw *base, const raw *rows, int64_t stride,
                   double *to) {
    to_double(n, base, to);
    for (int64_t t = 0; t < models; t++)
        to_task_vector(n, rows + t * stride, to, to + (t + 1) * ROOM);
}

/* room: (1 + models, ROOM). lanes: (1 + models, 1 + models, WIDTH). */
void KERNEL(products)(int64_t n, int64_t models, const raw *base, const raw *rows, int64_t stride,
                      double *room, double *lanes, double *out) {
    const int64_t number = 1 + models;
    for (int64_t first = 0; first < n; first += PART, out += number * number) {
        int64_t stop = least(n, first + PART), at = first;
        memset(lanes, 0, (size_t)(number * number * WIDTH) * sizeof *lanes);
        for (; at + SIZE <= stop; at += SIZE)
            for (int j = 0; j < WIDTH; j += SLICE) {
                for (int k = 0; k < TURNS; k++) {
                    int64_t i = at + k * WIDTH + j;
                    spread(SLICE, models, base + i, rows + i, stride, room + k * SLICE);
                }
                add_slice(SLICE, number, room, ROOM, lanes + j);
            }
        for (; at < stop; at += WIDTH) {
            int m = (int)least(WIDTH, stop - at);
            spread(m, models, base + at, rows + at, stride, room);
            add_rest(m, number, room, ROOM, lanes);
        }
        fold_all(number, lanes, out);
    }
}

#if RAW == 32
/* stride: how far apart the rows begin. lanes: (number, number, WIDTH). */
void KERNEL(row_products)(int64_t n, int64_t number, const double *rows, int64_t stride,
                          double *lanes, double *out) {
    for (int64_t first = 0; first < n; first += PART, out += number * number) {
        int64_t stop = least(n, first + PART), at = first;
        memset(lanes, 0, (size_t)(number * number * WIDTH) * sizeof *lanes);
        for (; at + SIZE <= stop; at += SIZE)
            for (int j = 0; j < WIDTH; j += SLICE)
                add_slice(WIDTH, number, rows + at + j, stride, lanes + j);
        for (; at < stop; at += WIDTH)
            add_rest((int)least(WIDTH, stop - at), number, rows + at, stride, lanes);
        fold_all(number, lanes, out);
    }
}
#endif
