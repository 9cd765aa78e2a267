/* What every source here shares: vectors, the multiply-add, memory, and who calls whom.
 *
 * Floats, or doubles with -DBITS=64. Activations have channels last in memory:
 * x [n][height][width][channels], z and dz [n][height][width][filters]. w [9][channels][filters]
 * are the nine places of a 3x3 filter row by row. filters is a multiple of 32, and so is channels,
 * or it is 1 or 3.
 *
 * The same inputs give the same bits on every processor that has a fused multiply-add, whatever its
 * vectors' width and whatever the compiler: a value is rounded where `fmadd` or an operator stands
 * and nowhere else (-ffp-contract=off), every sum has a fixed order, vectors are over filters, which
 * no sum mixes, and the few sums that run along a vector are of a fixed number of parts.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#if BITS == 64
typedef double real;
typedef int64_t integer; /* as wide as a real, to select one by */
#else
typedef float real;
typedef int32_t integer;
#endif

#ifndef BYTES /* of a vector */
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#endif
#define LANES (BYTES / (int)sizeof(real)) /* values of a vector */
#if defined(__AVX512F__) || defined(__aarch64__)
#define ROWS 14 /* by 2 vectors, in 32 registers */
#define CHANNELS 8
#else
#define ROWS 6 /* in 16 registers */
#define CHANNELS 4
#endif

typedef real vec __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef integer ivec __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef int8_t bvec __attribute__((vector_size(BYTES / sizeof(real)), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#define LOAD(pointer) (*(const vec *)(pointer))
#define STORE(pointer, value) (*(vec *)(pointer) = (value))
#define ADD(pointer, value) STORE(pointer, LOAD(pointer) + (value))
#define SELECT(condition, a, b) ((vec)(((condition) & (ivec)(a)) | (~(condition) & (ivec)(b))))

INLINE vec splat(real value) { return value - (vec){0}; }

/* a b + c, rounded once where the processor can. */
INLINE vec fmadd(vec a, vec b, vec c) {
#if defined(__AVX512F__) && BYTES == 64 && BITS == 64
    return (vec)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX512F__) && BYTES == 64
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__) && BYTES == 32 && BITS == 64
    return (vec)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__FMA__) && BYTES == 32
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__FMA__) || defined(__aarch64__)
    for (int i = 0; i < LANES; i++)
        c[i] = sizeof(real) == 8 ? __builtin_fma(a[i], b[i], c[i])
                                 : __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#else
    return a * b + c;
#endif
}

/* value where test > 0 or is not a number, else 0. */
INLINE vec where_positive(vec test, vec value) { return (vec)(~(test <= 0) & (ivec)value); }

/* What makes an activation of a convolution's z where no gradient follows: sign, of gamma; mean and r
 * of z; each [filters]. */
typedef struct {
    const real *sign, *mean, *r, *gamma, *beta;
} Scale;

/* Activations of one vector of filters from f on; largest: the largest value of sign z. */
INLINE vec activated(const Scale *s, vec largest, long f) {
    vec n = (LOAD(s->sign + f) * largest - LOAD(s->mean + f)) * LOAD(s->r + f);
    vec value = fmadd(LOAD(s->gamma + f), n, LOAD(s->beta + f));
    return where_positive(value, value);
}

/* A vector of places from and to memory, where they are bytes. GCC 12 takes the general form apart,
 * value by value, which doubled the time of block 1's weight gradient. */
INLINE ivec places(const int8_t *place) {
#if defined(__AVX512F__) && BYTES == 64 && BITS != 64
    return (ivec)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)place));
#elif defined(__AVX2__) && BYTES == 32 && BITS != 64
    return (ivec)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)place));
#else
    return __builtin_convertvector(*(const bvec *)place, ivec);
#endif
}

INLINE void store_places(int8_t *place, ivec where) {
#if defined(__AVX2__) && BYTES == 32 && BITS != 64
    __m256i all = (__m256i)where;
    __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    _mm_storel_epi64((__m128i *)place, _mm_packs_epi16(shorts, shorts));
#else
    *(bvec *)place = __builtin_convertvector(where, bvec);
#endif
}

/* A stack of memory. What was taken since a mark is given back by `release`, all of it by `attempt`.
 */
typedef struct Memory Memory;
typedef struct {
    long chunks, used;
} Mark;
void *take(Memory *memory, long bytes); /* where there is none, `attempt` ends */
Mark mark(const Memory *memory);
void release(Memory *memory, Mark mark);
int attempt(void (*work)(Memory *memory, void *arguments), void *arguments);

INLINE real *reals(Memory *memory, long size) { return take(memory, size * sizeof(real)); }

/* Planes of n images. */
typedef struct {
    long n, height, width;
} Planes;

#define TILES (4 * ROWS) /* of a convolution at once, where each tile is a sum of its own */
/* From one point of u or m to the next, with a line of memory between: without it points are a
 * power of two apart, or half of one more, and a cache holds few lines at such distances. */
INLINE long to_next(long tiles, long channels) { return tiles * channels + 16; }
void multiply(const real *u, const real *v, const real *u2, const real *v2, real *m, long points,
              long count, long channels, long filters);
void add_tiles(const real *u, const real *m, real *v, long points, long tiles, long count,
               long channels, long filters);

long winograd_2_tiles_of(Planes p); /* of an image */
void winograd_2_convolve(Memory *memory, const real *x, const real *w, const real *x2,
                         const real *w2, real *z, Planes p, long channels, long filters);
void winograd_2_weight_gradient(Memory *memory, const real *x, const real *dz, const real *x2,
                                const real *dz2, real *dw, Planes p, long channels, long filters);
void winograd_4_convolve(Memory *memory, const real *x, const real *w, const real *x2,
                         const real *w2, real *z, Planes p, long channels, long filters);
void winograd_4_weight_gradient(Memory *memory, const real *x, const real *dz, const real *x2,
                                const real *dz2, real *dw, Planes p, long channels, long filters);
enum { SMALL_TILES = 2, LARGE_TILES = 4 }; /* the largest of Winograd's that may be taken */
void convolve(Memory *memory, const real *x, const real *w, const real *x2, const real *w2, real *z,
              int transposed, int largest_tile, Planes p, long channels, long filters);
void weight_gradient(Memory *memory, const real *x, const real *dz, const real *x2, const real *dz2,
                     real *dw, Planes p, long channels, long filters);

real *padded(Memory *memory, const real *x, Planes p, long channels);
void pooled_convolve(const real *padded_x, const real *w, int8_t *place, const Scale *scale,
                     real *out, Planes p, long channels, long filters);
void convolve_at(Memory *memory, const real *padded_x, const real *w, const int8_t *place,
                 real *out, Planes p, long channels, long filters);
void weight_gradient_at(Memory *memory, const real *padded_x, const real *u, const int8_t *place,
                        real *dw, Planes p, long channels, long filters);
void patch_sums(Memory *memory, const real *x, double *total, double *product, Planes p,
                long channels);

void moments(real *z, int centre, real *mean, real *variance, long size, long filters);
void pool_and_activate(const real *z, const Scale *scale, real *out, Planes p, long filters);
void pool(const real *c, const real *sign, const real *r, int8_t *place, real *pooled, Planes p,
          long filters);
void normalise_tangent(const real *z, const real *c, const real *r, const int8_t *place,
                       const real *pooled, real *mean, real *m2, real *pooled_t, Planes p,
                       long filters);
void activate(const real *gate, const real *beta, const real *gamma, const real *n,
              const real *gamma2, const real *n2, real *out, long size, long filters);
void gate(const real *gate, real *u, const real *n, const real *u2, const real *n2, real *dbeta,
          real *dgamma, long size, long filters);
void combine(const real *constant, const real *ka, const real *a, const real *kb, const real *b,
             const real *ku, const real *u, const real *kv, const real *v, const int8_t *place,
             real *out, Planes p, long filters);
