"""Every figure from fixed tables; run as a program, it saves them all in the folder given."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from negmeta_utils.evidence.interval_methods import INTERVALS
from negmeta_utils.evidence.learned_rates import PAPER_TABLE_1
from negmeta_utils.evidence.quantities import PAPER_CHANGES, accuracies, effect_sizes
from negmeta_utils.model import LAYERS
from negmeta_utils.plots import evidence, learned_rates, paper, questions, style, theory


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
    return paper.episode_pictures(images[:, :1], images[:, 1:], list("abc"))


def history():
    """A training of 100 meta-updates with five validations."""
    updates = np.arange(1, 101)
    table = pd.DataFrame({"update": updates, "train_accuracy": 0.2 + updates / 200})
    return table.assign(val_accuracy=table["train_accuracy"].where(updates % 20 == 0))


def _rates_histogram():
    rates = np.random.default_rng(0).normal(-0.01, 0.02, 5000)
    table = pd.DataFrame({"layer": np.repeat(LAYERS, 1000), "rate": rates})
    return learned_rates.rates_histogram(table, initial=0.01)


def _rates_over_training():
    columns = ["q05", "q25", "mean", "q75", "q95"]
    rows = [
        {"layer": layer, "update": update, "seed": seed}
        | dict(zip(columns, 0.01 + (update + seed) * np.arange(-2, 3) / 1e4, strict=True))
        for layer in LAYERS
        for update in (0, 50, 100)
        for seed in (0, 1)
    ]
    return learned_rates.rates_over_training(pd.DataFrame(rows))


def _feature_changes():
    effects = effect_sizes(feature_table())
    chosen = effects["quantity"].isin(["on-task change", "off-task change"])
    return paper.feature_changes(effects[chosen], PAPER_CHANGES)


def _conditions():
    rows = [("one", 1.0, 0.5, 1.5, "up"), ("two", 0.1, -0.5, 0.7, "undecided")]
    table = pd.DataFrame(rows, columns=["condition", "points", "low", "high", "verdict"])
    return questions.conditions({"on-task change": table, "off-task change": table}, margin=0.1)


def _by_layer():
    rows = [
        (method, task, layer, seed, 0.9 - block / 10 + seed / 100)
        for method in ("maml", "meta-sgd")
        for task in ("on-task", "off-task")
        for block, layer in enumerate(LAYERS[:4])
        for seed in (0, 1)
    ]
    table = pd.DataFrame(rows, columns=["method", "task", "layer", "seed", "cka"])
    return questions.by_layer(table, {"cka": "linear CKA"})


def _over_steps():
    rows = [
        (f"trained with {k}", x, x / k, x / k - 1, x / k + 1) for k in (1, 5) for x in (0, 5, 10)
    ]
    table = pd.DataFrame(rows, columns=["line", "x", "points", "low", "high"])
    return questions.over_steps({"MAML: on-task change": table}, "inner steps")


def _curves_of_several():
    updates = range(10, 50, 10)
    trainings = []
    for method, seed in itertools.product(("maml", "meta-sgd"), (0, 1)):
        accuracies = [None if update % 20 else 0.2 + update / 100 + seed / 50 for update in updates]
        trainings.append(
            (method, seed, pd.DataFrame({"update": updates, "val_accuracy": accuracies}))
        )
    return paper.training_curves_of_several(trainings)


def _recipes():
    rows = [
        (recipe, layer, update, 0.01 - 1e-5 * update * k, 0.001 + 1e-5 * update * k, k / 10)
        for k, recipe in enumerate(("constant", "plateau"), 1)
        for layer in PAPER_TABLE_1["layer"]
        for update in (0, 400, 800)
    ]
    columns = ["recipe", "layer", "update", "mean", "std", "share_negative"]
    return questions.recipes_along(pd.DataFrame(rows, columns=columns), PAPER_TABLE_1)


def _distances():
    rows = [
        (recipe, group, update, abs(1 - k * update / 800))
        for k, recipe in enumerate(("constant", "plateau"), 1)
        for group in ("weights+bias", "both")
        for update in (0, 400, 800)
    ]
    columns = ["recipe", "group", "update", "distance"]
    return questions.distance_along(pd.DataFrame(rows, columns=columns))


def _learned():
    rows = [
        (what, seed, update, goal * update / 10, goal)
        for what, goal in (("a rate", -1.0), ("another", 0.5))
        for seed in (0, 1)
        for update in range(11)
    ]
    return pd.DataFrame(rows, columns=["what", "seed", "update", "rate", "closed_form"])


def _rate_sweeps():
    ways = list(theory.SWEEP_TITLES)
    line = pd.DataFrame(
        [(way, rate, rate**2) for way in ways for rate in (-1.0, 0.0, 1.0)],
        columns=["vary", "rate", "test_loss"],
    )
    dots = line.rename(columns={"test_loss": "mean"})
    dots = dots.assign(low=dots["mean"] - 0.1, high=dots["mean"] + 0.1)
    best = pd.DataFrame({"vary": ways, "closed_form": 0.0, "rate": 0.0, "low": -0.1, "high": 0.1})
    return theory.rate_sweeps(line, dots, best, _learned())


def _intervals_compared():
    rows = [("on-task change", name, 0.1, -0.3, 0.5, 0.04) for name in INTERVALS]
    columns = ["quantity", "interval", "mean", "low", "high", "misses"]
    return evidence.intervals_compared(pd.DataFrame(rows, columns=columns))


def _power_curves():
    rows = [("maml", n, 100, n / 100) for n in (3, 9, 81)]
    table = pd.DataFrame(rows, columns=["method", "n_seeds", "n_episodes", "power"])
    return evidence.power_curves(table.assign(effect=0.2), 0.8)


FIGURES = {
    "episode_pictures": _episode_pictures,
    "training_curves": lambda: paper.training_curves(history(), 0.2, "maml"),
    "rates_histogram": _rates_histogram,
    "rates_over_training": _rates_over_training,
    "feature_accuracy": lambda: paper.feature_accuracy(accuracies(feature_table())),
    "feature_changes": _feature_changes,
    "conditions": _conditions,
    "by_layer": _by_layer,
    "over_steps": _over_steps,
    "training_curves_of_several": _curves_of_several,
    "recipes_along": _recipes,
    "distance_along": _distances,
    "rate_sweeps": _rate_sweeps,
    "learned_rates": lambda: theory.learned_rates(_learned()),
    "intervals_compared": _intervals_compared,
    "power_curves": _power_curves,
}


def save_all(folder):
    style.set_style()
    for name, draw in FIGURES.items():
        style.save(draw(), folder, name)


if __name__ == "__main__":
    save_all(Path(sys.argv[1]))
