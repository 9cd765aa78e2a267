"""One step of the outer loop, by whichever engine (paper, eqs. 2 and 4)."""

from collections.abc import Callable
from functools import partial

import torch

from negmeta_utils import adaptation, protonet
from negmeta_utils.adaptation import METHODS, MetaGradient, rates
from negmeta_utils.checkpoints import State
from negmeta_utils.config import TrainConfig
from negmeta_utils.engine import convolutions
from negmeta_utils.engine import meta_gradient as adjoint
from negmeta_utils.episodes import Episodes, ImageSet, episodes_of_rows

Step = Callable[[torch.Tensor], torch.Tensor]
META_GRADIENT = {"adjoint": adjoint.meta_gradient, "reference": adaptation.meta_gradient}


def step_of(config: TrainConfig, state: State, images: ImageSet) -> Step:
    """The function of the rows of a batch of episodes that moves parameters and rates, and returns
    mean loss and accuracy [2]."""

    def step(rows: torch.Tensor) -> torch.Tensor:
        gradient = _meta_gradient(config, state, episodes_of_rows(images, rows, config.n_shot))
        for name, value in state.params.items():
            value.grad = gradient.params[name]
            if METHODS[config.method].learns_alpha:
                state.alpha[name].grad = gradient.alpha[name]
        state.optimizer.step()
        return torch.stack([gradient.loss, gradient.accuracy])

    return step


def kernels(config: TrainConfig, images: ImageSet) -> str:
    """Whose code a training's convolutions are: torch's, or this project's "c"."""
    if config.engine != "adjoint" or METHODS[config.method].prototypes:
        return "torch"
    one = torch.empty(1, device=images.images.device)
    found = convolutions.kernels(one, images.images.shape[1], config.n_filters)
    return found.NAME if found else "torch"


def _meta_gradient(config: TrainConfig, state: State, episodes: Episodes) -> MetaGradient:
    """By the method's objective; of the unconstrained rates where the rates are constrained."""
    settings = METHODS[config.method]
    if settings.prototypes:
        return protonet.meta_gradient(state.params, episodes)
    alpha, pull_back = torch.func.vjp(partial(rates, config.method), state.alpha)
    gradient = META_GRADIENT[config.engine](
        state.params, alpha, episodes, config.inner_steps, settings.first_order
    )
    return gradient._replace(alpha=pull_back(gradient.alpha)[0])
