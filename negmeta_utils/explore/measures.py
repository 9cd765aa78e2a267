"""What notebook 0 looks at: every rate along training, one episode's answers, one adaptation's
steps. Runs and images in, arrays and tables out; `explore.pictures` draws them."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from negmeta_utils.adaptation import METHODS, prototype_logits
from negmeta_utils.engine.engines import Engine, engine_of
from negmeta_utils.engine.meta_gradient import loss_and_accuracy
from negmeta_utils.episodes import Episodes, ImageSet, draw_classes, draw_pairs
from negmeta_utils.networks.network import WEIGHTS, Params
from negmeta_utils.prototypes import Embedded, embed_tasks, prototype_accuracy, prototype_answers
from negmeta_utils.runs import Run, network_of

CONDITIONS = ("before", "on-task", "off-task")


class LayerRates(NamedTuple):
    """Rates of one layer along training.

    updates: meta-updates at which every rate was kept, int [n_kept].
    values: rates of weights and biases, as in table 1, [n_kept, n_rates].
    filters: rates of the weights alone (of the largest, where a layer has several), [n_kept,
    n_outputs, n_inputs]; n_outputs is filters, or classes for the head; n_inputs runs over input
    channels and, within them, kernel positions.
    """

    updates: np.ndarray
    values: np.ndarray
    filters: np.ndarray


class Answers(NamedTuple):
    """One episode and what a model's prototypes answer.

    support: [n_way, n_shot, channels, height, width], values in 0..1; query likewise, n_query.
    class_names: of the task, one a row.
    table: one row a query image, in the order of `query`: label, and the class answered before
    adaptation, on-task and off-task, all 0..n_way-1.
    """

    support: np.ndarray
    query: np.ndarray
    class_names: list[str]
    table: pd.DataFrame


class Steps(NamedTuple):
    """One task's adaptation, from before the first step to after the last.

    curves: one row a step: step, support_loss, query_loss, accuracy (of the adapted model on the
    query images), prototype_accuracy.
    places: embeddings scaled to length 1, in the plane of their two principal components over all
    steps together, [n_steps + 1, n_support + n_query_images, 2].
    labels: class of every image, int [n_support + n_query_images], the support first.
    answers: class that the adapted model answers, int [n_steps + 1, n_query_images].
    explained: share of the embeddings' variance that the plane shows, 0..1.
    """

    curves: pd.DataFrame
    places: np.ndarray
    labels: np.ndarray
    answers: np.ndarray
    explained: float


def layer_rates(run: Run, layer: str) -> LayerRates:
    """Every rate of `layer`, at all meta-updates at which training kept them."""
    table = run.every_rate()
    names = network_of(run).rows(list(run.params))[layer, WEIGHTS]
    table = table[table["name"].isin(names)]
    updates = table["update"].unique()
    values = table["rate"].to_numpy().reshape(len(updates), -1)
    largest = max(names, key=lambda name: run.params[name].numel())
    weights = table.loc[table["name"] == largest, "rate"].to_numpy()
    n_outputs = len(run.params[largest])
    return LayerRates(updates, values, weights.reshape(len(updates), n_outputs, -1))


def episode_answers(run: Run, images: ImageSet, index: int, eval_seed: int = 0) -> Answers:
    """Task A of pair `index` (as in `evaluation.evaluate_features`), judged before adaptation,
    after adapting to A (on-task) and after adapting to the pair's other task B (off-task)."""
    settings, engine = run.parameters, engine_of(network_of(run))
    n_way = settings["n_way"]
    task, other = draw_pairs(images, settings, eval_seed, range(index, index + 1))
    on, off = (
        engine.adapt(run.params, run.alpha, e.support, e.support_labels, settings["inner_steps"])
        for e in (task, other)
    )
    table = pd.DataFrame({"label": task.query_labels.numpy()})
    embedded = embed_tasks(engine, [run.params, on, off], task)
    for condition, of in zip(CONDITIONS, embedded, strict=True):
        table[condition] = prototype_answers(*of, n_way)[0].numpy()
    classes = draw_classes(images.class_sizes, eval_seed, "test", index, n_way)
    return Answers(
        task.support[0].unflatten(0, (n_way, -1)).numpy(),
        task.query[0].unflatten(0, (n_way, -1)).numpy(),
        [images.class_names[c] for c in classes],
        table,
    )


def count_flips(table: pd.DataFrame) -> pd.DataFrame:
    """How answers change with adaptation: one row a condition, with the shares of query images
    that are right, that flipped since before, and that flipped to right and to wrong. What flips
    from one wrong class to another is in none of the last two.

    table: as in `Answers`, of one episode or several.
    """
    label, before = table["label"], table["before"]
    records = []
    for condition in CONDITIONS:
        answer = table[condition]
        records.append(
            {
                "condition": condition,
                "right": (answer == label).mean(),
                "flipped": (answer != before).mean(),
                "to_right": ((answer == label) & (before != label)).mean(),
                "to_wrong": ((answer != label) & (before == label)).mean(),
            }
        )
    return pd.DataFrame(records)


def flips(run: Run, images: ImageSet, n_episodes: int, eval_seed: int = 0) -> pd.DataFrame:
    """`count_flips` of the first `n_episodes` pairs together."""
    tables = [episode_answers(run, images, i, eval_seed).table for i in range(n_episodes)]
    return count_flips(pd.concat(tables, ignore_index=True))


def adaptation_steps(
    run: Run, images: ImageSet, index: int, n_steps: int, eval_seed: int = 0
) -> Steps:
    """Task A of pair `index`, adapted step by step. `n_steps` may exceed those trained with."""
    task, _ = draw_pairs(images, run.parameters, eval_seed, range(index, index + 1))
    params, rows, embedded, answers = run.params, [], [], []
    engine = engine_of(network_of(run))
    for step in range(n_steps + 1):
        if step:
            params = engine.adapt(params, run.alpha, task.support, task.support_labels, 1)
        (both,) = embed_tasks(engine, [params], task)
        row, answered = _judge(engine, params, both, task, run.parameters)
        rows.append({"step": step, **row})
        answers.append(answered)
        embedded.append(F.normalize(torch.cat(both, 1)[0], dim=-1).numpy())
    places, share = principal_components(np.concatenate(embedded).astype(np.float64))
    return Steps(
        pd.DataFrame(rows),
        places.reshape(n_steps + 1, -1, 2),
        torch.cat([task.support_labels, task.query_labels]).numpy(),
        np.stack(answers),
        share,
    )


def principal_components(points: np.ndarray) -> tuple[np.ndarray, float]:
    """`points` [n, d] on their first two principal components, [n, 2], and the share of the
    variance that these explain. The largest entry of each component is positive."""
    centred = points - points.mean(axis=0)
    _, lengths, components = np.linalg.svd(centred, full_matrices=False)
    largest = np.abs(components[:2]).argmax(axis=1)
    signs = np.sign(components[np.arange(2), largest])
    share = (lengths[:2] ** 2).sum() / (lengths**2).sum()
    return centred @ (components[:2] * signs[:, None]).T, float(share)


def _judge(
    engine: Engine, params: Params, embedded: Embedded, task: Episodes, settings: dict
) -> tuple[dict[str, float], np.ndarray]:
    """Losses and accuracies of one task, and the answers [n_query_images] behind them: by the
    linear layer, or the prototypes of a network that was trained with them."""
    n_way = settings["n_way"]

    def answer(images: torch.Tensor) -> torch.Tensor:
        if METHODS[settings["method"]].prototypes:
            return prototype_logits(embedded.support, images, n_way)
        return engine.head(params, images)

    logits = answer(embedded.query)
    query_loss, accuracy = loss_and_accuracy(logits, task.query_labels)
    support_loss, _ = loss_and_accuracy(answer(embedded.support), task.support_labels)
    by_prototypes = prototype_accuracy(*embedded, n_way, task.query_labels)
    row = {
        "support_loss": support_loss.item(),
        "query_loss": query_loss.item(),
        "accuracy": accuracy.item(),
        "prototype_accuracy": by_prototypes.item(),
    }
    return row, logits[0].argmax(-1).numpy()
