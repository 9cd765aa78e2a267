"""Ways to use a trained model at test time: how many steps to adapt, and to what."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch

from negmeta_utils.engine.engines import Engine, engine_of
from negmeta_utils.episodes import Episodes, ImageSet, draw_episodes, draw_pairs
from negmeta_utils.evaluation import (
    embed_tasks,
    own_accuracy,
    prototype_accuracy,
    tables_of,
    to_device,
)
from negmeta_utils.evidence.contrasts import change_grids, contrasts
from negmeta_utils.evidence.learned_rates import table_1
from negmeta_utils.evidence.quantities import CHANGES
from negmeta_utils.networks.network import Params
from negmeta_utils.parameters import check_numbers
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
        adapted, taken, before, tables = params, 0, {}, []
        for n_steps in sorted({0, *steps}):
            adapted = engine.adapt(
                adapted, alpha, task.support, task.support_labels, n_steps - taken
            )
            taken = n_steps
            after = _judge_pair(engine, run, adapted, task, other)
            before = before or after
            if n_steps in steps:
                rows = _steps_rows(n_steps, indices, before, after)
                tables.append(rows.assign(inner_steps=run.parameters["inner_steps"]))
        return tables

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


def _judge_pair(engine: Engine, run: Run, adapted: Params, task: Episodes, other: Episodes) -> dict:
    n_way, labels = run.parameters["n_way"], task.query_labels
    same, elsewhere = embed_tasks(engine, adapted, task), embed_tasks(engine, adapted, other)
    accuracies = {
        "same": prototype_accuracy(*same, n_way, labels),
        "other": prototype_accuracy(*elsewhere, n_way, labels),
        "ordinary": own_accuracy(engine, run.parameters["method"], adapted, same, n_way, labels),
    }
    return {name: value.cpu().numpy() for name, value in accuracies.items()}


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

        def judged(adapted: Params) -> torch.Tensor:
            return prototype_accuracy(*embed_tasks(engine, adapted, task), n_way, labels)

        tables = [rows("no adaptation", judged(params))]
        adapted = params
        for number in range(max(n_others)):
            drawn = _another(images, settings, eval_seed, indices, number)
            adapted = engine.adapt(adapted, alpha, drawn.support, drawn.support_labels, n_steps)
            if number + 1 in n_others:
                plural = "s" if number else ""
                tables.append(rows(f"{number + 1} other task{plural}", judged(adapted)))
        adapted = engine.adapt(params, alpha, task.support, task.support_labels, n_steps)
        embedded = embed_tasks(engine, adapted, task)
        own = own_accuracy(engine, settings["method"], adapted, embedded, n_way, labels)
        tables.append(rows("the task itself", prototype_accuracy(*embedded, n_way, labels)))
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
