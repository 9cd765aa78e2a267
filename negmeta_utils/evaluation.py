"""What adaptation does to features: prototype evaluation before adaptation, on-task and off-task
(paper, section 4 and figure 7). `prototypes` says how features classify."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from negmeta_utils.adaptation import METHODS
from negmeta_utils.data.splits import load_split
from negmeta_utils.engine.engines import Engine, engine_of
from negmeta_utils.engine.threads import in_batches
from negmeta_utils.episodes import (
    Episodes,
    ImageSet,
    check_episode_fits,
    draw_pairs,
    episodes_at_once,
    shared_classes,
)
from negmeta_utils.evidence.quantities import ACCURACIES
from negmeta_utils.networks.network import Network, Params, check_params, check_pass
from negmeta_utils.parameters import check_value
from negmeta_utils.prototypes import Embedded, embed_tasks, own_accuracy, prototype_accuracy
from negmeta_utils.runs import END, Run, network_of

FEW_EPISODES = 60  # for a first look

AS_LEARNED = "as learned"  # a way to adapt: by the rates of the run

# Takes shared parameters, the tasks A and their numbers; gives adapted parameters [n_tasks, ...].
Adaptation = Callable[[Params, Episodes, range], Params]


def check_comparable(trained: list[Run]) -> None:
    """Raise ValueError where the runs differ in data set or task."""
    first = trained[0].parameters
    for run in trained:
        for name in ("dataset", "classes", "image_size", "n_way", "n_shot", "n_query"):
            if run.parameters[name] != first[name]:
                raise ValueError(
                    f"{run.directory}: {name}={run.parameters[name]!r}, but {first[name]!r} in "
                    f"{trained[0].directory}; evaluate runs of one data set and task together"
                )


def shared_test_images(trained: list[Run], data_dir: str | None, split: str = "test") -> ImageSet:
    """The images of the test split, or another one, that all of `trained` share.

    Raises ValueError as `check_comparable`, and where the data here are not those that they were
    trained with, or that an imported network takes.
    """
    check_comparable(trained)
    first = trained[0].parameters
    images = load_split(first["dataset"], split, first["image_size"], data_dir, first["classes"])
    for run in trained:
        # Of an imported run nobody knows which images it has seen.
        trained_with = run.manifest.get("data", {}).get(split, {"fingerprint": images.fingerprint})
        if trained_with["fingerprint"] != images.fingerprint:
            raise ValueError(f"{run.directory}: trained with other images than those found here")
        if "imported" in run.manifest:
            _check_imported(run, images)
    return images


def _check_imported(run: Run, images: ImageSet) -> None:
    try:
        check_pass(network_of(run), run.params, images.images[:2].float() / 255, 1)
    except ValueError as error:
        raise ValueError(f"{run.directory}: {error}; import it with another dataset") from error


def evaluate(
    network: Network,
    params: Params,
    alpha: Params,
    images: ImageSet,
    n_episodes: int = FEW_EPISODES,
    n_way: int = 5,
    n_shot: int = 1,
    n_query: int = 10,
    inner_steps: int = 5,
    eval_seed: int = 0,
    method: str = "meta-sgd",
    seed: int = 0,
) -> pd.DataFrame:
    """On-task and off-task accuracy of any network, one row an episode.

    params, alpha: by the network's names, rates broadcastable to the parameters; `alpha` of zeros
    keeps a part of the network still. images: of the classes to evaluate on. method: matters for
    "protonet", whose own accuracy is by prototypes, and for no other. seed: of the training.
    Columns: as `evaluate_features`, whose `network` is "end".
    Raises ValueError, naming the argument, for what does not fit together.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: not one of {', '.join(METHODS)}")
    numbers = {"n_episodes": n_episodes, "n_way": n_way, "n_shot": n_shot, "n_query": n_query}
    for name, value in {**numbers, "inner_steps": inner_steps}.items():
        check_value(name, value, int)
    check_value("eval_seed", eval_seed, int, 0)
    check_episode_fits(images, n_way, n_shot + n_query)
    check_params(network, params, alpha)
    network.check_image_size(images.image_size)
    answers = 1 if METHODS[method].prototypes else n_way
    check_pass(network, params, images.images[:2].float() / 255, answers)
    device = images.images.device
    params = {name: value.detach().to(device) for name, value in params.items()}
    adaptations = {AS_LEARNED: with_rates(network, alpha, inner_steps)}
    settings = {"n_way": n_way, "n_shot": n_shot, "n_query": n_query, "method": method}
    engine = engine_of(network)

    def of_batch(indices: range) -> list[pd.DataFrame]:
        return _evaluate_batch(engine, params, adaptations, images, settings, eval_seed, indices)

    at_once = episodes_at_once(images, n_way, n_query)
    batches = in_batches(of_batch, network, images, range(n_episodes), at_once)
    tables = [table for _, tables in batches for table in tables]
    table = pd.concat(tables, ignore_index=True).drop(columns="variant")
    return _named(table, method, seed, END)


def evaluate_features(
    run: Run,
    images: ImageSet,
    n_episodes: int,
    eval_seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
    first: int = 0,
    disjoint: bool = False,
    engine: str = "auto",
) -> pd.DataFrame:
    """One row an episode of one trained model: the features table of notebook 3, of episodes
    `first` to `n_episodes` - 1.

    disjoint: A and B share no class. engine: "auto" and "adjoint" adapt and embed by the adjoint's
    passes where the network is Conv4 on a CPU, else by plain autograd; "reference" always does.
    Episode i is a pair of tasks drawn from `images` under `eval_seed`: A, which the model adapts
    to, and B, another. Pairs are the same for every run, so methods and seeds compare in pairs.
    Columns: method, seed, network (as `runs.Run`'s), episode; same_before and same_after, prototype
    accuracy on A before and after adapting to A (the paper's pre-adaptation and on-task);
    other_before and other_after, the same on B (off-task is other_after); ordinary, the adapted
    model's own accuracy on A; shared_classes, how many classes A and B have in common, which the
    paper leaves to chance.
    Raises ValueError where `first` to `n_episodes` - 1 are no episode, and where there are too few
    classes for `disjoint` pairs.
    """
    own = as_learned(run, engine)
    table = evaluate_adaptations(
        run, images, own, n_episodes, eval_seed, report, first, disjoint, engine
    )
    return table.drop(columns="variant")


def as_learned(run: Run, engine: str = "auto") -> dict[str, Adaptation]:
    """The one way to adapt that is the run's own."""
    return by_rates(run, {AS_LEARNED: run.alpha}, engine)


def by_rates(run: Run, variants: dict[str, Params], engine: str = "auto") -> dict[str, Adaptation]:
    """Adaptation as the run's, by name, with each of several sets of inner rates."""
    network, n_steps = network_of(run), run.parameters["inner_steps"]
    return {name: with_rates(network, alpha, n_steps, engine) for name, alpha in variants.items()}


def with_rates(network: Network, alpha: Params, n_steps: int, engine: str = "auto") -> Adaptation:
    """Adaptation by the rates `alpha`."""
    functions = engine_of(network, engine)

    def adapted(params: Params, task: Episodes, indices: range) -> Params:
        rates = to_device(alpha, task.support.device)
        return functions.adapt(params, rates, task.support, task.support_labels, n_steps)

    return adapted


def evaluate_adaptations(
    run: Run,
    images: ImageSet,
    adaptations: dict[str, Adaptation],
    n_episodes: int,
    eval_seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
    first: int = 0,
    disjoint: bool = False,
    engine: str = "auto",
) -> pd.DataFrame:
    """What `evaluate_features` gives, once with each of several ways to adapt, by the name that
    stands in the column `variant`. Raises ValueError for pairs that shall be `disjoint` where
    classes do not suffice."""
    n_way = run.parameters["n_way"]
    if disjoint and images.n_classes < 2 * n_way:
        raise ValueError(
            f"disjoint=True: two tasks need {2 * n_way} classes, this split has "
            f"{images.n_classes}; use False, or another eval_split"
        )
    params = to_device(run.params, images.images.device)
    functions = engine_of(network_of(run), engine)

    def of_batch(indices: range) -> list[pd.DataFrame]:
        settings = run.parameters
        return _evaluate_batch(
            functions, params, adaptations, images, settings, eval_seed, indices, disjoint
        )

    return tables_of(run, images, n_episodes, of_batch, report, first)


def tables_of(
    run: Run,
    images: ImageSet,
    n_episodes: int,
    of_batch: Callable[[range], list[pd.DataFrame]],
    report: Callable[[str], None],
    first: int = 0,
) -> pd.DataFrame:
    """The tables that `of_batch` gives of the episodes' numbers, one below the other, with the
    run's method, seed and network in front. report and first as for `evaluate_features`.
    Raises ValueError where there is no episode between `first` and `n_episodes`."""
    check_value("n_episodes", n_episodes, int, first + 1)
    settings = run.parameters
    name = f"{settings['method']}, seed {settings['seed']}"
    name += "" if run.network == END else f", {run.network}"
    parts, episodes = [], range(first, n_episodes)
    at_once = episodes_at_once(images, settings["n_way"], settings["n_query"])
    batches = in_batches(of_batch, network_of(run), images, episodes, at_once)
    for indices, tables in batches:
        parts += tables
        report(f"{name}: {indices.stop} of {n_episodes} episodes")
    table = pd.concat(parts, ignore_index=True)
    return _named(table, settings["method"], settings["seed"], run.network)


def _named(table: pd.DataFrame, method: str, seed: int, network: str) -> pd.DataFrame:
    """With what tells a network from others in front."""
    named = {"method": method, "seed": seed, "network": network}
    for place, (column, value) in enumerate(named.items()):
        table.insert(place, column, value)
    return table


def to_device(tensors: Params, device: torch.device) -> Params:
    return {name: value.to(device) for name, value in tensors.items()}


def _evaluate_batch(
    engine: Engine,
    params: Params,
    adaptations: dict[str, Adaptation],
    images: ImageSet,
    settings: dict,
    eval_seed: int,
    indices: range,
    disjoint: bool = False,
) -> list[pd.DataFrame]:
    n_way = settings["n_way"]
    task, other = draw_pairs(images, settings, eval_seed, indices, disjoint)
    labels = task.query_labels

    def judge(of: Embedded) -> torch.Tensor:
        return prototype_accuracy(of.support, of.query, n_way, labels)

    adapted = [adapt(params, task, indices) for adapt in adaptations.values()]
    same_before, *same = embed_tasks(engine, [params, *adapted], task)
    other_before, *others = embed_tasks(engine, [params, *adapted], other)
    before = {"same_before": judge(same_before), "other_before": judge(other_before)}
    n_shared = shared_classes(images, eval_seed, indices, n_way, disjoint)
    tables = []
    for name, own, after, other_after in zip(adaptations, adapted, same, others, strict=True):
        columns = before | {
            "same_after": judge(after),
            "other_after": judge(other_after),
            "ordinary": own_accuracy(engine, settings["method"], own, after, n_way, labels),
        }
        values = {column: columns[column].cpu().numpy() for column in ACCURACIES}
        episode = np.arange(indices.start, indices.stop)
        tables.append(
            pd.DataFrame(
                {"variant": name, "episode": episode, **values, "shared_classes": n_shared}
            )
        )
    return tables
