"""Looks at the data that are planned: levels that share one error rate (O'Brien and Fleming 1979).

Verdicts are looked at when there are, say, 8 seeds, and again when there are 12. The z statistic of
look k, with a share t_k of all seeds, must pass C / sqrt(t_k): hard at first, at the end nearly the
bound of a single look. C is such that, with no effect, at least one look passes with the error
rate's probability. Each bound is used as a level of its own, in place of 5 %, for t statistics too
(Jennison and Turnbull 2000, sections 2.3 and 4.4).
"""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import optimize, stats

from negmeta_utils.evidence.rules import ERROR_RATE


def levels(looks: Sequence[int]) -> dict[int, float]:
    """The two-sided level of each look, by its number of seeds.

    looks: numbers of seeds, increasing. Raises ValueError for others.
    """
    seeds = np.array(looks, dtype=float)
    if not len(seeds) or seeds[0] < 1 or (np.diff(seeds) <= 0).any():
        raise ValueError(f"looks={list(looks)}: give increasing numbers of seeds, as [8, 12]")
    shares = seeds / seeds[-1]
    bounds = constant(shares) / np.sqrt(shares)
    return dict(zip(looks, (2 * stats.norm.sf(bounds)).tolist(), strict=True))


def look(
    trained: Iterable[int], n_left: int, planned: dict[int, float] | None
) -> tuple[float | None, list[str]]:
    """The level of the look at so many trained seeds of each method, None where none is planned;
    and what there is to note of it.

    n_left: without collapsed trainings, of the method that has fewest left. planned: of `levels`,
    at which each method has as many; None for a single look at any number.
    """
    if planned is None:
        return ERROR_RATE, []
    few, *more = sorted(set(trained))
    if more or few not in planned:
        numbers = " and ".join(map(str, planned))
        others = "".join(f" of one method and {n} of the other" for n in more)
        return None, [f"methods: no look is planned at {few} seeds{others}, but at {numbers}"]
    left = f"methods: the look at {few} seeds trained, by the {n_left} that are left"
    return planned[few], [left] if n_left < few else []


def constant(shares: np.ndarray) -> float:
    """C for looks at these shares of the seeds, ending with 1."""
    if len(shares) == 1:
        return float(stats.norm.isf(ERROR_RATE / 2))
    correlation = np.sqrt(np.minimum.outer(shares, shares) / np.maximum.outer(shares, shares))
    of_looks = stats.multivariate_normal(cov=correlation, seed=0)

    def missed(c: float) -> float:
        bounds = c / np.sqrt(shares)
        return 1 - of_looks.cdf(bounds, lower_limit=-bounds) - ERROR_RATE

    return float(optimize.brentq(missed, 1, 5, xtol=1e-5))
