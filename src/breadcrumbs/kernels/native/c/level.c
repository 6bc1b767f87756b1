/* What the library is, and which of the levels that its kernels are compiled for this processor and
 * its system can run. LEVELS: how many there are. IDENTITY: the version and digest of the sources. */
#include <float.h>
#include <stdint.h>

#if FLT_EVAL_METHOD != 0
#error "sums in wider registers than their type round differently"
#endif
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weights lie in files in the order of bytes that this processor does not have"
#endif
_Static_assert(sizeof(void *) == 8, "this is not made for processors of 32 bits");

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

EXPORT const char *breadcrumbs_identity(void);
EXPORT int breadcrumbs_level(void);

const char *breadcrumbs_identity(void) { return IDENTITY; }

#if defined(__x86_64__)
#include <cpuid.h>

/* Bits of the answers: the registers that the system keeps, and what is used of x86-64-v3, -v4. */
enum { KEEPS_256 = 0x6, KEEPS_512 = 0xE6 };
enum { FMA = 1 << 12, MOVBE = 1 << 22, SAVES = 1 << 27, F16C = 1 << 29 };
enum { BMI1 = 1 << 3, AVX2 = 1 << 5, BMI2 = 1 << 8, LZCNT = 1 << 5 };
enum { AVX512F = 1 << 16, AVX512DQ = 1 << 17, AVX512CD = 1 << 28, AVX512BW = 1 << 30 };
#define AVX512VL (1u << 31)

static int has(uint32_t found, uint32_t wanted) { return (found & wanted) == wanted; }

static int level(void) {
    uint32_t a, b, c, d, kept, rest;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, FMA | MOVBE | SAVES | F16C)) return 0;
    __asm__("xgetbv" : "=a"(kept), "=d"(rest) : "c"(0));
    if (!has(kept, KEEPS_256)) return 0;
    if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !has(c, LZCNT)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, BMI1 | AVX2 | BMI2)) return 0;
    if (!has(kept, KEEPS_512)) return 1;
    return has(b, AVX512F | AVX512DQ | AVX512CD | AVX512BW | AVX512VL) ? 2 : 1;
}
#else
static int level(void) { return 0; }
#endif

int breadcrumbs_level(void) {
    int found = level();
    return found < LEVELS ? found : LEVELS - 1;
}
