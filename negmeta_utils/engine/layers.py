"""One block of Conv4: convolution, batch normalisation and max-pooling, each as a
forward pass, a gradient, a tangent and the gradient's tangent.

Notation and formulas are those of `engine.passes`. Images and activations are
[n_tasks, n, height, width, channels]: with channels last in memory torch's convolution and
pooling are fastest. Weights are [n_tasks, filters, channels, 3, 3], n_tasks being 1 where all
tasks share them; a value a channel is [n_tasks, 1, 1, 1, filters].

Pooling comes before normalisation, which saves passes over memory: where gamma is positive the
largest z in a window is the largest output too, and where it is negative the smallest is. (A gamma
of exactly 0 counts as positive.)
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from negmeta_utils.engine import convolutions
from negmeta_utils.model import BATCH_NORM_EPS

SPACE = (1, 2, 3)  # the dimensions a channel's statistics go over


class Normalised(NamedTuple):
    """n = (z - mean z) r at the pooled places, and what later passes reuse."""

    x: Any  # [n_tasks, n, height, width, channels]; in block 1 `first_block.Images`
    weight: torch.Tensor
    size: int  # M, the number of values a channel's statistics go over
    centred: torch.Tensor  # c = z - mean z; in block 1, C w [n_tasks, filters, 9 * channels]
    r: torch.Tensor
    places: Any  # the pooled places in their planes; in block 1 a tuple, one a chunk
    pooled: torch.Tensor  # n at these places


class Tangent(NamedTuple):
    """The tangent of a `Normalised`."""

    z: torch.Tensor  # in block 1, C w. instead
    mean: torch.Tensor  # of z.
    m2: torch.Tensor
    pooled: torch.Tensor  # n. at the pooled places


class Spread(NamedTuple):
    """The gradient at a convolution's output, and what its tangent reuses."""

    scale: torch.Tensor  # gamma r
    u: torch.Tensor  # at the pooled places alone
    dbeta: torch.Tensor
    slope: torch.Tensor  # s = r dgamma / M
    dz: torch.Tensor  # in block 1, the sum of X q instead [n_tasks, filters, 9 * channels]


def output(x: torch.Tensor, weight, gamma, beta) -> torch.Tensor:
    """a of one task where no gradient follows, by torch's own operations: nothing is kept.

    x: [n, channels, height, width] with channels last in memory, and so is a.
    """
    z = F.conv2d(x, weight, padding=1)
    z = F.batch_norm(z, None, None, gamma, beta, training=True, eps=BATCH_NORM_EPS)
    return F.max_pool2d(z, 2).relu_()


def normalise(x: torch.Tensor, weight: torch.Tensor, gamma: torch.Tensor) -> Normalised:
    z = convolutions.convolve(x, weight)
    sign = sign_of(gamma)
    size = z[0, ..., 0].numel()
    pooled, index = pool(z * sign)
    mean = z.mean(SPACE, keepdim=True)
    centred = z.sub_(mean)
    r = (centred.square().mean(SPACE, keepdim=True) + BATCH_NORM_EPS).rsqrt_()
    return Normalised(x, weight, size, centred, r, index, pooled.mul_(sign).sub_(mean).mul_(r))


def normalise_tangent(s: Normalised, x_t: torch.Tensor, weight_t: torch.Tensor) -> Tangent:
    z = convolutions.convolve(s.x, weight_t, x_t, s.weight)
    mean = z.mean(SPACE, keepdim=True)
    m2 = (s.centred * z).mean(SPACE, keepdim=True).mul_(s.r)
    return Tangent(z, mean, m2, pooled_tangent(s, at(z, s.places), mean, m2))


def spread(s: Normalised, scale, u, dbeta, dgamma) -> Spread:
    slope = s.r * dgamma / s.size
    constant, factor = scale * dbeta / -s.size, -scale * slope
    dz = add_unpooled(torch.addcmul(constant, s.centred, factor), scale * u, s.places)
    return Spread(scale, u, dbeta, slope, dz)


def spread_tangent(
    s: Normalised, s_t: Tangent, b: Spread, scale_t, u_t, dbeta_t, dgamma_t
) -> torch.Tensor:
    """dz. [n_tasks, n, height, width, filters]."""
    slope_t = s.r * dgamma_t / s.size - b.slope * s.r * s_t.m2
    constant = b.scale * (b.slope * s_t.mean - dbeta_t / s.size) - scale_t * b.dbeta / s.size
    factor, factor_t = -(b.scale * slope_t + scale_t * b.slope), -b.scale * b.slope
    dz = torch.addcmul(constant, s.centred, factor).addcmul_(s_t.z, factor_t)
    return add_unpooled(dz, (b.scale * u_t).addcmul_(scale_t, b.u), s.places)


def activate(s: Normalised, gamma, beta) -> torch.Tensor:
    """a of a block."""
    return torch.addcmul(beta, gamma, s.pooled).relu_()


def activate_tangent(
    s: Normalised, a: torch.Tensor, s_t: Tangent, gamma, gamma_t, beta_t
) -> torch.Tensor:
    """a. of a block."""
    p_t = torch.addcmul(beta_t, gamma_t, s.pooled).addcmul_(gamma, s_t.pooled)
    return _where_positive(a, p_t)


def gate(s: Normalised, a: torch.Tensor, da: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """u, which may take the place of `da`, dbeta and dgamma of a block."""
    u = _where_positive(a, da)
    return u, u.sum(SPACE, keepdim=True), (u * s.pooled).sum(SPACE, keepdim=True)


def gate_tangent(
    s: Normalised, a: torch.Tensor, da_t: torch.Tensor, s_t: Tangent, u: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """u., which may take the place of `da_t`, dbeta. and dgamma. of a block."""
    u_t = _where_positive(a, da_t)
    dgamma_t = (u_t * s.pooled).addcmul_(u, s_t.pooled).sum(SPACE, keepdim=True)
    return u_t, u_t.sum(SPACE, keepdim=True), dgamma_t


def pooled_tangent(s: Normalised, z_t, mean, m2) -> torch.Tensor:
    """n. = r (z. - mean z. - n m2) at the pooled places; `z_t` is overwritten."""
    return z_t.sub_(mean).addcmul_(s.pooled, m2, value=-1).mul_(s.r)


def _where_positive(a: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`values` where a > 0, else 0."""
    return torch.ops.aten.threshold_backward(values, a, 0)


def sign_of(gamma: torch.Tensor) -> torch.Tensor:
    """-1 below zero, else 1."""
    return 1 - 2 * (gamma < 0).to(gamma.dtype)


def pool(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """2x2 max-pooling, and where in its plane each maximum is: the first of equal ones."""
    pooled, index = F.max_pool2d(convolutions.nchw(z), 2, return_indices=True)
    return convolutions.nhwc(pooled, len(z)), convolutions.nhwc(index, len(z))


def at(z: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`z` at the places `index` of each plane."""
    return z.flatten(2, 3).gather(2, index.flatten(2, 3)).view(index.shape)


def add_unpooled(planes: torch.Tensor, u: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`planes`, changed in place, plus `u` at its places."""
    planes.flatten(2, 3).scatter_add_(2, index.flatten(2, 3), u.flatten(2, 3))
    return planes


def per_channel(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


def join(parts: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
