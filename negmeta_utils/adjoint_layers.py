"""One block of Conv4 for `adjoint`: convolution, batch normalisation and max-pooling, each as a
forward pass, a gradient, a tangent and the gradient's tangent.

Notation and formulas are those of `adjoint`'s docstring. Images and activations are
[n_tasks, n, height, width, channels]: with channels last in memory torch's convolution and
pooling are fastest. Weights are [n_tasks, filters, channels, 3, 3], n_tasks being 1 where all
tasks share them; a value a channel is [n_tasks, 1, 1, 1, filters].

Pooling comes before normalisation, which saves passes over memory: where gamma is positive the
largest z in a window is the largest output too, and where it is negative the smallest is. (A gamma
of exactly 0 counts as positive.)

Block 1 has functions of its own, ending in `_images`. Its input is the images, which stay the same
through all inner steps, and its convolution is linear in their 3x3 patches X: statistics of z are
those of the patches, mean z = w . mean X and var z = w . C w with C the patches' covariance. So
none of its full-size arrays, the largest of the network, is ever normalised or kept.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from negmeta_utils.model import BATCH_NORM_EPS

SPACE = (1, 2, 3)  # the dimensions a channel's statistics go over
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


class Normalised(NamedTuple):
    """n = (z - mean z) r at the pooled places, and what later passes read again."""

    x: torch.Tensor | Images
    weight: torch.Tensor
    size: int  # M, the number of values a channel's statistics go over
    centred: torch.Tensor  # c = z - mean z; in block 1, C w [n_tasks, filters, 9 * channels]
    r: torch.Tensor
    index: torch.Tensor | tuple[torch.Tensor, ...]  # the pooled places; in block 1, in chunks
    pooled: torch.Tensor  # n at these places


class Tangent(NamedTuple):
    """The tangent of a `Normalised`."""

    z: torch.Tensor  # in block 1, C w. instead
    mean: torch.Tensor  # of z.
    m2: torch.Tensor
    pooled: torch.Tensor  # n. at the pooled places


class Spread(NamedTuple):
    """The gradient at a convolution's output, and what its tangent reads again."""

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
    z = _convolve(x, weight)
    sign = _sign(gamma)
    pooled, index = _pool(z * sign)
    mean = z.mean(SPACE, keepdim=True)
    centred = z.sub_(mean)
    r = (centred.square().mean(SPACE, keepdim=True) + BATCH_NORM_EPS).rsqrt_()
    size = z[0, ..., 0].numel()
    return Normalised(x, weight, size, centred, r, index, pooled.mul_(sign).sub_(mean).mul_(r))


def normalise_tangent(s: Normalised, x_t: torch.Tensor, weight_t: torch.Tensor) -> Tangent:
    z = _convolve(s.x, weight_t).add_(_convolve(x_t, s.weight))
    mean = z.mean(SPACE, keepdim=True)
    m2 = (s.centred * z).mean(SPACE, keepdim=True).mul_(s.r)
    return Tangent(z, mean, m2, _pooled_tangent(s, _at(z, s.index), mean, m2))


def spread(s: Normalised, scale, u, dbeta, dgamma) -> Spread:
    slope = s.r * dgamma / s.size
    dz = torch.addcmul(scale * dbeta / -s.size, s.centred, -scale * slope)
    return Spread(scale, u, dbeta, slope, _add_unpooled(dz, scale * u, s.index))


def spread_tangent(
    s: Normalised, s_t: Tangent, b: Spread, scale_t, u_t, dbeta_t, dgamma_t
) -> torch.Tensor:
    """dz. [n_tasks, n, height, width, filters]."""
    slope_t = s.r * dgamma_t / s.size - b.slope * s.r * s_t.m2
    constant = b.scale * (b.slope * s_t.mean - dbeta_t / s.size) - scale_t * b.dbeta / s.size
    dz = torch.addcmul(constant, s.centred, -(b.scale * slope_t + scale_t * b.slope))
    dz.addcmul_(s_t.z, -b.scale * b.slope)
    return _add_unpooled(dz, (b.scale * u_t).addcmul_(scale_t, b.u), s.index)


def weight_gradient(x: torch.Tensor, dz: torch.Tensor) -> torch.Tensor:
    """x (*) dz of each task: [n_tasks, filters, channels, 3, 3]."""
    weight = x.new_empty(dz.shape[-1], x.shape[-1], 3, 3)
    gradients = [
        torch.ops.aten.convolution_backward(
            _nchw(dz[t : t + 1]), _nchw(x[t : t + 1]), weight, None,
            [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False],
        )[1][None]
        for t in range(len(x))
    ]  # fmt: skip
    return _join(gradients, 0)


def input_gradient(dz: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """W^T*dz."""
    if len(weight) == 1:
        return _nhwc(F.conv_transpose2d(_nchw(dz), weight[0], padding=1), len(dz))
    tasks = range(len(dz))
    return torch.cat([input_gradient(dz[t : t + 1], weight[t : t + 1]) for t in tasks])


def input_gradient_tangent(dz, dz_t, weight, weight_t) -> torch.Tensor:
    """W^T*dz. + W.^T*dz."""
    return input_gradient(dz_t, weight).add_(input_gradient(dz, weight_t))


def prepare(images: torch.Tensor) -> Images:
    """`Images` of [n_tasks, n, channels, height, width].

    In float64, because the variance of a high-pass filter is a small difference of the
    covariance's large entries.
    """
    x = channels_last(images)
    chunk = x.shape[1] if x.is_cuda else max(1, CHUNK // x[:, 0, ..., 0].numel())
    total, product, size = 0, 0, x[0, ..., 0].numel()
    for part in images.split(chunk, 1):
        part_total, part_product = _patch_sums(part.double())
        total, product = total + part_total, product + part_product
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


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """[n_tasks, n, channels, height, width] as [n_tasks, n, height, width, channels]."""
    # `contiguous` would leave the strides of a single channel as they are, and torch reads the
    # memory order off them.
    return images.movedim(2, 4).clone(memory_format=torch.contiguous_format)


def normalise_images(images: Images, weight: torch.Tensor, gamma: torch.Tensor) -> Normalised:
    product, mean = _patch_product(images, weight)
    variance = _per_channel((product * weight.flatten(2)).sum(2)).to(weight.dtype)
    r = (variance + BATCH_NORM_EPS).rsqrt_()
    sign = _sign(gamma)
    oriented = weight * sign.movedim(4, 1)
    chunks = [_pool(_convolve(x, oriented)) for x in images.x.split(images.chunk, 1)]
    pooled, index = zip(*chunks, strict=True)
    size = images.x[0, ..., 0].numel()
    pooled = _join(pooled, 1).mul_(sign).sub_(mean).mul_(r)
    return Normalised(images, weight, size, product.to(weight.dtype), r, index, pooled)


def normalise_images_tangent(s: Normalised, weight_t: torch.Tensor) -> Tangent:
    product, mean = _patch_product(s.x, weight_t)
    m2 = _per_channel((s.centred * weight_t.flatten(2)).sum(2)) * s.r
    chunks = zip(s.x.x.split(s.x.chunk, 1), s.index, strict=True)
    z = _join([_at(_convolve(x, weight_t), index) for x, index in chunks], 1)
    return Tangent(product.to(z.dtype), mean, m2, _pooled_tangent(s, z, mean, m2))


def spread_images(s: Normalised, scale, u, dbeta, dgamma) -> Spread:
    slope = s.r * dgamma / s.size
    q = _unpooled_weight_gradient(s, u) - _column(dbeta) * s.x.mean.to(u.dtype)
    q -= _column(slope * s.size) * s.centred
    return Spread(scale, u, dbeta, slope, q)


def spread_images_tangent(
    s: Normalised, s_t: Tangent, b: Spread, scale_t, u_t, dbeta_t, dgamma_t
) -> torch.Tensor:
    """dW. [n_tasks, filters, 9 * channels]."""
    slope_t = s.r * dgamma_t / s.size - b.slope * s.r * s_t.m2
    q_t = _unpooled_weight_gradient(s, u_t) - _column(dbeta_t) * s.x.mean.to(u_t.dtype)
    q_t -= _column(b.slope * s.size) * s_t.z + _column(slope_t * s.size) * s.centred
    return _column(b.scale) * q_t + _column(scale_t) * b.dz


def images_weight_gradient(b: Spread) -> torch.Tensor:
    """dW [n_tasks, filters, 9 * channels] of block 1."""
    return _column(b.scale) * b.dz


def _patch_product(images: Images, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """C w in float64 [n_tasks, filters, 9 * channels], and the mean of w * x a channel."""
    w = weight.flatten(2).double()
    return w @ images.covariance, _per_channel((w * images.mean).sum(2)).to(weight.dtype)


def _unpooled_weight_gradient(s: Normalised, u: torch.Tensor) -> torch.Tensor:
    """The sum of X unpool(u) in block 1: [n_tasks, filters, 9 * channels]."""
    total = 0
    chunk = s.x.chunk
    for x, part, index in zip(s.x.x.split(chunk, 1), u.split(chunk, 1), s.index, strict=True):
        planes = x.new_zeros(*x.shape[:4], u.shape[4])
        total = total + weight_gradient(x, _add_unpooled(planes, part, index)).flatten(2)
    return total


def _pooled_tangent(s: Normalised, z_t, mean, m2) -> torch.Tensor:
    """n. = r (z. - mean z. - n m2) at the pooled places; `z_t` is overwritten."""
    return z_t.sub_(mean).addcmul_(s.pooled, m2, value=-1).mul_(s.r)


def _convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """W*x, with a border of zeros."""
    if len(weight) == 1:
        return _nhwc(F.conv2d(_nchw(x), weight[0], padding=1), len(x))
    return torch.cat([_convolve(x[t : t + 1], weight[t : t + 1]) for t in range(len(x))])


def _sign(gamma: torch.Tensor) -> torch.Tensor:
    """-1 below zero, else 1."""
    return 1 - 2 * (gamma < 0).to(gamma.dtype)


def _pool(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """2x2 max-pooling, and where in its plane each maximum is: the first of equal ones."""
    pooled, index = F.max_pool2d(_nchw(z), 2, return_indices=True)
    return _nhwc(pooled, len(z)), _nhwc(index, len(z))


def _at(z: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`z` at the places `index` of each plane."""
    return z.flatten(2, 3).gather(2, index.flatten(2, 3)).view(index.shape)


def _add_unpooled(planes: torch.Tensor, u: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`planes`, changed in place, plus `u` at its places."""
    planes.flatten(2, 3).scatter_add_(2, index.flatten(2, 3), u.flatten(2, 3))
    return planes


def _nchw(x: torch.Tensor) -> torch.Tensor:
    """[n_tasks, n, h, w, c] as torch's [n_tasks * n, c, h, w], the memory unchanged."""
    return x.flatten(0, 1).permute(0, 3, 1, 2)


def _nhwc(x: torch.Tensor, n_tasks: int) -> torch.Tensor:
    return x.permute(0, 2, 3, 1).unflatten(0, (n_tasks, -1))


def _per_channel(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


def _column(values: torch.Tensor) -> torch.Tensor:
    """[n_tasks, 1, 1, 1, filters] as [n_tasks, filters, 1]."""
    return values.flatten(1)[:, :, None]


def _join(parts: list[torch.Tensor], dim: int) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
