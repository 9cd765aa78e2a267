"""Block 1 of Conv4 for `engine.meta_gradient`, whose input is the images themselves.

They stay the same through all inner steps, and a convolution is linear in their 3x3 patches X:
statistics of z are those of the patches, mean z = w . mean X and var z = w . C w with C the
patches' covariance. So none of its full-size arrays, the largest of the network, is ever
normalised or kept. Notation is that of `engine.passes`, layouts are those of `engine.layers`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from negmeta_utils.engine import convolutions, layers
from negmeta_utils.engine.convolutions import convolve
from negmeta_utils.model import BATCH_NORM_EPS

CHUNK = 2**13  # pixels that block 1 works on at once on a CPU: with 64 filters 2 MB, a cache


class Images(NamedTuple):
    """The input of the network.

    x: [n_tasks, n, height, width, channels].
    mean: of its 3x3 patches, float64 [n_tasks, 1, 9 * channels].
    covariance: of its 3x3 patches, float64 [n_tasks, 9 * channels, 9 * channels].
    chunk: how many images of each task block 1 works on at once.
    """

    x: torch.Tensor
    mean: torch.Tensor
    covariance: torch.Tensor
    chunk: int


def prepare(images: torch.Tensor) -> Images:
    """`Images` of [n_tasks, n, channels, height, width].

    In float64, because the variance of a high-pass filter is a small difference of the
    covariance's large entries.
    """
    x = convolutions.channels_last(images)
    chunk = x.shape[1] if x.is_cuda else max(1, CHUNK // x[:, 0, ..., 0].numel())
    parts = [_patch_sums(part.double()) for part in images.split(chunk, 1)]
    total, product = (sum(sums) for sums in zip(*parts, strict=True))
    size = x[0, ..., 0].numel()
    mean = total[:, None] / size
    return Images(x, mean, product / size - mean.mT * mean, chunk)


def _patch_sums(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over the 3x3 patches X of images [n_tasks, n, channels, height, width]: of X
    [n_tasks, 9 * channels] and of X^T X [n_tasks, 9 * channels, 9 * channels].

    A patch is three rows of 1x3 patches Y, and products of these depend on the rows' distance
    alone, but for the first and last row of the image, which not all places of a patch reach.
    """
    n_tasks, _, channels, height, width = images.shape
    y = F.pad(images, (1, 1)).unfold(4, width, 1).movedim(4, 3).flatten(4).flatten(2, 3)

    def product(distance: int) -> torch.Tensor:
        ahead, behind = y[..., distance * width :], y[..., : (height - distance) * width]
        return (behind @ ahead.mT).sum(1)

    first, last = y[..., :width], y[..., -width:]
    same, near, far = product(0), product(1), product(2)
    rows = [
        [same - (last @ last.mT).sum(1), near, far],
        [near.mT, same, near],
        [far.mT, near.mT, same - (first @ first.mT).sum(1)],
    ]
    gram = torch.stack([torch.stack(row, 1) for row in rows], 1)
    # [n_tasks, 3, 3, (c, j), (c, j)] with the rows of a patch in front; weights are (c, i, j).
    gram = gram.view(n_tasks, 3, 3, channels, 3, channels, 3).permute(0, 3, 1, 4, 5, 2, 6)
    total = y.sum((1, 3))
    sums = torch.stack([total - last.sum((1, 3)), total, total - first.sum((1, 3))], 1)
    sums = sums.view(n_tasks, 3, channels, 3).movedim(1, 2)
    return sums.flatten(1), gram.reshape(n_tasks, 9 * channels, 9 * channels)


def normalise(images: Images, weight: torch.Tensor, gamma: torch.Tensor) -> layers.Normalised:
    product, mean = _patch_product(images, weight)
    variance = layers.per_channel((product * weight.flatten(2)).sum(2)).to(weight.dtype)
    r = (variance + BATCH_NORM_EPS).rsqrt_()
    sign = layers.sign_of(gamma)
    oriented = weight * sign.movedim(4, 1)
    parts = [layers.pool(convolve(x, oriented)) for x in images.x.split(images.chunk, 1)]
    pooled, places = zip(*parts, strict=True)
    size = images.x[0, ..., 0].numel()
    pooled = layers.join(pooled, 1).mul_(sign).sub_(mean).mul_(r)
    return layers.Normalised(images, weight, size, product.to(weight.dtype), r, places, pooled)


def normalise_tangent(s: layers.Normalised, weight_t: torch.Tensor) -> layers.Tangent:
    product, mean = _patch_product(s.x, weight_t)
    m2 = layers.per_channel((s.centred * weight_t.flatten(2)).sum(2)) * s.r
    chunks = zip(s.x.x.split(s.x.chunk, 1), s.places, strict=True)
    z = layers.join([layers.at(convolve(x, weight_t), index) for x, index in chunks], 1)
    return layers.Tangent(product.to(z.dtype), mean, m2, layers.pooled_tangent(s, z, mean, m2))


def spread(s: layers.Normalised, scale, u, dbeta, dgamma) -> layers.Spread:
    slope = s.r * dgamma / s.size
    q = _unpooled_weight_gradient(s, u) - _column(dbeta) * s.x.mean.to(u.dtype)
    q -= _column(slope * s.size) * s.centred
    return layers.Spread(scale, u, dbeta, slope, q)


def spread_tangent(
    s: layers.Normalised, s_t: layers.Tangent, b: layers.Spread, scale_t, u_t, dbeta_t, dgamma_t
) -> torch.Tensor:
    """dW. [n_tasks, filters, 9 * channels]."""
    slope_t = s.r * dgamma_t / s.size - b.slope * s.r * s_t.m2
    q_t = _unpooled_weight_gradient(s, u_t) - _column(dbeta_t) * s.x.mean.to(u_t.dtype)
    q_t -= _column(b.slope * s.size) * s_t.z + _column(slope_t * s.size) * s.centred
    return _column(b.scale) * q_t + _column(scale_t) * b.dz


def weight_gradient(b: layers.Spread) -> torch.Tensor:
    """dW [n_tasks, filters, 9 * channels] of block 1."""
    return _column(b.scale) * b.dz


def _patch_product(images: Images, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """C w in float64 [n_tasks, filters, 9 * channels], and the mean of w * x a channel."""
    w = weight.flatten(2).double()
    return w @ images.covariance, layers.per_channel((w * images.mean).sum(2)).to(weight.dtype)


def _unpooled_weight_gradient(s: layers.Normalised, u: torch.Tensor) -> torch.Tensor:
    """The sum of X unpool(u) in block 1: [n_tasks, filters, 9 * channels]."""
    total, chunk = 0, s.x.chunk
    for x, part, index in zip(s.x.x.split(chunk, 1), u.split(chunk, 1), s.places, strict=True):
        planes = x.new_zeros(*x.shape[:4], u.shape[4])
        planes = layers.add_unpooled(planes, part, index)
        total = total + convolutions.weight_gradient(x, planes).flatten(2)
    return total


def _column(values: torch.Tensor) -> torch.Tensor:
    """[n_tasks, 1, 1, 1, filters] as [n_tasks, filters, 1]."""
    return values.flatten(1)[:, :, None]
