"""Triton kernels of Conv4's forward pass and of its tangent; shapes as in `gpu.positions`."""

import triton
import triton.language as tl

from negmeta_utils.gpu.positions import (
    add_convolution,
    image_weight,
    patches,
    position,
    position_by_window,
)


@triton.jit
def _sign(gamma, F: tl.constexpr):
    return tl.where(tl.load(gamma + tl.arange(0, F)) < 0, -1.0, 1.0)


@triton.jit
def _store_pooled(
    acc, valid, sign, z, sums, highest, place, tile, g, n, height, width,
    F: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """z, the tile's sums for mean and variance, and the pooled z with its place."""
    c = tl.arange(0, F)
    m = tile * BM + tl.arange(0, BM)
    image, y, col, _ = position_by_window(m, n, height, width)
    at = ((image * height + y) * width + col) * F
    size = n * height * width
    z += g.to(tl.int64) * size * F
    tl.store(z + at[:, None] + c[None, :], acc, mask=valid[:, None])
    count = tl.sum(valid.to(tl.float32), 0)
    total = tl.sum(acc, 0)
    apart = tl.where(valid[:, None], acc - (total / tl.maximum(count, 1.0))[None, :], 0.0)
    sums += (g * tl.num_programs(0) + tile) * 3 * F
    tl.store(sums + c, total)
    tl.store(sums + F + c, tl.sum(apart * apart, 0))
    tl.store(sums + 2 * F + c, total * 0.0 + count)
    oriented = tl.where(valid[:, None], acc * sign[None, :], float("-inf"))
    windows = tl.reshape(oriented, (BM // 4, 4, F))
    high, index = tl.max(windows, axis=1, return_indices=True)
    window = tile * (BM // 4) + tl.arange(0, BM // 4)
    wide, tall = (width + 1) // 2, (height + 1) // 2
    row, column, of = (window // wide) % tall, window % wide, window // (wide * tall)
    whole = (of < n) & (row < height // 2) & (column < width // 2)
    pooled = ((of * (height // 2) + row) * (width // 2) + column) * F
    pooled_size = n * (height // 2) * (width // 2)
    base = g.to(tl.int64) * pooled_size * F
    tl.store(
        highest + base + pooled[:, None] + c[None, :], high * sign[None, :], mask=whole[:, None]
    )
    tl.store(place + base + pooled[:, None] + c[None, :], index.to(tl.int8), mask=whole[:, None])


@triton.jit(do_not_specialize=["n", "height", "width"])
def convolve(
    x, theta, w_at, gamma_at, P, z, sums, highest, place, n, height, width,
    F: tl.constexpr, BM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """z = W*x, and what `_store_pooled` makes of it."""
    tile, g = tl.program_id(0), tl.program_id(1)
    m = tile * BM + tl.arange(0, BM)
    image, y, col, valid = position_by_window(m, n, height, width)
    own = theta + g.to(tl.int64) * P
    x += g.to(tl.int64) * n * height * width * F
    acc = tl.zeros((BM, F), tl.float32)
    acc = add_convolution(
        acc, x, own + w_at, image, y, col, valid, height, width, F, False, PRECISION
    )
    _store_pooled(
        acc, valid, _sign(own + gamma_at, F), z, sums, highest, place, tile, g, n, height, width,
        F, BM,
    )  # fmt: skip


@triton.jit(do_not_specialize=["n", "height", "width"])
def convolve_images(
    images, rows, theta, w_at, gamma_at, P, z, sums, highest, place, n, height, width,
    C: tl.constexpr, K: tl.constexpr, F: tl.constexpr, BM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The same of block 1. rows: int32 [n_tasks, n], of the images in the data set."""
    tile, g = tl.program_id(0), tl.program_id(1)
    m = tile * BM + tl.arange(0, BM)
    image, y, col, valid = position_by_window(m, n, height, width)
    own = theta + g.to(tl.int64) * P
    x = patches(images, rows + g * n, image, y, col, valid, height, width, C, K)
    acc = tl.dot(x, image_weight(own + w_at, C, K, F), input_precision=PRECISION)
    _store_pooled(
        acc, valid, _sign(own + gamma_at, F), z, sums, highest, place, tile, g, n, height, width,
        F, BM,
    )  # fmt: skip


@triton.jit
def statistics(sums, mean, r, tiles, size, eps, F: tl.constexpr, BT: tl.constexpr):
    """mean z and r = (var z + eps)^(-1/2) of a task, of its tiles' sums."""
    g, c = tl.program_id(0), tl.arange(0, F)
    sums += g * tiles * 3 * F
    total = tl.zeros((F,), tl.float32)
    for first in range(0, tiles, BT):
        t = first + tl.arange(0, BT)
        at = sums + t[:, None] * 3 * F + c[None, :]
        total += tl.sum(tl.load(at, mask=(t < tiles)[:, None], other=0.0), 0)
    middle = total / size
    squares = tl.zeros((F,), tl.float32)
    for first in range(0, tiles, BT):
        t = first + tl.arange(0, BT)
        at, there = sums + t[:, None] * 3 * F + c[None, :], (t < tiles)[:, None]
        of_tile = tl.load(at, mask=there, other=0.0)
        count = tl.load(at + 2 * F, mask=there, other=0.0)
        apart = of_tile / tl.maximum(count, 1.0) - middle[None, :]
        squares += tl.sum(tl.load(at + F, mask=there, other=0.0) + count * apart * apart, 0)
    tl.store(mean + g * F + c, middle)
    tl.store(r + g * F + c, 1.0 / tl.sqrt(squares / size + eps))


@triton.jit
def activate(
    highest, mean, r, theta, gamma_at, beta_at, P, n, a, pooled, F: tl.constexpr, BM: tl.constexpr
):
    """n at the pooled places, which may take the place of `highest`, and a."""
    tile, g, c = tl.program_id(0), tl.program_id(1), tl.arange(0, F)
    m = tile * BM + tl.arange(0, BM)
    at = g.to(tl.int64) * pooled * F + m[:, None] * F + c[None, :]
    there = (m < pooled)[:, None]
    own = theta + g.to(tl.int64) * P
    gamma, beta = tl.load(own + gamma_at + c), tl.load(own + beta_at + c)
    middle, rr = tl.load(mean + g * F + c), tl.load(r + g * F + c)
    value = (tl.load(highest + at, mask=there, other=0.0) - middle[None, :]) * rr[None, :]
    tl.store(n + at, value, mask=there)
    tl.store(a + at, tl.maximum(gamma[None, :] * value + beta[None, :], 0.0), mask=there)


@triton.jit
def _store_tangent(acc, z, mean, z_t, sums, at, valid, tile, g, F: tl.constexpr):
    """z., and the tile's sums of z. and of (z - mean z) z.."""
    c = tl.arange(0, F)
    tl.store(z_t + at, acc, mask=valid[:, None])
    centred = tl.load(z + at, mask=valid[:, None], other=0.0) - tl.load(mean + g * F + c)[None, :]
    sums += (g * tl.num_programs(0) + tile) * 2 * F
    tl.store(sums + c, tl.sum(acc, 0))
    tl.store(sums + F + c, tl.sum(tl.where(valid[:, None], centred * acc, 0.0), 0))


@triton.jit(do_not_specialize=["n", "height", "width"])
def convolve_tangent(
    x, x_t, theta, direction, w_at, P, z, mean, z_t, sums, n, height, width,
    F: tl.constexpr, BM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """z. = W*x. + W.*x."""
    tile, g, c = tl.program_id(0), tl.program_id(1), tl.arange(0, F)
    m = tile * BM + tl.arange(0, BM)
    image, y, col, valid = position(m, n, height, width)
    base = g.to(tl.int64) * n * height * width * F
    own, along = theta + g.to(tl.int64) * P + w_at, direction + g.to(tl.int64) * P + w_at
    acc = tl.zeros((BM, F), tl.float32)
    acc = add_convolution(
        acc, x_t + base, own, image, y, col, valid, height, width, F, False, PRECISION
    )
    acc = add_convolution(
        acc, x + base, along, image, y, col, valid, height, width, F, False, PRECISION
    )
    _store_tangent(acc, z, mean, z_t, sums, base + m[:, None] * F + c[None, :], valid, tile, g, F)


@triton.jit(do_not_specialize=["n", "height", "width"])
def convolve_images_tangent(
    images, rows, direction, w_at, P, z, mean, z_t, sums, n, height, width,
    C: tl.constexpr, K: tl.constexpr, F: tl.constexpr, BM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """z. = W.*x of block 1."""
    tile, g, c = tl.program_id(0), tl.program_id(1), tl.arange(0, F)
    m = tile * BM + tl.arange(0, BM)
    image, y, col, valid = position(m, n, height, width)
    x = patches(images, rows + g * n, image, y, col, valid, height, width, C, K)
    along = image_weight(direction + g.to(tl.int64) * P + w_at, C, K, F)
    acc = tl.dot(x, along, input_precision=PRECISION)
    at = g.to(tl.int64) * n * height * width * F + m[:, None] * F + c[None, :]
    _store_tangent(acc, z, mean, z_t, sums, at, valid, tile, g, F)


@triton.jit
def add_up(
    sums, first, second, first_stride, second_stride, scale, factor, tiles,
    SCALED: tl.constexpr, F: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """The two sums of all tiles, times `scale`; the second also times `factor` [n_tasks, F] where
    SCALED."""
    g, c = tl.program_id(0), tl.arange(0, F)
    sums += g * tiles * 2 * F
    one, two = tl.zeros((F,), tl.float32), tl.zeros((F,), tl.float32)
    for start in range(0, tiles, BT):
        t = start + tl.arange(0, BT)
        at, there = sums + t[:, None] * 2 * F + c[None, :], (t < tiles)[:, None]
        one += tl.sum(tl.load(at, mask=there, other=0.0), 0)
        two += tl.sum(tl.load(at + F, mask=there, other=0.0), 0)
    one, two = one * scale, two * scale
    if SCALED:
        two *= tl.load(factor + g * F + c)
    tl.store(first + g.to(tl.int64) * first_stride + c, one)
    tl.store(second + g.to(tl.int64) * second_stride + c, two)


@triton.jit(do_not_specialize=["n_images", "height", "width"])
def activate_tangent(
    z_t, place, n, a, mean_t, m2, r, theta, direction, gamma_at, beta_at, P, n_t, a_t,
    n_images, height, width, F: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """n. at the pooled places, and a.."""
    tile, g, c = tl.program_id(0), tl.program_id(1), tl.arange(0, F)
    high, wide = height // 2, width // 2
    m = tile * BM + tl.arange(0, BM)
    image, y, col, valid = position(m, n_images, high, wide)
    there = valid[:, None]
    at = g.to(tl.int64) * n_images * high * wide * F + m[:, None] * F + c[None, :]
    quarter = tl.load(place + at, mask=there, other=0).to(tl.int32)
    yy, xx = 2 * y[:, None] + quarter // 2, 2 * col[:, None] + quarter % 2
    full = ((image[:, None] * height + yy) * width + xx) * F + c[None, :]
    full = g.to(tl.int64) * n_images * height * width * F + full
    row = g.to(tl.int64) * P
    gamma, gamma_t = tl.load(theta + row + gamma_at + c), tl.load(direction + row + gamma_at + c)
    beta_t = tl.load(direction + row + beta_at + c)
    middle, mm = tl.load(mean_t + g * F + c), tl.load(m2 + g * F + c)
    rr = tl.load(r + g * F + c)
    value = tl.load(n + at, mask=there, other=0.0)
    value_t = tl.load(z_t + full, mask=there, other=0.0) - middle[None, :] - value * mm[None, :]
    value_t *= rr[None, :]
    out = gamma[None, :] * value_t + gamma_t[None, :] * value + beta_t[None, :]
    out = tl.where(tl.load(a + at, mask=there, other=0.0) > 0, out, 0.0)
    tl.store(n_t + at, value_t, mask=there)
    tl.store(a_t + at, out, mask=there)
