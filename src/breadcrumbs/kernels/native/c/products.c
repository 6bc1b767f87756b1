/* Inner products of weights; `Products` of kernels/protocol.py says in which order they are added. */
#include "steps.h"

/* Entries whose products are added one after the other, numbers that are added at once, and entries
 * of a block: PART and LANES of kernels/constants.py, and a few turns. */
enum { PART = 1 << 14, WIDTH = 256, TURNS = 8, SIZE = TURNS * WIDTH };

/* --- steps: each one loop over one block ------------------------------------------------------ */

static void to_double(int n, const raw *restrict from, double *restrict out) {
    for (int i = 0; i < n; i++) out[i] = (double)number(from[i]);
}

static void to_task_vector(int n, const raw *restrict from, const double *restrict base,
                           double *restrict out) {
    for (int i = 0; i < n; i++) out[i] = (double)number(from[i]) - base[i];
}

/* Add the products of a block of n entries. */
static void add_products(int n, const double *restrict x, const double *restrict y,
                         double *restrict lanes) {
    for (int at = 0; at < n; at += WIDTH) {
        int m = (int)least(WIDTH, n - at);
        for (int j = 0; j < m; j++) lanes[j] += x[at + j] * y[at + j];
    }
}

/* Do the same for a whole block; each lane is read and written once for all of it. */
static void add_all_turns(const double *restrict x, const double *restrict y,
                          double *restrict lanes) {
    for (int j = 0; j < WIDTH; j++) {
        double sum = lanes[j];
        for (int k = 0; k < TURNS; k++) sum += x[k * WIDTH + j] * y[k * WIDTH + j];
        lanes[j] = sum;
    }
}

/* And for one row with two others. */
static void add_two(const double *restrict x, const double *restrict y, const double *restrict z,
                    double *restrict first, double *restrict second) {
    for (int j = 0; j < WIDTH; j++) {
        double a = first[j], b = second[j];
        for (int k = 0; k < TURNS; k++) {
            double one = x[k * WIDTH + j];
            a += one * y[k * WIDTH + j];
            b += one * z[k * WIDTH + j];
        }
        first[j] = a;
        second[j] = b;
    }
}

/* --- all rows ----------------------------------------------------------------------------------- */

/* Add the products of the n entries of all pairs of rows. lanes: (rows, rows, WIDTH). */
static void add_pairs(int n, int64_t rows, const double *from, int64_t stride, double *lanes) {
    for (int64_t s = 0; s < rows; s++) {
        const double *x = from + s * stride;
        double *mine = lanes + s * rows * WIDTH;
        int64_t t = 0;
        if (n == SIZE)
            for (; t + 2 <= s + 1; t += 2)
                add_two(x, from + t * stride, from + (t + 1) * stride, mine + t * WIDTH,
                        mine + (t + 1) * WIDTH);
        for (; t <= s; t++) {
            if (n == SIZE)
                add_all_turns(x, from + t * stride, mine + t * WIDTH);
            else
                add_products(n, x, from + t * stride, mine + t * WIDTH);
        }
    }
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

/* room: (1 + models, SIZE). lanes: (1 + models, 1 + models, WIDTH). */
void KERNEL(products)(int64_t n, int64_t models, const raw *base, const raw *rows, int64_t stride,
                      double *room, double *lanes, double *out) {
    const int64_t number = 1 + models;
    for (int64_t first = 0; first < n; first += PART, out += number * number) {
        int64_t stop = least(n, first + PART);
        memset(lanes, 0, (size_t)(number * number * WIDTH) * sizeof *lanes);
        for (int64_t at = first; at < stop; at += SIZE) {
            int m = (int)least(SIZE, stop - at);
            to_double(m, base + at, room);
            for (int64_t t = 0; t < models; t++)
                to_task_vector(m, rows + t * stride + at, room, room + (t + 1) * SIZE);
            add_pairs(m, number, room, SIZE, lanes);
        }
        fold_all(number, lanes, out);
    }
}

#if RAW == 32
/* stride: how far apart the rows begin. lanes: (number, number, WIDTH). */
void KERNEL(row_products)(int64_t n, int64_t number, const double *rows, int64_t stride,
                          double *lanes, double *out) {
    for (int64_t first = 0; first < n; first += PART, out += number * number) {
        int64_t stop = least(n, first + PART);
        memset(lanes, 0, (size_t)(number * number * WIDTH) * sizeof *lanes);
        for (int64_t at = first; at < stop; at += SIZE)
            add_pairs((int)least(SIZE, stop - at), number, rows + at, stride, lanes);
        fold_all(number, lanes, out);
    }
}
#endif
