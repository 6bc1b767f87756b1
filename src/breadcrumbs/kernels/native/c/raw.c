/* Raw weights: their extent, and rounding; `Raw` of kernels/protocol.py says what each does. */
#include "steps.h"

void KERNEL(extent)(int64_t n, const raw *from, uint32_t *extent) {
    for (int64_t at = 0; at < n; at += BLOCK)
        widen_extent((int)least(BLOCK, n - at), from + at, extent);
}

/* Round to raw weights of this kind. */
void KERNEL(round_to)(int64_t n, const double *merged, void *out) {
    float room[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = (int)least(BLOCK, n - at);
        round_out(m, merged + at, room, count_unusual(m, merged + at), RAW == 16, out, at);
    }
}
