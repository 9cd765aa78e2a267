"""Interventions on the inner rates of a trained model: what adaptation would do with others.

Each takes rates as learned, at the parameters' shapes, and gives others of the same shapes; the
parameters stay as they are. If negative rates are what makes adaptation improve features for other
tasks, then taking them away must take the improvement away.

Rates set to zero also make the step shorter. `as_long` keeps its length: at every inner step and
in every layer the step by the changed rates is multiplied by one number, so that its Euclidean
norm is that of the step that the rates as learned would take from the same parameters. Absolute
values and shuffled or flipped signs keep every magnitude in its place, so their steps are as long
already. `one_class` keeps the rates and takes the task away: the features' drift without a task.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import torch

from negmeta_utils.engine.engines import Engine, engine_of
from negmeta_utils.episodes import Episodes, ImageSet, check_episode_fits, draw_episodes
from negmeta_utils.evaluation import (
    AS_LEARNED,
    Adaptation,
    by_rates,
    to_device,
    with_rates,
)
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.networks.network import WEIGHTS, Network, Params
from negmeta_utils.resumable import evaluate_resumably
from negmeta_utils.runs import Run, network_of

WITHOUT_NEGATIVE = "negative set to zero"
AS_LONG = ", steps as long"
ONE_CLASS = "support of one class"


def interventions(alpha: Params, seed: int = 0, network: Network = CONV4) -> dict[str, Params]:
    """The interventions on Meta-SGD's rates, by name, the rates as learned first.

    seed: of the shuffled signs. A layer is a row of table 1: the weights and biases of one layer,
    or of its batch normalisation.
    """
    rows = list(network.rows(list(alpha)))
    body = [row for row in rows if row[0] != network.head]
    return {
        AS_LEARNED: alpha,
        "absolute value": _each(alpha, torch.abs),
        WITHOUT_NEGATIVE: _each(alpha, lambda a: a.clamp(min=0)),
        "positive set to zero": _each(alpha, lambda a: a.clamp(max=0)),
        "signs flipped": _each(alpha, torch.neg),
        "signs shuffled": shuffle_signs(alpha, seed, network),
        "magnitudes averaged": average_magnitudes(alpha, network),
        "convolutions only": only(alpha, [r for r in body if r[1] == WEIGHTS], network),
        "batch norm only": only(alpha, [r for r in body if r[1] != WEIGHTS], network),
        "linear layer only": only(alpha, [r for r in rows if r not in body], network),
    }


def adaptations(run: Run, images: ImageSet, eval_seed: int) -> dict[str, Adaptation]:
    """Every intervention on a run's adaptation, by name: `interventions`, those that shorten the
    step also with its length kept, and the support of one class."""
    changed = interventions(run.alpha, network=network_of(run))
    found = by_rates(run, changed)
    for name in (WITHOUT_NEGATIVE, "positive set to zero"):
        found[name + AS_LONG] = as_long(run, changed[name])
    return found | {ONE_CLASS: one_class(run, images, eval_seed)}


def evaluate_interventions(
    trained: list[Run],
    images: ImageSet,
    n_episodes: int,
    folder: Path,
    eval_seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
    disjoint: bool = False,
) -> pd.DataFrame:
    """`evaluate_adaptations` of every run with each of its `adaptations`, kept in `folder` as it
    goes: a call that was stopped goes on."""

    def ways(run: Run) -> dict[str, Adaptation]:
        return adaptations(run, images, eval_seed)

    return _of_every_run(trained, images, ways, n_episodes, folder, eval_seed, report, disjoint)


def evaluate_parts(
    trained: list[Run],
    images: ImageSet,
    n_episodes: int,
    folder: Path,
    eval_seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
    disjoint: bool = False,
) -> pd.DataFrame:
    """`evaluate_interventions`, but with each of the `parts` of the networks adapting."""

    def ways(run: Run) -> dict[str, Adaptation]:
        return by_rates(run, parts(run.alpha, network_of(run)))

    return _of_every_run(trained, images, ways, n_episodes, folder, eval_seed, report, disjoint)


def _of_every_run(
    trained: list[Run],
    images: ImageSet,
    ways: Callable[[Run], dict[str, Adaptation]],
    n_episodes: int,
    folder: Path,
    eval_seed: int,
    report: Callable[[str], None],
    disjoint: bool,
) -> pd.DataFrame:
    tables = [
        evaluate_resumably(run, images, ways(run), n_episodes, eval_seed, folder, report, disjoint)
        for run in trained
    ]
    return pd.concat(tables, ignore_index=True)


def as_long(run: Run, alpha: Params) -> Adaptation:
    """Adaptation with the rates `alpha`, each step as long in every layer as the run's own rates
    would make it from the same parameters. Where `alpha` moves nothing in a layer, nor does this.

    A layer is a row of table 1: the weights and biases of one layer, or of its batch normalisation.
    """

    network = network_of(run)
    engine = engine_of(network)

    def adapted(params: Params, task: Episodes, indices: range) -> Params:
        device = task.support.device
        own, rates = to_device(run.alpha, device), to_device(alpha, device)
        for _ in range(run.parameters["inner_steps"]):
            gradient = _gradient(engine, params, task)
            step = {name: rates[name] * gradient[name] for name in gradient}
            length = _lengths(network, step)
            wanted = _lengths(network, {name: own[name] * gradient[name] for name in gradient})
            longer = {row: wanted[row] / length[row].clamp(min=1e-30) for row in length}
            params = {
                name: params[name] - _each_task(longer[network.layer_and_group(name)], value)
                for name, value in step.items()
            }
        return params

    return adapted


def _gradient(engine: Engine, params: Params, task: Episodes) -> Params:
    """Of the support loss, each tensor [n_tasks, ...]: what one step with rates of 1 takes away."""
    ones = {name: torch.ones((), device=task.support.device) for name in params}
    moved = engine.adapt(params, ones, task.support, task.support_labels, 1)
    return {name: params[name] - value for name, value in moved.items()}


def _each_task(factors: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """factors [n_tasks] times values [n_tasks, ...]."""
    return values * factors.view(-1, *[1] * (values.dim() - 1))


def _lengths(network: Network, step: Params) -> dict[tuple[str, str], torch.Tensor]:
    """Euclidean norm [n_tasks] of each layer's part of a step."""
    squares: dict[tuple[str, str], torch.Tensor] = {}
    for name, value in step.items():
        row = network.layer_and_group(name)
        squares[row] = squares.get(row, 0) + value.flatten(1).square().sum(1)
    return {row: square.sqrt() for row, square in squares.items()}


def one_class(run: Run, images: ImageSet, eval_seed: int) -> Adaptation:
    """Adaptation by the rates as learned to as many images as a task has, all of one class and all
    with its label: nothing is to be told apart. The class is drawn for each task by itself.

    Raises ValueError where a class has too few images.
    """
    settings = run.parameters
    n_support = settings["n_way"] * settings["n_shot"]
    check_episode_fits(images, 1, n_support + 1)
    own = with_rates(network_of(run), run.alpha, settings["inner_steps"])

    def adapted(params: Params, task: Episodes, indices: range) -> Params:
        far = 2**50  # beyond the pairs of `evaluate_features` and the others of `uses`
        shifted = range(far + indices.start, far + indices.stop)
        alone = draw_episodes(images, eval_seed, "other", shifted, 1, n_support, 1)
        return own(params, alone, indices)

    return adapted


def parts(alpha: Params, network: Network = CONV4) -> dict[str, Params]:
    """The same rates with the head alone, the body alone and one layer at a time adapting."""

    def of(*layers: str) -> Params:
        rows = [row for row in network.rows(list(alpha)) if row[0] in layers]
        return only(alpha, rows, network)

    return {
        AS_LEARNED: alpha,
        "head only": of(network.head),
        "body only": of(*network.body),
        **{f"{layer} only": of(layer) for layer in network.body},
    }


def only(alpha: Params, rows: Iterable[tuple[str, str]], network: Network = CONV4) -> Params:
    """`alpha` with zeros outside `rows`, pairs (layer, group) as `layer_and_group` gives."""
    rows = set(rows)
    return {
        name: value if network.layer_and_group(name) in rows else torch.zeros_like(value)
        for name, value in alpha.items()
    }


def shuffle_signs(alpha: Params, seed: int, network: Network = CONV4) -> Params:
    """Every layer keeps its magnitudes in place and its number of negative rates."""
    generator = torch.Generator().manual_seed(seed)

    def shuffle(values: torch.Tensor) -> torch.Tensor:
        order = torch.randperm(len(values), generator=generator, device="cpu")
        return values.abs() * values.sign()[order]

    return _by_layer(alpha, shuffle, network)


def average_magnitudes(alpha: Params, network: Network = CONV4) -> Params:
    """Every rate keeps its sign and takes the mean magnitude of its layer."""
    return _by_layer(alpha, lambda values: values.sign() * values.abs().mean(), network)


def _each(alpha: Params, function: Callable[[torch.Tensor], torch.Tensor]) -> Params:
    return {name: function(value) for name, value in alpha.items()}


def _by_layer(
    alpha: Params, function: Callable[[torch.Tensor], torch.Tensor], network: Network
) -> Params:
    """`function` of all rates of a layer, flat."""
    layers: dict[tuple[str, str], list[str]] = {}
    for name in alpha:
        layers.setdefault(network.layer_and_group(name), []).append(name)
    changed = {}
    for names in layers.values():
        values = function(torch.cat([alpha[name].flatten() for name in names]))
        for name, part in zip(names, values.split([alpha[n].numel() for n in names]), strict=True):
            changed[name] = part.view_as(alpha[name])
    return {name: changed[name] for name in alpha}
