"""The work that `against_peers` times, by this project and by its peers.

Peers do it as their documentation shows, with the network written in `torch.nn`. A peer is
imported where it is used, for none is a dependency.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from negmeta_utils import adaptation, evaluation, prototypes
from negmeta_utils.adaptation import MetaGradient, init_alpha
from negmeta_utils.engine import meta_gradient as adjoint
from negmeta_utils.episodes import (
    Episodes,
    ImageSet,
    draw_episodes,
    episodes_of_rows,
    rows_of_episodes,
)
from negmeta_utils.model import BATCH_NORM_EPS, Params, init_params, n_features
from negmeta_utils.networks.conv4 import CONV4

INNER_LR, OUTER_LR = 0.01, 0.001
OURS = ("adjoint", "reference")


@dataclass(frozen=True)
class Work:
    """What is timed; the defaults but for the image size are the paper's settings."""

    method: str
    image_size: int
    n_filters: int = 64
    n_tasks: int = 3
    inner_steps: int = 5
    n_way: int = 5
    n_shot: int = 1
    n_query: int = 10
    device: str = "cpu"

    @property
    def channels(self) -> int:
        return 1 if self.image_size < 84 else 3

    def images(self) -> ImageSet:
        """Forty classes of twenty random images."""
        shape = (800, self.channels, self.image_size, self.image_size)
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        names = tuple(str(c) for c in range(40))
        return ImageSet(images, names, np.full(40, 20)).to(self.device)

    def rows(self, images: ImageSet, index: int) -> torch.Tensor:
        """Of the `index`-th batch of tasks for training."""
        indices = range(index * self.n_tasks, (index + 1) * self.n_tasks)
        n_per_class = self.n_shot + self.n_query
        return rows_of_episodes(images.class_sizes, 0, "train", indices, self.n_way, n_per_class)

    def episodes(self, images: ImageSet, index: int) -> Episodes:
        """The `index`-th batch of tasks for training."""
        return episodes_of_rows(images, self.rows(images, index).to(self.device), self.n_shot)

    def params(self) -> Params:
        params = init_params(0, self.channels, self.image_size, self.n_way, self.n_filters)
        return {name: value.to(self.device) for name, value in params.items()}


class Conv4(nn.Module):
    """The network as a peer's user writes it. Returns logits and the embedding behind them."""

    def __init__(self, work: Work):
        super().__init__()
        blocks = []
        for channels in (work.channels, *[work.n_filters] * 3):
            blocks += [
                nn.Conv2d(channels, work.n_filters, 3, padding=1),
                nn.BatchNorm2d(work.n_filters, eps=BATCH_NORM_EPS, track_running_stats=False),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.body = nn.Sequential(*blocks, nn.Flatten())
        self.logits = nn.Linear(n_features(work.image_size, work.n_filters), work.n_way)
        self.to(work.device)
        with torch.no_grad():  # ours and theirs start from one point
            for own, value in zip(self.parameters(), work.params().values(), strict=True):
                own.copy_(value)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding = self.body(images)
        return self.logits(embedding), embedding


def ours(gradient: Callable[..., MetaGradient]) -> Callable[[Work], Callable[[int], None]]:
    """A meta-update of this project, by the engine or by `adaptation`."""

    def engine(work: Work) -> Callable[[int], None]:
        images, params = work.images(), work.params()
        alpha = init_alpha(work.method, params, INNER_LR)
        alpha = {name: value.to(work.device) for name, value in alpha.items()}
        learned = [*params.values(), *(alpha.values() if work.method == "meta-sgd" else ())]
        optimizer = torch.optim.Adam(learned, OUTER_LR)

        def step(rows: torch.Tensor) -> torch.Tensor:
            episodes = episodes_of_rows(images, rows, work.n_shot)
            result = gradient(params, alpha, episodes, work.inner_steps)
            gradients = [*result.params.values(), *result.alpha.values()]
            for value, its_gradient in zip(learned, gradients, strict=False):
                value.grad = its_gradient
            optimizer.step()
            return result.loss

        def update(index: int) -> None:
            step(work.rows(images, index).to(work.device))

        return update

    return engine


def peer(task_loss: Callable) -> Callable[[Work], Callable[[int], None]]:
    """A meta-update by `task_loss(network, rates, work, support, labels, query, labels)`."""

    def engine(work: Work) -> Callable[[int], None]:
        images, network = work.images(), Conv4(work)
        rates = None
        if work.method == "meta-sgd":
            rates = [
                torch.full_like(value, INNER_LR).requires_grad_() for value in network.parameters()
            ]
        optimizer = torch.optim.Adam([*network.parameters(), *(rates or ())], OUTER_LR)

        def update(index: int) -> None:
            episodes = work.episodes(images, index)
            optimizer.zero_grad()
            for support, query in zip(episodes.support, episodes.query, strict=True):
                loss = task_loss(network, rates, work, episodes, support, query)
                (loss / work.n_tasks).backward()
            optimizer.step()

        return update

    return engine


def higher_task_loss(network, rates, work, episodes, support, query) -> torch.Tensor:
    with _higher_loop(network, rates) as (adapted, optimizer):
        for _ in range(work.inner_steps):
            optimizer.step(F.cross_entropy(adapted(support)[0], episodes.support_labels))
        return F.cross_entropy(adapted(query)[0], episodes.query_labels)


def _higher_loop(network: Conv4, rates: list[torch.Tensor] | None, track: bool = True):
    import higher

    groups = [{"params": [value]} for value in network.parameters()]
    return higher.innerloop_ctx(
        network,
        torch.optim.SGD(network.parameters() if rates is None else groups, INNER_LR),
        copy_initial_weights=False,
        override=None if rates is None else {"lr": rates},
        track_higher_grads=track,
    )


def torchopt_task_loss(network, rates, work, episodes, support, query) -> torch.Tensor:
    import torchopt

    def scale(gradients, state, **_):
        scaled = (-rate * g for rate, g in zip(rates, gradients.values(), strict=True))
        return dict(zip(gradients, scaled, strict=True)), state

    meta_sgd = torchopt.base.GradientTransformation(lambda params: (), scale)
    inner = torchopt.FuncOptimizer(torchopt.sgd(INNER_LR) if rates is None else meta_sgd)
    params = dict(network.named_parameters())
    for _ in range(work.inner_steps):
        logits = torch.func.functional_call(network, params, support)[0]
        params = inner.step(F.cross_entropy(logits, episodes.support_labels), params)
    logits = torch.func.functional_call(network, params, query)[0]
    return F.cross_entropy(logits, episodes.query_labels)


def learn2learn_task_loss(network, rates, work, episodes, support, query) -> torch.Tensor:
    from learn2learn.algorithms import MAML, MetaSGD

    learner = MAML(network, INNER_LR) if rates is None else MetaSGD(network, lrs=rates)
    learner = learner.clone()
    for _ in range(work.inner_steps):
        learner.adapt(F.cross_entropy(learner(support)[0], episodes.support_labels))
    return F.cross_entropy(learner(query)[0], episodes.query_labels)


ENGINES = {
    "adjoint": ours(adjoint.meta_gradient),
    "reference": ours(adaptation.meta_gradient),
    "higher": peer(higher_task_loss),
    "torchopt": peer(torchopt_task_loss),
    "learn2learn": peer(learn2learn_task_loss),
}


def our_evaluation(work: Work) -> Callable[[int], None]:
    """Iterations of notebook 3, batched: returns a function of their number."""
    params = work.params()
    alpha = init_alpha(work.method, params, INNER_LR)
    alpha = {name: value.to(work.device) for name, value in alpha.items()}
    images = work.images()
    return lambda n: evaluation.evaluate(
        CONV4, params, alpha, images, n, work.n_way, work.n_shot, work.n_query, work.inner_steps
    )


def higher_evaluation(work: Work) -> Callable[[int], None]:
    """The same iterations with `higher`, one after another."""
    images, network = work.images(), Conv4(work)
    rates = None
    if work.method == "meta-sgd":
        rates = [torch.full_like(value, INNER_LR) for value in network.parameters()]

    def evaluate(n: int) -> None:
        for index in range(n):
            draw = (images, 0, "test", range(index, index + 1), work.n_way, work.n_shot)
            task = draw_episodes(*draw, work.n_query)
            other = draw_episodes(*draw[:2], "other", *draw[3:], work.n_query)
            with torch.no_grad():
                before = [_prototype_accuracy(network, work, e) for e in (task, other)]
            with _higher_loop(network, rates, track=False) as (adapted, optimizer):
                for _ in range(work.inner_steps):
                    logits = adapted(task.support[0])[0]
                    optimizer.step(F.cross_entropy(logits, task.support_labels))
                with torch.no_grad():
                    before += [_prototype_accuracy(adapted, work, e) for e in (task, other)]
            torch.stack(before).tolist()

    return evaluate


def _prototype_accuracy(network: nn.Module, work: Work, episodes: Episodes) -> torch.Tensor:
    support, query = (network(images[0])[1][None] for images in (episodes.support, episodes.query))
    return prototypes.prototype_accuracy(support, query, work.n_way, episodes.query_labels)


EVALUATIONS = {"adjoint": our_evaluation, "higher": higher_evaluation}
