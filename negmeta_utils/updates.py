"""One step of the outer loop, by whichever engine (paper, eqs. 2 and 4)."""

from collections.abc import Callable
from functools import partial

import torch

from negmeta_utils import adaptation, protonet
from negmeta_utils.adaptation import METHODS, MetaGradient, rates
from negmeta_utils.checkpoints import State
from negmeta_utils.config import TrainConfig
from negmeta_utils.engine import cpu
from negmeta_utils.engine import meta_gradient as adjoint
from negmeta_utils.episodes import Episodes, ImageSet, episodes_of_rows
from negmeta_utils.model import init_params

Step = Callable[[torch.Tensor], torch.Tensor]
META_GRADIENT = {"adjoint": adjoint.meta_gradient, "reference": adaptation.meta_gradient}
PROTOTYPE_GRADIENT = {"adjoint": adjoint.prototype_gradient, "reference": protonet.meta_gradient}


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
    """Whose code a training's passes through the network are: torch's, or this project's "c"."""
    one = torch.empty(images.images.shape[1:], device=images.images.device)
    params = init_params(0, images.channels, images.image_size, config.n_way, config.n_filters)
    return "c" if config.engine == "adjoint" and cpu.network_of(params, one) else "torch"


def _meta_gradient(config: TrainConfig, state: State, episodes: Episodes) -> MetaGradient:
    """By the method's objective; of the unconstrained rates where the rates are constrained."""
    settings = METHODS[config.method]
    if settings.prototypes:
        return PROTOTYPE_GRADIENT[config.engine](state.params, episodes)
    alpha, pull_back = torch.func.vjp(partial(rates, config.method), state.alpha)
    gradient = META_GRADIENT[config.engine](
        state.params, alpha, episodes, config.inner_steps, settings.first_order
    )
    return gradient._replace(alpha=pull_back(gradient.alpha)[0])
