"""Intervals, tests and effect sizes for the features table (pandas in, pandas out; no torch).

The table has one row an episode of one trained model, with the columns of `FEATURES`; accuracies
lie between 0 and 1. What comes out is in percentage points, or in percent of the method's mean
pre-adaptation accuracy where a column says "relative".

Two questions are kept apart. Over *episodes*: what holds for these very networks on new episodes,
the paper's own standard of evidence. Over *seeds*: what holds for the algorithms, that is for
networks trained anew. Every model meets the same episodes, so seeds and episodes are crossed, not
nested: a lucky draw of episodes is shared by all the seeds and does not average out over them.
"""

import numpy as np
import pandas as pd

from negmeta_utils.evidence.intervals import (
    Interval,
    mean_interval,
    over_episodes,
    over_episodes_apart,
    over_seeds,
    over_unshared_seeds,
)

MAML, META_SGD = "maml", "meta-sgd"
DIFFERENCE = "meta-sgd - maml"

ACCURACIES = ["same_before", "same_after", "other_before", "other_after", "ordinary"]
FEATURES = ["method", "seed", "episode", *ACCURACIES]

BEFORE = "pre-adaptation"
ON_TASK, OFF_TASK = CHANGES = "on-task change", "off-task change"
# quantity: (column, column subtracted from it)
QUANTITIES = {
    BEFORE: ("same_before", None),
    "without head": ("same_before", "ordinary"),
    ON_TASK: ("same_after", "same_before"),
    OFF_TASK: ("other_after", "other_before"),
    "off-task change, paper": ("other_after", "same_before"),
}


# mark of figure 7: column; the paper has no bar for the other task before adaptation
MEASURES = {
    "pre-adaptation": "same_before",
    "on-task": "same_after",
    "other task before": "other_before",
    "off-task": "other_after",
    "whole adapted model": "ordinary",
}
# Section 5.1: of the whole adapted model on validation classes, percent, "approximately".
PAPER_ACCURACIES = pd.DataFrame(
    {"method": [MAML, META_SGD], "measure": ["whole adapted model"] * 2, "mean": [46.0, 47.0]}
)
# Section 5.3: percent of pre-adaptation accuracy, turned into points by the 46 and 47 % of
# section 5.1. What it says of on-task changes has no number.
PAPER_CHANGES = pd.DataFrame(
    {
        "method": [MAML, META_SGD],
        "quantity": ["off-task change"] * 2,
        "points": [-0.3 * 0.46, 0.2 * 0.47],
    }
)


def grids(features: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Each quantity as a grid [seeds, episodes], in percentage points.

    The keys are (method, quantity) for every method of the table and every one of `QUANTITIES`,
    and (`DIFFERENCE`, quantity), paired by seed and episode over the seeds that MAML and Meta-SGD
    share, where they share any (a training seed fixes the initialisation and the episode stream
    of both). Raises ValueError for missing columns, values or rows, and for repeated rows.
    """
    check_features(features)
    result = {}
    for method, rows in features.groupby("method", observed=True):
        rows = rows.sort_values(["seed", "episode"])
        seeds, episodes = np.unique(rows.seed), np.unique(rows.episode)
        if len(rows) != len(seeds) * len(episodes):
            raise ValueError(f"features: {method} has seeds of unequal episodes; repeat those")
        for quantity, (column, subtracted) in QUANTITIES.items():
            values = rows[column] - rows[subtracted] if subtracted else rows[column]
            # accuracies are ratios of small counts: what rounding removes is no difference
            points = 100 * values.to_numpy(float).reshape(len(seeds), len(episodes))
            result[method, quantity] = pd.DataFrame(points, seeds, episodes).round(9)
    if len({tuple(grid.columns) for grid in result.values()}) > 1:
        raise ValueError("features: methods differ in their episodes; evaluate all on the same")
    return result | _differences(result)


def known_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of known seeds of a table by seed: an imported network's may be unknown, which is a
    negative one, and then it is no sample of a method's trainings."""
    return table[table.index >= 0]


def sample_of_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The `known_seeds` of a table by seed; where there are none, their mean as one row, of which
    nothing over seeds can be said."""
    known = known_seeds(table)
    return known if len(known) else table.mean().to_frame(-1).T


def grids_over_seeds(features: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """`grids` for what is asked over seeds: `sample_of_seeds` of each."""
    return {key: sample_of_seeds(grid) for key, grid in grids(features).items()}


def _differences(
    of: dict[tuple[str, str], pd.DataFrame],
) -> dict[tuple[str, str], pd.DataFrame]:
    if not {MAML, META_SGD} <= {method for method, _ in of}:
        return {}
    shared = of[MAML, "pre-adaptation"].index.intersection(of[META_SGD, "pre-adaptation"].index)
    if shared.empty:
        return {}
    return {
        (DIFFERENCE, quantity): (
            of[META_SGD, quantity].loc[shared] - of[MAML, quantity].loc[shared]
        ).round(9)
        for quantity in QUANTITIES
    }


def seeds_are_shared(tables: dict[tuple[str, str], pd.DataFrame]) -> bool:
    """Whether MAML and Meta-SGD have just the same seeds in the tables of `grids`: then the rules
    compare them in pairs, otherwise by Welch over all seeds."""
    maml, meta_sgd = (tables.get((method, "pre-adaptation")) for method in (MAML, META_SGD))
    return maml is not None and meta_sgd is not None and maml.index.equals(meta_sgd.index)


def pairs_in_words(features: pd.DataFrame) -> str:
    """What can be compared in pairs, in a sentence of Markdown; and what cannot."""
    tables = grids(features)
    if not {MAML, META_SGD} <= {method for method, _ in tables}:
        return "MAML and Meta-SGD are not both here, so nothing is compared."
    if seeds_are_shared(tables):
        return "MAML and Meta-SGD have the same seeds, and are compared in pairs."
    welch = "In effect sizes and verdicts they are compared by Welch, over all seeds"
    if (DIFFERENCE, "pre-adaptation") not in tables:
        return (
            f"**The methods share no seed.** {welch}. What needs pairs cannot be computed: paired "
            "t-tests, and of the difference bootstrap, mixed model, misses, power and seeds needed."
        )
    shared = len(tables[DIFFERENCE, "pre-adaptation"])
    return (
        f"**The methods have different seeds and share {shared}.** {welch}; elsewhere in pairs, "
        "over those they share."
    )


def check_features(features: pd.DataFrame) -> None:
    """Raise ValueError where the features table lacks columns or values, or repeats a row."""
    missing = [column for column in FEATURES if column not in features]
    if missing:
        raise ValueError(f"features: missing column(s) {', '.join(missing)}; see notebook 3")
    if features[FEATURES].isna().to_numpy().any():
        raise ValueError("features: missing values; drop or repeat the unfinished evaluation")
    if features.duplicated(["method", "seed", "episode"]).any():
        raise ValueError("features: repeated rows of method, seed, episode; pass each run once")


def by_network(features: pd.DataFrame) -> pd.DataFrame:
    """`features` with networks kept along the way as methods of their own, meta-sgd@best, where
    there are several of one training."""
    if features.groupby(["method", "seed"], observed=True)["network"].nunique().max() == 1:
        return features
    return features.assign(method=features["method"] + "@" + features["network"])


def accuracies(features: pd.DataFrame) -> pd.DataFrame:
    """Figure 7 in percent: method, measure, mean, low, high, of these networks over episodes."""
    check_features(features)
    rows = []
    for method, table in features.groupby("method", observed=True):
        by_episode = 100 * table.groupby("episode")[ACCURACIES].mean()
        for measure, column in MEASURES.items():
            rows.append((method, measure, *mean_interval(by_episode[column])))
    return pd.DataFrame(rows, columns=["method", "measure", "mean", "low", "high"])


def changes(features: pd.DataFrame) -> pd.DataFrame:
    """Figure 7 in numbers, one row a trained model (method and seed).

    pre_adaptation and ordinary are in percent; on_task and off_task (paired on the second task:
    after minus before) and off_task_paper (unpaired: the second task after, minus the first
    before) in percentage points; each *_relative in percent of the model's pre_adaptation.
    """
    check_features(features)
    models = features.groupby(["method", "seed"], observed=True)
    mean = 100 * models[ACCURACIES].mean()
    table = pd.DataFrame(
        {
            "episodes": models.size(),
            "pre_adaptation": mean.same_before,
            "ordinary": mean.ordinary,
            "on_task": mean.same_after - mean.same_before,
            "off_task": mean.other_after - mean.other_before,
            "off_task_paper": mean.other_after - mean.same_before,
        }
    )
    for name in ("on_task", "off_task", "off_task_paper"):
        table[f"{name}_relative"] = 100 * table[name] / table.pre_adaptation
    return table.reset_index()


def effect_sizes(features: pd.DataFrame) -> pd.DataFrame:
    """Every change and every difference with its intervals: two rows, over episodes and seeds,
    the latter with the rules' correction for skewness.

    Columns: method (or `DIFFERENCE`), quantity, over, n, points, low, high (percentage points),
    and d_z, d_z_low, d_z_high: the same in units of the standard deviation between episodes of
    one network (pooled within seeds), Cohen's d_z of the paired values. The interval of d_z
    leaves out the uncertainty of that standard deviation, a share d_z**2 / 2 of the variance.
    Methods that have not just the same seeds are compared by Welch over all seeds, as in the
    rules, n being that of the method with fewer; without pairs there is no d_z. A network of
    unknown seed counts over episodes alone.
    """
    rows, tables = [], grids(features)
    if not (paired := seeds_are_shared(tables)):
        tables = {key: grid for key, grid in tables.items() if key[0] != DIFFERENCE}
    for (method, quantity), grid in tables.items():
        if quantity == "pre-adaptation" and method != DIFFERENCE:
            continue  # an accuracy, not a change
        deviation = np.sqrt(grid.var(axis=1, ddof=1).mean())
        known = known_seeds(grid)
        found = [("episodes", grid.shape[1], over_episodes(grid))]
        if len(known):
            found.append(("seeds", len(known), over_seeds(known, skewed=True)))
        for over, n, of in found:
            interval = of.interval()
            d_z = np.divide(interval, deviation) if deviation > 0 else (np.nan,) * 3
            rows.append((method, quantity, over, n, *interval, *d_z))
    if not paired and {MAML, META_SGD} <= {method for method, _ in tables}:
        rows += _by_welch(tables)
    columns = ["method", "quantity", "over", "n", "points", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "d_z", "d_z_low", "d_z_high"])


def _by_welch(tables: dict[tuple[str, str], pd.DataFrame]) -> list[tuple]:
    """Rows of `effect_sizes` for the difference between methods whose seeds are not the same."""
    rows = []
    for quantity in QUANTITIES:
        maml, meta_sgd = (tables[method, quantity] for method in (MAML, META_SGD))
        found = [("episodes", maml.shape[1], over_episodes_apart(meta_sgd, maml))]
        maml, meta_sgd = known_seeds(maml), known_seeds(meta_sgd)
        if n := min(len(maml), len(meta_sgd)):
            found.append(("seeds", n, over_unshared_seeds(meta_sgd, maml, skewed=True)))
        for over, n, of in found:
            rows.append((DIFFERENCE, quantity, over, n, *of.interval(), *[np.nan] * 3))
    return rows


def hierarchical_bootstrap(
    features: pd.DataFrame, n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Percentile intervals of every quantity of `grids`, resampling seeds and episodes.

    Seeds and episodes are crossed, so each is drawn with replacement independently of the other
    (Owen 2007, "The pigeonhole bootstrap"), not episodes anew within each seed. One draw serves all
    methods: the same episodes, and the same seeds, so that differences stay paired. With few seeds
    such intervals are too narrow, so the verdicts do not rest on them. With one seed the bounds are
    NaN. A network of unknown seed is left out (`grids_over_seeds`).

    Columns: method, quantity, mean, low, high (percentage points), n_seeds, n_episodes.
    """
    tables = grids_over_seeds(features)
    rng = np.random.default_rng(seed)
    stacked = np.vstack([grid.to_numpy() for grid in tables.values()])
    means = _resample_episodes(stacked, n_resamples, rng)
    weights, rows, start = {}, [], 0
    for (method, quantity), grid in tables.items():
        n_seeds, n_episodes = grid.shape
        drawn = tuple(grid.index)
        if drawn not in weights:
            even = np.full(n_seeds, 1 / n_seeds)
            weights[drawn] = rng.multinomial(n_seeds, even, size=n_resamples) / n_seeds
        bounds = _percentiles(means[start : start + n_seeds], weights[drawn])
        start += n_seeds
        rows.append((method, quantity, grid.to_numpy().mean(), *bounds, n_seeds, n_episodes))
    columns = ["method", "quantity", "mean", "low", "high", "n_seeds", "n_episodes"]
    return pd.DataFrame(rows, columns=columns)


def bootstrap_interval(grid: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> Interval:
    """The interval of `hierarchical_bootstrap` for one grid [seeds, episodes]."""
    rng, n_seeds = np.random.default_rng(seed), len(grid)
    means = _resample_episodes(grid.to_numpy(), n_resamples, rng)
    weights = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_resamples) / n_seeds
    return Interval(float(grid.to_numpy().mean()), *_percentiles(means, weights))


def _percentiles(means: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """means: [seeds, draws] over resampled episodes; weights: [draws, seeds] of resampled seeds."""
    if len(means) < 2:
        return np.nan, np.nan
    resampled = (weights.T * means).sum(axis=0)
    return tuple(np.quantile(resampled, [0.025, 0.975]))


def _resample_episodes(values: np.ndarray, n_resamples: int, rng: np.random.Generator):
    """Means over resampled episodes, one draw for all rows: [rows, episodes] -> [rows, draws]."""
    n_rows, n = values.shape
    means = np.empty((n_rows, n_resamples))
    for start in range(0, n_resamples, 64):  # counts of 64 draws at a time bound the memory
        stop = min(start + 64, n_resamples)
        counts = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(start, stop)]
        means[:, start:stop] = values @ np.array(counts, dtype=float).T / n
    return means
