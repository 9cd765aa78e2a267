"""Triton kernels of Conv4's passes for many tasks at once, each with parameters of its own.

Formulas and names are those of `engine.passes`; its docstring is the one to read first. Here a
kernel works on a tile of positions (or pooled places) of one task: `program_id(0)` is the tile,
`program_id(1)` the task. Arrays are contiguous float32 with channels last:

    x, z, z_t, dz, dz_t   [n_tasks, n, height, width, F]
    highest, n, a, u, ... [n_tasks, n, height // 2, width // 2, F]   the pooled places
    place                 int8, of the same shape: which of a window's four is the pooled one
    mean, r, m2, ...      [n_tasks, F]
    sums                  [n_tasks, tiles, k, F]    k sums of a tile, added up by another kernel
    weights               rows of the flat vectors of `gpu.vectors`, [9, F, F] as (tap, co, ci);
                          in block 1 [9 * channels, F] as ((tap, channel), co)

Images stay uint8 in the data set: block 1 reads them there by their rows.
"""

import triton
import triton.language as tl


@triton.jit
def _position(m, n, height, width):
    """Image, row and column of positions in memory order, and which there are."""
    image = m // (height * width)
    return image, (m // width) % height, m % width, image < n


@triton.jit
def _position_by_window(m, n, height, width):
    """The same with the four places of each 2x2 window side by side; windows that the border
    cuts have fewer."""
    window, quarter = m // 4, m % 4
    wide, tall = (width + 1) // 2, (height + 1) // 2
    y = 2 * ((window // wide) % tall) + quarter // 2
    x = 2 * (window % wide) + quarter % 2
    image = window // (wide * tall)
    return image, y, x, (image < n) & (y < height) & (x < width)


@triton.jit
def _add_convolution(
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
def _patches(
    images, rows, image, y, col, valid, height, width, C: tl.constexpr, K: tl.constexpr
):
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
def _image_weight(w, C: tl.constexpr, K: tl.constexpr, F: tl.constexpr):
    k, c = tl.arange(0, K), tl.arange(0, F)
    return tl.load(w + k[:, None] * F + c[None, :], mask=(k < 9 * C)[:, None], other=0.0)


@triton.jit
def _store_pooled(
    acc, valid, sign, z, sums, highest, place, tile, g, n, height, width,
    F: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """z, the tile's sums for mean and variance, and the pooled z with its place."""
    c = tl.arange(0, F)
    m = tile * BM + tl.arange(0, BM)
    image, y, col, _ = _position_by_window(m, n, height, width)
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
    tl.store(
        place + base + pooled[:, None] + c[None, :], index.to(tl.int8), mask=whole[:, None]
    )


@triton.jit
def _sign(gamma, F: tl.constexpr):
    return tl.where(tl.load(gamma + tl.arange(0, F)) < 0, -1.0, 1.0)


@triton.jit(do_not_specialize=["n", "height", "width"])
def convolve(
    x, theta, w_at, gamma_at, P, z, sums, highest, place, n, height, width,
    F: tl.constexpr, BM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """z = W*x, and what `_store_pooled` makes of it."""
    tile, g = tl.program_id(0), tl.program_id(1)
    m = tile * BM + tl.arange(0, BM)
    image, y, col, valid = _position_by_window(m, n, height, width)
    own = theta + g.to(tl.int64) * P
    x += g.to(tl.int64) * n * height * width * F
    acc = tl.zeros((BM, F), tl.float32)
    acc = _add_convolution(
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
    image, y, col, valid = _position_by_window(m, n, height, width)
    own = theta + g.to(tl.int64) * P
    x = _patches(images, rows + g * n, image, y, col, valid, height, width, C, K)
    acc = tl.dot(x, _image_weight(own + w_at, C, K, F), input_precision=PRECISION)
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
def _gate(
    da, a, n, n_t, u_old, u, sums, at, there, tile, g, F: tl.constexpr, TANGENT: tl.constexpr
):
    """u = da where a > 0, else 0, and the tile's sums for dbeta and dgamma, or their tangents."""
    c = tl.arange(0, F)
    gated = tl.where(tl.load(a + at, mask=there, other=0.0) > 0, da, 0.0)
    tl.store(u + at, gated, mask=there)
    product = gated * tl.load(n + at, mask=there, other=0.0)
    if TANGENT:
        product += tl.load(u_old + at, mask=there, other=0.0) * tl.load(
            n_t + at, mask=there, other=0.0
        )
    sums += (g * tl.num_programs(0) + tile) * 2 * F
    tl.store(sums + c, tl.sum(tl.where(there, gated, 0.0), 0))
    tl.store(sums + F + c, tl.sum(product, 0))


@triton.jit
def gate(
    da, a, n, n_t, u_old, u, sums, pooled, TANGENT: tl.constexpr, F: tl.constexpr, BM: tl.constexpr
):
    """`_gate` of the last block, whose da comes from the linear layer; u may be `da`."""
    tile, g, c = tl.program_id(0), tl.program_id(1), tl.arange(0, F)
    m = tile * BM + tl.arange(0, BM)
    at = g.to(tl.int64) * pooled * F + m[:, None] * F + c[None, :]
    there = (m < pooled)[:, None]
    values = tl.load(da + at, mask=there, other=0.0)
    _gate(values, a, n, n_t, u_old, u, sums, at, there, tile, g, F, TANGENT)


@triton.jit(do_not_specialize=["n_images", "height", "width"])
def input_gradient(
    dz, dz_t, w, w_t, w_at, W, a, n, n_t, u_old, u, sums, n_images, height, width,
    TANGENT: tl.constexpr, F: tl.constexpr, BM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dx = W^T * dz, or its tangent W^T*dz. + W.^T*dz, gated by the block before, whose a, n and
    u these are. w, w_t: [n_tasks, 27, F, F], the weights of blocks 2 to 4 as (tap, ci, co)."""
    tile, g, c = tl.program_id(0), tl.program_id(1), tl.arange(0, F)
    m = tile * BM + tl.arange(0, BM)
    image, y, col, valid = _position(m, n_images, height, width)
    base, own = g.to(tl.int64) * n_images * height * width * F, g.to(tl.int64) * W + w_at
    acc = tl.zeros((BM, F), tl.float32)
    if TANGENT:
        acc = _add_convolution(
            acc, dz_t + base, w + own, image, y, col, valid, height, width, F, True, PRECISION
        )
        acc = _add_convolution(
            acc, dz + base, w_t + own, image, y, col, valid, height, width, F, True, PRECISION
        )
    else:
        acc = _add_convolution(
            acc, dz + base, w + own, image, y, col, valid, height, width, F, True, PRECISION
        )
    at = base + m[:, None] * F + c[None, :]
    _gate(acc, a, n, n_t, u_old, u, sums, at, valid[:, None], tile, g, F, TANGENT)


@triton.jit
def _unpooled(u, place, g, image, y, col, valid, n, height, width, F: tl.constexpr):
    """u at the pooled places of these positions, and 0 elsewhere. u, place: of all tasks."""
    c = tl.arange(0, F)
    row, column = y // 2, col // 2
    there = (valid & (row < height // 2) & (column < width // 2))[:, None]
    at = ((image * (height // 2) + row) * (width // 2) + column) * F
    at = g.to(tl.int64) * n * (height // 2) * (width // 2) * F + at[:, None] + c[None, :]
    quarter = (2 * (y % 2) + col % 2)[:, None]
    here = there & (tl.load(place + at, mask=there, other=-1).to(tl.int32) == quarter)
    return tl.load(u + at, mask=here, other=0.0)


@triton.jit
def _spread(
    z, u, place, mean, r, theta, gamma_at, beta_at, gradient, P, g, image, y, col, valid, at,
    n, height, width, F: tl.constexpr,
):  # fmt: skip
    """dz at these positions. gradient: flat vectors that hold dgamma and dbeta."""
    c, size = tl.arange(0, F), n * height * width
    row = g.to(tl.int64) * P
    gamma, rr = tl.load(theta + row + gamma_at + c), tl.load(r + g * F + c)
    dgamma, dbeta = tl.load(gradient + row + gamma_at + c), tl.load(gradient + row + beta_at + c)
    scale, slope = gamma * rr, rr * dgamma / size
    centred = tl.load(z + at, mask=valid[:, None], other=0.0) - tl.load(mean + g * F + c)[None, :]
    q = _unpooled(u, place, g, image, y, col, valid, n, height, width, F)
    q -= (dbeta / size)[None, :] + slope[None, :] * centred
    return tl.where(valid[:, None], scale[None, :] * q, 0.0)


@triton.jit
def _spread_tangent(
    z, z_t, u, u_t, place, mean, r, mean_t, m2, theta, direction, gamma_at, beta_at, gradient,
    product, P, g, image, y, col, valid, at, n, height, width, F: tl.constexpr,
):  # fmt: skip
    """dz. at these positions. product: flat vectors that hold dgamma. and dbeta.."""
    c, size = tl.arange(0, F), n * height * width
    row = g.to(tl.int64) * P
    rr, mm = tl.load(r + g * F + c), tl.load(m2 + g * F + c)
    dgamma, dbeta = tl.load(gradient + row + gamma_at + c), tl.load(gradient + row + beta_at + c)
    dgamma_t, dbeta_t = tl.load(product + row + gamma_at + c), tl.load(product + row + beta_at + c)
    scale, slope = tl.load(theta + row + gamma_at + c) * rr, rr * dgamma / size
    scale_t = rr * (tl.load(direction + row + gamma_at + c) - scale * mm)
    slope_t = rr * dgamma_t / size - slope * rr * mm
    centred = tl.load(z + at, mask=valid[:, None], other=0.0) - tl.load(mean + g * F + c)[None, :]
    centred_t = tl.load(z_t + at, mask=valid[:, None], other=0.0)
    centred_t -= tl.load(mean_t + g * F + c)[None, :]
    q = _unpooled(u, place, g, image, y, col, valid, n, height, width, F)
    q -= (dbeta / size)[None, :] + slope[None, :] * centred
    q_t = _unpooled(u_t, place, g, image, y, col, valid, n, height, width, F)
    q_t -= (dbeta_t / size)[None, :] + slope[None, :] * centred_t + slope_t[None, :] * centred
    return tl.where(valid[:, None], scale[None, :] * q_t + scale_t[None, :] * q, 0.0)


@triton.jit(do_not_specialize=["n", "height", "width"])
def spread(
    z, z_t, u, u_t, place, mean, r, mean_t, m2, theta, direction, gamma_at, beta_at, gradient,
    product, P, dz, n, height, width, TANGENT: tl.constexpr, F: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """dz, or its tangent."""
    tile, g, c = tl.program_id(0), tl.program_id(1), tl.arange(0, F)
    m = tile * BM + tl.arange(0, BM)
    image, y, col, valid = _position(m, n, height, width)
    at = g.to(tl.int64) * n * height * width * F + m[:, None] * F + c[None, :]
    if TANGENT:
        values = _spread_tangent(
            z, z_t, u, u_t, place, mean, r, mean_t, m2, theta, direction, gamma_at, beta_at,
            gradient, product, P, g, image, y, col, valid, at, n, height, width, F,
        )  # fmt: skip
    else:
        values = _spread(
            z, u, place, mean, r, theta, gamma_at, beta_at, gradient, P, g, image, y, col, valid,
            at, n, height, width, F,
        )  # fmt: skip
    tl.store(dz + at, values, mask=valid[:, None])


@triton.jit
def _shifted(x, image_at, y, col, dy, dx, valid, height, width, F: tl.constexpr):
    """x at positions moved by (dy, dx): 0 beyond the border."""
    inside = valid & (y + dy >= 0) & (y + dy < height) & (col + dx >= 0) & (col + dx < width)
    at = image_at + (dy * width + dx) * F
    return tl.load(x + at[:, None] + tl.arange(0, F)[None, :], mask=inside[:, None], other=0.0)


@triton.jit
def _add_weight_gradient(
    left, middle, right, x, dz, base, dy, first, last, n, height, width,
    F: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The sums of the three taps of a row plus x (*) dz over these tiles."""
    c = tl.arange(0, F)
    for tile in range(first, last):
        m = tile * BK + tl.arange(0, BK)
        _, y, col, valid = _position(m, n, height, width)
        at = base + m * F
        spread = tl.load(dz + at[:, None] + c[None, :], mask=valid[:, None], other=0.0)
        spread = tl.trans(spread)
        values = _shifted(x, at, y, col, dy, -1, valid, height, width, F)
        left = tl.dot(spread, values, left, input_precision=PRECISION)
        values = _shifted(x, at, y, col, dy, 0, valid, height, width, F)
        middle = tl.dot(spread, values, middle, input_precision=PRECISION)
        values = _shifted(x, at, y, col, dy, 1, valid, height, width, F)
        right = tl.dot(spread, values, right, input_precision=PRECISION)
    return left, middle, right


@triton.jit(do_not_specialize=["n", "height", "width", "tiles_each"])
def weight_gradient(
    x, x_t, dz, dz_t, parts, n, height, width, tiles_each,
    TANGENT: tl.constexpr, F: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """x (*) dz, or its tangent x (*) dz. + x. (*) dz: [n_tasks, splits, 9, F, F], each split the
    sum over `tiles_each` tiles of positions. Programs are (split, row of taps, task)."""
    split, row, g = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c, dy = tl.arange(0, F), row - 1
    base = g.to(tl.int64) * n * height * width * F
    first, last = split * tiles_each, (split + 1) * tiles_each
    left, middle, right = (
        tl.zeros((F, F), tl.float32), tl.zeros((F, F), tl.float32), tl.zeros((F, F), tl.float32)
    )  # fmt: skip
    if TANGENT:
        left, middle, right = _add_weight_gradient(
            left, middle, right, x, dz_t, base, dy, first, last, n, height, width, F, BK, PRECISION
        )
        left, middle, right = _add_weight_gradient(
            left, middle, right, x_t, dz, base, dy, first, last, n, height, width, F, BK, PRECISION
        )
    else:
        left, middle, right = _add_weight_gradient(
            left, middle, right, x, dz, base, dy, first, last, n, height, width, F, BK, PRECISION
        )
    parts += ((g * tl.num_programs(0) + split).to(tl.int64) * 9 + 3 * row) * F * F
    at = c[:, None] * F + c[None, :]
    tl.store(parts + at, left)
    tl.store(parts + F * F + at, middle)
    tl.store(parts + 2 * F * F + at, right)


@triton.jit(do_not_specialize=["n", "height", "width", "tiles_each"])
def weight_gradient_images(
    images, rows, z, z_t, u, u_t, place, mean, r, mean_t, m2, theta, direction, gamma_at, beta_at,
    gradient, product, P, parts, n, height, width, tiles_each, TANGENT: tl.constexpr,
    C: tl.constexpr, K: tl.constexpr, F: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """X (*) dz, or X (*) dz., of block 1: [n_tasks, splits, 9 * C, F]; dz is kept nowhere."""
    split, g = tl.program_id(0), tl.program_id(1)
    k, c = tl.arange(0, K), tl.arange(0, F)
    acc = tl.zeros((F, K), tl.float32)
    for tile in range(split * tiles_each, (split + 1) * tiles_each):
        m = tile * BK + tl.arange(0, BK)
        image, y, col, valid = _position(m, n, height, width)
        at = g.to(tl.int64) * n * height * width * F + m[:, None] * F + c[None, :]
        if TANGENT:
            values = _spread_tangent(
                z, z_t, u, u_t, place, mean, r, mean_t, m2, theta, direction, gamma_at, beta_at,
                gradient, product, P, g, image, y, col, valid, at, n, height, width, F,
            )  # fmt: skip
        else:
            values = _spread(
                z, u, place, mean, r, theta, gamma_at, beta_at, gradient, P, g, image, y, col,
                valid, at, n, height, width, F,
            )  # fmt: skip
        x = _patches(images, rows + g * n, image, y, col, valid, height, width, C, K)
        acc = tl.dot(tl.trans(values), x, acc, input_precision=PRECISION)
    parts += (g * tl.num_programs(0) + split).to(tl.int64) * 9 * C * F
    tl.store(parts + k[None, :] * F + c[:, None], acc, mask=(k < 9 * C)[None, :])


@triton.jit
def _store_tangent(
    acc, z, mean, z_t, sums, at, valid, tile, g, F: tl.constexpr
):
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
    image, y, col, valid = _position(m, n, height, width)
    base = g.to(tl.int64) * n * height * width * F
    own, along = theta + g.to(tl.int64) * P + w_at, direction + g.to(tl.int64) * P + w_at
    acc = tl.zeros((BM, F), tl.float32)
    acc = _add_convolution(
        acc, x_t + base, own, image, y, col, valid, height, width, F, False, PRECISION
    )
    acc = _add_convolution(
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
    image, y, col, valid = _position(m, n, height, width)
    x = _patches(images, rows + g * n, image, y, col, valid, height, width, C, K)
    along = _image_weight(direction + g.to(tl.int64) * P + w_at, C, K, F)
    acc = tl.dot(x, along, input_precision=PRECISION)
    at = g.to(tl.int64) * n * height * width * F + m[:, None] * F + c[None, :]
    _store_tangent(acc, z, mean, z_t, sums, at, valid, tile, g, F)


@triton.jit(do_not_specialize=["n_images", "height", "width"])
def activate_tangent(
    z_t, place, n, a, mean_t, m2, r, theta, direction, gamma_at, beta_at, P, n_t, a_t,
    n_images, height, width, F: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """n. at the pooled places, and a.."""
    tile, g, c = tl.program_id(0), tl.program_id(1), tl.arange(0, F)
    high, wide = height // 2, width // 2
    m = tile * BM + tl.arange(0, BM)
    image, y, col, valid = _position(m, n_images, high, wide)
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
