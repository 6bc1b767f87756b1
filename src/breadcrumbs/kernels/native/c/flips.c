/* Entries changed in place by exclusive or; kernels/numpy/flips.py says what each kernel does. All
 * sizes of weights are done here, and not by RAW. */
#include "steps.h"

#if RAW == 32

#define FLIP(bits)                                                                                \
    void SIZED(flip_masked, bits)(int64_t n, uint##bits##_t *restrict weights,                    \
                                  const uint##bits##_t *restrict flips,                           \
                                  const uint8_t *restrict packed) {                               \
        int64_t i = 0;                                                                            \
        for (; i + 8 <= n; i += 8) {                                                              \
            const uint32_t byte = packed[i / 8];                                                  \
            for (int j = 0; j < 8; j++) {                                                         \
                uint##bits##_t flip = flips[i + j];                                               \
                weights[i + j] ^= byte & (0x80u >> j) ? flip : 0;                                 \
            }                                                                                     \
        }                                                                                         \
        for (; i < n; i++)                                                                        \
            if (packed[i / 8] & (0x80u >> (i & 7))) weights[i] ^= flips[i];                       \
    }                                                                                             \
                                                                                                  \
    /* Returns how many places are not below n, where nothing is changed. */                      \
    int64_t SIZED(flip_at, bits)(int64_t n, uint##bits##_t *restrict weights, int64_t number,     \
                                 const uint32_t *restrict places,                                 \
                                 const uint##bits##_t *restrict flips) {                          \
        int64_t beyond = 0;                                                                       \
        for (int64_t i = 0; i < number; i++) {                                                    \
            if (places[i] < n)                                                                    \
                weights[places[i]] ^= flips[i];                                                   \
            else                                                                                  \
                beyond++;                                                                         \
        }                                                                                         \
        return beyond;                                                                            \
    }

FLIP(8)
FLIP(16)
FLIP(32)
FLIP(64)
#endif
