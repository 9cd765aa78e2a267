"""What all kernels share: which positions a program works on, and convolutions there.

Formulas and names are those of `engine.passes`; its docstring is the one to read first. A kernel
works on a tile of positions (or pooled places) of one task: `program_id(0)` is the tile,
`program_id(1)` the task. Arrays are contiguous float32 with channels last:

    x, z, z_t, dz, dz_t   [n_tasks, n, height, width, F]
    highest, n, a, u, ... [n_tasks, n, height // 2, width // 2, F]   the pooled places
    place                 int8, of the same shape: which of a window's four is the pooled one
    mean, r, m2, ...      [n_tasks, F]
    sums                  [n_tasks, tiles, k, F]    k sums of a tile, added up by another kernel
    weights               rows of the flat vectors of `gpu.vectors`, [9, F, F] as (tap, co, ci);
                          in block 1 [9 * channels, F] as ((tap, channel), co)

theta are the flat vectors of parameters, P their length, and what ends in _at is where in one a
parameter begins. Images stay uint8 in the data set: block 1 reads them there by their rows.
"""

import triton
import triton.language as tl


@triton.jit
def position(m, n, height, width):
    """Image, row and column of positions in memory order, and which there are."""
    image = m // (height * width)
    return image, (m // width) % height, m % width, image < n


@triton.jit
def position_by_window(m, n, height, width):
    """The same with the four places of each 2x2 window side by side; windows that the border
    cuts have fewer."""
    window, quarter = m // 4, m % 4
    wide, tall = (width + 1) // 2, (height + 1) // 2
    y = 2 * ((window // wide) % tall) + quarter // 2
    x = 2 * (window % wide) + quarter % 2
    image = window // (wide * tall)
    return image, y, x, (image < n) & (y < height) & (x < width)


@triton.jit
def add_convolution(
    acc, x, w, image, y, col, valid, height, width, F: tl.constexpr, BACK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """`acc` plus the convolution at these positions; with BACK the transposed one, of weights
    [9, F, F] as (tap, ci, co), so that both read them the way that tensor cores want them."""
    c = tl.arange(0, F)
    for tap in range(9):
        yy, xx = y + tap // 3 - 1, col + tap % 3 - 1
        inside = valid & (yy >= 0) & (yy < height) & (xx >= 0) & (xx < width)
        at = ((image * height + yy) * width + xx) * F
        values = tl.load(x + at[:, None] + c[None, :], mask=inside[:, None], other=0.0)
        turned = 8 - tap if BACK else tap
        weight = tl.load(w + (turned * F + c[None, :]) * F + c[:, None])
        acc = tl.dot(values, weight, acc, input_precision=PRECISION)
    return acc


@triton.jit
def patches(images, rows, image, y, col, valid, height, width, C: tl.constexpr, K: tl.constexpr):
    """3x3 patches of images [BM, K], values in 0..1; columns from 9 * C on are zero."""
    k = tl.arange(0, K)
    tap, channel = k // C, k % C
    row = tl.load(rows + image, mask=valid, other=0).to(tl.int64)
    yy, xx = y[:, None] + tap[None, :] // 3 - 1, col[:, None] + tap[None, :] % 3 - 1
    inside = valid[:, None] & (k[None, :] < 9 * C)
    inside &= (yy >= 0) & (yy < height) & (xx >= 0) & (xx < width)
    at = ((row[:, None] * height + yy) * width + xx) * C + channel[None, :]
    return tl.load(images + at, mask=inside, other=0).to(tl.float32) / 255.0


@triton.jit
def image_weight(w, C: tl.constexpr, K: tl.constexpr, F: tl.constexpr):
    k, c = tl.arange(0, K), tl.arange(0, F)
    return tl.load(w + k[:, None] * F + c[None, :], mask=(k < 9 * C)[:, None], other=0.0)
