"""Notebook 6: do rates, and what adaptation does to features, look alike on several data sets and
with several backbones?"""

from collections.abc import Callable

import pandas as pd
import torch

from negmeta_utils.evaluation import evaluate_features, shared_test_images
from negmeta_utils.evidence.contrasts import against_base, contrasts
from negmeta_utils.evidence.learned_rates import table_1
from negmeta_utils.evidence.quantities import CHANGES, grids
from negmeta_utils.runs import Run, network_of

KEYS = ["dataset", "backbone"]


def by_dataset(trained: list[Run]) -> dict[tuple[str, str], list[Run]]:
    """The runs of each data set and backbone, in the order in which they are named."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in trained:
        found.setdefault((run.parameters["dataset"], network_of(run).name), []).append(run)
    return found


def described(trained: list[Run]) -> pd.DataFrame:
    """A row a data set, backbone and method: seeds, meta-updates and mean accuracy on the test
    classes, 0..1."""
    rows = [
        run.parameters
        | {"backbone": network_of(run).name, "test accuracy": run.final_accuracy().mean()}
        for run in trained
    ]
    together = {"seed": list, "n_updates": "first", "test accuracy": "mean"}
    networks = pd.DataFrame(rows).groupby([*KEYS, "method"], sort=False)
    return networks.agg(together).reset_index()


def rates_by_dataset(trained: list[Run]) -> pd.DataFrame:
    """Table 1 of the runs of plain Meta-SGD, once a data set and backbone, with these two columns
    in front and `sign` at the end: that of the mean rate in every network, or "mixed".

    Raises ValueError for a data set and backbone without such a run.
    """
    tables = {}
    for key, runs in by_dataset(trained).items():
        learned = [run.rates() for run in runs if run.parameters["method"] == "meta-sgd"]
        if not learned:
            raise ValueError(
                f"runs: none of meta-sgd on {key[0]} ({key[1]}), so there are no rates; add one"
            )
        last = pd.concat([rates[rates["update"] == rates["update"].max()] for rates in learned])
        signs = last.groupby(["group", "layer"])["mean"].agg(_sign).rename("sign")
        tables[key] = table_1(pd.concat(learned)).merge(signs, on=["group", "layer"])
    return pd.concat(tables, names=KEYS).reset_index(KEYS)


def _sign(means: pd.Series) -> str:
    return "positive" if (means > 0).all() else "negative" if (means < 0).all() else "mixed"


def features_by_dataset(
    trained: list[Run],
    data_dir: str | None,
    device: torch.device,
    n_episodes: int,
    eval_seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """The table of `evaluate_features` of every run, each on the test classes of its data set, with
    columns `dataset` and `backbone` at the end. Raises ValueError as `shared_test_images`."""
    tables = []
    for (dataset, backbone), runs in by_dataset(trained).items():
        images = shared_test_images(runs, data_dir).to(device)
        for run in runs:
            table = evaluate_features(run, images, n_episodes, eval_seed, report=report)
            tables.append(table.assign(dataset=dataset, backbone=backbone))
    return pd.concat(tables, ignore_index=True)


def changes_by_dataset(features: pd.DataFrame, labels: dict[str, str]) -> dict[str, pd.DataFrame]:
    """`contrasts` of the on-task and of the off-task change, by quantity; a condition is a data
    set, a method and, where there are several, a backbone. features: of `features_by_dataset`.
    labels: of methods, and of those data sets and backbones that have one."""
    several = features["backbone"].nunique() > 1
    conditions: dict[str, dict] = {quantity: {} for quantity in CHANGES}
    for (dataset, backbone), table in features.groupby(KEYS, sort=False):
        name = labels.get(dataset, dataset)
        place = f"{name}, {labels.get(backbone, backbone)}" if several else name
        for (method, quantity), grid in grids(table).items():
            if quantity in conditions:
                conditions[quantity][f"{place}: {labels[method]}"] = grid
    return {quantity: contrasts(found) for quantity, found in conditions.items()}


def between_backbones(features: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """The changes with each backbone minus those with the first named, on the same pairs of tasks
    and in pairs of seeds; rows as `contrasts.against_base` gives, with `quantity` in front. Empty
    where no data set has several."""
    tables = []
    for dataset, table in features.groupby("dataset", sort=False):
        place = labels.get(dataset, dataset)
        found: dict[tuple[str, str], dict] = {}
        for backbone, rows in table.groupby("backbone", sort=False):
            for key, grid in grids(rows).items():
                found.setdefault(key, {})[backbone] = grid
        for (method, quantity), conditions in found.items():
            if quantity in CHANGES and len(conditions) > 1:
                base = next(iter(conditions))
                rows = against_base(contrasts(conditions, base))
                minus = f" minus {labels.get(base, base)}: {labels[method]}"
                names = f"{place}, " + rows["condition"].map(lambda b: labels.get(b, b)) + minus
                tables.append(rows.assign(condition=names, quantity=quantity))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
