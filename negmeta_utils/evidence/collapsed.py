"""Trainings that collapsed: found by a rule written beforehand, before anything is averaged."""

import pandas as pd

from negmeta_utils.evidence.quantities import check_features

MIN_SIBLINGS = 3
POINTS = 10.0
ROBUST_DEVIATIONS = 5.0
NORMAL = 1.4826  # standard deviations in a median distance from the median, for Gaussian values


def collapsed(features: pd.DataFrame) -> pd.DataFrame:
    """The trainings far below their siblings, by the rule in `rules.RULES`; a row a training.

    features: the table of notebook 3. Columns: method, seed, accuracy (of the adapted models, mean
    over episodes, percent), median (of the method's trainings). Raises ValueError as `grids`.
    """
    check_features(features)
    means = 100 * features.groupby(["method", "seed"], observed=True)["ordinary"].mean()
    table = means.rename("accuracy").reset_index()
    of_method = table.groupby("method", observed=True)["accuracy"]
    table["median"] = of_method.transform("median")
    below = table["median"] - table["accuracy"]
    deviation = NORMAL * below.abs().groupby(table["method"], observed=True).transform("median")
    far = (below > POINTS) & (below > ROBUST_DEVIATIONS * deviation)
    return table[far & (of_method.transform("size") >= MIN_SIBLINGS)].reset_index(drop=True)


def without(table: pd.DataFrame, flagged: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns method and seed, without the trainings of `flagged`."""
    trainings = pd.MultiIndex.from_frame(table[["method", "seed"]])
    return table[~trainings.isin(pd.MultiIndex.from_frame(flagged[["method", "seed"]]))]
