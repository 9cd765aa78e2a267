"""The meta-gradients of many networks at once: the recursion of `engine.meta_gradient`."""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from negmeta_utils.gpu import passes
from negmeta_utils.gpu.passes import Batch
from negmeta_utils.gpu.vectors import Layout


class MetaGradients(NamedTuple):
    """Of each network: loss and accuracy [n_networks]; gradients [n_networks, length]."""

    loss: torch.Tensor
    accuracy: torch.Tensor
    params: torch.Tensor
    alpha: torch.Tensor


def meta_gradients(
    layout: Layout,
    params: torch.Tensor,
    alpha: torch.Tensor,
    support: Batch,
    query: Batch,
    n_steps: int,
) -> MetaGradients:
    """What `adaptation.meta_gradient` returns, of each of several networks (paper, eqs. 2 and 4).

    params, alpha: [n_networks, length]. The rows of support and query: of n_networks * n_tasks
    tasks, a network's one after the other.
    """
    n_networks, n_tasks = len(params), len(support.rows) // len(params)
    theta, rates = (v.repeat_interleave(n_tasks, 0) for v in (params, alpha))
    steps = []
    for _ in range(n_steps):
        f = passes.forward(layout, theta, support)
        b = passes.gradient(layout, f)
        theta = torch.addcmul(theta, rates, b.gradient, value=-1)
        steps.append((f, b))
    f = passes.forward(layout, theta, query)
    loss, accuracy = losses(f.logits, query.labels)
    lam = passes.gradient(layout, f, last=True).gradient
    del f
    d_alpha = torch.zeros_like(lam)
    while steps:
        f, b = steps.pop()
        d_alpha.addcmul_(b.gradient, lam, value=-1)
        lam = lam - passes.hessian_product(layout, f, b, rates * lam)
    mean = [v.unflatten(0, (n_networks, n_tasks)).mean(1) for v in (loss, accuracy, lam, d_alpha)]
    return MetaGradients(*mean)


def adapted_logits(
    layout: Layout,
    params: torch.Tensor,
    alpha: torch.Tensor,
    support: Batch,
    query: Batch,
    n_steps: int,
) -> torch.Tensor:
    """Query logits [n_networks * n_tasks, n, n_way] after adaptation; arguments as above."""
    n_tasks = len(support.rows) // len(params)
    theta, rates = (v.repeat_interleave(n_tasks, 0) for v in (params, alpha))
    theta = adapted(layout, theta, rates, support, n_steps)
    return passes.forward(layout, theta, query).logits


def adapted(
    layout: Layout, theta: torch.Tensor, rates: torch.Tensor, support: Batch, n_steps: int
) -> torch.Tensor:
    """Parameters [n_tasks, length] of every task after `n_steps` inner steps from `theta`, of the
    same shape (paper, eqs. 1 and 3); rates: broadcastable to it."""
    for _ in range(n_steps):
        found = passes.gradient(layout, passes.forward(layout, theta, support), last=True)
        theta = torch.addcmul(theta, rates, found.gradient, value=-1)
    return theta


def losses(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy and accuracy of each task, both [n_tasks]."""
    each = F.cross_entropy(logits.mT, labels.expand(len(logits), -1), reduction="none")
    return each.mean(1), (logits.argmax(2) == labels).to(each.dtype).mean(1)
