/* Block 1: sums over the 3x3 patches of images, in doubles whatever the images are.
 *
 * A patch is three rows of 1x3 patches Y, [3 * channels] each, and products of these depend on the
 * rows' distance alone, but for the image's first and last row, which not all of a patch's places
 * reach. So five products of Y with Y make the patches' own nine. */
#include "common.h"

#define DOUBLES 4 /* of a vector, on every processor: sums over columns are of so many parts */
#define BAND 8 /* rows at once, such that their 1x3 patches stay in a cache */
#define MOST 9 /* 3 * channels */
enum { SAME, NEXT, AFTER_NEXT, FIRST, LAST, PRODUCTS };

typedef double dvec __attribute__((vector_size(8 * DOUBLES), aligned(8), may_alias));

/* a b + c, rounded once where the processor can. */
INLINE dvec dfmadd(dvec a, dvec b, dvec c) {
#ifdef __FMA__
    return (dvec)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
    return a * b + c;
#endif
}

/* y [3 * channels][columns] of one row, zeros beyond its width; all zeros where there is no row. */
static void row_patches(const real *row, double *y, long width, int channels, long columns) {
    memset(y, 0, 3 * channels * columns * sizeof(double));
    for (int c = 0; row && c < channels; c++, y += 3 * columns) {
        double *middle = y + columns;
        for (long x = 0; x < width; x++)
            middle[x] = row[x * channels + c];
        memcpy(y + 1, middle, (width - 1) * sizeof(double));
        memcpy(y + 2 * columns, middle + 1, (width - 1) * sizeof(double));
    }
}

/* sums [MOST][MOST] += a b^T over so many rows of [3 * channels][columns]. */
static void add_products(dvec *sums, const double *a, const double *b, int rows, int channels,
                         long columns) {
    for (int i = 0; i < 3 * channels; i += 3)
        for (int k = 0; k < 3 * channels; k += 3) {
            dvec acc[3][3] = {0};
            for (int row = 0; row < rows; row++) {
                const double *a_row = a + (row * 3 * channels + i) * columns;
                const double *b_row = b + (row * 3 * channels + k) * columns;
                for (long x = 0; x < columns; x += DOUBLES)
                    UNROLL for (int p = 0; p < 3; p++)
                        UNROLL for (int q = 0; q < 3; q++)
                            acc[p][q] = dfmadd(*(const dvec *)(a_row + p * columns + x),
                                               *(const dvec *)(b_row + q * columns + x),
                                               acc[p][q]);
            }
            for (int p = 0; p < 3; p++)
                for (int q = 0; q < 3; q++)
                    sums[(i + p) * MOST + k + q] += acc[p][q];
        }
}

/* The sum of a multiple of DOUBLES values. */
static double sum_of(const double *values, long size) {
    dvec sums = {0};
    for (long at = 0; at < size; at += DOUBLES)
        sums += *(const dvec *)(values + at);
    double sum = 0;
    for (int i = 0; i < DOUBLES; i++)
        sum += sums[i];
    return sum;
}

/* sums [3 * channels] += y of so many rows. */
static void add_rows(double *sums, const double *y, long rows, int channels, long columns) {
    for (long row = 0; row < rows; row++)
        for (int a = 0; a < 3 * channels; a++, y += columns)
            sums[a] += sum_of(y, columns);
}

/* Place in Y [channels][3] of place `at` in a patch [3][3][channels]. */
static int place_in_row(int at, int channels) { return at % channels * 3 + at / channels % 3; }

/* What stands at [i][a], [k][b] of the patches' product: row i of a patch with its row k. */
static double product_at(const double products[PRODUCTS][MOST][MOST], int i, int k, int a, int b) {
    if (i > k)
        return product_at(products, k, i, b, a);
    double missing = 0;
    if (i == k && i != 1)
        missing = products[i == 0 ? LAST : FIRST][a][b];
    return products[k - i][a][b] - missing;
}

/* Sums over whole patches from sums over their rows. */
static void assemble(const dvec sums[PRODUCTS][MOST * MOST], const double of_rows[PRODUCTS][MOST],
                     double *total, double *product, int channels) {
    double products[PRODUCTS][MOST][MOST];
    for (int which = 0; which < PRODUCTS; which++)
        for (int at = 0; at < MOST * MOST; at++)
            products[which][at / MOST][at % MOST] = sum_of((double *)&sums[which][at], DOUBLES);
    for (int at = 0; at < 9 * channels; at++) {
        int i = at / (3 * channels), a = place_in_row(at, channels);
        total[at] = of_rows[SAME][a];
        if (i != 1)
            total[at] -= of_rows[i == 0 ? LAST : FIRST][a];
        for (int with = 0; with < 9 * channels; with++)
            product[at * 9 * channels + with] = product_at(
                products, i, with / (3 * channels), a, place_in_row(with, channels));
    }
}

/* total [9 * channels] and product [9 * channels][9 * channels]: the sums of X and of X X^T over
 * all patches X [9][channels] of x. */
void patch_sums(Memory *memory, const real *x, double *total, double *product, Planes p,
                long channels) {
    long columns = (p.width + DOUBLES - 1) / DOUBLES * DOUBLES, size = 3 * channels * columns;
    dvec sums[PRODUCTS][MOST * MOST] = {0};
    double of_rows[PRODUCTS][MOST] = {0};
    Mark before = mark(memory);
    double *y = take(memory, (BAND + 2) * size * sizeof(double));
    for (long at = 0; at < p.n * p.height; at += BAND) {
        long top = at % p.height, rows = top + BAND < p.height ? BAND : p.height - top;
        for (long row = 0; row < BAND + 2; row++)
            row_patches(top + row < p.height ? x + (at + row) * p.width * channels : NULL,
                        y + row * size, p.width, channels, columns);
        at -= BAND - rows; /* the next band begins with the next image */
        const double *last = y + (rows - 1) * size;
        for (int distance = SAME; distance <= AFTER_NEXT; distance++)
            add_products(sums[distance], y, y + distance * size, rows, channels, columns);
        add_rows(of_rows[SAME], y, rows, channels, columns);
        if (top == 0) {
            add_products(sums[FIRST], y, y, 1, channels, columns);
            add_rows(of_rows[FIRST], y, 1, channels, columns);
        }
        if (top + rows == p.height) {
            add_products(sums[LAST], last, last, 1, channels, columns);
            add_rows(of_rows[LAST], last, 1, channels, columns);
        }
    }
    release(memory, before);
    assemble(sums, of_rows, total, product, channels);
}
