"""The paper's own t-test (section 5.3), in every way that its sentence can be read."""

import numpy as np
import pandas as pd
from scipy import stats

from negmeta_utils.evidence.quantities import MAML, META_SGD, check_features


def _welch(x: pd.Series, y: pd.Series):
    return stats.ttest_ind(x, y, equal_var=False)


OFF_TASK_ALONE = "two-sample, off-task alone"
# reading: (column, column subtracted from it, test of Meta-SGD's values against MAML's)
READINGS: dict[str, tuple] = {
    "paper: two-sample, off-task - on-task": ("other_after", "same_after", stats.ttest_ind),
    "Welch, off-task - on-task": ("other_after", "same_after", _welch),
    "two-sample, off-task change": ("other_after", "other_before", stats.ttest_ind),
    "two-sample, off-task change, paper": ("other_after", "same_before", stats.ttest_ind),
    "paired, off-task - on-task": ("other_after", "same_after", stats.ttest_rel),
    "paired, off-task change": ("other_after", "other_before", stats.ttest_rel),
    OFF_TASK_ALONE: ("other_after", None, stats.ttest_ind),
    "paired, off-task alone": ("other_after", None, stats.ttest_rel),
}


def paper_t_test(features: pd.DataFrame) -> pd.Series:
    """The paper's own test (section 5.3), as we read it: the first row of `t_test_readings`."""
    return pd.Series(t_test(features, next(iter(READINGS))))


def t_test_readings(features: pd.DataFrame) -> pd.DataFrame:
    """Readings of "a t-test comparing the relative changes between on-task and off-task".

    The first is ours by default: Student's two-sample test over iterations of off-task minus
    on-task accuracy, Meta-SGD against MAML, each in percent of the method's mean pre-adaptation
    accuracy. One row a reading: reading, statistic, p_value, n (values that enter: of both
    methods together, or pairs by seed and episode) and difference (Meta-SGD minus MAML, percent).
    "Off-task alone" is off-task accuracy in the same unit, with nothing subtracted: p = 0.00044
    with 40,000 iterations and a difference of 0.5 % asks for a standard deviation of 7.5 to 11.2
    points, and of all readings only this one has such values (9.5 to 9.8 points; paired changes 3,
    changes between different tasks 13.5). Iterations of all seeds are pooled, as if independent:
    the paper had one seed. Raises ValueError unless both methods are there; a paired test of
    methods that share no seed and episode has n = 0 and is NaN.
    """
    return pd.DataFrame([t_test(features, reading) for reading in READINGS])


def t_test(features: pd.DataFrame, reading: str) -> dict:
    """One row of `t_test_readings`."""
    column, subtracted, test = READINGS[reading]
    check_features(features)
    x, y = (_relative(features, method, column, subtracted) for method in (META_SGD, MAML))
    n = len(x) + len(y)
    if test is stats.ttest_rel:
        x, y = x.align(y, join="inner")
        n = len(x)
    statistic, p_value = test(x, y) if n else (np.nan, np.nan)
    return {
        "reading": reading,
        "statistic": float(statistic),
        "p_value": float(p_value),
        "n": n,
        "difference": float(x.mean() - y.mean()),
    }


def _relative(
    features: pd.DataFrame, method: str, column: str, subtracted: str | None
) -> pd.Series:
    rows = features[features.method == method]
    if rows.empty:
        raise ValueError(f"features: no rows of {method}; the t-test compares both methods")
    rows = rows.set_index(["seed", "episode"])
    values = rows[column] - rows[subtracted] if subtracted else rows[column]
    return 100 * values / rows.same_before.mean()
