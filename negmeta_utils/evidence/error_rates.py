"""How often the rules of `rules` err, by simulation of seeds and episodes whose truth is known.

A quantity of one network on one episode is truth + seed + episode + residual, rounded as accuracies
in fiftieths are. Of more than `BLOCKS` episodes, means over equal blocks of episodes are drawn in
place of single ones: the rules read means and their spread alone, which are as good as the same.
`tools/error_rates.py` makes the table that notebook 4 shows.
"""

from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from negmeta_utils.evidence.claims import lost_by_holm
from negmeta_utils.evidence.findings import Finding
from negmeta_utils.evidence.intervals import estimate, over_seeds, over_unshared_seeds
from negmeta_utils.evidence.learned_rates import PAPER_TABLE_1
from negmeta_utils.evidence.looks import levels
from negmeta_utils.evidence.quantities import DIFFERENCE, MAML, META_SGD
from negmeta_utils.evidence.rules import (
    CLAIMS,
    CONTRADICTED,
    ERROR_RATE,
    MIN_SEEDS,
    NO_EFFECT,
    PARTS,
    REPRODUCED,
    UNDECIDED,
    decide,
    judge,
    parts_of_rates,
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
LOOKS = (8, 12)  # numbers of seeds
SIGNS, WRONG_AT_MARGIN = (REPRODUCED, CONTRADICTED), (CONTRADICTED, NO_EFFECT)


class Case(NamedTuple):
    """What is judged, its truth, and the verdicts that are wrong there.

    claims: several are judged together, and one wrong verdict is enough. truths: of the quantities
    of a single claim, in points; several claims, and (a), have no effect. unshared: the methods'
    seeds are not the same. looks: numbers of seeds; one wrong verdict at any is enough. holm: a
    verdict counts if it survives Holm's correction.
    """

    claims: str
    truths: tuple[float, ...]
    wrong: tuple[str, ...]
    unshared: bool = False
    looks: tuple[int, ...] = ()
    holm: bool = False

    def is_simulated(self, kind: str, n_seeds: int) -> bool:
        """False for `LEFT_OUT` with looks or several claims, since the number of seeds that are
        left varies, and for looks at other than their last number of seeds."""
        fixed = kind != LEFT_OUT or not (self.looks or len(self.claims) > 1)
        return fixed and (not self.looks or n_seeds == self.looks[-1])


CASES = {
    "(f), no effect": Case("f", (0.0,), SIGNS),
    "(f), at the margin": Case("f", (0.116,), WRONG_AT_MARGIN),
    "(e), half of it": Case("e", (-2.0, 0.0), SIGNS),
    "(f), no effect, seeds not shared": Case("f", (0.0,), SIGNS, unshared=True),
    "(f), no effect, looks at 8 and 12 seeds": Case("f", (0.0,), SIGNS, looks=LOOKS),
    "any of (c) to (f), no effect": Case("cdef", (), SIGNS),
    "any of (c) to (f), no effect, by Holm": Case("cdef", (), SIGNS, holm=True),
    "(a), no effect": Case("a", (), SIGNS),
    "(b), at a bound": Case("b", (2.0, 0.0), SIGNS),
    "(c), at the margin": Case("c", (0.5,), WRONG_AT_MARGIN),
    "(d), at the margins": Case("d", (-0.1, -0.1), WRONG_AT_MARGIN),
    "(e), at the margins": Case("e", (-0.069, 0.047), WRONG_AT_MARGIN),
    "(f), at the margin, seeds not shared": Case("f", (0.116,), WRONG_AT_MARGIN, unshared=True),
    "(c), at the margin, seeds not shared": Case("c", (0.5,), WRONG_AT_MARGIN, unshared=True),
    "(d), at the margins, looks": Case("d", (-0.1, -0.1), WRONG_AT_MARGIN, looks=LOOKS),
    "(e), at the margins, looks": Case("e", (-0.069, 0.047), WRONG_AT_MARGIN, looks=LOOKS),
    "(f), at the margin, looks": Case("f", (0.116,), WRONG_AT_MARGIN, looks=LOOKS),
}


def error_rates(
    kinds: Iterable[str],
    n_seeds: Iterable[int],
    n_episodes: Iterable[int],
    cases: Iterable[str],
    n_tables: int,
) -> pd.DataFrame:
    """The share of wrong verdicts on the methods among `n_tables` simulated tables, by cell.

    Columns: seeds (a kind of `SEEDS`), n_seeds, n_episodes, case (of `CASES`), wrong, definite
    (share of tables with a verdict other than undecided), n_tables. Every cell has random numbers
    of its own, so that it can be computed alone; those that no case simulates are left out.
    """
    rows = []
    for kind, seeds, episodes, name in product(kinds, n_seeds, n_episodes, cases):
        case = CASES[name]
        if not case.is_simulated(kind, seeds):
            continue
        place = [list(SEEDS).index(kind), seeds, episodes, list(CASES).index(name)]
        rng = np.random.default_rng(place)
        found = [_verdicts(rng, kind, seeds, episodes, case) for _ in range(n_tables)]
        wrong = np.mean([any(v in case.wrong for v in verdicts) for verdicts in found])
        definite = np.mean([any(v != UNDECIDED for v in verdicts) for verdicts in found])
        rows.append((kind, seeds, episodes, name, wrong, definite, n_tables))
    columns = ["seeds", "n_seeds", "n_episodes", "case", "wrong", "definite", "n_tables"]
    return pd.DataFrame(rows, columns=columns)


def _verdicts(
    rng: np.random.Generator, kind: str, n_seeds: int, n_episodes: int, case: Case
) -> list[str]:
    """Of one simulated table: of its claim, at each look, or of each of several claims."""
    if case.claims == "a":
        return [_of_rates(rng, kind, n_seeds)]
    if len(case.claims) > 1:
        return _of_family(rng, kind, n_seeds, n_episodes, case)
    parts, drawn = PARTS[case.claims], {}
    for part in parts:
        if part[:2] in drawn:  # the two bounds of (b) are about one quantity
            continue
        grids = [draw_grid(rng, kind, n_seeds, n_episodes) for _ in range(1 + case.unshared)]
        if min(len(grid) for grid in grids) < MIN_SEEDS:
            return [UNDECIDED]
        drawn[part[:2]] = grids
    planned = levels(case.looks) if case.looks else {n_seeds: ERROR_RATE}
    verdicts = []
    for seeds, level in planned.items():
        of = {
            quantity: over_unshared_seeds(grids[0] + truth, grids[1], skewed=True)
            if case.unshared
            else over_seeds(grids[0].head(seeds) + truth, skewed=True)
            for (quantity, grids), truth in zip(drawn.items(), case.truths, strict=True)
        }
        verdicts.append(decide([of[part[:2]] for part in parts], parts, level))
    return verdicts


def _of_rates(rng: np.random.Generator, kind: str, n_seeds: int) -> str:
    """The verdict on (a), of five layers whose mean rates are 0: seeds alone vary."""
    parts = parts_of_rates(PAPER_TABLE_1["layer"])
    layers = [SEEDS[kind](rng, n_seeds) for _ in parts]
    if min(len(means) for means in layers) < MIN_SEEDS:
        return UNDECIDED
    return decide([estimate(means, skewed=True) for means in layers], parts, ERROR_RATE)


def _of_family(
    rng: np.random.Generator, kind: str, n_seeds: int, n_episodes: int, case: Case
) -> list[str]:
    """Verdicts on several claims from one table: quantities of a network are independent, and the
    methods' seeds the same."""
    if n_seeds < MIN_SEEDS:
        return [UNDECIDED]
    parts = [part for claim in case.claims for part in PARTS[claim]]
    grids = {
        (method, quantity): draw_grid(rng, kind, n_seeds, n_episodes)
        for method, quantity in product((MAML, META_SGD), sorted({part.quantity for part in parts}))
    }
    for quantity in {part.quantity for part in parts}:
        grids[DIFFERENCE, quantity] = grids[META_SGD, quantity] - grids[MAML, quantity]
    of = {key: over_seeds(grid, skewed=True) for key, grid in grids.items()}
    found = {claim: Finding() for claim in CLAIMS}
    for claim in case.claims:
        estimates = [of[part.method, part.quantity] for part in PARTS[claim]]
        found[claim] = Finding(methods=judge(estimates, PARTS[claim]))
    lost = lost_by_holm(found, "methods") if case.holm else []
    return [UNDECIDED if c in lost else found[c].methods.verdict for c in case.claims]


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
    seeds and episodes; NaN where a case has no such column."""
    order = [kind for kind in SEEDS if kind in set(table["seeds"])]
    wide = table.pivot(index=["case", "seeds"], columns=["n_episodes", "n_seeds"], values="wrong")
    rows = product([c for c in CASES if c in set(table["case"])], order)
    return wide.reindex([row for row in rows if row in wide.index])
