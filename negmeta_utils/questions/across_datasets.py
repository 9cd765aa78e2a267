"""Notebook 6: do rates, and what adaptation does to features, look alike on several data sets?"""

from collections.abc import Callable

import pandas as pd
import torch

from negmeta_utils.evaluation import evaluate_features, shared_test_images
from negmeta_utils.evidence.contrasts import contrasts
from negmeta_utils.evidence.learned_rates import table_1
from negmeta_utils.evidence.quantities import grids
from negmeta_utils.runs import Run


def by_dataset(trained: list[Run]) -> dict[str, list[Run]]:
    """The runs of each data set, in the order in which they are named."""
    found: dict[str, list[Run]] = {}
    for run in trained:
        found.setdefault(run.parameters["dataset"], []).append(run)
    return found


def rates_by_dataset(trained: list[Run]) -> pd.DataFrame:
    """Table 1 of the runs of plain Meta-SGD, once a data set, with a column `dataset` in front.

    Raises ValueError for a data set without such a run.
    """
    tables = {}
    for name, runs in by_dataset(trained).items():
        learned = [run for run in runs if run.parameters["method"] == "meta-sgd"]
        if not learned:
            raise ValueError(f"runs: none of meta-sgd on {name}, so there are no rates; add one")
        tables[name] = table_1(pd.concat([run.rates() for run in learned]))
    return pd.concat(tables, names=["dataset"]).reset_index("dataset")


def features_by_dataset(
    trained: list[Run],
    data_dir: str | None,
    device: torch.device,
    n_episodes: int,
    eval_seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """The table of `evaluate_features` of every run, each on the test classes of its data set, with
    a column `dataset` at the end. Raises ValueError as `shared_test_images`."""
    tables = []
    for name, runs in by_dataset(trained).items():
        images = shared_test_images(runs, data_dir).to(device)
        for run in runs:
            table = evaluate_features(run, images, n_episodes, eval_seed, report=report)
            tables.append(table.assign(dataset=name))
    return pd.concat(tables, ignore_index=True)


def changes_by_dataset(features: pd.DataFrame, labels: dict[str, str]) -> dict[str, pd.DataFrame]:
    """`contrasts` of the on-task and of the off-task change, by quantity; a condition is a data set
    and a method. features: of `features_by_dataset`. labels: of methods."""
    conditions: dict[str, dict] = {"on-task change": {}, "off-task change": {}}
    for name, table in features.groupby("dataset", sort=False):
        for (method, quantity), grid in grids(table).items():
            if quantity in conditions:
                conditions[quantity][f"{name}: {labels[method]}"] = grid
    return {quantity: contrasts(found) for quantity, found in conditions.items()}
