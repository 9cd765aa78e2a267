"""Several conditions measured on the same seeds and episodes, and set against one of them: tables
in, tables out. A condition is an intervention on the rates, a number of inner steps, a data set, a
way of using a model; its values are a grid [seeds, episodes] in percentage points.
"""

import numpy as np
import pandas as pd

from negmeta_utils.evidence.intervals import over_episodes, over_seeds
from negmeta_utils.evidence.power import in_words, seeds_to_decide
from negmeta_utils.evidence.quantities import grids, sample_of_seeds
from negmeta_utils.evidence.words import in_markdown, p_said, signed, with_interval

MARGIN = 0.1  # points: the largest change that counts as no change
UP, DOWN, UNCHANGED, UNDECIDED = "up", "down", "unchanged", "undecided"
MINUS = ("minus_base", "minus_low", "minus_high", "verdict_minus", "needed_minus")
COLUMNS = ["condition", "points", "low", "high", "verdict", "needed", *MINUS, "seeds", "episodes"]


def change_grids(features: pd.DataFrame, by: str, quantity: str) -> dict[str, pd.DataFrame]:
    """One of `quantities.QUANTITIES` for each value of column `by`, in order of appearance.

    features: a features table with the column `by`, of one method.
    """
    return {
        str(value): grids(rows.assign(method=str(value)))[str(value), quantity]
        for value, rows in features.groupby(by, sort=False, observed=True)
    }


def accuracy_grids(
    table: pd.DataFrame, by: str, column: str = "accuracy"
) -> dict[str, pd.DataFrame]:
    """`column`, between 0 and 1, for each value of column `by`, in order of appearance."""
    return {
        str(value): 100 * rows.pivot(index="seed", columns="episode", values=column)
        for value, rows in table.groupby(by, sort=False, observed=True)
    }


def contrasts(conditions: dict[str, pd.DataFrame], base: str | None = None) -> pd.DataFrame:
    """Each condition with its 95 % interval over seeds and episodes, and against `base` in pairs.

    Columns: condition, points, low, high; verdict on the sign of `points`: `UP`, `DOWN`,
    `UNCHANGED` where every value is 0, or `UNDECIDED` where the interval holds 0 or there is one
    seed; needed, in words the seeds that would decide the sign of an effect of this size, where it
    is undecided; minus_base, minus_low, minus_high, verdict_minus and needed_minus, the same of
    the difference (NaN for the base and where there is none); seeds, episodes. Networks of unknown
    seed count where there are no others (`quantities.sample_of_seeds`). Raises ValueError where a
    condition shares no seed or has not the same episodes as the base.
    """
    rows = []
    for name, grid in conditions.items():
        sample = sample_of_seeds(grid)
        row = {"condition": name, **_judged(sample, "points", "low", "high", "verdict", "needed")}
        if base is not None and name != base:
            difference = _paired(grid, conditions[base], name, base)
            row |= _judged(sample_of_seeds(difference), *MINUS)
        rows.append(row | {"seeds": sample.shape[0], "episodes": sample.shape[1]})
    return pd.DataFrame(rows, columns=COLUMNS)


def _judged(grid: pd.DataFrame, *names: str) -> dict[str, object]:
    """Mean, bounds, verdict and seeds needed, under these names."""
    mean, low, high = over_seeds(grid).interval()
    verdict = UP if low > 0 else DOWN if high < 0 else UNDECIDED
    if (grid == 0).all(axis=None):
        verdict = UNCHANGED
    needed = in_words(seeds_to_decide(grid)) if verdict == UNDECIDED else ""
    return dict(zip(names, (mean, low, high, verdict, needed), strict=True))


def against_base(table: pd.DataFrame) -> pd.DataFrame:
    """The differences from the base as the values of a table of `contrasts`, without the base."""
    rows = table[table["minus_base"].notna()]
    return rows.assign(
        points=rows["minus_base"],
        low=rows["minus_low"],
        high=rows["minus_high"],
        verdict=rows["verdict_minus"],
        needed=rows["needed_minus"],
    )[[column for column in COLUMNS if column not in MINUS]]


def _paired(grid: pd.DataFrame, base: pd.DataFrame, name: str, base_name: str) -> pd.DataFrame:
    shared = grid.index.intersection(base.index)
    if shared.empty or not grid.columns.equals(base.columns):
        raise ValueError(
            f"{name!r} and {base_name!r} share no seed, or differ in their episodes; measure both "
            "on the same"
        )
    return grid.loc[shared] - base.loc[shared]


def equivalence(conditions: dict[str, pd.DataFrame], name: str, base: str) -> pd.DataFrame:
    """Whether condition `name` differs from `base`, in pairs, by less than `MARGIN` points.

    Two one-sided tests at 5 % (Schuirmann 1987), so by a 90 % interval. Two rows, over episodes (of
    these very networks) and over seeds (of the method). Columns: over, n, points, low, high (90 %),
    p_value (of a difference of at least the margin), verdict: `UNCHANGED` within the margin, `UP`
    or `DOWN` where the 95 % interval does not hold 0 and the difference is not within it, otherwise
    `UNDECIDED`. Raises ValueError as `contrasts`.
    """
    grid = _paired(conditions[name], conditions[base], name, base)
    sample, rows = sample_of_seeds(grid), []
    for over, of, n in (
        ("episodes", over_episodes(grid), grid.shape[1]),
        ("seeds", over_seeds(sample), len(sample)),
    ):
        p, (_, low, high) = of.p_outside(MARGIN), of.interval(0.95)
        verdict = UP if low > 0 else DOWN if high < 0 else UNDECIDED
        verdict = UNCHANGED if p <= 0.05 else verdict
        rows.append((over, n, *of.interval(0.90), p, verdict))
    columns = ["over", "n", "points", "low", "high", "p_value", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def equivalence_sentence(row: pd.Series, what: str) -> str:
    """One row of `equivalence` in words."""
    if np.isnan(row.low):
        few = "one seed" if (row.over, row.n) == ("seeds", 1) else "one episode"
        return f"{what}, over {row.over}: {signed(row.points)} points, {few}, undecided"
    text = f"{what}, over {row.n} {row.over}: {with_interval(row.points, row.low, row.high)} "
    means = {
        UNCHANGED: f"no change of {MARGIN} points or more ({p_said(row.p_value)})",
        UP: "better",
        DOWN: "worse",
        UNDECIDED: f"undecided whether within ±{MARGIN} points ({p_said(row.p_value)})",
    }
    return f"{text}(90 %): {means[row.verdict]}"


def sentence(row: pd.Series, what: str) -> str:
    """One condition in Markdown: its change, the interval and what it decides. what: plain text,
    which may hold the name of a folder."""
    what = in_markdown(what)
    if np.isnan(row.low):
        few = "one seed" if row.seeds == 1 else "one episode"
        said = "nothing changes" if row.verdict == UNCHANGED else f"{few}, undecided"
        return f"{what}: {signed(row.points)} points, {said}"
    text = f"{what}: {with_interval(row.points, row.low, row.high)} points, "
    if row.verdict != UNDECIDED:
        return text + {UP: "better", DOWN: "worse", UNCHANGED: "nothing changes"}[row.verdict]
    seeds = f"{row.needed} seeds would decide" if row.needed[:1].isdigit() else row.needed
    return f"{text}undecided ({seeds})"
