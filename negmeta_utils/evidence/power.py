"""How many training seeds and episodes settle an effect: the power of the rule of `claims`.

A grid [seeds, episodes] is taken as Gaussian with the variances that `mixed_model.fit` estimates
from it. Power is then the probability that the 95 % interval over new seeds and new episodes
(`intervals.over_seeds`) lies wholly on the effect's side of zero. The verdicts on the methods ask a
little more, since skewness is corrected for: a tenth in the width of the interval with 8 Gaussian
seeds, a twentieth with 12; and with fewer than `rules.MIN_SEEDS` they decide nothing. The variance
between seeds is known no better than its few seeds allow: with 3 seeds the true one may be a
quarter of the estimate or many times it, so read a number of seeds as an order of magnitude.
"""

from bisect import bisect_left
from functools import cache

import numpy as np
import pandas as pd
from scipy import special, stats

from negmeta_utils.evidence.intervals import over_seeds
from negmeta_utils.evidence.mixed_model import Components, fit
from negmeta_utils.evidence.quantities import (
    BEFORE,
    CHANGES,
    DIFFERENCE,
    MAML,
    META_SGD,
    PAPER_CHANGES,
    grids_over_seeds,
)
from negmeta_utils.evidence.rules import MIN_SEEDS

# Off-task changes of the paper (section 5.3) in points: Meta-SGD's, and the difference.
_THEIRS = PAPER_CHANGES.set_index("method")["points"]
PAPER_EFFECTS = {META_SGD: _THEIRS[META_SGD], DIFFERENCE: _THEIRS[META_SGD] - _THEIRS[MAML]}
POWER = 0.8
CONFIDENCE = 0.95
MOST_SEEDS = 10_000_000  # where these do not suffice, the episodes are too few

_gauss_legendre = cache(np.polynomial.legendre.leggauss)


def power(components: Components, effect: float, n_seeds: int, n_episodes: int) -> float:
    """Probability that the interval over seeds shows an effect of `effect` points, with its sign.

    By quadrature: mean, between-seed and between-episode mean squares of a balanced Gaussian grid
    are independent, the latter two scaled chi-squared. The residual's, which has by far the most
    degrees of freedom, is taken as its expectation. NaN for unknown components.
    """
    if np.isnan(components.seeds):
        return np.nan
    residual = components.residual
    seeds = residual + n_episodes * components.seeds  # expected mean squares
    episodes = residual + n_seeds * components.episodes
    n = n_seeds * n_episodes
    squares, weights = _half_widths(seeds / n, n_seeds - 1, 64)
    more_squares, more_weights = _half_widths(episodes / n, n_episodes - 1, 16, residual / n)
    half_widths = np.sqrt(squares[:, None] + more_squares)
    deviation = np.sqrt((seeds + episodes - residual) / n)
    if deviation == 0:
        return float(effect != 0)
    shown = special.ndtr((abs(effect) - half_widths) / deviation)
    return float(weights @ shown @ more_weights)


def _half_widths(
    variance: float, df: int, n_nodes: int, less: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Squares of a t half-width whose squared standard error is `variance` times chi-squared / df,
    minus `less` and at least 0: values at the nodes of Gauss-Legendre in probability, and their
    weights."""
    nodes, weights = _gauss_legendre(n_nodes)
    chi_squared = 2 * special.gammaincinv(df / 2, (nodes + 1) / 2)
    t = special.stdtrit(df, (1 + CONFIDENCE) / 2)
    return t**2 * np.maximum(0, variance * chi_squared / df - less), weights / 2


def power_table(
    grid: pd.DataFrame, effect: float, n_seeds: list[int], n_episodes: list[int]
) -> pd.DataFrame:
    """Power for every number of seeds and episodes: n_seeds, n_episodes, power (NaN from one seed).

    grid: [seeds, episodes], the quantity whose variances count; effect: percentage points.
    """
    components = fit(grid).components
    rows = [(i, j, power(components, effect, i, j)) for j in n_episodes for i in n_seeds]
    return pd.DataFrame(rows, columns=["n_seeds", "n_episodes", "power"])


def seeds_needed(grid: pd.DataFrame, effect: float, n_episodes: int) -> int | float | None:
    """The smallest number of seeds, at least `rules.MIN_SEEDS`, that shows `effect` points with a
    power of 80 %.

    inf where no number does at so few episodes, since all seeds share the episodes; None where the
    grid has one seed, which says nothing about other seeds.
    """
    return _fewest(fit(grid).components, effect, n_episodes)


def seeds_needed_table(grid: pd.DataFrame, effect: float, n_episodes: list[int]) -> pd.DataFrame:
    """`seeds_needed` for each number of episodes, and how far the grid's own seeds leave it open.

    Columns: n_episodes; n_seeds; low and high, the same at the ends of the 95 % interval of the
    variance between seeds (chi-squared; the other variances are known much better).
    """
    components = fit(grid).components
    variances = [components.seeds, *_seed_variance_interval(grid, components)]
    rows = [
        (j, *(_fewest(components._replace(seeds=v), effect, j) for v in variances))
        for j in n_episodes
    ]
    return pd.DataFrame(rows, columns=["n_episodes", "n_seeds", "low", "high"])


def _seed_variance_interval(grid: pd.DataFrame, components: Components) -> list[float]:
    n_seeds, n_episodes = grid.shape
    df = n_seeds - 1
    square = n_episodes * grid.mean(axis=1).var(ddof=1)
    tails = np.array([1 + CONFIDENCE, 1 - CONFIDENCE]) / 2
    bounds = square * df / stats.chi2.ppf(tails, df)
    return list(np.maximum(0, bounds - components.residual) / n_episodes)


def seeds_to_decide(grid: pd.DataFrame) -> int | float | None:
    """The number of seeds that would decide an effect of the size measured, on as many episodes.

    grid: [seeds, episodes] in percentage points, as of `quantities.grids`. "Decide" is to show its
    sign by the 95 % interval over seeds 4 times out of 5, with at least as many as `rules` ask for.
    inf and None as for `seeds_needed`; 0 where the measured effect is 0, so that it has no sign.
    """
    mean = round(over_seeds(grid).mean, 9)  # what rounding leaves of nothing is no effect
    return seeds_needed(grid, mean, grid.shape[1]) if mean else 0


def seeds_to_decide_table(features: pd.DataFrame) -> pd.DataFrame:
    """`seeds_to_decide` of the changes on and off the task, of each method and their difference,
    and of the difference before adaptation.

    Columns: method, quantity, points (as measured), n_seeds and n_episodes (at hand), and
    seeds_to_decide in words.
    """
    rows = [
        (method, quantity, over_seeds(grid).mean, *grid.shape, in_words(seeds_to_decide(grid)))
        for (method, quantity), grid in grids_over_seeds(features).items()
        if quantity in CHANGES or (method, quantity) == (DIFFERENCE, BEFORE)
    ]
    columns = ["method", "quantity", "points", "n_seeds", "n_episodes", "seeds_to_decide"]
    return pd.DataFrame(rows, columns=columns)


def in_words(n_seeds: int | float | None) -> str:
    """A number of seeds as the functions above give it, for tables and sentences."""
    if pd.isna(n_seeds):
        return "unknown from one seed"
    if n_seeds == 0:
        return "no effect to show"
    return "more episodes needed" if np.isinf(n_seeds) else f"{n_seeds:,.0f}"


def _fewest(components: Components, effect: float, n_episodes: int) -> int | float | None:
    if np.isnan(components.seeds):
        return None

    def enough(n_seeds: int) -> bool:
        return power(components, effect, n_seeds, n_episodes) >= POWER

    if not enough(MOST_SEEDS):
        return np.inf
    return bisect_left(range(MOST_SEEDS), True, MIN_SEEDS, key=enough)  # power grows with seeds
