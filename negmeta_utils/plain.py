"""Adapted parameters and embeddings of many tasks by plain autograd, one task at a time: what
`engine.meta_gradient` computes faster, under the same names and with the same arguments."""

from collections.abc import Iterator

import torch

from negmeta_utils import adaptation, model
from negmeta_utils.engine.meta_gradient import head
from negmeta_utils.model import Params

__all__ = ["adapt", "embed", "head"]


def adapt(
    params: Params, alpha: Params, support: torch.Tensor, support_labels: torch.Tensor, n_steps: int
) -> Params:
    """As `engine.meta_gradient.adapt`."""
    adapted = [
        adaptation.adapt(own, alpha, images, support_labels, n_steps)
        for own, images in zip(_of_each(params, len(support)), support, strict=True)
    ]
    return {name: torch.stack([own[name].detach() for own in adapted]) for name in params}


def embed(params: Params, images: torch.Tensor) -> torch.Tensor:
    """As `engine.meta_gradient.embed`."""
    each = zip(_of_each(params, len(images)), images, strict=True)
    return torch.stack([model.embed(own, of_task) for own, of_task in each])


def _of_each(params: Params, n_tasks: int) -> Iterator[Params]:
    """Parameters of each task, from one set for all or one a task with a leading dimension."""
    shared = params["norm1.bias"].dim() == 1
    for task in range(n_tasks):
        yield params if shared else {name: value[task] for name, value in params.items()}
