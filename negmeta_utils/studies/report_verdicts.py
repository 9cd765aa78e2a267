"""The verdicts of a report: one row a claim, as the page and a terminal show them."""

from pathlib import Path

import pandas as pd

from negmeta_utils.evidence.words import p_said
from negmeta_utils.plots.tables import in_print


def verdicts(folders: list[Path]) -> list[dict]:
    """The rows of every claims.csv, as text, each with `notes`: which of its two verdicts do not
    survive Holm's correction, with p from the p_values.csv beside it, and what else the rules note;
    and with `job`, the folder's name where there are several, else nothing.
    """
    rows, judged = [], [folder for folder in folders if (folder / "claims.csv").is_file()]
    for folder in judged:
        read = pd.read_csv(folder / "claims.csv", dtype=str).fillna("–")
        corrected = _holm(folder / "p_values.csv")
        for row in read.to_dict("records"):
            notes = _notes(row, corrected.get(row["claim"], {}))
            shown = {name: in_print(row[name]) for name in ("paper", "measured")}
            job = folder.name if len(judged) > 1 else ""
            rows.append({**row, **shown, "notes": notes, "job": job})
    return rows


def _holm(path: Path) -> dict[str, dict]:
    """Holm's p-values by claim, none where there is no such table."""
    if not path.is_file():
        return {}
    return pd.read_csv(path).set_index("claim").to_dict("index")


def _notes(row: dict, corrected: dict) -> list[str]:
    notes = [note for note in row.get("note", "–").split("; ") if note != "–"]
    for what, column in (("these networks", "networks"), ("the methods", "methods")):
        if (lost := f"{column}: not by Holm") in notes:
            p = corrected.get(f"Holm {column}")
            said = f" ({p_said(p)})" if p is not None else ""
            place = notes.index(lost)
            notes[place] = f"{what}: not significant after Holm's correction for all claims{said}"
    return [in_print(note) for note in notes]


def claims_in_lines(rows: list[dict]) -> list[str]:
    """A line a claim, for a terminal."""
    return [
        f"({row['claim']}) {row['statement']}: {row['networks']} for these networks, "
        f"{row['methods']} for the methods"
        for row in rows
    ]
