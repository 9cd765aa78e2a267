"""Prototype evaluation of embeddings: before adaptation, on-task and off-task (paper, section 4
and figure 7).

The linear layer is left out. The embeddings of a task's support images are the centroids of its
classes, and a query image belongs to the class whose centroid is most similar by cosine.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from negmeta_utils import adjoint, data
from negmeta_utils.episodes import Episodes, ImageSet, draw_classes, draw_episodes, episodes_at_once
from negmeta_utils.model import Params
from negmeta_utils.runs import Run


def test_images(trained: list[Run], data_dir: str | None) -> ImageSet:
    """The images of the test split that all of `trained` share.

    Raises ValueError where the runs differ in data or task, or the data here are not those that
    they were trained with.
    """
    first = trained[0].parameters
    for run in trained:
        for name in ("dataset", "image_size", "n_way", "n_shot", "n_query"):
            if run.parameters[name] != first[name]:
                raise ValueError(
                    f"{run.directory}: {name}={run.parameters[name]!r}, but {first[name]!r} in "
                    f"{trained[0].directory}; evaluate runs of one data set and task together"
                )
    images = data.load(first["dataset"], "test", first["image_size"], data_dir)
    for run in trained:
        if run.manifest["data"]["test"]["fingerprint"] != images.fingerprint:
            raise ValueError(f"{run.directory}: trained with other images than those found here")
    return images


def prototype_answers(support: torch.Tensor, query: torch.Tensor, n_way: int) -> torch.Tensor:
    """The class whose centroid is nearest by cosine to each query embedding (paper, eq. 5).

    support: [n_tasks, n_way * n_shot, n_features], classes in order; query: [n_tasks, n_queries,
    n_features]. Returns int64 [n_tasks, n_queries].
    """
    n_tasks, n_support, n_features = support.shape
    centroids = support.view(n_tasks, n_way, n_support // n_way, n_features).mean(2)
    similarity = F.normalize(query, dim=-1) @ F.normalize(centroids, dim=-1).mT
    return similarity.argmax(-1)


def prototype_accuracy(
    support: torch.Tensor, query: torch.Tensor, n_way: int, query_labels: torch.Tensor
) -> torch.Tensor:
    """Share of query embeddings nearest by cosine to their own class's centroid.

    Arguments as for `prototype_answers`; query_labels: int64 [n_queries]. Returns [n_tasks],
    values in 0..1.
    """
    return (prototype_answers(support, query, n_way) == query_labels).float().mean(-1)


def evaluate_features(
    run: Run,
    images: ImageSet,
    n_episodes: int,
    eval_seed: int = 0,
    batch: int | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """One row an episode of one trained model: the features table of notebook 3.

    batch: episodes at once; None is as many as suit the device.
    Episode i is a pair of tasks drawn from `images` under `eval_seed`: A, which the model adapts
    to, and B, another. Pairs are the same for every run, so methods and seeds compare in pairs.
    Columns: method, seed, episode; same_before and same_after, prototype accuracy on A before and
    after adapting to A (the paper's pre-adaptation and on-task); other_before and other_after, the
    same on B (off-task is other_after); ordinary, the adapted model's own accuracy on A;
    shared_classes, how many classes A and B have in common, which the paper leaves to chance.
    """
    settings = run.parameters
    device = images.images.device
    params = {name: value.to(device) for name, value in run.params.items()}
    alpha = {name: value.to(device) for name, value in run.alpha.items()}
    batch = batch or episodes_at_once(images, settings["n_way"], settings["n_query"])
    name = f"{settings['method']}, seed {settings['seed']}"
    parts = []
    for first in range(0, n_episodes, batch):
        indices = range(first, min(first + batch, n_episodes))
        parts.append(_evaluate_batch(params, alpha, images, settings, eval_seed, indices))
        report(f"{name}: {indices.stop} of {n_episodes} episodes")
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "method", settings["method"])
    table.insert(1, "seed", settings["seed"])
    return table


def _evaluate_batch(
    params: Params, alpha: Params, images: ImageSet, settings: dict, eval_seed: int, indices: range
) -> pd.DataFrame:
    n_way = settings["n_way"]
    task, other = (
        draw_episodes(
            images, eval_seed, stream, indices, n_way, settings["n_shot"], settings["n_query"]
        )
        for stream in ("test", "other")
    )
    adapted = adjoint.adapt(
        params, alpha, task.support, task.support_labels, settings["inner_steps"]
    )
    embedded = {
        (when, which): (adjoint.embed(p, e.support), adjoint.embed(p, e.query))
        for when, p in (("before", params), ("after", adapted))
        for which, e in (("same", task), ("other", other))
    }
    columns = {
        f"{which}_{when}": prototype_accuracy(support, query, n_way, task.query_labels)
        for (when, which), (support, query) in embedded.items()
    }
    columns["ordinary"] = _ordinary_accuracy(adapted, embedded["after", "same"][1], task)
    return pd.DataFrame(
        {
            "episode": np.arange(indices.start, indices.stop),
            **{name: value.cpu().numpy() for name, value in columns.items()},
            "shared_classes": _shared_classes(images, eval_seed, indices, n_way),
        }
    )


def _ordinary_accuracy(adapted: Params, query: torch.Tensor, task: Episodes) -> torch.Tensor:
    """Accuracy [n_tasks] of the adapted linear layers on embedded query images."""
    logits = query @ adapted["logits.weight"].mT + adapted["logits.bias"].unsqueeze(1)
    return (logits.argmax(-1) == task.query_labels).float().mean(-1)


def _shared_classes(images: ImageSet, eval_seed: int, indices: range, n_way: int) -> list[int]:
    def classes(stream: str, index: int) -> np.ndarray:
        return draw_classes(images.class_sizes, eval_seed, stream, index, n_way)

    return [len(np.intersect1d(classes("test", i), classes("other", i))) for i in indices]
