"""Trainings that collapsed, found before notebooks 5 to 8 evaluate and average any."""

import pandas as pd

from negmeta_utils.evidence.collapsed import far_below
from negmeta_utils.evidence.words import in_markdown
from negmeta_utils.runs import PLACE, Run

NOT_SHARED = (*PLACE, "seed")  # by runs that are compared with each other


def without_collapsed(trained: list[Run]) -> tuple[list[Run], list[str]]:
    """The runs that did not collapse, and of each of the others a sentence in Markdown.

    The rule is that of `rules.RULES`, for the accuracy on the run's own test tasks; siblings are
    runs that differ in the seed alone. A run without such a test (`Run.final_accuracy`) stays.
    """
    tested = {i: run.final_accuracy() for i, run in enumerate(trained)}
    known = {i: 100 * accuracy.mean() for i, accuracy in tested.items() if len(accuracy)}
    kinds = {i: str(_shared(trained[i])) for i in known}
    trainings = pd.DataFrame({"accuracy": known, "kind": kinds})
    found = far_below(trainings, "kind")
    left = [run for i, run in enumerate(trained) if i not in found.index]
    return left, [_said(trained[i], row) for i, row in found.iterrows()]


def _shared(run: Run) -> list[tuple[str, object]]:
    return sorted((n, value) for n, value in run.parameters.items() if n not in NOT_SHARED)


def _said(run: Run, row: pd.Series) -> str:
    return (
        f"{in_markdown(run.name)} is left out as collapsed: {row['accuracy']:.1f} % on its test "
        f"tasks, where the median of trainings like it is {row['median']:.1f} %"
    )
