"""Forward pass, gradient and its tangent of many tasks at once, by the kernels.

What `engine.passes` does for a few tasks in torch's operations; formulas and names are there.
Parameters are flat vectors [n_tasks, length] (`gpu.vectors`), one a task. Images are rows of a
data set that stays uint8 on the device, [n_images, height, width, channels].
"""

from typing import NamedTuple

import torch
import triton

from negmeta_utils.gpu import backward_kernels, forward_kernels
from negmeta_utils.gpu.vectors import Layout
from negmeta_utils.model import BATCH_NORM_EPS, BLOCKS

# How the kernels are cut and compiled, as measured on an H100 (docs/speed.md). Products are
# float32's but for the last bits, on tensor cores: one of TensorFloat-32 alone would be wrong by
# tenths of a meta-gradient, since places of pooling and signs flip.
PRECISION = "tf32x3"
TILE = 32  # positions that a program multiplies at once
WARPS, STAGES = 4, 3  # of such a program
# The same of a weight's gradient, a sum over positions: neither operand lies as TensorFloat-32
# wants it, and bfloat16 does not mind.
SUM_PRECISION = "bf16x6"
SUM_TILE, SUM_STAGES = 32, 2
PROGRAMS = 528  # to split sums into: four for each multiprocessor
SUMS = 64  # tiles whose sums are added at once
SMALL_TILE = 32  # positions of a program that multiplies nothing


class Batch(NamedTuple):
    """The images of a batch of tasks.

    images: uint8 [n_images, height, width, channels], of the whole data set.
    rows: int32 [n_tasks, n], contiguous.
    labels: int64 [n], of every task.
    """

    images: torch.Tensor
    rows: torch.Tensor
    labels: torch.Tensor


class Block(NamedTuple):
    """What a block's gradient reuses."""

    x: torch.Tensor | None  # None in block 1, whose input are images
    size: tuple[int, int, int]  # images a task, height and width of x
    z: torch.Tensor
    mean: torch.Tensor
    r: torch.Tensor
    place: torch.Tensor
    n: torch.Tensor
    a: torch.Tensor


class Forward(NamedTuple):
    params: torch.Tensor
    turned: torch.Tensor  # `Layout.turned_back` of them
    batch: Batch
    blocks: dict[int, Block]
    features: torch.Tensor  # [n_tasks, n, places * F]
    logits: torch.Tensor  # [n_tasks, n, n_way]


class Backward(NamedTuple):
    gradient: torch.Tensor  # [n_tasks, length]
    delta: torch.Tensor
    u: dict[int, torch.Tensor]
    dz: dict[int, torch.Tensor]  # of blocks 2 to 4


class Tangents(NamedTuple):
    """Tangents of a block's arrays of the same names."""

    z: torch.Tensor
    mean: torch.Tensor
    m2: torch.Tensor
    n: torch.Tensor
    a: torch.Tensor


def forward(layout: Layout, params: torch.Tensor, batch: Batch) -> Forward:
    blocks: dict[int, Block] = {}
    for block in BLOCKS:
        x = blocks[block - 1].a if block > 1 else None
        blocks[block] = _block(layout, params, batch, block, x)
    features = blocks[4].a.flatten(2)
    bias, weight = layout.view(params, "logits.bias"), _head(layout, params)
    logits = torch.baddbmm(bias[:, None], features, weight.mT)
    return Forward(params, layout.turned_back(params), batch, blocks, features, logits)


def _head(layout: Layout, vectors: torch.Tensor) -> torch.Tensor:
    return layout.view(vectors, "logits.weight").flatten(2)


def _sizes(layout: Layout, tile: str) -> dict:
    """How a kernel that multiplies is compiled."""
    return {
        "F": layout.n_filters, tile: TILE, "PRECISION": PRECISION, "num_warps": WARPS,
        "num_stages": STAGES,
    }  # fmt: skip


def _offsets(layout: Layout, block: int) -> tuple[int, int, int]:
    """Of a block's weight, gamma and beta."""
    names = f"conv{block}.weight", f"norm{block}.weight", f"norm{block}.bias"
    return tuple(layout.slices[name].start for name in names)


def _block(layout: Layout, params, batch: Batch, block: int, x) -> Block:
    n_tasks, n = batch.rows.shape
    height, width = batch.images.shape[1:3] if block == 1 else x.shape[2:4]
    filters, length = layout.n_filters, layout.length
    w_at, gamma_at, beta_at = _offsets(layout, block)
    windows = n * -(-height // 2) * -(-width // 2)
    tiles = triton.cdiv(4 * windows, TILE)
    z = params.new_empty(n_tasks, n, height, width, filters)
    pooled = (n_tasks, n, height // 2, width // 2, filters)
    normed, a = params.new_empty(pooled), params.new_empty(pooled)
    place = torch.empty(pooled, dtype=torch.int8, device=params.device)
    sums = params.new_empty(n_tasks, tiles, 3, filters)
    mean, r = params.new_empty(2, n_tasks, filters)
    into = z, sums, normed, place, n, height, width
    sizes = _sizes(layout, "BM")
    if block == 1:
        forward_kernels.convolve_images[tiles, n_tasks](
            batch.images, batch.rows, params, w_at, gamma_at, length, *into, **sizes,
            C=layout.channels, K=_patch_size(layout),
        )  # fmt: skip
    else:
        forward_kernels.convolve[tiles, n_tasks](x, params, w_at, gamma_at, length, *into, **sizes)
    size = n * height * width
    forward_kernels.statistics[n_tasks,](
        sums, mean, r, tiles, size, BATCH_NORM_EPS, F=filters, BT=SUMS
    )
    places = pooled[1] * pooled[2] * pooled[3]
    forward_kernels.activate[triton.cdiv(places, SMALL_TILE), n_tasks](
        normed, mean, r, params, gamma_at, beta_at, length, normed, a, places, F=filters,
        BM=SMALL_TILE,
    )  # fmt: skip
    return Block(x, (n, height, width), z, mean, r, place, normed, a)


def _patch_size(layout: Layout) -> int:
    """9 * channels, rounded up to what a product of tensor cores takes."""
    return max(16, triton.next_power_of_2(9 * layout.channels))


def gradient(layout: Layout, f: Forward, last: bool = False) -> Backward:
    """Gradient of each task's mean cross-entropy; `last` where no tangent follows."""
    params, labels = f.params, f.batch.labels
    found = torch.zeros_like(params)
    delta = f.logits.softmax(2)
    delta[:, torch.arange(len(labels), device=labels.device), labels] -= 1
    delta /= len(labels)
    torch.bmm(delta.mT, f.features, out=_head(layout, found))
    layout.view(found, "logits.bias").copy_(delta.sum(1))
    da = (delta @ _head(layout, params)).view(f.blocks[4].a.shape)
    us, dzs = {}, {}
    us[4] = _gate(layout, f.blocks[4], 4, da, found)
    for block in (4, 3, 2):
        dzs[block] = _spread(layout, f, block, us[block], found)
        _weight_gradient(layout, f.blocks[block], block, dzs[block], found)
        us[block - 1] = _input_gradient(layout, f, block, dzs[block], found)
        if last:
            del dzs[block], us[block]
    _weight_gradient_images(layout, f, us[1], found)
    return Backward(found, delta, us, dzs)


def _gate(layout: Layout, b: Block, block: int, da, found, tangents=None, u_old=None):
    """u of the last block, which overwrites `da`; dgamma and dbeta are written to `found`. With
    `tangents`, `da` is da., and u., dgamma. and dbeta. are made of it; `u_old` is u then."""
    n_tasks, filters = len(da), layout.n_filters
    places = da[0, ..., 0].numel()
    tiles = triton.cdiv(places, SMALL_TILE)
    sums = da.new_empty(n_tasks, tiles, 2, filters)
    tangent = tangents is not None
    n_t, u_old = (tangents.n, u_old) if tangent else (b.n, b.n)
    backward_kernels.gate[tiles, n_tasks](
        da, b.a, b.n, n_t, u_old, da, sums, places, TANGENT=tangent, F=filters, BM=SMALL_TILE
    )
    _add_up_gate(layout, block, sums, found)
    return da


def _add_up_gate(layout: Layout, block: int, sums, found) -> None:
    _, gamma_at, beta_at = _offsets(layout, block)
    n_tasks, tiles, _, filters = sums.shape
    forward_kernels.add_up[n_tasks,](
        sums, found[:, beta_at:], found[:, gamma_at:], layout.length, layout.length, 1.0, sums,
        tiles, SCALED=False, F=filters, BT=SUMS,
    )  # fmt: skip


def _spread_arguments(layout: Layout, f: Forward, block: int, u, found, t=None, own=None):
    """What the kernels that spread a gradient take. t, own: for the tangent alone; own is the
    direction, u. and the product so far."""
    b = f.blocks[block]
    _, gamma_at, beta_at = _offsets(layout, block)
    if t is None:
        z_t, u_t, mean_t, m2, direction, product = b.z, u, b.mean, b.mean, f.params, found
    else:
        (direction, u_t, product), (z_t, mean_t, m2, *_) = own, t
    return (
        b.z, z_t, u, u_t, b.place, b.mean, b.r, mean_t, m2, f.params, direction, gamma_at, beta_at,
        found, product, layout.length,
    )  # fmt: skip


def _spread(layout: Layout, f: Forward, block: int, u, found, t=None, own=None):
    b = f.blocks[block]
    dz = torch.empty_like(b.z)
    tiles = triton.cdiv(b.size[0] * b.size[1] * b.size[2], SMALL_TILE)
    backward_kernels.spread[tiles, len(dz)](
        *_spread_arguments(layout, f, block, u, found, t, own), dz, *b.size,
        TANGENT=t is not None, F=layout.n_filters, BM=SMALL_TILE,
    )  # fmt: skip
    return dz


def _splits(b: Block, tile: int, programs: int) -> tuple[int, int]:
    """Into how many sums to split one over all positions, and the tiles of each."""
    tiles = triton.cdiv(b.size[0] * b.size[1] * b.size[2], tile)
    each = triton.cdiv(tiles, min(tiles, max(1, PROGRAMS // programs)))
    return triton.cdiv(tiles, each), each


def _weight_gradient(layout: Layout, b: Block, block: int, dz, into, x_t=None, dz_t=None) -> None:
    n_tasks, filters = len(dz), layout.n_filters
    splits, each = _splits(b, SUM_TILE, 3 * n_tasks)
    parts = dz.new_empty(n_tasks, splits, 9, filters, filters)
    tangent = x_t is not None
    pairs = (b.x, x_t, dz, dz_t) if tangent else (b.x, b.x, dz, dz)
    backward_kernels.weight_gradient[splits, 3, n_tasks](
        *pairs,
        parts,
        *b.size,
        each,
        TANGENT=tangent,
        **_sizes(layout, "BK")
        | {"BK": SUM_TILE, "num_stages": SUM_STAGES, "PRECISION": SUM_PRECISION},
    )
    torch.sum(parts, 1, out=layout.view(into, f"conv{block}.weight"))


def _weight_gradient_images(layout: Layout, f: Forward, u, found, t=None, own=None) -> None:
    b, filters, channels = f.blocks[1], layout.n_filters, layout.channels
    n_tasks = len(u)
    splits, each = _splits(b, SMALL_TILE, n_tasks)
    parts = u.new_empty(n_tasks, splits, 9, channels, filters)
    backward_kernels.weight_gradient_images[splits, n_tasks](
        f.batch.images, f.batch.rows, *_spread_arguments(layout, f, 1, u, found, t, own), parts,
        *b.size, each, TANGENT=t is not None, C=channels, K=_patch_size(layout),
        **_sizes(layout, "BK") | {"BK": SMALL_TILE},
    )  # fmt: skip
    torch.sum(parts, 1, out=layout.view(found if t is None else own[2], "conv1.weight"))


def _input_gradient(layout: Layout, f: Forward, block: int, dz, found, along=None):
    """u of the block before `block`; its dgamma and dbeta are written to `found`. With `along`,
    their tangents instead. along: dz., the direction's weights turned, and the tangents and u of
    the block before."""
    b, before, filters = f.blocks[block], f.blocks[block - 1], layout.n_filters
    n_tasks, tiles = len(dz), triton.cdiv(b.size[0] * b.size[1] * b.size[2], TILE)
    sums, u = dz.new_empty(n_tasks, tiles, 2, filters), torch.empty_like(before.a)
    dz_t, turned_t, t, u_old = along or (dz, f.turned, before, before.n)
    backward_kernels.input_gradient[tiles, n_tasks](
        dz, dz_t, f.turned, turned_t, (block - 2) * 9 * filters**2, 27 * filters**2, before.a,
        before.n, t.n, u_old, u, sums, *b.size, TANGENT=along is not None, **_sizes(layout, "BM"),
    )  # fmt: skip
    _add_up_gate(layout, block - 1, sums, found)
    return u


def hessian_product(layout: Layout, f: Forward, b: Backward, direction: torch.Tensor):
    """H V of each task's mean cross-entropy with V = `direction`, both [n_tasks, length]."""
    params, delta = f.params, b.delta
    tangents: dict[int, Tangents] = {}
    for block in BLOCKS:
        x_t = tangents[block - 1].a if block > 1 else None
        tangents[block] = _block_tangent(layout, f, block, x_t, direction)
    features_t = tangents[4].a.flatten(2)
    head, head_t = _head(layout, params), _head(layout, direction)
    output_t = torch.baddbmm(layout.view(direction, "logits.bias")[:, None], features_t, head.mT)
    output_t = torch.baddbmm(output_t, f.features, head_t.mT)
    softmax = f.logits.softmax(2)
    delta_t = softmax * (output_t - (softmax * output_t).sum(2, keepdim=True)) / delta.shape[1]
    product = torch.zeros_like(params)
    weight = torch.baddbmm(delta_t.mT @ f.features, delta.mT, features_t)
    _head(layout, product).copy_(weight)
    layout.view(product, "logits.bias").copy_(delta_t.sum(1))
    da_t = torch.baddbmm(delta_t @ head, delta, head_t).view(tangents[4].a.shape)
    u_t = _gate(layout, f.blocks[4], 4, da_t, product, tangents[4], b.u[4])
    turned_t = layout.turned_back(direction)
    for block in (4, 3, 2):
        t, before = tangents[block], tangents[block - 1]
        own = direction, u_t, product
        dz_t = _spread(layout, f, block, b.u[block], b.gradient, t, own)
        _weight_gradient(layout, f.blocks[block], block, b.dz[block], product, before.a, dz_t)
        along = dz_t, turned_t, before, b.u[block - 1]
        u_t = _input_gradient(layout, f, block, b.dz[block], product, along)
    own = direction, u_t, product
    _weight_gradient_images(layout, f, b.u[1], b.gradient, tangents[1], own)
    return product


def _block_tangent(layout: Layout, f: Forward, block: int, x_t, direction) -> Tangents:
    b, filters, length = f.blocks[block], layout.n_filters, layout.length
    w_at, gamma_at, beta_at = _offsets(layout, block)
    n_tasks, (n, height, width) = len(direction), b.size
    tiles = triton.cdiv(n * height * width, TILE)
    z_t, sums = torch.empty_like(b.z), b.z.new_empty(n_tasks, tiles, 2, filters)
    into = b.z, b.mean, z_t, sums, *b.size
    sizes = _sizes(layout, "BM")
    if block == 1:
        forward_kernels.convolve_images_tangent[tiles, n_tasks](
            f.batch.images, f.batch.rows, direction, w_at, length, *into, **sizes,
            C=layout.channels, K=_patch_size(layout),
        )  # fmt: skip
    else:
        forward_kernels.convolve_tangent[tiles, n_tasks](
            b.x, x_t, f.params, direction, w_at, length, *into, **sizes
        )
    mean_t, m2 = b.z.new_empty(2, n_tasks, filters)
    forward_kernels.add_up[n_tasks,](
        sums, mean_t, m2, filters, filters, 1 / (n * height * width), b.r, tiles, SCALED=True,
        F=filters, BT=SUMS,
    )  # fmt: skip
    n_t, a_t = torch.empty_like(b.n), torch.empty_like(b.a)
    places = n * (height // 2) * (width // 2)
    forward_kernels.activate_tangent[triton.cdiv(places, SMALL_TILE), n_tasks](
        z_t, b.place, b.n, b.a, mean_t, m2, b.r, f.params, direction, gamma_at, beta_at, length,
        n_t, a_t, *b.size, F=filters, BM=SMALL_TILE,
    )  # fmt: skip
    return Tangents(z_t, mean_t, m2, n_t, a_t)
