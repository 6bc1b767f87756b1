/* Lengths of a step and of the task vectors it is made of; `Products` of kernels/protocol.py. */
#include "steps.h"

static void add_products(int n, const double *restrict a, const double *restrict b,
                         double *restrict lanes) {
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += a[i + j] * b[i + j];
    for (int j = 0; i + j < n; j++) lanes[j] += a[i + j] * b[i + j];
}

static void subtract(int n, const raw *restrict model, const float *restrict base,
                     double *restrict out) {
    for (int i = 0; i < n; i++) out[i] = (double)number(model[i]) - (double)base[i];
}

static void add_times(int n, const double *restrict tau, double weight, double *restrict sum) {
    for (int i = 0; i < n; i++) sum[i] += weight * tau[i];
}

/* out: (3 + models), added to; room: (3 + models, LANES) zeros. others: null where they are the
 * weights. */
void KERNEL(lengths)(int64_t n, int64_t models, const raw *base, const raw *rows, int64_t stride,
                     const double *weights, const double *others, const float *merged,
                     double *room, double *out) {
    float wide[BLOCK];
    double tau[BLOCK], step[BLOCK], along[BLOCK], total[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at);
        widen(m, base + at, wide);
        memset(along, 0, m * sizeof *along);
        memset(total, 0, m * sizeof *total);
        for (int64_t t = 0; t < models; t++) {
            subtract(m, rows + t * stride + at, wide, tau);
            add_squares(m, tau, room + (3 + t) * LANES);
            add_times(m, tau, weights[t], along);
            if (others) add_times(m, tau, others[t], total);
        }
        for (int i = 0; i < m; i++) step[i] = (double)merged[at + i] - (double)wide[i];
        add_products(m, step, along, room);
        add_squares(m, others ? total : along, room + LANES);
        add_squares(m, step, room + 2 * LANES);
    }
    for (int64_t i = 0; i < 3 + models; i++) out[i] += add_lanes(room + i * LANES);
}

double KERNEL(squares)(int64_t n, const raw *base, const raw *model) {
    float wide[BLOCK];
    double tau[BLOCK], lanes[LANES] = {0};
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at);
        widen(m, base + at, wide);
        subtract(m, model + at, wide, tau);
        add_squares(m, tau, lanes);
    }
    return add_lanes(lanes);
}
