"""Notebook 5's tables and its answer: what interventions on the rates do to features."""

from typing import Any

import pandas as pd

from negmeta_utils.episodes import ImageSet
from negmeta_utils.evidence.contrasts import (
    accuracy_grids,
    against_base,
    change_grids,
    contrasts,
    equivalence,
    equivalence_sentence,
    sentence,
)
from negmeta_utils.evidence.quantities import CHANGES, MAML, META_SGD, OFF_TASK, ON_TASK
from negmeta_utils.questions.interventions import AS_LEARNED, AS_LONG, ONE_CLASS, WITHOUT_NEGATIVE
from negmeta_utils.questions.trainings import without_collapsed
from negmeta_utils.resumable import features_of_run
from negmeta_utils.runs import Run, check_one_network_each, load_runs

POSITIVE = "meta-sgd-positive"
WHOLE = "whole adapted model (%)"
FLIPPED = "signs flipped"
REMOVED = (
    WITHOUT_NEGATIVE, WITHOUT_NEGATIVE + AS_LONG, "absolute value", "signs shuffled",
    FLIPPED, ONE_CLASS,
)  # fmt: skip


def load_sides(
    runs: list[str], positive_runs: list[str], maml_runs: list[str]
) -> tuple[list[list[Run]], list[str]]:
    """The runs of the notebook's parameters of these names, and what `without_collapsed` says of
    those that it leaves out. Raises ValueError for what is no list, for an empty one but of
    positive rates, for runs of another method, and as `runs.load_runs`."""
    learned = _runs_of(META_SGD, "runs", runs)
    positive = _runs_of(POSITIVE, "positive_runs", positive_runs) if positive_runs != [] else []
    maml = _runs_of(MAML, "maml_runs", maml_runs)
    check_one_network_each(learned + positive + maml)
    sides = [without_collapsed(side) for side in (learned, positive, maml)]
    return [side for side, _ in sides], [said for _, each in sides for said in each]


def _runs_of(method: str, parameter: str, names: list[str]) -> list[Run]:
    found = load_runs(names, True, parameter)
    for run in found:
        if run.parameters["method"] != method:
            raise ValueError(
                f"{parameter}: {run.name} is a run of {run.parameters['method']}, not of {method}"
            )
    return found


def compared(table: pd.DataFrame, by: str, base: str) -> dict[str, pd.DataFrame]:
    """`contrasts` with `base` of each value of column `by`: of the on-task and off-task change, and
    of the whole adapted model's accuracy, by quantity."""
    changes = {q: contrasts(change_grids(table, by, q), base) for q in CHANGES}
    return changes | {WHOLE: contrasts(accuracy_grids(table, by, "ordinary"), base)}


def changes_alone(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """What `compared` gives of features: without the whole adapted model."""
    return {quantity: tables[quantity] for quantity in CHANGES}


def minus_learned(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """What `compared` gives of features, minus the rates as learned, by panel title; without
    flipped signs, beside which nothing else could be read."""
    return {
        f"{quantity}, minus as learned": against_base(table).query(f"condition != '{FLIPPED}'")
        for quantity, table in changes_alone(tables).items()
    }


def primary_contrasts(variants: pd.DataFrame) -> pd.DataFrame:
    """`equivalence` of the off-task change without the negative rates to that as learned: steps
    shorter, and as long; which of them in the column `rates`. variants: of
    `evaluate_interventions`."""
    grids = change_grids(variants, "variant", OFF_TASK)
    names = (WITHOUT_NEGATIVE, WITHOUT_NEGATIVE + AS_LONG)
    found = {name: equivalence(grids, name, AS_LEARNED) for name in names}
    return pd.concat(found, names=["rates"]).reset_index("rates")


def with_positive(
    variants: pd.DataFrame,
    positive: list[Run],
    images: ImageSet,
    **pairs: Any,
) -> pd.DataFrame:
    """The features table of the runs of `variants`, their rates as learned, and below it that of
    runs of meta-sgd-positive. pairs: the same as for `variants`, by the names of
    `resumable.features_of_run`."""
    learned = variants[variants["variant"] == AS_LEARNED].drop(columns="variant")
    others = [features_of_run(run, images, **pairs) for run in positive]
    return pd.concat([learned, *others], ignore_index=True)


def answers(
    primary: pd.DataFrame,
    changed: dict[str, pd.DataFrame],
    controls: dict[str, pd.DataFrame],
    by_part: dict[str, pd.DataFrame],
) -> list[str]:
    """Sentences: the primary contrast, each intervention off-task, positive rates, MAML by parts.

    primary: of `primary_contrasts`; the others of `compared`, of the interventions, of positive
    rates (empty where there are none) and of MAML's parts.
    """
    off_task = changed[OFF_TASK]
    of_rates = against_base(off_task).set_index("condition", drop=False)
    what = "primary contrast, off-task without the negative rates"
    shorter = primary[primary["rates"] == WITHOUT_NEGATIVE]
    return [
        *(equivalence_sentence(row, what) for _, row in shorter.iterrows()),
        sentence(off_task.iloc[0], "off-task change, rates as learned"),
        *(sentence(of_rates.loc[n], f"off-task change, {n}, minus as learned") for n in REMOVED),
        *(
            sentence(row, f"{quantity}, {row.condition} against meta-sgd")
            for quantity, table in controls.items()
            for _, row in against_base(table).iterrows()
        ),
        *(
            sentence(row, f"MAML on-task change, {row.condition}")
            for _, row in by_part[ON_TASK].iterrows()
        ),
    ]
