"""For maintainers: how often 95 % intervals miss, the tables of docs/statistics.md; some
three minutes of one core.

    python tools/interval_misses.py figures/interval-misses
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special, stats

from negmeta_utils.evidence.error_rates import SEEDS

KINDS, N_SEEDS = ("Gaussian", "exponential", "lognormal"), (3, 5, 8, 12)
N_SAMPLES, N_BOOTSTRAPPED, N_RESAMPLES = 400_000, 1500, 999
TAIL = 0.025
TRIM = 0.2  # of the values, at either end
# Expected mean squares of seeds and of episodes, that of the residual being 1.
MEAN_SQUARES = [(1, 1), (2, 1), (5, 1), (1, 4), (4, 4), (1000, 1), (1, 1000)]


def draw_seeds(kind: str, n: int) -> np.ndarray:
    """Samples [N_SAMPLES, n] of seeds of a kind, whose true mean is 0."""
    return SEEDS[kind](np.random.default_rng([KINDS.index(kind), n]), (N_SAMPLES, n))


def misses(values: np.ndarray) -> dict[str, np.ndarray]:
    """Whether the intervals of samples [samples, n] miss 0, by method."""
    n = values.shape[1]
    limit = -special.stdtrit(n - 1, TAIL)
    t = values.mean(axis=1) / stats.sem(values, axis=1)
    skewness = stats.skew(values, axis=1, bias=False) / np.sqrt(n)
    hall = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
    cut = int(TRIM * n)
    inner = np.sort(values)[:, cut : n - cut]
    winsorised = np.clip(values, inner[:, :1], inner[:, -1:]).std(axis=1, ddof=1)
    trimmed = inner.mean(axis=1) * (1 - 2 * cut / n) * np.sqrt(n) / winsorised
    positive = (values > 0).sum(axis=1)
    too_few = np.flatnonzero(stats.binom.cdf(np.arange(n), n, 0.5) <= TAIL).max(initial=-1)
    return {
        "Student's t": np.abs(t) > limit,
        "with Hall's correction": (np.abs(t) > limit) & (np.sign(t) * hall > limit),
        "t on trimmed means": np.abs(trimmed) > -special.stdtrit(n - 2 * cut - 1, TAIL),
        "sign test": np.minimum(positive, n - positive) <= too_few,
    }


def bootstrap_misses(values: np.ndarray, rng: np.random.Generator) -> bool:
    """The same of one sample [n] by the studentised bootstrap, without resamples of one value."""
    drawn = rng.choice(values, (N_RESAMPLES, len(values)))
    drawn = drawn[np.ptp(drawn, axis=1) > 0]
    t = (drawn.mean(axis=1) - values.mean()) / stats.sem(drawn, axis=1)
    low, high = np.quantile(t, (TAIL, 1 - TAIL))
    return not low <= values.mean() / stats.sem(values) <= high


def of_seeds(kind: str, n: int) -> dict[str, float]:
    """The share of intervals, by method, that miss the mean of `n` seeds of a kind."""
    values, rng = draw_seeds(kind, n), np.random.default_rng(n)
    bootstrapped = [bootstrap_misses(one, rng) for one in values[:N_BOOTSTRAPPED]]
    shares = {method: found.mean() for method, found in misses(values).items()}
    return shares | {"studentised bootstrap": np.mean(bootstrapped)}


def of_grids(n_seeds: int, n_episodes: int, seeds: float, episodes: float) -> float:
    """The share of intervals of `intervals.over_seeds` that miss the mean of Gaussian grids [seeds,
    episodes], whose means and mean squares are drawn from their known distributions."""
    place = [n_seeds, n_episodes, int(seeds), int(episodes)]
    rng, size = np.random.default_rng(place), n_seeds * n_episodes
    means = rng.standard_normal(N_SAMPLES) * np.sqrt((seeds + episodes - 1) / size)
    dfs = n_seeds - 1, n_episodes - 1, (n_seeds - 1) * (n_episodes - 1)
    of_seeds, of_episodes, rest = (
        expected * rng.chisquare(df, N_SAMPLES) / df
        for expected, df in zip((seeds, episodes, 1), dfs, strict=True)
    )
    of_episodes = np.maximum(0, of_episodes - rest)
    t = [special.stdtrit(df, TAIL) for df in dfs]
    half = np.sqrt((t[0] ** 2 * of_seeds + t[1] ** 2 * of_episodes) / size)
    return float(np.mean(np.abs(means) > half))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    rows = [{"seeds": kind, "number": n} | of_seeds(kind, n) for kind, n in product(KINDS, N_SEEDS)]
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "seeds.csv", index=False, float_format="%.5f")
    names = ["n_seeds", "n_episodes", "seeds", "episodes"]
    cells = [(*n, *m) for n in product((2, *N_SEEDS), (30, 300)) for m in MEAN_SQUARES]
    grids = [dict(zip(names, cell, strict=True)) | {"misses": of_grids(*cell)} for cell in cells]
    pd.DataFrame(grids).to_csv(folder / "grids.csv", index=False)
