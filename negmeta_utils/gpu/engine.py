"""What an evaluation needs of a network, computed by the kernels: an `engines.Engine` without
gradients of the outer loop.

Adapted parameters are one tensor here, {"vectors": [n_tasks, length]}, which only the functions of
this module read. Shared ones are dictionaries as everywhere.
"""

from functools import partial

import torch

from negmeta_utils.adaptation import MetaGradient
from negmeta_utils.engine.engines import Engine
from negmeta_utils.gpu import passes
from negmeta_utils.gpu.meta_gradient import adapted
from negmeta_utils.gpu.passes import Batch
from negmeta_utils.gpu.vectors import Layout
from negmeta_utils.networks.network import Params


def evaluating(layout: Layout) -> Engine:
    """Functions as `engines.Engine` describes them, for images as `episodes` draws them: bytes
    divided by 255."""
    return Engine(
        _no_gradient,
        _no_gradient,
        partial(_adapt, layout),
        lambda params, images: _embed(layout, params, images)[0],
        partial(_head, layout),
        lambda params, images: _embed(layout, params, images)[1],
    )


def _no_gradient(*arguments: object) -> MetaGradient:
    raise NotImplementedError("meta-gradients on a GPU: gpu.meta_gradient")


def _adapt(
    layout: Layout,
    params: Params,
    alpha: Params,
    support: torch.Tensor,
    labels: torch.Tensor,
    n_steps: int,
) -> Params:
    like = {name: value.shape for name, value in params.items()}
    full = {name: alpha[name].expand(shape) for name, shape in like.items()}
    rates, theta = layout.pack(full), _vectors(layout, params, len(support))
    batch = _batch(support, labels)
    return {"vectors": adapted(layout, theta, rates, batch, n_steps)}


def _embed(
    layout: Layout, params: Params, images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings, filter by filter as everywhere, and logits."""
    labels = torch.zeros(images.shape[1], dtype=torch.int64, device=images.device)
    theta = _vectors(layout, params, len(images))
    f = passes.forward(layout, theta, _batch(images, labels))
    return f.features.unflatten(2, (-1, layout.n_filters)).mT.flatten(2), f.logits


def _head(layout: Layout, params: Params, features: torch.Tensor) -> torch.Tensor:
    vectors = _vectors(layout, params, len(features))
    weight = layout.view(vectors, "logits.weight").mT.flatten(2).double()
    bias = layout.view(vectors, "logits.bias").double()
    return (features.double() @ weight.mT + bias[:, None]).to(features.dtype)


def _vectors(layout: Layout, params: Params, n_tasks: int) -> torch.Tensor:
    if "vectors" in params:
        return params["vectors"]
    return layout.pack(params).repeat(n_tasks, 1)


def _batch(images: torch.Tensor, labels: torch.Tensor) -> Batch:
    """Images [n_tasks, n, channels, height, width] as the bytes that they were."""
    n_tasks, n = images.shape[:2]
    rows = torch.arange(n_tasks * n, dtype=torch.int32, device=images.device).view(n_tasks, n)
    turned = (images * 255).round_().byte().flatten(0, 1).permute(0, 2, 3, 1).contiguous()
    return Batch(turned, rows, labels)
