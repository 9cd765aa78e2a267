"""A block's convolutions, statistics and pooling on a CPU by `native/*.c`, with few passes over
memory. Tasks go one at a time, each in a thread of its own.

Notation and layouts are those of `engine.layers`. Weights are stored [1, 3, 3, channels, filters],
which is what the C functions read; tensors of weights are views of that in the usual order. `place`
(0 to 3, row by row, int8) says where in its 2x2 window a pooled value was.
"""

import ctypes

import torch

from negmeta_utils.engine import library

NAME = "c"
FILTERS = 32  # what a tile of the C functions takes; numbers of filters are multiples of it
IMAGE_CHANNELS = (1, 3)
BITS = {torch.float32: 32, torch.float64: 64}


def suits(x: torch.Tensor, channels: int, filters: int) -> bool:
    """Whether the functions here can take the place of torch's for tensors like `x`: on a CPU
    tasks go one at a time."""
    return (
        filters % FILTERS == 0
        and (channels % FILTERS == 0 or channels in IMAGE_CHANNELS)
        and not x.is_cuda
        and len(x) == 1
        and x.dtype in BITS
        and torch.get_float32_matmul_precision() != "medium"  # torch multiplies bfloat16
        and library.library(BITS[x.dtype]) is not None
    )


def stored(weight: torch.Tensor) -> torch.Tensor:
    """Weights [n_tasks, filters, channels, 3, 3], unchanged but for their order in memory."""
    return weight.permute(0, 3, 4, 2, 1).contiguous().permute(0, 4, 3, 1, 2)


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    x2: torch.Tensor | None = None,
    weight2: torch.Tensor | None = None,
) -> torch.Tensor:
    """W*x, plus W2*x2 where they are given, with a border of zeros."""
    return _convolve(x, weight, x2, weight2, weight.shape[1], turned=False)


def input_gradient(
    dz: torch.Tensor,
    weight: torch.Tensor,
    dz2: torch.Tensor | None = None,
    weight2: torch.Tensor | None = None,
    reuse: bool = False,
) -> torch.Tensor:
    """W^T*dz, plus W2^T*dz2 where they are given; in place of `dz` if `reuse`."""
    out = dz if reuse else None
    return _convolve(dz, weight, dz2, weight2, weight.shape[2], turned=True, out=out)


def _convolve(x, weight, x2, weight2, filters: int, turned: bool, out=None) -> torch.Tensor:
    out = x.new_empty(*x.shape[:4], filters) if out is None else out
    shape = *x.shape[1:], filters
    _call("convolve", x.dtype, x, _taps(weight), x2, _taps(weight2), out, turned, *shape)
    return out


def weight_gradient(
    x: torch.Tensor,
    dz: torch.Tensor,
    x2: torch.Tensor | None = None,
    dz2: torch.Tensor | None = None,
) -> torch.Tensor:
    """x (*) dz, plus x2 (*) dz2 where they are given: [1, filters, channels, 3, 3]."""
    out = _new_taps(x, dz)
    _call("weight_gradient", x.dtype, x, dz, x2, dz2, out, *x.shape[1:], dz.shape[-1])
    return _weights(out)


def pooled_convolve(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """2x2 max-pooling of W*x of images, and the places of the maxima."""
    out = x.new_empty(*_pooled_shape(x), weight.shape[1])
    place = torch.empty_like(out, dtype=torch.int8)
    shape = *x.shape[1:], out.shape[-1]
    _call("pooled_convolve", x.dtype, x, _taps(weight), place, out, False, *shape)
    return out, place


def convolve_at(x: torch.Tensor, weight: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """W*x of images at the given place of each window: shaped as `place`."""
    out = torch.empty_like(place, dtype=x.dtype)
    shape = *x.shape[1:], out.shape[-1]
    _call("pooled_convolve", x.dtype, x, _taps(weight), place, out, True, *shape)
    return out


def weight_gradient_at(x: torch.Tensor, u: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """x (*) dz of images with dz equal to `u` at the given place of each window and 0 elsewhere."""
    out = _new_taps(x, u)
    _call("weight_gradient_at", x.dtype, x, u, place, out, *x.shape[1:], u.shape[-1])
    return _weights(out)


def patch_sums(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over the 3x3 patches X of images: of X [1, 9 * channels] and of X^T X [1, 9 * channels,
    9 * channels], in float64."""
    size = 9 * x.shape[-1]
    total = x.new_empty(1, size, dtype=torch.float64)
    product = x.new_empty(1, size, size, dtype=torch.float64)
    _call("patch_sums", x.dtype, x, total, product, *x.shape[1:])
    return total, product


def centre(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """z - mean z, in place of `z`; mean z and var z [1, 1, 1, 1, filters]."""
    mean, variance = _per_channel(z), _per_channel(z)
    _call("centre", z.dtype, z, mean, variance, z[..., 0].numel(), z.shape[-1])
    return z, mean, variance


def pool(
    centred: torch.Tensor, sign: torch.Tensor, r: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The places of the largest `sign` c in every window, and n = r c there."""
    pooled = centred.new_empty(*_pooled_shape(centred), centred.shape[-1])
    place = torch.empty_like(pooled, dtype=torch.int8)
    _call("pool", centred.dtype, centred, sign, r, place, pooled, *centred.shape[1:])
    return place, pooled


def normalise_tangent(
    z_t: torch.Tensor, centred: torch.Tensor, r: torch.Tensor, place, pooled
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """mean z., m2 and n. at the pooled places."""
    mean, m2, pooled_t = _per_channel(r), _per_channel(r), torch.empty_like(pooled)
    _call(
        "normalise_tangent", z_t.dtype,
        z_t, centred, r, place, pooled, mean, m2, pooled_t, *z_t.shape[1:],
    )  # fmt: skip
    return mean, m2, pooled_t


def activate(beta, gamma, n, gate=None, gamma2=None, n2=None) -> torch.Tensor:
    """max(0, beta + gamma n); with `gate`, beta + gamma n + gamma2 n2 where gate > 0, else 0."""
    out = torch.empty_like(n)
    size, filters = n[..., 0].numel(), n.shape[-1]
    _call("activate", n.dtype, gate, beta, gamma, n, gamma2, n2, out, size, filters)
    return out


def gate(
    a: torch.Tensor, da: torch.Tensor, n: torch.Tensor, u2=None, n2=None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """u = da where a > 0, else 0, in place of `da`; its sum; and that of u n, plus u2 n2 where they
    are given."""
    dbeta, dgamma = _per_channel(n), _per_channel(n)
    _call("gate", n.dtype, a, da, n, u2, n2, dbeta, dgamma, n[..., 0].numel(), n.shape[-1])
    return da, dbeta, dgamma


def combine(out, constant, factor, a, factor2, b, factor_u, u, factor_v, v, place) -> torch.Tensor:
    """constant + factor a + factor2 b, plus factor_u u + factor_v v at their places, written to
    `out`, which may be `a` or `b`; `b` and `v` may be None."""
    _call(
        "combine", a.dtype,
        constant, factor, a, factor2, b, factor_u, u, factor_v, v, place, out, *a.shape[1:],
    )  # fmt: skip
    return out


def _call(name: str, dtype: torch.dtype, *arguments: torch.Tensor | int | None) -> None:
    """A function of `engine/native/*.c`. Raises MemoryError where it has none to work with."""
    # Kept until the call returns: some of these may be copies made here.
    kept = [a.contiguous() if isinstance(a, torch.Tensor) else a for a in arguments]
    values = [a.data_ptr() if isinstance(a, torch.Tensor) else a or 0 for a in kept]
    if getattr(library.library(BITS[dtype]), name)(*map(ctypes.c_ssize_t, values)):
        raise MemoryError(f"{name}: no memory for a border; take fewer images at once")


def _taps(weight: torch.Tensor | None) -> torch.Tensor | None:
    """[1, 3, 3, channels, filters] of weights in the usual order; no copy of what `stored` gave."""
    return None if weight is None else weight.permute(0, 3, 4, 2, 1)


def _weights(taps: torch.Tensor) -> torch.Tensor:
    return taps.permute(0, 4, 3, 1, 2)


def _new_taps(x: torch.Tensor, dz: torch.Tensor) -> torch.Tensor:
    return x.new_empty(1, 3, 3, x.shape[-1], dz.shape[-1])


def _pooled_shape(x: torch.Tensor) -> tuple[int, ...]:
    return (*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)


def _per_channel(like: torch.Tensor) -> torch.Tensor:
    return like.new_empty(1, 1, 1, 1, like.shape[-1])
