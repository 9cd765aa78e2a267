"""Ways to use a trained model at test time: how many steps to adapt, and to what."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import torch

from negmeta_utils.engine.engines import Engine, engine_of
from negmeta_utils.episodes import Episodes, ImageSet, draw_episodes, draw_pairs
from negmeta_utils.evaluation import tables_of, to_device
from negmeta_utils.evidence.contrasts import change_grids, contrasts
from negmeta_utils.evidence.learned_rates import table_1
from negmeta_utils.evidence.quantities import CHANGES
from negmeta_utils.networks.network import Params
from negmeta_utils.parameters import check_numbers
from negmeta_utils.prototypes import embed_tasks, own_accuracy, prototype_accuracy
from negmeta_utils.runs import Run, network_of


def evaluate_steps(
    trained: list[Run],
    images: ImageSet,
    steps: list[int],
    n_episodes: int,
    eval_seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """The features table after each of several numbers of inner steps, whatever training took; of
    several runs, one below the other.

    steps: numbers of steps, at least 0. Episodes are those of `evaluate_features`, and so are the
    columns, with inner_steps (in training) and steps (here) beside them.
    Raises ValueError where `steps` is empty or holds something else.
    """
    check_numbers("steps", steps, "[0, 1, 5]", least=0)

    def of_batch(
        run: Run, engine: Engine, params: Params, alpha: Params, indices: range
    ) -> list[pd.DataFrame]:
        task, other = draw_pairs(images, run.parameters, eval_seed, indices)
        numbers, adapted = sorted({0, *steps}), [params]
        for taken, n_steps in pairwise(numbers):
            more = n_steps - taken
            adapted.append(
                engine.adapt(adapted[-1], alpha, task.support, task.support_labels, more)
            )
        judged = _judge_pairs(engine, run, adapted, task, other)
        return [
            _steps_rows(n_steps, indices, judged[0], after).assign(
                inner_steps=run.parameters["inner_steps"]
            )
            for n_steps, after in zip(numbers, judged, strict=True)
            if n_steps in steps
        ]

    table = _of_every_run(trained, images, n_episodes, of_batch, report)
    table.insert(2, "inner_steps", table.pop("inner_steps"))
    return table


def _of_every_run(
    trained: list[Run],
    images: ImageSet,
    n_episodes: int,
    of_batch: Callable[[Run, Engine, Params, Params, range], list[pd.DataFrame]],
    report: Callable[[str], None],
) -> pd.DataFrame:
    """`evaluation.tables_of` of every run, one below the other. of_batch: of a run, its engine,
    its parameters and rates on the images' device, and the episodes' numbers."""
    tables = []
    for run in trained:
        device, engine = images.images.device, engine_of(network_of(run))
        params, alpha = to_device(run.params, device), to_device(run.alpha, device)
        own = partial(of_batch, run, engine, params, alpha)
        tables.append(tables_of(run, images, n_episodes, own, report))
    return pd.concat(tables, ignore_index=True)


def changes_over_steps(table: pd.DataFrame) -> pd.DataFrame:
    """`contrasts` of the on-task and off-task change at each number of steps, of each method and
    number of steps in training.

    table: of `evaluate_steps`, of any number of runs. Columns: x, the steps at test time; those of
    `contrasts`; method, inner_steps, quantity; and line, "trained with" how many steps.
    """
    found = []
    for (method, inner_steps), rows in table.groupby(["method", "inner_steps"]):
        for quantity in CHANGES:
            changes = contrasts(change_grids(rows, "steps", quantity))
            trained = {"method": method, "inner_steps": inner_steps, "quantity": quantity}
            found.append(changes.assign(**trained))
    changes = pd.concat(found, ignore_index=True).rename(columns={"condition": "x"})
    changes["x"] = changes["x"].astype(int)
    changes["line"] = [f"trained with {n} step{'s' * (n > 1)}" for n in changes["inner_steps"]]
    return changes


def rates_over_steps(trained: list[Run]) -> pd.DataFrame:
    """Table 1 of the runs of plain Meta-SGD for every number of inner steps in training, with that
    number in front; empty where there is no such run."""
    learned = [
        run.rates().assign(inner_steps=run.parameters["inner_steps"])
        for run in trained
        if run.parameters["method"] == "meta-sgd"
    ]
    if not learned:
        return pd.DataFrame()
    return pd.concat(learned).groupby("inner_steps").apply(table_1).reset_index("inner_steps")


def _judge_pairs(
    engine: Engine, run: Run, sets: list[Params], task: Episodes, other: Episodes
) -> list[dict]:
    """Accuracies of each of several parameters."""
    n_way, method, labels = run.parameters["n_way"], run.parameters["method"], task.query_labels
    embedded = embed_tasks(engine, sets, task), embed_tasks(engine, sets, other)
    judged = []
    for params, same, elsewhere in zip(sets, *embedded, strict=True):
        accuracies = {
            "same": prototype_accuracy(*same, n_way, labels),
            "other": prototype_accuracy(*elsewhere, n_way, labels),
            "ordinary": own_accuracy(engine, method, params, same, n_way, labels),
        }
        judged.append({name: value.cpu().numpy() for name, value in accuracies.items()})
    return judged


def _steps_rows(n_steps: int, indices: range, before: dict, after: dict) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "steps": n_steps,
            "episode": np.arange(indices.start, indices.stop),
            "same_before": before["same"],
            "same_after": after["same"],
            "other_before": before["other"],
            "other_after": after["other"],
            "ordinary": after["ordinary"],
        }
    )


def evaluate_uses(
    trained: list[Run],
    images: ImageSet,
    n_others: list[int],
    n_episodes: int,
    eval_seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Accuracy on a task by each way of using each model: method, seed, use, episode, accuracy.

    uses: "no adaptation"; "k other tasks" for each k of `n_others`, adapting to one after another,
    each with the inner steps of training; "the task itself"; all these by prototypes, and "the
    task itself, own head" by the adapted model's own rule. The others are never the task judged,
    but may share classes with it. Raises ValueError where `n_others` is empty or holds anything
    but whole numbers from 1 on.
    """
    check_numbers("n_others", n_others, "[1, 2, 5]")

    def of_batch(
        run: Run, engine: Engine, params: Params, alpha: Params, indices: range
    ) -> list[pd.DataFrame]:
        settings = run.parameters
        task, _ = draw_pairs(images, settings, eval_seed, indices)
        n_way, n_steps, labels = settings["n_way"], settings["inner_steps"], task.query_labels

        def rows(use: str, accuracy: torch.Tensor) -> pd.DataFrame:
            episode = np.arange(indices.start, indices.stop)
            return pd.DataFrame(
                {"use": use, "episode": episode, "accuracy": accuracy.cpu().numpy()}
            )

        uses, adapted = {"no adaptation": params}, params
        for number in range(max(n_others)):
            drawn = _another(images, settings, eval_seed, indices, number)
            adapted = engine.adapt(adapted, alpha, drawn.support, drawn.support_labels, n_steps)
            if number + 1 in n_others:
                plural = "s" if number else ""
                uses[f"{number + 1} other task{plural}"] = adapted
        adapted = engine.adapt(params, alpha, task.support, task.support_labels, n_steps)
        uses["the task itself"] = adapted
        embedded = embed_tasks(engine, list(uses.values()), task)
        tables = [
            rows(use, prototype_accuracy(*of, n_way, labels))
            for use, of in zip(uses, embedded, strict=True)
        ]
        own = own_accuracy(engine, settings["method"], adapted, embedded[-1], n_way, labels)
        tables.append(rows("the task itself, own head", own))
        return tables

    return _of_every_run(trained, images, n_episodes, of_batch, report)


def _another(
    images: ImageSet, settings: dict, eval_seed: int, indices: range, number: int
) -> Episodes:
    """Another task for each of episodes `indices`: the `number`-th of a stream of their own."""
    far = 2**40 * (number + 1)  # beyond the pairs of `evaluate_features`
    shifted = range(far + indices.start, far + indices.stop)
    shape = (settings["n_way"], settings["n_shot"], settings["n_query"])
    return draw_episodes(images, eval_seed, "other", shifted, *shape)
