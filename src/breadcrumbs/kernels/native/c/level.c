/* Which of the levels that kernels are compiled for this processor and its system can run. */
#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>
#include <stdint.h>

/* Bits of the answers: the registers that the system keeps, and x86-64-v3 and -v4 without what all
 * processors have that have the rest. */
enum { KEEPS_256 = 0x6, KEEPS_512 = 0xE6 };
enum { FMA = 1 << 12, SAVES = 1 << 27, F16C = 1 << 29 };
enum { BMI1 = 1 << 3, AVX2 = 1 << 5, BMI2 = 1 << 8 };
enum { AVX512F = 1 << 16, AVX512DQ = 1 << 17, AVX512CD = 1 << 28, AVX512BW = 1 << 30 };
#define AVX512VL (1u << 31)

static int has(uint32_t found, uint32_t wanted) { return (found & wanted) == wanted; }

EXPORT int breadcrumbs_level(void) {
    uint32_t a, b, c, d, kept, rest;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, FMA | SAVES | F16C)) return 0;
    __asm__("xgetbv" : "=a"(kept), "=d"(rest) : "c"(0));
    if (!has(kept, KEEPS_256) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if (!has(b, BMI1 | AVX2 | BMI2)) return 0;
    if (!has(kept, KEEPS_512)) return 1;
    return has(b, AVX512F | AVX512DQ | AVX512CD | AVX512BW | AVX512VL) ? 2 : 1;
}
#else
EXPORT int breadcrumbs_level(void) { return 0; }
#endif
