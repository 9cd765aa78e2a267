"""The functions that compute for a network: the adjoint for Conv4, the readable reference for any
other, and for evaluations on a device on which the tests have not run.

Both take batches of tasks: parameters are shared, or have a leading task dimension, and images are
[n_tasks, n, channels, height, width].
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from negmeta_utils import adaptation
from negmeta_utils.adaptation import MetaGradient, loss_of
from negmeta_utils.engine import checked
from negmeta_utils.engine import meta_gradient as adjoint
from negmeta_utils.engine.device import exact_products
from negmeta_utils.episodes import Episodes
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.networks.network import Network, Params

ENGINES = ("auto", "adjoint", "reference")


class Engine(NamedTuple):
    """The functions of `engine.meta_gradient`, for one network.

    meta_gradient: of params, alpha, episodes, n_steps and first_order.
    prototype_gradient: of params and episodes.
    adapt: of params, alpha, support, support_labels and n_steps; parameters of every task.
    embed: of a list of several params and images; for each, embeddings [n_tasks, n, n_features].
    head: of params and embeddings; logits [n_tasks, n, n_way].
    logits: of params and images; the same.
    """

    meta_gradient: Callable[..., MetaGradient]
    prototype_gradient: Callable[[Params, Episodes], MetaGradient]
    adapt: Callable[..., Params]
    embed: Callable[[list[Params], torch.Tensor], list[torch.Tensor]]
    head: Callable[[Params, torch.Tensor], torch.Tensor]
    logits: Callable[[Params, torch.Tensor], torch.Tensor]


def resolve_engine(name: str, network: Network) -> str:
    """ "adjoint" or "reference". Raises ValueError for another, and the adjoint of a network that
    it is not written for."""
    if name not in ENGINES:
        raise ValueError(f"engine={name!r}: not one of {', '.join(ENGINES)}")
    if name == "adjoint" and network is not CONV4:
        raise ValueError(f"engine='adjoint': written for conv4, not {network.name}; use 'auto'")
    return name if name != "auto" else "adjoint" if network is CONV4 else "reference"


def engine_of(network: Network, name: str = "auto") -> Engine:
    """The functions that compute for `network`, in exact products; name as for
    `resolve_engine`."""
    return Engine._make(exact_products()(function) for function in _functions(network, name))


def _functions(network: Network, name: str) -> Engine:
    plain = _reference(network)
    if resolve_engine(name, network) == "reference":
        return plain
    return Engine(
        adjoint.meta_gradient,
        adjoint.prototype_gradient,
        _where_tested(adjoint.adapt, plain.adapt),
        _where_tested(adjoint.embed, plain.embed),
        _where_tested(adjoint.head, plain.head),
        _where_tested(adjoint.logits, plain.logits),
    )


def _where_tested(fast: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """`fast`, and `plain` on devices on which the tests do not compare the two. (A training
    compares their meta-gradients there: `objective.trusted`.)"""

    def chosen(params: Params | list[Params], *rest: Any) -> Any:
        one = params[0] if isinstance(params, list) else params
        device = next(iter(one.values())).device
        return (fast if checked.tested_on(device) else plain)(params, *rest)

    return chosen


def _reference(network: Network) -> Engine:
    return Engine(
        partial(adaptation.meta_gradient, loss=loss_of(network)),
        partial(adaptation.prototype_gradient, network=network),
        partial(_adapt, network),
        lambda sets, images: [_embed(network, params, images) for params in sets],
        network.answer,
        partial(_logits, network),
    )


def _adapt(
    network: Network,
    params: Params,
    alpha: Params,
    support: torch.Tensor,
    support_labels: torch.Tensor,
    n_steps: int,
) -> Params:
    loss = loss_of(network)
    adapted = [
        adaptation.adapt(own, alpha, images, support_labels, n_steps, loss=loss)
        for own, images in zip(_of_tasks(network, params, len(support)), support, strict=True)
    ]
    return {name: torch.stack([own[name].detach() for own in adapted]) for name in params}


def _embed(network: Network, params: Params, images: torch.Tensor) -> torch.Tensor:
    of_tasks = zip(_of_tasks(network, params, len(images)), images, strict=True)
    with torch.no_grad():
        return torch.stack([network.embed(own, of_task) for own, of_task in of_tasks])


def _logits(network: Network, params: Params, images: torch.Tensor) -> torch.Tensor:
    return network.answer(params, _embed(network, params, images))


def _of_tasks(network: Network, params: Params, n_tasks: int) -> list[Params]:
    """The parameters of each task, which may all be the same."""
    params = {name: value.detach() for name, value in params.items()}
    if params[f"{network.head}.weight"].dim() == 2:
        return [params] * n_tasks
    return [{name: value[task] for name, value in params.items()} for task in range(n_tasks)]
