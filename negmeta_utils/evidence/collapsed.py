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
    return far_below(means.rename("accuracy").reset_index(), "method").reset_index(drop=True)


def far_below(trainings: pd.DataFrame, siblings: str) -> pd.DataFrame:
    """The rule itself: those rows of `trainings`, one a training with its accuracy in percent, that
    are far below others of the same value in column `siblings`; with the column median."""
    of_siblings = trainings.groupby(siblings, observed=True)["accuracy"]
    table = trainings.assign(median=of_siblings.transform("median"))
    below = table["median"] - table["accuracy"]
    deviation = NORMAL * below.abs().groupby(table[siblings], observed=True).transform("median")
    far = (below > POINTS) & (below > ROBUST_DEVIATIONS * deviation)
    return table[far & (of_siblings.transform("size") >= MIN_SIBLINGS)]


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
