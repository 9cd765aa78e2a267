"""One difference between the methods, in the six ways it can be given an interval.

They differ in what they take as drawn at random, that is, in what another experimenter would draw
anew: iterations, episodes, training seeds, or seeds and episodes.
"""

import numpy as np
import pandas as pd
from scipy import stats

from negmeta_utils.evidence.intervals import Interval, estimate, over_episodes, over_seeds
from negmeta_utils.evidence.mixed_model import Components, fit
from negmeta_utils.evidence.quantities import (
    DIFFERENCE,
    MAML,
    META_SGD,
    bootstrap_interval,
    grids_over_seeds,
)

COLUMNS = ["interval", "drawn", "mean", "low", "high", "misses"]
# interval: what it takes as drawn anew
INTERVALS = {
    "two-sample t, pooled (the paper's)": "every iteration by itself",
    "t over episodes": "episodes; these networks are all there are",
    "t over seeds alone": "seeds; these episodes are all there are",
    "bootstrap": "seeds and episodes, as spread as the ones at hand",
    "mixed model": "seeds and episodes, Gaussian",
    "t over seeds and episodes (verdicts)": "seeds and episodes, Gaussian; few of either",
}


def compared(
    features: pd.DataFrame, quantity: str, n_simulations: int = 300, seed: int = 0
) -> pd.DataFrame:
    """Meta-SGD minus MAML in `quantity`, by each of `INTERVALS`, and how often such ones miss.

    Columns: interval, drawn (what it takes as drawn anew), mean, low, high (percentage points,
    95 %), misses: the share of `n_simulations` experiments with new seeds and new episodes whose
    interval misses the truth, 0.05 being promised. They are Gaussian, with the variances that the
    mixed model finds in the methods' difference and in their average. Only seeds that the methods
    share count. With one seed, intervals over seeds and `misses` are NaN; without any the table is
    empty.
    """
    tables = grids_over_seeds(features)
    maml, meta_sgd = (tables[method, quantity] for method in (MAML, META_SGD))
    shared = maml.index.intersection(meta_sgd.index)
    # Networks of two unknown seeds are no pair, though their rows are called alike.
    if shared.empty or (DIFFERENCE, quantity) not in tables:
        return pd.DataFrame(columns=COLUMNS)
    maml, meta_sgd = maml.loc[shared], meta_sgd.loc[shared]
    rng = np.random.default_rng(seed)
    found = intervals(maml, meta_sgd, 2000, rng)
    misses = _misses(maml, meta_sgd, n_simulations, rng)
    rows = [(name, INTERVALS[name], *found[name], misses[name]) for name in INTERVALS]
    return pd.DataFrame(rows, columns=COLUMNS)


def misses_by_interval(table: pd.DataFrame) -> pd.DataFrame:
    """The misses of `compared` of several quantities, as the column `quantity` says: a row an
    interval, with a column for each quantity."""
    wide = table.pivot(index=["interval", "drawn"], columns="quantity", values="misses")
    in_order = wide.reindex(columns=table["quantity"].unique()).rename_axis(columns=None)
    return in_order.loc[table["interval"].unique()].reset_index()


def intervals(
    maml: pd.DataFrame, meta_sgd: pd.DataFrame, n_resamples: int, rng: np.random.Generator
) -> dict[str, Interval]:
    """Each of `INTERVALS` at 95 %, of two grids [seeds, episodes] paired in both."""
    difference = meta_sgd - maml
    pooled = stats.ttest_ind(meta_sgd.to_numpy().ravel(), maml.to_numpy().ravel())
    mean = float(difference.to_numpy().mean())
    found = [
        Interval(mean, *map(float, pooled.confidence_interval(0.95))),
        over_episodes(difference).interval(),
        estimate(difference.mean(axis=1)).interval(),
        bootstrap_interval(difference, n_resamples, int(rng.integers(2**32))),
        fit(difference).mean.interval(),
        over_seeds(difference).interval(),
    ]
    return dict(zip(INTERVALS, found, strict=True))


def _misses(
    maml: pd.DataFrame, meta_sgd: pd.DataFrame, n_simulations: int, rng: np.random.Generator
) -> dict[str, float]:
    if min(maml.shape) < 2:
        return dict.fromkeys(INTERVALS, np.nan)
    shape = maml.shape
    difference = fit(meta_sgd - maml).components
    average = fit((meta_sgd + maml) / 2).components
    missed = dict.fromkeys(INTERVALS, 0)
    for _ in range(n_simulations):
        middle, half = draw(average, shape, rng), draw(difference, shape, rng) / 2
        for name, interval in intervals(middle - half, middle + half, 300, rng).items():
            missed[name] += interval.low > 0 or interval.high < 0
    return {name: count / n_simulations for name, count in missed.items()}


def draw(components: Components, shape: tuple[int, int], rng: np.random.Generator) -> pd.DataFrame:
    """A Gaussian grid [seeds, episodes] of mean zero with these variances."""
    seeds, episodes, residual = np.sqrt(components)
    values = residual * rng.standard_normal(shape) + seeds * rng.standard_normal((shape[0], 1))
    return pd.DataFrame(values + episodes * rng.standard_normal((1, shape[1])))
