"""The paper's own t-test (section 5.3), in every way that its sentence can be read."""

import pandas as pd
from scipy import stats

from negmeta_utils.evidence.quantities import MAML, META_SGD, check_features


def _welch(x: pd.Series, y: pd.Series):
    return stats.ttest_ind(x, y, equal_var=False)


# reading: (column, column subtracted from it, test of Meta-SGD's values against MAML's)
READINGS = {
    "paper: two-sample, off-task - on-task": ("other_after", "same_after", stats.ttest_ind),
    "Welch, off-task - on-task": ("other_after", "same_after", _welch),
    "two-sample, off-task change": ("other_after", "other_before", stats.ttest_ind),
    "two-sample, off-task change, paper": ("other_after", "same_before", stats.ttest_ind),
    "paired, off-task - on-task": ("other_after", "same_after", stats.ttest_rel),
    "paired, off-task change": ("other_after", "other_before", stats.ttest_rel),
}


def paper_t_test(features: pd.DataFrame) -> pd.Series:
    """The paper's own test (section 5.3), as we read it: the first row of `t_test_readings`."""
    return pd.Series(_t_test(features, next(iter(READINGS))))


def t_test_readings(features: pd.DataFrame) -> pd.DataFrame:
    """Readings of "a t-test comparing the relative changes between on-task and off-task".

    The first is ours by default: Student's two-sample test over iterations of off-task minus
    on-task accuracy, Meta-SGD against MAML, each in percent of the method's mean pre-adaptation
    accuracy. One row a reading: reading, statistic, p_value, n (values that enter: of both
    methods together, or pairs by seed and episode) and difference (Meta-SGD minus MAML, percent).
    Iterations of all seeds are pooled, as if independent: the paper had one seed. Raises
    ValueError unless both methods are there and, for the paired ones, share seeds and episodes.
    """
    return pd.DataFrame([_t_test(features, reading) for reading in READINGS])


def _t_test(features: pd.DataFrame, reading: str) -> dict:
    column, subtracted, test = READINGS[reading]
    check_features(features)
    x, y = (_relative(features, method, column, subtracted) for method in (META_SGD, MAML))
    n = len(x) + len(y)
    if test is stats.ttest_rel:
        x, y = x.align(y, join="inner")
        n = len(x)
        if n == 0:
            raise ValueError("features: the methods share no seed and episode; nothing to pair")
    statistic, p_value = test(x, y)
    return {
        "reading": reading,
        "statistic": float(statistic),
        "p_value": float(p_value),
        "n": n,
        "difference": float(x.mean() - y.mean()),
    }


def _relative(features: pd.DataFrame, method: str, column: str, subtracted: str) -> pd.Series:
    rows = features[features.method == method]
    if rows.empty:
        raise ValueError(f"features: no rows of {method}; the t-test compares both methods")
    rows = rows.set_index(["seed", "episode"])
    return 100 * (rows[column] - rows[subtracted]) / rows.same_before.mean()
