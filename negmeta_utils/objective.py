"""What a training computes of its episodes, by either engine (that of `adaptation`, or the fast one
of `engine/`): the meta-gradient of the method's objective, and loss and accuracy afterwards."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from negmeta_utils.adaptation import METHODS, MetaGradient, constrained, prototype_logits
from negmeta_utils.config import TrainConfig
from negmeta_utils.engine import checked, cpu
from negmeta_utils.engine.engines import Engine, engine_of
from negmeta_utils.engine.meta_gradient import loss_and_accuracy
from negmeta_utils.engine.threads import in_batches
from negmeta_utils.episodes import Episodes, ImageSet, draw_episodes, episodes_at_once
from negmeta_utils.model import init_params
from negmeta_utils.networks.network import Network, Params


def gradient(
    config: TrainConfig, network: Network, params: Params, free: Params, episodes: Episodes
) -> MetaGradient:
    """The meta-gradient of the method's objective with respect to the parameters and to the
    unconstrained rates `free`; without that where the method learns none."""
    settings, engine = METHODS[config.method], engine_of(network, config.engine)
    if settings.prototypes:
        return engine.prototype_gradient(params, episodes)._replace(alpha={})
    with torch.enable_grad():  # not by torch.func.vjp, which imports torch's compiler for a second
        leaves = {name: value.detach().requires_grad_() for name, value in free.items()}
        alpha = constrained(config.method, leaves)
    rates = {name: value.detach() for name, value in alpha.items()}
    steps = config.inner_steps, settings.first_order
    found = engine.meta_gradient(params, rates, episodes, *steps)
    if not settings.learns_alpha:
        return found._replace(alpha={})
    by_rates = [found.alpha[name] for name in free]
    by_free = torch.autograd.grad(list(alpha.values()), list(leaves.values()), by_rates)
    return found._replace(alpha=dict(zip(free, by_free, strict=True)))


def trusted(
    config: TrainConfig,
    network: Network,
    params: Params,
    free: Params,
    tasks: Callable[[int], Episodes],
) -> tuple[TrainConfig, str]:
    """`config` with an engine that is known to be right on its device, and what to record of it.

    On a device that the engine is not tested on, a meta-gradient is computed by the engine and by
    the reference, and where they disagree the reference is used. Arguments as for `gradient`;
    tasks: of a number, the episodes of so many meta-updates ahead.
    """
    if config.engine == "reference" or checked.tested_on(torch.device(config.device)):
        return config, config.engine
    reference = replace(config, engine="reference")
    fault = checked.fault(
        lambda ahead: gradient(config, network, params, free, tasks(ahead)),
        lambda ahead: gradient(reference, network, params, free, tasks(ahead)),
    )
    if fault is None:
        return config, f"{config.engine}, compared with the reference on {config.device}"
    note = f"reference, as the {config.engine} cannot be used on {config.device}: {fault}"
    warnings.warn(f"engine: {note}", RuntimeWarning, stacklevel=3)
    return reference, note


def evaluate(
    config: TrainConfig,
    network: Network,
    params: Params,
    alpha: Params,
    images: ImageSet,
    stream: str,
    episodes: range,
) -> tuple[np.ndarray, np.ndarray]:
    """Query loss and accuracy after adaptation, one value an episode: two float arrays
    [len(episodes)], of the episodes of these numbers. Transductive: accuracy depends on how many
    query images share a batch."""
    engine = engine_of(network, config.engine)
    shape = config.n_way, config.n_shot, config.n_query

    def of_batch(indices: range) -> tuple[torch.Tensor, torch.Tensor]:
        tasks = draw_episodes(images, config.seed, stream, indices, *shape)
        logits = _logits(engine, config, params, alpha, tasks)
        return loss_and_accuracy(logits, tasks.query_labels)

    at_once = episodes_at_once(images, config.n_way, config.n_query)
    batches = [found for _, found in in_batches(of_batch, network, images, episodes, at_once)]
    losses, accuracies = (torch.cat(values).cpu().numpy() for values in zip(*batches, strict=True))
    return losses, accuracies


def _logits(
    engine: Engine, config: TrainConfig, params: Params, alpha: Params, tasks: Episodes
) -> torch.Tensor:
    """Query logits after adaptation [n_tasks, n_way * n_query, n_way]."""
    if METHODS[config.method].prototypes:
        (support,), (query,) = (engine.embed([params], x) for x in (tasks.support, tasks.query))
        return prototype_logits(support, query, config.n_way)
    adapted = engine.adapt(params, alpha, tasks.support, tasks.support_labels, config.inner_steps)
    return engine.logits(adapted, tasks.query)


def kernels(config: TrainConfig, images: ImageSet) -> str:
    """Whose code a training's passes through the network are: torch's, or this project's "c"."""
    if config.engine != "adjoint":
        return "torch"
    one = torch.empty(images.images.shape[1:], device=images.images.device)
    params = init_params(0, images.channels, images.image_size, config.n_way, config.n_filters)
    return "c" if cpu.network_of(params, one) else "torch"
