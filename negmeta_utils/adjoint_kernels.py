"""Triton kernels for `adjoint_layers` on a GPU: convolution where every task has weights of its
own, in one launch for all tasks, and block 1 with its pooling inside the convolution.

torch's convolutions want one set of weights, so tasks that have been adapted apart would go one
after another, too small each to fill a card. Notation and layouts are those of `adjoint_layers`:
activations [n_tasks, n, height, width, channels], weights [n_tasks, filters, channels, 3, 3] with
channels last in memory; weights [1, ...] are shared by all tasks. All is float32 and contiguous.

Block 1 needs its convolution only where a 2x2 window has its maximum, so these kernels compute a
window's four values in registers and write the one that counts: the network's largest array, four
times the size of any other, never exists. `place` (0 to 3, row by row) says which one it was.

Sums over an image's places are made of partial sums of fixed parts in a fixed order: the same
inputs give the same bits.

Products on the matrix units are exact to float32 by three TF32 products (torch's precision
"highest"), or plain TF32 ("high", `torch.set_float32_matmul_precision`).
"""

import torch
import triton

from negmeta_utils import triton_kernels

NAME = "triton"
ROWS = 64  # windows that a program works on at once; with more, registers do not suffice
SUM_ROWS = 32  # pixels, in a sum over places: there three sums take the registers
PARTS = 264  # programs that a sum over places is shared out to: two a multiprocessor of an H100


@torch.library.custom_op("negmeta::convolve", mutates_args=())
def convolve(
    x: torch.Tensor, weight: torch.Tensor, x2: torch.Tensor | None, weight2: torch.Tensor | None
) -> torch.Tensor:
    """W*x, plus W2*x2 where they are given, with a border of zeros."""
    filters, channels = weight.shape[1:3]
    out = x.new_empty(*x.shape[:4], filters)
    x, weight = x.contiguous(), _channels_last(weight)
    two = x2 is not None
    x2, weight2 = (x2.contiguous(), _channels_last(weight2)) if two else (x, weight)
    n_tasks, n, height, width = x.shape[:4]
    n_rows = n * height * width
    rows = _rows_at_once(n_tasks * n_rows)
    triton_kernels.convolve[(triton.cdiv(n_rows, rows), n_tasks)](
        x, weight, x2, weight2, out, n_rows, height, width, _stride(weight), _stride(weight2),
        channels, filters, two, rows, _padded(channels), _padded(filters), _precision(),
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


@convolve.register_fake
def _(x, weight, x2, weight2):
    return x.new_empty(*x.shape[:4], weight.shape[1])


def input_gradient(
    dz: torch.Tensor,
    weight: torch.Tensor,
    dz2: torch.Tensor | None,
    weight2: torch.Tensor | None,
    reuse: bool,
) -> torch.Tensor:
    """W^T*dz, plus W2^T*dz2 where they are given. `reuse` makes no difference here."""
    return convolve(dz, _turned(weight), dz2, None if weight2 is None else _turned(weight2))


def _turned(weight: torch.Tensor) -> torch.Tensor:
    """The weights W^T whose convolution is the transposed one of W."""
    return weight.transpose(1, 2).flip(3, 4)


@torch.library.custom_op("negmeta::weight_gradient", mutates_args=())
def weight_gradient(
    x: torch.Tensor, dz: torch.Tensor, x2: torch.Tensor | None, dz2: torch.Tensor | None
) -> torch.Tensor:
    """x (*) dz of each task, plus x2 (*) dz2 where they are given:
    [n_tasks, filters, channels, 3, 3], channels last in memory."""
    n_tasks, n, height, width, channels = x.shape
    filters, n_rows = dz.shape[-1], n * height * width
    x, dz, two = x.contiguous(), dz.contiguous(), x2 is not None
    x2, dz2 = (x2.contiguous(), dz2.contiguous()) if two else (x, dz)
    parts, rows_a_part = _parts(n_rows, SUM_ROWS, max(1, PARTS // (3 * n_tasks)))
    out = x.new_empty(n_tasks, parts, filters, 3, 3, channels)
    triton_kernels.weight_gradient[(3, parts, n_tasks)](
        x, dz, x2, dz2, out, n_rows, height, width, rows_a_part,
        channels, filters, two, SUM_ROWS, _padded(channels), _padded(filters), _precision(),
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return out.sum(1).permute(0, 1, 4, 2, 3)


@weight_gradient.register_fake
def _(x, dz, x2, dz2):
    shape = (len(x), dz.shape[-1], 3, 3, x.shape[-1])
    return x.new_empty(shape).permute(0, 1, 4, 2, 3)


@torch.library.custom_op("negmeta::pooled_convolve", mutates_args=())
def pooled_convolve(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """2x2 max-pooling of W*x [n_tasks, n, height / 2, width / 2, filters], and the places of the
    maxima, int8 of the same shape."""
    out = x.new_empty(*_pooled_shape(x), weight.shape[1])
    place = torch.empty_like(out, dtype=torch.int8)
    _launch_pooled(x, weight, place, out, at_given=False)
    return out, place


@pooled_convolve.register_fake
def _(x, weight):
    out = x.new_empty(*_pooled_shape(x), weight.shape[1])
    return out, torch.empty_like(out, dtype=torch.int8)


@torch.library.custom_op("negmeta::convolve_at", mutates_args=())
def convolve_at(x: torch.Tensor, weight: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """W*x at the given place of each window: shaped as `place`."""
    out = torch.empty_like(place, dtype=x.dtype)
    _launch_pooled(x, weight, place, out, at_given=True)
    return out


@convolve_at.register_fake
def _(x, weight, place):
    return torch.empty_like(place, dtype=x.dtype)


@torch.library.custom_op("negmeta::weight_gradient_at", mutates_args=())
def weight_gradient_at(x: torch.Tensor, u: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """x (*) dz with dz equal to `u` at the given place of each window and 0 elsewhere: shape as
    `weight_gradient`."""
    n_tasks, n, height, width, channels = x.shape
    filters, n_windows = u.shape[-1], u[0, ..., 0].numel()
    parts, windows_a_part = _parts(n_windows, ROWS, max(1, 2 * PARTS // n_tasks))
    out = x.new_empty(n_tasks, parts, filters, 3, 3, channels)
    triton_kernels.pooled_weight_gradient[(parts, n_tasks)](
        x.contiguous(), u.contiguous(), place, out, n_windows, n, height, width, windows_a_part,
        channels, filters, ROWS, _padded(9 * channels), _padded(filters), _precision(),
        num_warps=4, num_stages=2,
    )  # fmt: skip
    return out.sum(1).permute(0, 1, 4, 2, 3)


@weight_gradient_at.register_fake
def _(x, u, place):
    return x.new_empty(len(x), u.shape[-1], 3, 3, x.shape[-1]).permute(0, 1, 4, 2, 3)


def _launch_pooled(x, weight, place, out, at_given: bool) -> None:
    filters, channels = weight.shape[1:3]
    n_tasks, n, height, width = x.shape[:4]
    n_windows = out[0, ..., 0].numel()
    weight = _channels_last(weight)
    triton_kernels.pooled_convolve[(triton.cdiv(n_windows, ROWS), n_tasks)](
        x.contiguous(), weight, place, out, place, n_windows, n, height, width, _stride(weight),
        channels, filters, at_given, ROWS, _padded(9 * channels), _padded(filters), _precision(),
        num_warps=4, num_stages=2,
    )  # fmt: skip


def _pooled_shape(x: torch.Tensor) -> tuple[int, ...]:
    return (*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)


def _channels_last(weight: torch.Tensor) -> torch.Tensor:
    """[n_tasks, filters, channels, 3, 3] as contiguous [n_tasks, filters, 3, 3, channels]."""
    return weight.permute(0, 1, 3, 4, 2).contiguous()


def _stride(weight: torch.Tensor) -> int:
    """From one task's weights to the next's; 0 where tasks share them."""
    return weight[0].numel() if len(weight) > 1 else 0


def _rows_at_once(n_rows: int) -> int:
    """Fewer where there would be too few programs for a card, or where a product is three."""
    sizes = (128, 64, 32) if _precision() == "tf32" else (64, 32)
    return next((rows for rows in sizes if n_rows >= rows * PARTS), 16)


def _parts(n_rows: int, rows: int, most: int) -> tuple[int, int]:
    """How many parts to share `n_rows` out to, and the rows of each: a multiple of `rows`."""
    blocks = triton.cdiv(n_rows, rows)
    each = triton.cdiv(blocks, most)
    return triton.cdiv(blocks, each), each * rows


def _padded(size: int) -> int:
    return max(16, triton.next_power_of_2(size))


def _precision() -> str:
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
