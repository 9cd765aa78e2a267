"""How often the rules of `rules` err, by simulation of seeds and episodes whose truth is known.

A quantity of one network on one episode is truth + seed + episode + residual, rounded as accuracies
in fiftieths are. Of more than `BLOCKS` episodes, means over equal blocks of episodes are drawn in
place of single ones: the rules read means and their spread alone, which are as good as the same.
`tools/error_rates.py` makes the table that notebook 4 shows.
"""

from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from negmeta_utils.evidence.intervals import Estimate, over_seeds, over_unshared_seeds
from negmeta_utils.evidence.rules import (
    CONTRADICTED,
    MIN_SEEDS,
    NO_EFFECT,
    PARTS,
    REPRODUCED,
    UNDECIDED,
    decide,
)

TABLE = Path(__file__).with_name("error_rates.csv")
# Standard deviations in points, as of off-task changes at 28x28; between seeds a guess.
BETWEEN_SEEDS, BETWEEN_EPISODES, RESIDUAL = 0.3, 1.0, 2.7
GRAIN = 2.0  # points: accuracies are fiftieths
BLOCKS = 300
COLLAPSE = 0.1  # share of trainings that collapse, and lose 10 standard deviations
LEFT_OUT = "one in ten collapsed, left out"

# Seeds of mean 0, and standard deviation 1 but for collapsed ones.
SEEDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "Gaussian": lambda rng, n: rng.standard_normal(n),
    "exponential": lambda rng, n: rng.exponential(size=n) - 1,
    "lognormal": lambda rng, n: (
        (np.exp(rng.standard_normal(n)) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)
    ),
    "one in ten collapsed": lambda rng, n: (
        rng.standard_normal(n) - 10 * (rng.random(n) < COLLAPSE) + 10 * COLLAPSE
    ),
    LEFT_OUT: lambda rng, n: rng.standard_normal(rng.binomial(n, 1 - COLLAPSE)),
}
# case: claim, true effects of its parts in points, verdicts that are wrong there
CASES = {
    "(f), no effect": ("f", (0.0,), (REPRODUCED, CONTRADICTED)),
    "(f), at the margin": ("f", (0.116,), (CONTRADICTED, NO_EFFECT)),
    "(e), half of it": ("e", (-2.0, 0.0), (REPRODUCED, CONTRADICTED)),
    "(f), no effect, seeds not shared": ("f", (0.0,), (REPRODUCED, CONTRADICTED)),
}
UNSHARED = "(f), no effect, seeds not shared"


def error_rates(
    kinds: Iterable[str],
    n_seeds: Iterable[int],
    n_episodes: Iterable[int],
    cases: Iterable[str],
    n_tables: int,
) -> pd.DataFrame:
    """The share of wrong verdicts on the methods among `n_tables` simulated tables, by cell.

    Columns: seeds (a kind of `SEEDS`), n_seeds, n_episodes, case (of `CASES`), wrong, definite
    (share of verdicts other than undecided), n_tables. Every cell has random numbers of its own, so
    that it can be computed alone.
    """
    rows = []
    for kind, seeds, episodes, case in product(kinds, n_seeds, n_episodes, cases):
        claim, truths, wrong = CASES[case]
        place = [list(SEEDS).index(kind), seeds, episodes, list(CASES).index(case)]
        rng = np.random.default_rng(place)
        found = [
            _verdict(rng, kind, seeds, episodes, claim, truths, case == UNSHARED)
            for _ in range(n_tables)
        ]
        shares = np.isin(found, wrong).mean(), (np.array(found) != UNDECIDED).mean()
        rows.append((kind, seeds, episodes, case, *shares, n_tables))
    columns = ["seeds", "n_seeds", "n_episodes", "case", "wrong", "definite", "n_tables"]
    return pd.DataFrame(rows, columns=columns)


def _verdict(
    rng: np.random.Generator,
    kind: str,
    n_seeds: int,
    n_episodes: int,
    claim: str,
    truths: tuple[float, ...],
    unshared: bool,
) -> str:
    estimates: list[Estimate] = []
    for truth in truths:
        grids = [draw_grid(rng, kind, n_seeds, n_episodes) for _ in range(1 + unshared)]
        if min(len(grid) for grid in grids) < MIN_SEEDS:
            return UNDECIDED
        estimates.append(
            over_unshared_seeds(*grids, skewed=True)
            if unshared
            else over_seeds(grids[0] + truth, skewed=True)
        )
    return decide(estimates, PARTS[claim])


def draw_grid(rng: np.random.Generator, kind: str, n_seeds: int, n_episodes: int) -> pd.DataFrame:
    """A quantity [seeds, episodes or blocks of episodes] whose true mean is 0, in points."""
    seeds = BETWEEN_SEEDS * SEEDS[kind](rng, n_seeds)
    columns = min(n_episodes, BLOCKS)
    in_block = n_episodes / columns
    shape = len(seeds), columns
    rounding = GRAIN**2 / 12 * (in_block > 1)
    values = np.sqrt((RESIDUAL**2 + rounding) / in_block) * rng.standard_normal(shape)
    values += BETWEEN_EPISODES / np.sqrt(in_block) * rng.standard_normal(columns)
    values += seeds[:, None]
    return pd.DataFrame(np.round(values / GRAIN) * GRAIN if in_block == 1 else values)


def wrong_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `error_rates` for reading: a row a kind of seeds and a case, a column a number of
    seeds and episodes."""
    order = [kind for kind in SEEDS if kind in set(table["seeds"])]
    wide = table.pivot(index=["case", "seeds"], columns=["n_episodes", "n_seeds"], values="wrong")
    return wide.reindex(list(product([c for c in CASES if c in set(table["case"])], order)))


def wrong_verdicts_markdown(table: pd.DataFrame) -> str:
    """The table of `wrong_verdicts` in percent, as Markdown."""
    wide = (100 * wrong_verdicts(table)).map("{:.1f}".format)
    wide.columns = [f"{episodes:,}; {seeds}" for episodes, seeds in wide.columns]
    return wide.reset_index().to_markdown(index=False, disable_numparse=True) + "\n"
