"""How features lie, and how adaptation moves them: similarity of representations before and after,
angles within and between classes, and the variance ratio of Goldblum et al. 2020."""

import pandas as pd
import torch
import torch.nn.functional as F

from negmeta_utils.engine.device import exact_products
from negmeta_utils.engine.engines import engine_of
from negmeta_utils.episodes import ImageSet, draw_pairs
from negmeta_utils.evaluation import to_device
from negmeta_utils.runs import Run, network_of

MEASURES = {  # columns of `measure_geometry` that a figure shows
    "cka": "linear CKA, before and after",
    "within_change": "cosine within classes: change",
    "between_change": "cosine between classes: change",
    "ratio_change": "variance ratio: change",
}


def linear_cka(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Linear centred kernel alignment of two representations of the same images, 0..1
    (Kornblith et al. 2019, section 3). x: [n, n_features]; y: [n, n_other_features]."""
    # By n x n Gram matrices: features are many, images few.
    x, y = x - x.mean(0), y - y.mean(0)
    gram_x, gram_y = x @ x.mT, y @ y.mT
    return (gram_x * gram_y).sum() / (gram_x.norm() * gram_y.norm())


def class_cosines(features: torch.Tensor, n_way: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cosine similarity of two different images of one class, and of two of different ones.

    features: [n_way * n, n_features], classes in order.
    """
    unit = F.normalize(features, dim=1)
    similarity = (unit @ unit.mT).unflatten(0, (n_way, -1)).unflatten(2, (n_way, -1))
    blocks = similarity.sum((1, 3))
    n, itself = similarity.shape[1], unit.square().sum()  # 0 of an image without features
    within = (blocks.trace() - itself) / (n_way * n * (n - 1))
    between = (blocks.sum() - blocks.trace()) / (n_way * (n_way - 1) * n * n)
    return within, between


def variance_ratio(features: torch.Tensor, n_way: int) -> torch.Tensor:
    """Within-class over between-class variance: the smaller, the tighter classes cluster
    (Goldblum et al. 2020, section 4.1). features: [n_way * n, n_features], classes in order."""
    classes = features.unflatten(0, (n_way, -1))
    means = classes.mean(1)
    within = (classes - means[:, None]).square().sum() / classes.shape[1]
    return within / (means - means.mean(0)).square().sum()


def measure_geometry(
    runs: list[Run],
    images: ImageSet,
    n_episodes: int,
    eval_seed: int = 0,
    disjoint: bool = False,
) -> pd.DataFrame:
    """One row an episode, layer of the body and task of every trained model.

    Episodes are those of `evaluate_features`, and `disjoint` as there. Columns: method, seed,
    episode, layer, task ("on-task": the task adapted to, or "off-task": another); cka, between the
    query images' activations before and after adaptation; within_before, within_after,
    between_before, between_after, mean cosines; ratio_before, ratio_after, the variance ratio;
    within_change, between_change and ratio_change, after minus before.
    """
    tables = [_of_one(run, images, n_episodes, eval_seed, disjoint) for run in runs]
    return pd.concat(tables, ignore_index=True)


@exact_products()
def _of_one(
    run: Run, images: ImageSet, n_episodes: int, eval_seed: int, disjoint: bool
) -> pd.DataFrame:
    settings, device = run.parameters, images.images.device
    network = network_of(run)
    engine = engine_of(network)
    params, alpha = to_device(run.params, device), to_device(run.alpha, device)
    rows = []
    for episode in range(n_episodes):
        pair = draw_pairs(images, settings, eval_seed, range(episode, episode + 1), disjoint)
        task = pair[0]
        adapted = engine.adapt(
            params, alpha, task.support, task.support_labels, settings["inner_steps"]
        )
        own = {name: value[0] for name, value in adapted.items()}
        for which, drawn in zip(("on-task", "off-task"), pair, strict=True):
            before = network.activations(params, drawn.query[0])
            after = network.activations(own, drawn.query[0])
            for layer in network.body:
                measured = _compare(before[layer], after[layer], settings["n_way"])
                rows.append({"episode": episode, "layer": layer, "task": which} | measured)
    table = pd.DataFrame(rows)
    table.insert(0, "method", settings["method"])
    table.insert(1, "seed", settings["seed"])
    for measure in ("within", "between", "ratio"):
        table[f"{measure}_change"] = table[f"{measure}_after"] - table[f"{measure}_before"]
    return table


def _compare(before: torch.Tensor, after: torch.Tensor, n_way: int) -> dict[str, float]:
    measured = {"cka": float(linear_cka(before, after))}
    for when, features in (("before", before), ("after", after)):
        within, between = class_cosines(features, n_way)
        measured |= {
            f"within_{when}": float(within),
            f"between_{when}": float(between),
            f"ratio_{when}": float(variance_ratio(features, n_way)),
        }
    return measured
