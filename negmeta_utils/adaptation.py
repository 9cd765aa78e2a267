"""The inner loop and the meta-gradient through it, written for reading: MAML, first-order MAML,
Meta-SGD, ANIL and BOIL, by nested automatic differentiation (`engine="reference"`).

All are one update, theta' = theta - alpha * grad L(theta) (paper, eqs. 1 and 3), and differ in
`alpha` alone: one number, one rate for every single parameter, or zero for a part of the network.
`alpha` is a dictionary with the parameters' names, its tensors broadcastable to theirs. A
prototypical network has no inner loop: all its rates are zero, and its objective is of its own.

This is the readable reference. `engine.meta_gradient` computes the same faster and is tested
against this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from negmeta_utils.episodes import Episodes, counted_generator
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.networks.network import Network, Params

# Of parameters, inputs and targets: the loss, and the outputs behind it.
Loss = Callable[[Params, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

META_SGD_RANGE = (0.005, 0.1)  # Li et al. 2017, section 4.1
# Rates that are kept positive bend away from zero below about this, the usual rate; above it a step
# of the outer loop moves them as far as free ones.
BEND = 0.01


@dataclass(frozen=True)
class Method:
    """What sets one method apart: whether its rates are learned, and kept positive; whether the
    meta-gradient sees through the inner gradients; which layers the inner loop moves (all, the
    head, the body or none); and whether classes are prototypes instead of rows of the linear layer.
    """

    learns_alpha: bool = False
    positive: bool = False
    first_order: bool = False
    adapts: str = "all"
    prototypes: bool = False

    def layers(self, network: Network) -> tuple[str, ...]:
        """Those of `network` that the inner loop moves."""
        groups = {"all": network.layers, "head": (network.head,), "body": network.body, "none": ()}
        return groups[self.adapts]


METHODS = {
    "maml": Method(),  # Finn et al. 2017
    "fomaml": Method(first_order=True),  # Finn et al. 2017, section 5.2
    "meta-sgd": Method(learns_alpha=True),  # Li et al. 2017
    "anil": Method(adapts="head"),  # Raghu et al. 2020: the head alone
    "boil": Method(adapts="body"),  # Oh et al. 2021: the body alone
    "meta-sgd-positive": Method(learns_alpha=True, positive=True),  # a control: no negative rates
    "protonet": Method(adapts="none", prototypes=True),  # Snell et al. 2017
}


class MetaGradient(NamedTuple):
    """One meta-update's worth: means over the tasks of a batch.

    loss, accuracy: 0-dim, of the adapted parameters on the query images.
    params, alpha: gradients of the loss, dictionaries like the parameters and the rates.
    """

    loss: torch.Tensor
    accuracy: torch.Tensor
    params: Params
    alpha: Params

    def __repr__(self) -> str:
        means = f"loss {self.loss.tolist()}, accuracy {self.accuracy.tolist()}"
        return f"MetaGradient({means}, {len(self.params)} params, {len(self.alpha)} alpha)"


def init_alpha(
    method: str,
    params: Params,
    inner_lr: float = 0.01,
    alpha_init: str = "constant",
    seed: int = 0,
    network: Network = CONV4,
) -> Params:
    """Rates before training, float32, on the CPU: full-shaped for a method that learns them, else
    one number a name.

    alpha_init "constant" gives `inner_lr` everywhere; "uniform" draws every rate from
    U[0.005, 0.1], as Meta-SGD's authors do, by random numbers of their own, not those under `seed`
    that parameters start from; it needs a method that learns rates.
    Raises ValueError for an unknown method or alpha_init.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: not one of {', '.join(METHODS)}")
    settings, kind = METHODS[method], {"dtype": torch.float32, "device": "cpu"}
    if alpha_init == "uniform" and settings.learns_alpha:
        generator = counted_generator(seed, "alpha", 0)
        low, high = META_SGD_RANGE
        shares = {n: generator.random(v.shape, np.float32) for n, v in params.items()}
        return {name: low + (high - low) * torch.from_numpy(u) for name, u in shares.items()}
    if alpha_init != "constant":
        raise ValueError(
            f"alpha_init={alpha_init!r}: use 'constant', or 'uniform' with a method that learns "
            "its rates"
        )
    alpha, moved = {}, settings.layers(network)
    for name, value in params.items():
        rate = inner_lr if network.layer_and_group(name)[0] in moved else 0.0
        shape = value.shape if settings.learns_alpha else ()
        alpha[name] = torch.full(shape, rate, **kind)
    return alpha


def constrained(method: str, free: Params) -> Params:
    """Map the unconstrained parameters of the outer loop to inner rates: the identity, or for a
    method whose rates stay positive (free + sqrt(free^2 + BEND^2)) / 2: in place of softplus, since
    square roots are the same in every library to the last bit, and exponentials are not."""
    if not METHODS[method].positive:
        return free
    return {name: above_zero(value) for name, value in free.items()}


def above_zero(value: torch.Tensor) -> torch.Tensor:
    """What `constrained` makes of one tensor of a method whose rates stay positive."""
    root = (value * value + BEND**2).sqrt()
    # The absolute value in both: where it is not chosen, too, no gradient is NaN.
    double = root + torch.where(value > 0, value, -value)
    return torch.where(value > 0, double / 2, BEND**2 / 2 / double)


def unconstrained(method: str, alpha: Params) -> Params:
    """The inverse of `constrained`."""
    if not METHODS[method].positive:
        return alpha
    return {name: value - BEND**2 / 4 / value for name, value in alpha.items()}


def loss_of(network: Network) -> Loss:
    """Cross-entropy of a network on one task's images [n, channels, height, width], and logits."""

    def cross_entropy(
        params: Params, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = network.forward(params, images)
        return F.cross_entropy(logits, labels), logits

    return cross_entropy


CONV4_LOSS = loss_of(CONV4)


def adapt(
    params: Params,
    alpha: Params,
    support: torch.Tensor,
    support_labels: torch.Tensor,
    n_steps: int,
    first_order: bool = False,
    loss: Loss = CONV4_LOSS,
) -> Params:
    """Parameters after `n_steps` inner steps on one task (paper, eqs. 1 and 3).

    support: [n_support, channels, height, width]; support_labels: int64 [n_support].
    Differentiable in `params` and `alpha`; with `first_order` the inner gradients count as
    constants.
    """
    for _ in range(n_steps):
        gradient, _ = torch.func.grad(loss, has_aux=True)(params, support, support_labels)
        if first_order:
            gradient = {name: value.detach() for name, value in gradient.items()}
        params = {name: params[name] - alpha[name] * gradient[name] for name in params}
    return params


def task_loss(
    params: Params,
    alpha: Params,
    support: torch.Tensor,
    support_labels: torch.Tensor,
    query: torch.Tensor,
    query_labels: torch.Tensor,
    n_steps: int,
    first_order: bool = False,
    loss: Loss = CONV4_LOSS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of one task's query images after adaptation (the summand of paper eqs. 2 and 4), and
    the query logits [n_query_images, n_way] behind it."""
    adapted = adapt(params, alpha, support, support_labels, n_steps, first_order, loss)
    return loss(adapted, query, query_labels)


def meta_gradient(
    params: Params,
    alpha: Params,
    episodes: Episodes,
    n_steps: int,
    first_order: bool = False,
    loss: Loss = CONV4_LOSS,
) -> MetaGradient:
    """Gradient of the mean query loss over a batch of tasks (paper, eqs. 2 and 4; the mean where
    the paper writes the sum, which Adam cannot tell apart but for its epsilon)."""
    task_gradient = torch.func.grad_and_value(task_loss, argnums=(0, 1), has_aux=True)

    def of_task(support: torch.Tensor, query: torch.Tensor) -> MetaGradient:
        (gradient, alpha_gradient), (query_loss, logits) = task_gradient(
            params,
            alpha,
            support,
            episodes.support_labels,
            query,
            episodes.query_labels,
            n_steps,
            first_order,
            loss,
        )
        accuracy = (logits.argmax(1) == episodes.query_labels).to(query_loss.dtype).mean()
        return MetaGradient(query_loss, accuracy, gradient, alpha_gradient)

    # One task at a time: vmapped convolutions become grouped ones, slower than this.
    tasks = zip(episodes.support, episodes.query, strict=True)
    total = reduce(_add, (of_task(*task) for task in tasks))
    return _divide(total, len(episodes.support))


def _add(a: MetaGradient, b: MetaGradient) -> MetaGradient:
    return MetaGradient(
        a.loss + b.loss,
        a.accuracy + b.accuracy,
        {name: a.params[name] + b.params[name] for name in a.params},
        {name: a.alpha[name] + b.alpha[name] for name in a.alpha},
    )


def _divide(total: MetaGradient, n: int) -> MetaGradient:
    return MetaGradient(
        total.loss / n,
        total.accuracy / n,
        {name: value / n for name, value in total.params.items()},
        {name: value / n for name, value in total.alpha.items()},
    )


def prototypes(support: torch.Tensor, n_way: int) -> torch.Tensor:
    """Centroids [n_tasks, n_way, n_features] of support embeddings (paper, eq. 5).

    support: [n_tasks, n_way * n_shot, n_features], classes in order.
    """
    return support.unflatten(1, (n_way, -1)).mean(2)


def prototype_logits(support: torch.Tensor, query: torch.Tensor, n_way: int) -> torch.Tensor:
    """Minus the squared distances to the prototypes: [n_tasks, n_queries, n_way].

    support as for `prototypes`; query: [n_tasks, n_queries, n_features].
    """
    # In float64, in which no two BLAS libraries differ by enough to show in the result.
    exact, centroids = query.double(), prototypes(support.double(), n_way)
    squares = exact.square().sum(2)[..., None] + centroids.square().sum(2)[:, None]
    return (2 * exact @ centroids.mT - squares).to(query.dtype)


def prototype_gradient(
    params: Params, episodes: Episodes, network: Network = CONV4
) -> MetaGradient:
    """Gradient of the mean cross-entropy of `prototype_logits` over a batch of tasks (Snell et al.
    2017). There is no inner loop: the gradients of the rates, and of the linear layer that is not
    used, are zero."""
    objective = torch.func.grad(_prototype_loss, has_aux=True)
    gradient, (loss, accuracy) = objective(params, episodes, network)
    zeros = {name: torch.zeros((), device=value.device) for name, value in params.items()}
    return MetaGradient(loss, accuracy, gradient, zeros)


def _prototype_loss(
    params: Params, episodes: Episodes, network: Network
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    # Support and query are batches of their own, as everywhere in this study.
    support = torch.stack([network.embed(params, images) for images in episodes.support])
    query = torch.stack([network.embed(params, images) for images in episodes.query])
    n_way = int(episodes.support_labels.max()) + 1
    scores = prototype_logits(support, query, n_way)
    labels = episodes.query_labels.expand(len(scores), -1)
    loss = F.cross_entropy(scores.flatten(0, 1), labels.flatten())
    accuracy = (scores.argmax(2) == labels).to(loss.dtype).mean()
    return loss, (loss.detach(), accuracy.detach())
