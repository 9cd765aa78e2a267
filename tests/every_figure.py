"""Every figure from fixed tables; run as a program, it saves them all in the folder given."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from negmeta_utils import figures
from negmeta_utils.statistics import PAPER_CHANGES, accuracies, effect_sizes


def feature_table():
    """Accuracies of both methods, three seeds, 40 episodes, without any effect."""
    generator = np.random.default_rng(0)
    names = ["same_before", "same_after", "other_before", "other_after", "ordinary"]
    return pd.DataFrame(
        [
            {"method": method, "seed": seed, "episode": e, **dict(zip(names, row, strict=True))}
            for method in ("maml", "meta-sgd")
            for seed in range(3)
            for e, row in enumerate(generator.uniform(0.4, 0.6, (40, 5)))
        ]
    )


def _episode_pictures():
    images = np.random.default_rng(0).uniform(size=(3, 3, 1, 8, 8))
    return figures.episode_pictures(images[:, :1], images[:, 1:], list("abc"))


def _training_curves():
    updates = np.arange(1, 101)
    history = pd.DataFrame({"update": updates, "train_accuracy": 0.2 + updates / 200})
    validated = updates % 20 == 0
    return figures.training_curves(
        history.assign(val_accuracy=history["train_accuracy"].where(validated)), chance=0.2
    )


def _rates_histogram():
    rates = np.random.default_rng(0).normal(-0.01, 0.02, 5000)
    table = pd.DataFrame({"layer": np.repeat(figures.LAYERS, 1000), "rate": rates})
    return figures.rates_histogram(table, initial=0.01)


def _rates_over_training():
    columns = ["q05", "q25", "mean", "q75", "q95"]
    rows = [
        {"layer": layer, "update": update, "seed": seed}
        | dict(zip(columns, 0.01 + (update + seed) * np.arange(-2, 3) / 1e4, strict=True))
        for layer in figures.LAYERS
        for update in (0, 50, 100)
        for seed in (0, 1)
    ]
    return figures.rates_over_training(pd.DataFrame(rows))


def _feature_changes():
    effects = effect_sizes(feature_table())
    chosen = effects["quantity"].isin(["on-task change", "off-task change"])
    return figures.feature_changes(effects[chosen], PAPER_CHANGES)


FIGURES = {
    "episode_pictures": _episode_pictures,
    "training_curves": _training_curves,
    "rates_histogram": _rates_histogram,
    "rates_over_training": _rates_over_training,
    "feature_accuracy": lambda: figures.feature_accuracy(accuracies(feature_table())),
    "feature_changes": _feature_changes,
}

if __name__ == "__main__":
    figures.set_style()
    for name, draw in FIGURES.items():
        figures.save(draw(), Path(sys.argv[1]), name)
