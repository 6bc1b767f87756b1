/* Entries changed in place by exclusive or; kernels/numpy/flips.py says what each kernel does. All
 * sizes of weights are done here, and not by RAW. */
#include "steps.h"

#if RAW == 32

/* Write of bytes of eight weights all ones where their bit is set, the highest first, else 0: eight
 * bytes in a number, the lowest first, as on all processors that this is built for. */
static void spread(int bytes, const uint8_t *restrict packed, uint64_t *restrict marks) {
    for (int i = 0; i < bytes; i++) {
        uint64_t word = packed[i] * (uint64_t)0x0101010101010101 & 0x0102040810204080;
        word = (word + 0x7F7F7F7F7F7F7F7F) >> 7 & 0x0101010101010101;
        marks[i] = (word << 8) - word;
    }
}

#define FLIP(bits)                                                                                \
    void SIZED(flip_masked, bits)(int64_t n, uint##bits##_t *restrict weights,                    \
                                  const uint##bits##_t *restrict flips,                           \
                                  const uint8_t *restrict packed) {                               \
        uint64_t words[BLOCK / 8];                                                                \
        const uint8_t *marks = (const uint8_t *)words;                                            \
        for (int64_t at = 0; at < n; at += BLOCK) {                                               \
            int m = (int)least(BLOCK, n - at);                                                    \
            uint##bits##_t *restrict mine = weights + at;                                         \
            const uint##bits##_t *restrict by = flips + at;                                       \
            spread((m + 7) / 8, packed + at / 8, words);                                          \
            for (int i = 0; i < m; i++) mine[i] ^= by[i] & (uint##bits##_t)(int8_t)marks[i];      \
        }                                                                                         \
    }                                                                                             \
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
