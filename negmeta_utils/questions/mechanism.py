"""Notebook 5's contrasts and its answer: what interventions on the rates do to features, by the
tables of `mechanism_tables`."""

import pandas as pd

from negmeta_utils.evidence.contrasts import (
    accuracy_grids,
    against_base,
    change_grids,
    contrasts,
    equivalence,
    equivalence_sentence,
    sentence,
)
from negmeta_utils.evidence.quantities import CHANGES, OFF_TASK, ON_TASK
from negmeta_utils.questions.interventions import AS_LEARNED, AS_LONG, ONE_CLASS, WITHOUT_NEGATIVE

WHOLE = "whole adapted model (%)"
FLIPPED = "signs flipped"
REMOVED = (
    WITHOUT_NEGATIVE, WITHOUT_NEGATIVE + AS_LONG, "absolute value", "signs shuffled",
    FLIPPED, ONE_CLASS,
)  # fmt: skip


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


def answers(
    primary: pd.DataFrame,
    changed: dict[str, pd.DataFrame],
    controls: dict[str, pd.DataFrame],
    by_part: dict[str, pd.DataFrame],
) -> list[str]:
    """Sentences: the primary contrast, each intervention off-task, positive rates, MAML by parts.

    primary: of `primary_contrasts`; the others of `compared`, of the interventions (each where it
    was measured), of positive rates and of MAML's parts (empty where there are none).
    """
    off_task = changed[OFF_TASK]
    of_rates = against_base(off_task).set_index("condition", drop=False)
    of_maml = by_part[ON_TASK].iterrows() if by_part else ()
    what = "primary contrast, off-task without the negative rates"
    shorter = primary[primary["rates"] == WITHOUT_NEGATIVE]
    return [
        *(equivalence_sentence(row, what) for _, row in shorter.iterrows()),
        sentence(off_task.iloc[0], "off-task change, rates as learned"),
        *(
            sentence(of_rates.loc[name], f"off-task change, {name}, minus as learned")
            for name in REMOVED
            if name in of_rates.index
        ),
        *(
            sentence(row, f"{quantity}, {row.condition} against meta-sgd")
            for quantity, table in controls.items()
            for _, row in against_base(table).iterrows()
        ),
        *(sentence(row, f"MAML on-task change, {row.condition}") for _, row in of_maml),
    ]
