"""Trainings side by side as they lie on the device: meta-updates, and what is read and written
between them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from negmeta_utils.adaptation import BEND, above_zero
from negmeta_utils.gpu.meta_gradient import (
    MetaGradients,
    adapted_logits,
    losses,
    meta_gradients,
)
from negmeta_utils.gpu.passes import Batch
from negmeta_utils.gpu.vectors import Layout

BETAS, EPS = (0.9, 0.999), 1e-8  # Adam's, as torch has them
PIXELS_AT_ONCE = 3 * 10**7  # of query images in a batch of validation


@dataclass
class Group:
    """Trainings on the device. The first dimension of `values`, `grads`, `mean`, `square` and `lr`
    is the two things that are learned: parameters and unconstrained rates.

    values, mean, square: [2, n_networks, length], with Adam's moments. lr: [2, n_networks, 1].
    positive: bool [n_networks, 1], of rates that are kept positive.
    step, row: meta-updates done, and done of this stretch, as one number on the device.
    support, query: int32 [stretch, n_networks * n_tasks, n], rows of images.
    history: [stretch, 3, n_networks]: loss, accuracy and the largest absolute value.
    """

    layout: Layout
    images: torch.Tensor  # uint8 [n_images, height, width, channels]
    labels: tuple[torch.Tensor, torch.Tensor]
    values: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor
    lr: torch.Tensor
    positive: torch.Tensor
    step: torch.Tensor
    row: torch.Tensor
    support: torch.Tensor
    query: torch.Tensor
    history: torch.Tensor
    inner_steps: int
    n_shot: int


def inner_rates(free: torch.Tensor, positive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rates that unconstrained ones stand for (`adaptation.constrained`), and the derivative;
    the identity where not `positive`."""
    bent, root = above_zero(free), (free * free + BEND**2).sqrt()
    return torch.where(positive, bent, free), torch.where(positive, bent / root, 1.0)


def free_gradients(group: Group, support: Batch, query: Batch) -> MetaGradients:
    """Of every network as it is, with respect to parameters and unconstrained rates."""
    alpha, slope = inner_rates(group.values[1], group.positive)
    of = group.layout, group.values[0], alpha
    found = meta_gradients(*of, support, query, group.inner_steps)
    return found._replace(alpha=found.alpha * slope)


def update(group: Group) -> None:
    """One meta-update of every network, all on the device and in place."""
    support, query = (
        Batch(group.images, rows.index_select(0, group.row)[0], labels)
        for rows, labels in zip((group.support, group.query), group.labels, strict=True)
    )
    found = free_gradients(group, support, query)
    gradient = torch.stack([found.params, found.alpha])
    group.step += 1
    group.mean.lerp_(gradient, 1 - BETAS[0])
    group.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
    first, second = (1 - beta**group.step for beta in BETAS)
    denominator = (group.square.sqrt() / second.sqrt().float()).add_(EPS)
    group.values -= group.lr / first.float() * group.mean / denominator
    state = torch.stack([group.values, group.mean, group.square])
    largest = state.abs().amax((0, 1, 3))
    record = torch.stack([found.loss, found.accuracy, largest])
    group.history.index_copy_(0, group.row, record[None])
    group.row += 1


def captured(group: Group) -> Callable[[], None]:
    """`update` as one CUDA graph; on a CPU, as it is."""
    if group.values.device.type != "cuda":
        return lambda: update(group)
    kept = [group.values, group.mean, group.square, group.step, group.row, group.history]
    before = [tensor.clone() for tensor in kept]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        update(group)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update(group)
    for tensor, value in zip(kept, before, strict=True):
        tensor.copy_(value)
    return graph.replay


def load_rows(group: Group, rows: torch.Tensor) -> None:
    """Rows [n_networks, n_updates * n_tasks, n_way, n_per_class] to the device."""
    n_tasks = group.support.shape[1] // len(rows)
    by_update = rows.unflatten(1, (-1, n_tasks)).transpose(0, 1).flatten(1, 2)
    n_updates = len(by_update)
    group.support[:n_updates].copy_(by_update[..., : group.n_shot].flatten(2))
    group.query[:n_updates].copy_(by_update[..., group.n_shot :].flatten(2))
    group.row.zero_()


def batches(group: Group, images: torch.Tensor, rows: torch.Tensor) -> tuple[Batch, Batch]:
    """Support and query of episodes whose rows are [n_networks, n_episodes, n_way, n_per_class]."""
    of_tasks = rows.flatten(0, 1).to(images.device)
    parts = of_tasks[..., : group.n_shot], of_tasks[..., group.n_shot :]
    support, query = (
        Batch(images, part.flatten(1).contiguous(), labels)
        for part, labels in zip(parts, group.labels, strict=True)
    )
    return support, query


def validate(
    group: Group, images: torch.Tensor, rows: torch.Tensor
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each network, loss and accuracy of each episode."""
    alpha, _ = inner_rates(group.values[1], group.positive)
    n_networks, n_episodes = rows.shape[:2]
    pixels = n_networks * group.query.shape[2] * images.shape[1] * images.shape[2]
    batch = max(1, PIXELS_AT_ONCE // pixels)
    found = []
    for first in range(0, n_episodes, batch):
        support, query = batches(group, images, rows[:, first : first + batch])
        logits = adapted_logits(
            group.layout, group.values[0], alpha, support, query, group.inner_steps
        )
        of_tasks = torch.stack(losses(logits, group.labels[1]))
        found.append(of_tasks.unflatten(1, (n_networks, -1)))
    every = torch.cat(found, 2).cpu().numpy()
    return [(every[0, i], every[1, i]) for i in range(n_networks)]
