/* What Conv4's blocks need on a CPU, for `engine.cpu`: 3x3 convolutions, batch statistics and
 * 2x2 max-pooling, with channels last in memory, of floats, or of doubles with -DBITS=64.
 *
 * x: [n][height][width][channels]. w: [9][channels][filters], the nine places of a filter row by
 * row. z, dz: [n][height][width][filters]. Pooled arrays: [n][height / 2][width / 2][filters];
 * place says which of a window's four values counts, 0 to 3 row by row, the first of equal ones.
 * filters is a multiple of 32, and so is channels, or it is 1 or 3. Convolutions have a border of
 * zeros, which the functions here make themselves, for as many images at once as stay in a cache.
 *
 * Vectors are the compiler's own (GCC and Clang), over filters; sizes of tiles are such that sums
 * stay in registers. Every sum has a fixed order: the same inputs give the same bits.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if BITS == 64
typedef double real;
typedef int64_t integer; /* as wide as a real, to select one by */
#else
typedef float real;
typedef int32_t integer;
#endif

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define LANES (BYTES / (int)sizeof(real)) /* values of a vector */
#if defined(__AVX512F__) || defined(__aarch64__)
#define PIXELS 14 /* by 2 vectors, in 32 registers */
#define CHANNELS 8
#else
#define PIXELS 6 /* in 16 registers */
#define CHANNELS 4
#endif

typedef real vec __attribute__((vector_size(BYTES), aligned(4)));
typedef integer ivec __attribute__((vector_size(BYTES), aligned(4)));
typedef int8_t bvec __attribute__((vector_size(BYTES / sizeof(real)), aligned(1)));

#define UNROLL _Pragma("GCC unroll 32")
#define LOAD(pointer) (*(const vec *)(pointer))
#define STORE(pointer, value) (*(vec *)(pointer) = (value))
#define ADD(pointer, value) STORE(pointer, LOAD(pointer) + (value))
#define SELECT(condition, a, b) ((vec)(((condition) & (ivec)(a)) | (~(condition) & (ivec)(b))))

static inline vec splat(real value) { return value - (vec){0}; }

static inline ivec places(const int8_t *place) {
    return __builtin_convertvector(*(const bvec *)place, ivec);
}

/* Images of x in the middle of zeros, [n][padded_height][padded_width][channels], with a border of
 * 1 above and to the left. NULL where there is no memory. */
static inline real *padded(const real *x, long n, long height, long width, long channels,
                           long padded_height, long padded_width) {
    long row = width * channels, padded_row = padded_width * channels;
    real *out = malloc(n * padded_height * padded_row * sizeof(real)), *to = out;
    for (long y = 0; out && y < n * padded_height; y++, to += padded_row) {
        long inside = y % padded_height - 1;
        memset(to, 0, padded_row * sizeof(real));
        if (inside >= 0 && inside < height)
            memcpy(to + channels, x + (y / padded_height * height + inside) * row,
                   row * sizeof(real));
    }
    return out;
}

/* How many images, of so many values with their border, stay in a core's cache. */
static inline long images_at_once(long size) {
    long n = (1 << 18) / (size * (long)sizeof(real));
    return n > 0 ? n : 1;
}

int winograd_pays(long height, long width);
int winograd_convolve(const real *x, const real *w, const real *x2, const real *w2, real *z, long n,
                      long height, long width, long channels, long filters);
int winograd_weight_gradient(const real *x, const real *dz, const real *x2, const real *dz2,
                             real *dw, long n, long height, long width, long channels,
                             long filters);
