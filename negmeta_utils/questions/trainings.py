"""Trainings that collapsed, found before notebooks 2 and 5 to 8 evaluate and average any."""

from dataclasses import replace

import pandas as pd

from negmeta_utils.evidence.collapsed import far_below
from negmeta_utils.evidence.words import in_markdown
from negmeta_utils.runs import END, PLACE, Run

NOT_SHARED = (*PLACE, "seed")  # by runs that are compared with each other


def without_collapsed(trained: list[Run]) -> tuple[list[Run], list[str]]:
    """The runs that did not collapse, and of each of the others a sentence in Markdown.

    The rule is that of `rules.RULES`, for the accuracy at the end of a training on its own test
    tasks; siblings differ in the seed alone. A training that has not ended, or has no such test
    with it, stays.
    """
    ended = {
        run.directory: run
        for run in trained
        if run.manifest["status"] == "complete" and (run.directory / "accuracy.parquet").is_file()
    }
    tested = {place: replace(run, network=END).final_accuracy() for place, run in ended.items()}
    known = {place: 100 * found.mean() for place, found in tested.items() if len(found)}
    kinds = {place: str(_shared(ended[place])) for place in known}
    found = far_below(pd.DataFrame({"accuracy": known, "kind": kinds}), "kind")
    left = [run for run in trained if run.directory not in found.index]
    return left, [_said(place.name, row) for place, row in found.iterrows()]


def _shared(run: Run) -> list[tuple[str, object]]:
    return sorted((n, value) for n, value in run.parameters.items() if n not in NOT_SHARED)


def _said(name: str, row: pd.Series) -> str:
    return (
        f"{in_markdown(name)} is left out as collapsed: {row['accuracy']:.1f} % on its test "
        f"tasks, where the median of trainings like it is {row['median']:.1f} %"
    )
