"""Triton kernels of Conv4's gradient and of its tangent; shapes as in `gpu.positions`."""

import triton
import triton.language as tl

from negmeta_utils.gpu.positions import add_convolution, patches, position


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
    image, y, col, valid = position(m, n_images, height, width)
    base, own = g.to(tl.int64) * n_images * height * width * F, g.to(tl.int64) * W + w_at
    acc = tl.zeros((BM, F), tl.float32)
    if TANGENT:
        acc = add_convolution(
            acc, dz_t + base, w + own, image, y, col, valid, height, width, F, True, PRECISION
        )
        acc = add_convolution(
            acc, dz + base, w_t + own, image, y, col, valid, height, width, F, True, PRECISION
        )
    else:
        acc = add_convolution(
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


@triton.jit
def _dz(
    z, z_t, u, u_t, place, mean, r, mean_t, m2, theta, direction, gamma_at, beta_at, gradient,
    product, P, g, image, y, col, valid, at, n, height, width, TANGENT: tl.constexpr,
    F: tl.constexpr,
):  # fmt: skip
    """dz at these positions, or its tangent."""
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
    return values


@triton.jit(do_not_specialize=["n", "height", "width"])
def spread(
    z, z_t, u, u_t, place, mean, r, mean_t, m2, theta, direction, gamma_at, beta_at, gradient,
    product, P, dz, n, height, width, TANGENT: tl.constexpr, F: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """dz, or its tangent."""
    tile, g, c = tl.program_id(0), tl.program_id(1), tl.arange(0, F)
    m = tile * BM + tl.arange(0, BM)
    image, y, col, valid = position(m, n, height, width)
    at = g.to(tl.int64) * n * height * width * F + m[:, None] * F + c[None, :]
    values = _dz(
        z, z_t, u, u_t, place, mean, r, mean_t, m2, theta, direction, gamma_at, beta_at,
        gradient, product, P, g, image, y, col, valid, at, n, height, width, TANGENT, F,
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
        _, y, col, valid = position(m, n, height, width)
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
        image, y, col, valid = position(m, n, height, width)
        at = g.to(tl.int64) * n * height * width * F + m[:, None] * F + c[None, :]
        values = _dz(
            z, z_t, u, u_t, place, mean, r, mean_t, m2, theta, direction, gamma_at, beta_at,
            gradient, product, P, g, image, y, col, valid, at, n, height, width, TANGENT, F,
        )  # fmt: skip
        x = patches(images, rows + g * n, image, y, col, valid, height, width, C, K)
        acc = tl.dot(tl.trans(values), x, acc, input_precision=PRECISION)
    parts += (g * tl.num_programs(0) + split).to(tl.int64) * 9 * C * F
    tl.store(parts + k[None, :] * F + c[:, None], acc, mask=(k < 9 * C)[None, :])
