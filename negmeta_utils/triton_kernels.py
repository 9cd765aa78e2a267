"""The programs that `adjoint_kernels` launches, in Triton. ROWS pixels or windows at a time, C, F
and K (channels, filters and patch entries, padded to what a matrix unit takes) are compile-time
constants; offsets within a task are 32 bits wide.
"""

import triton
import triton.language as tl


@triton.jit
def _load_taps(x, row, dy, dx, inside, py, px, height, width, c, channels: tl.constexpr):
    """x [rows, channels] at the places dy, dx away; 0 beyond the image's border."""
    inside &= (py + dy >= 0) & (py + dy < height) & (px + dx >= 0) & (px + dx < width)
    at = (row + dy * width + dx)[:, None] * channels + c[None, :]
    return tl.load(x + at, mask=inside[:, None] & (c < channels)[None, :], other=0.0)


@triton.jit
def _add_convolution(
    total, x, w, row, inside, height, width,
    channels: tl.constexpr, filters: tl.constexpr,
    C: tl.constexpr, F: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """The sum [rows, filters] plus w * x at these rows."""
    px, py = row % width, (row // width) % height
    c, f = tl.arange(0, C), tl.arange(0, F)
    at = f[None, :] * (9 * channels) + c[:, None]
    known = (c < channels)[:, None] & (f < filters)[None, :]
    for tap in range(9):
        dy, dx = tap // 3 - 1, tap % 3 - 1
        a = _load_taps(x, row, dy, dx, inside, py, px, height, width, c, channels)
        b = tl.load(w + at + tap * channels, mask=known, other=0.0)
        total = tl.dot(a, b, total, input_precision=precision)
    return total


@triton.jit
def convolve(
    x, w, x2, w2, out, n_rows, height, width, w_stride, w2_stride,
    channels: tl.constexpr, filters: tl.constexpr, two: tl.constexpr,
    ROWS: tl.constexpr, C: tl.constexpr, F: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    task = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < n_rows
    total = tl.zeros((ROWS, F), tl.float32)
    total = _add_convolution(
        total, x + task * n_rows * channels, w + task * w_stride, row, inside, height, width,
        channels, filters, C, F, precision,
    )  # fmt: skip
    if two:  # a loop of its own, which takes over the first one's shared memory
        total = _add_convolution(
            total, x2 + task * n_rows * channels, w2 + task * w2_stride, row, inside, height,
            width, channels, filters, C, F, precision,
        )  # fmt: skip
    f = tl.arange(0, F)
    mask = inside[:, None] & (f < filters)[None, :]
    out += task * n_rows * filters
    tl.store(out + row[:, None] * filters + f[None, :], total, mask=mask)


@triton.jit
def _add_row_of_taps(
    left, middle, right, x, dz, dy, first, last, n_rows, height, width,
    channels: tl.constexpr, filters: tl.constexpr,
    ROWS: tl.constexpr, C: tl.constexpr, F: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """The three sums [filters, channels] plus dz^T x at dx = -1, 0, 1, over rows first to last."""
    c, f = tl.arange(0, C), tl.arange(0, F)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = row < n_rows
        px, py = row % width, (row // width) % height
        at = row[:, None] * filters + f[None, :]
        mask = inside[:, None] & (f < filters)[None, :]
        g = tl.trans(tl.load(dz + at, mask=mask, other=0.0))
        a = _load_taps(x, row, dy, -1, inside, py, px, height, width, c, channels)
        left = tl.dot(g, a, left, input_precision=precision)
        a = _load_taps(x, row, dy, 0, inside, py, px, height, width, c, channels)
        middle = tl.dot(g, a, middle, input_precision=precision)
        a = _load_taps(x, row, dy, 1, inside, py, px, height, width, c, channels)
        right = tl.dot(g, a, right, input_precision=precision)
    return left, middle, right


@triton.jit
def weight_gradient(
    x, dz, x2, dz2, out, n_rows, height, width, rows_a_part,
    channels: tl.constexpr, filters: tl.constexpr, two: tl.constexpr,
    ROWS: tl.constexpr, C: tl.constexpr, F: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    dy, part, task = tl.program_id(0) - 1, tl.program_id(1), tl.program_id(2).to(tl.int64)
    first, last = part * rows_a_part, (part + 1) * rows_a_part
    left = tl.zeros((F, C), tl.float32)
    middle = tl.zeros((F, C), tl.float32)
    right = tl.zeros((F, C), tl.float32)
    left, middle, right = _add_row_of_taps(
        left, middle, right, x + task * n_rows * channels, dz + task * n_rows * filters, dy,
        first, last, n_rows, height, width, channels, filters, ROWS, C, F, precision,
    )  # fmt: skip
    if two:
        left, middle, right = _add_row_of_taps(
            left, middle, right, x2 + task * n_rows * channels, dz2 + task * n_rows * filters, dy,
            first, last, n_rows, height, width, channels, filters, ROWS, C, F, precision,
        )  # fmt: skip
    c, f = tl.arange(0, C), tl.arange(0, F)
    out += (task * tl.num_programs(1) + part) * filters * 9 * channels
    out += (dy + 1) * 3 * channels + f[:, None] * (9 * channels) + c[None, :]
    mask = (f < filters)[:, None] & (c < channels)[None, :]
    tl.store(out, left, mask=mask)
    tl.store(out + channels, middle, mask=mask)
    tl.store(out + 2 * channels, right, mask=mask)


@triton.jit
def _load_patches(x, window, inside, place, height, width, k, channels: tl.constexpr):
    """The 3x3 patches [windows, 9 * channels], in memory's order, of the windows' `place`."""
    columns, rows = width // 2, height // 2
    py = (window // columns) % rows * 2 + place // 2
    px = window % columns * 2 + place % 2
    image = window // (columns * rows)
    y = py[:, None] + (k // (3 * channels))[None, :] - 1
    x_ = px[:, None] + (k // channels % 3)[None, :] - 1
    mask = inside[:, None] & (k < 9 * channels)[None, :]
    mask &= (y >= 0) & (y < height) & (x_ >= 0) & (x_ < width)
    at = ((image[:, None] * height + y) * width + x_) * channels + (k % channels)[None, :]
    return tl.load(x + at, mask=mask, other=0.0)


@triton.jit
def pooled_convolve(
    x, w, given, out, place_out, n_windows, n, height, width, w_stride,
    channels: tl.constexpr, filters: tl.constexpr, at_given: tl.constexpr,
    ROWS: tl.constexpr, K: tl.constexpr, F: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    task = tl.program_id(1).to(tl.int64)
    x += task * n * height * width * channels
    w += task * w_stride
    out += task * n_windows * filters
    given += task * n_windows * filters
    place_out += task * n_windows * filters
    window = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = window < n_windows
    k, f = tl.arange(0, K), tl.arange(0, F)
    at = f[None, :] * (9 * channels) + k[:, None]
    known = (k < 9 * channels)[:, None] & (f < filters)[None, :]
    b = tl.load(w + at, mask=known, other=0.0)
    at = window[:, None] * filters + f[None, :]
    mask = inside[:, None] & (f < filters)[None, :]
    a = _load_patches(x, window, inside, 0, height, width, k, channels)
    best = tl.dot(a, b, input_precision=precision)
    if at_given:
        where = tl.load(given + at, mask=mask, other=0).to(tl.int32)
    else:
        where = tl.zeros((ROWS, F), tl.int32)
    for place in range(1, 4):
        a = _load_patches(x, window, inside, place, height, width, k, channels)
        z = tl.dot(a, b, input_precision=precision)
        if at_given:
            best = tl.where(where == place, z, best)
        else:
            where = tl.where(z > best, place, where)  # the first of equal ones, as torch's pooling
            best = tl.maximum(z, best)
    tl.store(out + at, best, mask=mask)
    if not at_given:
        tl.store(place_out + at, where.to(tl.int8), mask=mask)


@triton.jit
def pooled_weight_gradient(
    x, u, given, out, n_windows, n, height, width, windows_a_part,
    channels: tl.constexpr, filters: tl.constexpr,
    ROWS: tl.constexpr, K: tl.constexpr, F: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    part, task = tl.program_id(0), tl.program_id(1).to(tl.int64)
    x += task * n * height * width * channels
    u += task * n_windows * filters
    given += task * n_windows * filters
    k, f = tl.arange(0, K), tl.arange(0, F)
    total = tl.zeros((F, K), tl.float32)
    for start in range(part * windows_a_part, (part + 1) * windows_a_part, ROWS):
        window = start + tl.arange(0, ROWS)
        inside = window < n_windows
        at = window[:, None] * filters + f[None, :]
        mask = inside[:, None] & (f < filters)[None, :]
        g = tl.load(u + at, mask=mask, other=0.0)
        where = tl.load(given + at, mask=mask, other=0).to(tl.int32)
        for place in range(4):
            a = _load_patches(x, window, inside, place, height, width, k, channels)
            here = tl.trans(tl.where(where == place, g, 0.0))
            total = tl.dot(here, a, total, input_precision=precision)
    out += (task * tl.num_programs(0) + part) * filters * 9 * channels
    mask = (f < filters)[:, None] & (k < 9 * channels)[None, :]
    tl.store(out + f[:, None] * (9 * channels) + k[None, :], total, mask=mask)
