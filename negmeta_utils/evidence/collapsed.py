"""Trainings that collapsed: found by a rule written beforehand, before anything is averaged."""

import pandas as pd

from negmeta_utils.evidence.quantities import META_SGD, check_features

KEYS = ["method", "seed"]  # of a training
NO_TRAININGS = pd.DataFrame({"method": [], "seed": []})
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
    means = 100 * features.groupby(KEYS, observed=True)["ordinary"].mean()
    table = means.rename("accuracy").reset_index()
    of_method = table.groupby("method", observed=True)["accuracy"]
    table["median"] = of_method.transform("median")
    below = table["median"] - table["accuracy"]
    deviation = NORMAL * below.abs().groupby(table["method"], observed=True).transform("median")
    far = (below > POINTS) & (below > ROBUST_DEVIATIONS * deviation)
    return table[far & (of_method.transform("size") >= MIN_SIBLINGS)].reset_index(drop=True)


def without(table: pd.DataFrame, flagged: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns method and seed, without the trainings of `flagged`."""
    trainings = pd.MultiIndex.from_frame(table[KEYS])
    return table[~trainings.isin(pd.MultiIndex.from_frame(flagged[KEYS]))]


def rates_without(rates: pd.DataFrame, flagged: pd.DataFrame) -> pd.DataFrame:
    """A table of learned rates, which are Meta-SGD's, without the trainings of `flagged`."""
    return rates[~rates["seed"].isin(flagged.loc[flagged["method"] == META_SGD, "seed"])]


def seeds_trained(features: pd.DataFrame, flagged: pd.DataFrame) -> dict[str, int]:
    """How many trainings of known seed each method had, whether or not `features` still holds
    those of `flagged`."""
    both = pd.concat([features[KEYS].drop_duplicates(), flagged[KEYS]]).drop_duplicates()
    return both[both["seed"] >= 0].groupby("method", observed=True).size().to_dict()
