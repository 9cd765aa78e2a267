"""Verdicts on the paper's claims (a) to (f), by the rules of `rules`: tables in, tables out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from negmeta_utils.evidence.collapsed import collapsed, without
from negmeta_utils.evidence.intervals import (
    Estimate,
    Interval,
    estimate,
    over_episodes,
    over_seeds,
    over_unshared_seeds,
)
from negmeta_utils.evidence.learned_rates import layers_of
from negmeta_utils.evidence.looks import levels
from negmeta_utils.evidence.quantities import DIFFERENCE, MAML, META_SGD, grids
from negmeta_utils.evidence.rules import (
    CLAIMS,
    CONTRADICTED,
    ERROR_RATE,
    MIN_EPISODES,
    MIN_SEEDS,
    NO_EFFECT,
    NO_JUDGEMENT,
    PARTS,
    REPRODUCED,
    UNDECIDED,
    Judgement,
    Part,
    judge,
    without_effect,
)
from negmeta_utils.evidence.t_tests import OFF_TASK_ALONE, paper_t_test, t_test
from negmeta_utils.evidence.words import p_said

NOT_MEASURED = "not measured"
COLUMNS = ("networks", "methods")
RATES = ["seed", "update", "layer", "group", "mean"]


class Finding(NamedTuple):
    """What was measured of one claim: a text, a judgement for each column of verdicts, notes."""

    measured: str = NOT_MEASURED
    networks: Judgement = NO_JUDGEMENT
    methods: Judgement = NO_JUDGEMENT
    notes: tuple[str, ...] = ()


class Estimates(NamedTuple):
    """Of one quantity: over episodes, over seeds, and how many there are of each.

    n_seeds: of the method that has fewer, where two are compared; paired: whether in pairs.
    """

    networks: Estimate
    methods: Estimate
    n_seeds: int
    n_episodes: int
    paired: bool = True


Tables = dict[tuple[str, str], pd.DataFrame]


def claims(
    features: pd.DataFrame | None, rates: pd.DataFrame | None, looks: Sequence[int] = ()
) -> pd.DataFrame:
    """Verdicts on the paper's claims (a) to (f), by `rules.RULES`; one row a claim.

    features, rates: the tables of notebooks 3 and 2; None or empty, or without one of the two
    methods, where not measured. Methods other than MAML and Meta-SGD are left aside. looks: the
    numbers of seeds at which a look was planned, if there is to be more than one. Columns: claim,
    statement, paper (its number), measured (the number that decides, with its 95 % interval: over
    seeds if there are enough, otherwise over episodes), networks and methods (the verdicts), note
    (what does not survive Holm's correction, which part has no effect, what was left out). Raises
    ValueError for missing columns, values or episodes.
    """
    found = _findings(features, rates, looks)
    corrected = {column: _corrected(found, column) for column in COLUMNS}
    rows = []
    for number, (claim, finding) in enumerate(found.items()):
        notes = list(finding.notes)
        for column in COLUMNS:
            judged = getattr(finding, column)
            if judged.verdict != UNDECIDED and corrected[column][number] > judged.level:
                notes.append(f"{column}: not by Holm")
        verdicts = finding.networks.verdict, finding.methods.verdict
        rows.append((claim, *CLAIMS[claim], finding.measured, *verdicts, "; ".join(notes)))
    columns = ["claim", "statement", "paper", "measured", *COLUMNS, "note"]
    return pd.DataFrame(rows, columns=columns)


def p_values(
    features: pd.DataFrame | None, rates: pd.DataFrame | None, looks: Sequence[int] = ()
) -> pd.DataFrame:
    """How sure the verdicts of `claims` are, one by one and together; a row a claim.

    Columns: claim; for each column of verdicts the verdict, its p-value and Holm's correction of
    it over the claims: networks, p networks, Holm networks, methods, p methods, Holm methods. NaN
    where there is nothing to test.
    """
    found = _findings(features, rates, looks)
    table: dict[str, Any] = {"claim": list(found)}
    for column in COLUMNS:
        judged = [getattr(finding, column) for finding in found.values()]
        table[column] = [j.verdict for j in judged]
        table[f"p {column}"] = [j.p for j in judged]
        table[f"Holm {column}"] = _corrected(found, column)
    return pd.DataFrame(table)


def _corrected(found: dict[str, Finding], column: str) -> np.ndarray:
    """Holm's correction of each claim's p-values, its smallest; NaN where nothing is tested."""
    raw = np.array([getattr(finding, column)[1:4] for finding in found.values()])
    family = np.ones_like(raw, dtype=bool)
    for row, claim in enumerate(found):
        family[row, 2] = any(part.margin is not None for part in PARTS.get(claim, []))
        family[row] &= not (claim == "a" and column == "networks")  # rules.RULES on (a)
    corrected = np.full_like(raw, np.nan)
    corrected[family] = _holm(raw[family])
    tested = ~np.isnan(corrected).all(axis=1)
    smallest = np.full(len(raw), np.nan)
    smallest[tested] = np.nanmin(corrected[tested], axis=1)
    return smallest


def _holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction; NaN counts as 1 and stays NaN."""
    flat = np.nan_to_num(p, nan=1.0)
    order = np.argsort(flat)
    steps = np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1))
    corrected = np.empty_like(flat)
    corrected[order] = np.minimum(1, steps)
    return np.where(np.isnan(p), np.nan, corrected)


def _findings(
    features: pd.DataFrame | None, rates: pd.DataFrame | None, looks: Sequence[int]
) -> dict[str, Finding]:
    planned = levels(looks) if looks else None
    if features is None or features.empty:
        return {"a": _judge_rates(rates, planned)} | dict.fromkeys(PARTS, Finding())
    flagged = collapsed(features)
    features = without(features, flagged)
    if rates is not None:
        lost = flagged.loc[flagged["method"] == META_SGD, "seed"]
        rates = rates[~rates["seed"].isin(lost)]
    tables = grids(features)
    found = {"a": _judge_rates(rates, planned)}
    for claim, parts in PARTS.items():
        found[claim] = _judge_parts(parts, tables, planned)
    if found["f"].measured != NOT_MEASURED:
        found["f"] = _with_papers_test(found["f"], features)
    left_out = tuple(
        f"left out as collapsed: {m} {s}" for m, s in flagged[["method", "seed"]].values
    )
    return {claim: f._replace(notes=f.notes + left_out) for claim, f in found.items()}


def _with_papers_test(found: Finding, features: pd.DataFrame) -> Finding:
    """(f) with what the paper's own test says, which is about iterations and not about seeds."""
    p = paper_t_test(features).p_value
    found = found._replace(measured=f"{found.measured}; the paper's test {p_said(p)}")
    if found.networks.verdict != REPRODUCED or p <= ERROR_RATE:
        return found
    alone = t_test(features, OFF_TASK_ALONE)["p_value"]
    also = "yes" if alone <= ERROR_RATE else "no"
    note = (
        "direction and interval yes, the paper's own test no "
        f"(read as off-task accuracy alone {also}: {p_said(alone)})"
    )
    return found._replace(notes=(*found.notes, note))


def _estimates(part: Part, tables: Tables) -> Estimates | None:
    """None where not measured."""
    key = (part.method, part.quantity)
    if part.method != DIFFERENCE:
        return _of_grid(tables[key]) if key in tables else None
    maml, meta_sgd = (tables.get((method, part.quantity)) for method in (MAML, META_SGD))
    if maml is None or meta_sgd is None:
        return None
    if maml.index.equals(meta_sgd.index):
        return _of_grid(tables[key])
    networks = estimate(meta_sgd.to_numpy().mean(axis=0) - maml.to_numpy().mean(axis=0))
    maml, meta_sgd = _seeded(maml), _seeded(meta_sgd)
    n_seeds = min(len(maml), len(meta_sgd))
    methods = over_unshared_seeds(meta_sgd, maml, skewed=True) if n_seeds else networks
    return Estimates(networks, methods, n_seeds, maml.shape[1], paired=False)


def _of_grid(grid: pd.DataFrame) -> Estimates:
    networks, seeded = over_episodes(grid), _seeded(grid)
    methods = over_seeds(seeded, skewed=True) if len(seeded) else networks
    return Estimates(networks, methods, *seeded.shape)


def _seeded(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of known seeds: an imported network's may be unknown, which is a negative one."""
    return table[table.index >= 0]


def _judge_parts(parts: list[Part], tables: Tables, planned: dict[int, float] | None) -> Finding:
    of = [_estimates(part, tables) for part in parts]
    if None in of:
        return Finding()
    n_seeds, n_episodes = min(one.n_seeds for one in of), of[0].n_episodes
    level = planned.get(n_seeds) if planned else ERROR_RATE
    networks, methods = [one.networks for one in of], [one.methods for one in of]
    judged = {"networks": NO_JUDGEMENT, "methods": NO_JUDGEMENT}
    if n_episodes >= MIN_EPISODES:
        judged["networks"] = judge(networks, parts)
        if n_seeds >= MIN_SEEDS and level:
            judged["methods"] = judge(methods, parts, level)
    enough = n_seeds >= MIN_SEEDS
    shown, count = (methods, f"{n_seeds} seeds") if enough else (networks, f"{n_episodes} episodes")
    texts = {  # one a method, of however many parts
        part.method: f"{part.method} {_points(one.interval(1 - ERROR_RATE))}"
        for part, one in zip(parts, shown, strict=True)
    }
    notes = []
    for column, ests in (("networks", networks), ("methods", methods)):
        if judged[column].verdict == NO_EFFECT and len(parts) > 1:
            of_methods = without_effect(ests, parts, judged[column].level)
            notes.append(f"{column}: no such effect for {', '.join(of_methods)}")
    if not all(one.paired for one in of):
        notes.append("seeds not the same, compared by Welch")
    measured = f"{', '.join(texts.values())} points over {count}"
    return Finding(measured, **judged, notes=tuple(notes + _unplanned(n_seeds, planned)))


def _unplanned(n_seeds: int, planned: dict[int, float] | None) -> list[str]:
    if not planned or n_seeds in planned:
        return []
    looks = " and ".join(map(str, planned))
    return [f"methods: no look is planned at {n_seeds} seeds, but at {looks}"]


def _points(interval: Interval) -> str:
    return f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def _judge_rates(rates: pd.DataFrame | None, planned: dict[int, float] | None) -> Finding:
    if rates is None or rates.empty:
        return Finding()
    means = last_mean_rates(rates)
    signs = [-1] * (means.shape[1] - 1) + [1]  # the last layer is the linear one
    shown = (means * signs > 0).all(axis=1)
    networks = REPRODUCED if shown.all() else UNDECIDED if shown.any() else CONTRADICTED
    seeded = _seeded(means)
    level = planned.get(len(seeded)) if planned else ERROR_RATE
    methods = NO_JUDGEMENT
    if len(seeded) >= MIN_SEEDS and level:
        parts = [Part(layer, "mean rate", sign) for layer, sign in zip(means, signs, strict=True)]
        methods = judge([estimate(seeded[name], skewed=True) for name in means], parts, level)
    texts = ", ".join(f"{layer} {mean:+.4f}" for layer, mean in means.mean().items())
    measured = f"{texts}; all signs in {shown.sum()} of {len(means)} networks"
    notes = tuple(_unplanned(len(seeded), planned))
    return Finding(measured, Judgement(networks), methods, notes)


def last_mean_rates(rates: pd.DataFrame) -> pd.DataFrame:
    """Mean rate of weights and biases at each network's last update: [seeds, layers], from the
    image to the classes.

    Raises ValueError for missing columns, repeated rows, or networks of different layers.
    """
    missing = [column for column in RATES if column not in rates]
    if missing:
        raise ValueError(f"rates: missing column(s) {', '.join(missing)}; see notebook 2")
    last = rates[rates["update"] == rates.groupby("seed")["update"].transform("max")]
    last = last[last.group == "weights+bias"]
    if last.duplicated(["seed", "layer"]).any():
        raise ValueError("rates: repeated rows of seed, update, layer; pass each run once")
    means = last.pivot(index="seed", columns="layer", values="mean")[layers_of(last)]
    if means.empty or means.isna().to_numpy().any():
        raise ValueError("rates: networks differ in their layers; judge those of one kind together")
    return means


def claims_markdown(table: pd.DataFrame) -> str:
    """The table of `claims` as Markdown, for terminals and pages."""
    return table.to_markdown(index=False) + "\n"
