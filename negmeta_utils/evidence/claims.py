"""Verdicts on the paper's claims (a) to (f), by the rules of `rules`: tables in, tables out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from negmeta_utils.evidence.findings import Finding, findings
from negmeta_utils.evidence.rules import CLAIMS, PARTS, UNDECIDED

COLUMNS = ("networks", "methods")


def claims(
    features: pd.DataFrame | None,
    rates: pd.DataFrame | None,
    looks: Sequence[int] = (),
    left_out: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Verdicts on the paper's claims (a) to (f), by `rules.RULES`; one row a claim.

    features, rates: the tables of notebooks 3 and 2; None or empty, or without one of the two
    methods, where not measured. Methods other than MAML and Meta-SGD are left aside. looks: the
    numbers of seeds trained, collapsed ones included, at which a look was planned, if there is to
    be more than one. left_out: the trainings that `collapsed.collapsed` named, whether or not they
    are still in the tables; None to look for them here.

    Columns: claim, statement, paper (its number), measured (the number that decides, with its 95 %
    interval: over seeds if there are enough, otherwise over episodes), networks and methods (the
    verdicts), note (what does not survive Holm's correction, which part has no effect, what was
    left out). Raises ValueError for missing columns, values or episodes.
    """
    found = findings(features, rates, looks, left_out)
    lost = {column: lost_by_holm(found, column) for column in COLUMNS}
    rows = []
    for claim, finding in found.items():
        holm = [f"{column}: not by Holm" for column in COLUMNS if claim in lost[column]]
        verdicts = finding.networks.verdict, finding.methods.verdict
        notes = "; ".join([*finding.notes, *holm])
        rows.append((claim, *CLAIMS[claim], finding.measured, *verdicts, notes))
    columns = ["claim", "statement", "paper", "measured", *COLUMNS, "note"]
    return pd.DataFrame(rows, columns=columns)


def p_values(
    features: pd.DataFrame | None,
    rates: pd.DataFrame | None,
    looks: Sequence[int] = (),
    left_out: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """How sure the verdicts of `claims` are, one by one and together; a row a claim.

    Columns: claim; for each column of verdicts the verdict, its p-value and Holm's correction of
    it over the claims: networks, p networks, Holm networks, methods, p methods, Holm methods. NaN
    where there is nothing to test.
    """
    found = findings(features, rates, looks, left_out)
    table: dict[str, Any] = {"claim": list(found)}
    for column in COLUMNS:
        judged = [getattr(finding, column) for finding in found.values()]
        table[column] = [j.verdict for j in judged]
        table[f"p {column}"] = [j.p for j in judged]
        table[f"Holm {column}"] = _corrected(found, column)
    return pd.DataFrame(table)


def standing(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Which claims of a table of `claims` have a definite verdict, and which of those survive
    Holm's correction; a row a column of verdicts, the claims by their letters."""
    rows = {}
    for column in COLUMNS:
        definite = verdicts[verdicts[column] != UNDECIDED]
        lost = definite["note"].str.contains(f"{column}: not by Holm", regex=False)
        rows[column] = " ".join(definite["claim"]), " ".join(definite["claim"][~lost])
    names = ["definite one by one", "by Holm, all together"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names)


def lost_by_holm(found: dict[str, Finding], column: str) -> list[str]:
    """The claims whose definite verdict does not survive Holm's correction at its own level."""
    corrected = _corrected(found, column)
    judged = {claim: getattr(finding, column) for claim, finding in found.items()}
    return [
        claim
        for (claim, j), p in zip(judged.items(), corrected, strict=True)
        if j.verdict != UNDECIDED and p > j.level
    ]


def _corrected(found: dict[str, Finding], column: str) -> np.ndarray:
    """Holm's correction over all p-values; of each claim that on which its verdict rests
    (`rules.Judgement.own`), NaN where nothing is tested."""
    judged = [getattr(finding, column) for finding in found.values()]
    raw = np.array([j[1:4] for j in judged])
    family = np.ones_like(raw, dtype=bool)
    for row, claim in enumerate(found):
        family[row, 2] = any(part.margin is not None for part in PARTS.get(claim, []))
        family[row] &= not (claim == "a" and column == "networks")  # rules.RULES on (a)
    corrected = np.full_like(raw, np.nan)
    corrected[family] = _holm(raw[family])
    return np.array([j.own(p) for j, p in zip(judged, corrected, strict=True)])


def _holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction; NaN counts as 1 and stays NaN."""
    flat = np.nan_to_num(p, nan=1.0)
    order = np.argsort(flat)
    steps = np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1))
    corrected = np.empty_like(flat)
    corrected[order] = np.minimum(1, steps)
    return np.where(np.isnan(p), np.nan, corrected)


def claims_markdown(table: pd.DataFrame) -> str:
    """The table of `claims` as Markdown, for terminals and pages."""
    return table.to_markdown(index=False) + "\n"
