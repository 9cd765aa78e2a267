"""What a training computes of its episodes, by either engine: the meta-gradient of the method's
objective, and loss and accuracy after adaptation."""

import math
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from negmeta_utils import adaptation, model
from negmeta_utils.adaptation import METHODS, MetaGradient, constrained, prototype_logits
from negmeta_utils.config import TrainConfig
from negmeta_utils.engine import checked, cpu
from negmeta_utils.engine import meta_gradient as adjoint
from negmeta_utils.episodes import Episodes, ImageSet, draw_episodes, episodes_at_once
from negmeta_utils.model import Params, init_params

META_GRADIENT = {"adjoint": adjoint.meta_gradient, "reference": adaptation.meta_gradient}
PROTOTYPE_GRADIENT = {
    "adjoint": adjoint.prototype_gradient,
    "reference": adaptation.prototype_gradient,
}


def gradient(config: TrainConfig, params: Params, free: Params, episodes: Episodes) -> MetaGradient:
    """The meta-gradient of the method's objective with respect to the parameters and to the
    unconstrained rates `free`."""
    settings = METHODS[config.method]
    if settings.prototypes:
        return PROTOTYPE_GRADIENT[config.engine](params, episodes)
    alpha, pull_back = torch.func.vjp(partial(constrained, config.method), free)
    found = META_GRADIENT[config.engine](
        params, alpha, episodes, config.inner_steps, settings.first_order
    )
    return found._replace(alpha=pull_back(found.alpha)[0])


def trusted(
    config: TrainConfig, params: Params, free: Params, episodes: Episodes
) -> tuple[TrainConfig, str]:
    """`config` with an engine that is known to be right on its device, and what to record of it.

    On a device that the engine is not tested on, the gradient of `episodes` is computed by the
    engine and by the reference, and where they disagree the reference is the engine. Arguments as
    for `gradient`.
    """
    if config.engine == "reference" or checked.tested_on(episodes.support.device):
        return config, config.engine
    reference = replace(config, engine="reference")
    fault = checked.fault(
        lambda: gradient(config, params, free, episodes),
        lambda: gradient(reference, params, free, episodes),
    )
    if fault is None:
        return config, f"{config.engine}, compared with the reference on {config.device}"
    note = f"reference, as the {config.engine} cannot be used on {config.device}: {fault}"
    warnings.warn(f"engine: {note}", RuntimeWarning, stacklevel=3)
    return reference, note


def evaluate(
    config: TrainConfig,
    params: Params,
    alpha: Params,
    images: ImageSet,
    stream: str,
    episodes: range,
) -> tuple[np.ndarray, np.ndarray]:
    """Query loss and accuracy after adaptation, one value an episode: two float arrays
    [len(episodes)], of the episodes of these numbers. Transductive: accuracy depends on how many
    query images share a batch."""
    logits_of = _reference_logits if config.engine == "reference" else _logits
    losses, accuracies = [], []
    most = episodes_at_once(images, config.n_way, config.n_query)
    batch = math.ceil(len(episodes) / math.ceil(len(episodes) / most))
    for first in range(0, len(episodes), batch):
        indices = episodes[first : first + batch]
        tasks = draw_episodes(
            images, config.seed, stream, indices, config.n_way, config.n_shot, config.n_query
        )
        logits = logits_of(config, params, alpha, tasks)
        loss, accuracy = adjoint.loss_and_accuracy(logits, tasks.query_labels)
        losses.append(loss)
        accuracies.append(accuracy)
    return torch.cat(losses).cpu().numpy(), torch.cat(accuracies).cpu().numpy()


def _logits(config: TrainConfig, params: Params, alpha: Params, tasks: Episodes) -> torch.Tensor:
    """Query logits after adaptation [n_tasks, n_way * n_query, n_way], by the engine."""
    if METHODS[config.method].prototypes:
        support, query = (adjoint.embed(params, x) for x in (tasks.support, tasks.query))
        return prototype_logits(support, query, config.n_way)
    adapted = adjoint.adapt(params, alpha, tasks.support, tasks.support_labels, config.inner_steps)
    return adjoint.logits(adapted, tasks.query)


def _reference_logits(
    config: TrainConfig, params: Params, alpha: Params, tasks: Episodes
) -> torch.Tensor:
    """What `_logits` returns, by the reference."""
    if METHODS[config.method].prototypes:
        support, query = (
            torch.stack([model.embed(params, x) for x in images])
            for images in (tasks.support, tasks.query)
        )
        return prototype_logits(support, query, config.n_way)
    logits = []
    for support, query in zip(tasks.support, tasks.query, strict=True):
        adapted = adaptation.adapt(params, alpha, support, tasks.support_labels, config.inner_steps)
        logits.append(model.forward(adapted, query))
    return torch.stack(logits)


def kernels(config: TrainConfig, images: ImageSet) -> str:
    """Whose code a training's passes through the network are: torch's, or this project's "c"."""
    one = torch.empty(images.images.shape[1:], device=images.images.device)
    params = init_params(0, images.channels, images.image_size, config.n_way, config.n_filters)
    return "c" if config.engine == "adjoint" and cpu.network_of(params, one) else "torch"
