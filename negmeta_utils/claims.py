"""The rules by which each claim of the paper is judged, written before any data are looked at.

| claim | statement | quantity | claim holds where it is |
| --- | --- | --- | --- |
| a | every convolution's mean learned rate is negative and the linear layer's is positive | mean \
rate of each of the five layers at the last update, weights and biases | below 0 for conv1 to \
conv4, above 0 for logits |
| b | features before adaptation classify about as well as the adapted model | prototype accuracy \
before adaptation minus ordinary accuracy | above -2 points for both methods |
| c | Meta-SGD's features before adaptation are better than MAML's | prototype accuracy before \
adaptation, Meta-SGD minus MAML, paired | above 0 |
| d | both methods are worse on-task | accuracy on a task after adapting to it, minus before | \
below 0 for both methods |
| e | off-task MAML gets worse and Meta-SGD better | accuracy on a second task after adapting to \
the first, minus before | below 0 for MAML and above 0 for Meta-SGD |
| f | the difference in (e) is significant | the quantity of (e), Meta-SGD minus MAML, paired | \
above 0 |

*Reproduced*: the 95 % interval of every part lies wholly on the claim's side. *Contradicted*: the
interval of at least one of the k parts lies wholly on the other side, at confidence 1 - 5 %/k.
Otherwise *undecided*. So a definite verdict that is wrong has at most 5 % probability for each
claim: all parts must pass (an intersection-union test, which needs no correction) or any may fail
(a union, corrected by Bonferroni).

Column *networks*: what can be said of these very networks, from t intervals over at least 30
episodes. The networks' rates are known exactly: (a) is reproduced if every network has all five
signs, contradicted if none has, otherwise undecided.

Column *methods*: what can be said of the algorithms, from intervals over seeds; always undecided
with fewer than 3 seeds. For (a) a t interval over seeds; for the others also the spread over
episodes enters (`interval_over_seeds`).
"""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from negmeta_utils.statistics import (
    DIFFERENCE,
    MAML,
    META_SGD,
    Interval,
    grids,
    interval_over_episodes,
    interval_over_seeds,
    mean_interval,
    paper_t_test,
)

RULES = __doc__

REPRODUCED, CONTRADICTED, UNDECIDED = "reproduced", "contradicted", "undecided"
NOT_MEASURED = "not measured"
ERROR_RATE = 0.05
MIN_SEEDS, MIN_EPISODES = 3, 30

RATES = ["seed", "update", "layer", "group", "mean"]
RATE_SIGNS = {"conv1": -1, "conv2": -1, "conv3": -1, "conv4": -1, "logits": 1}

# claim: statement and the paper's number
CLAIMS = {
    "a": (
        "every convolution's mean learned rate is negative and the linear layer's is positive",
        "conv1 -0.006, conv2 -0.004, conv3 -0.013, conv4 -0.018, logits +0.043",
    ),
    "b": (
        "features before adaptation classify about as well as the adapted model",
        "nearly as good (Meta-SGD, 47 %), slightly better (MAML, 46 %)",
    ),
    "c": ("Meta-SGD's features before adaptation are better than MAML's", "better (figure 7)"),
    "d": ("both methods are worse on-task", "both worse (figure 7)"),
    "e": (
        "off-task MAML gets worse and Meta-SGD better",
        "maml -0.3 %, meta-sgd +0.2 % of pre-adaptation",
    ),
    "f": ("the difference in (e) is significant", "p = 0.00044"),
}


class Part(NamedTuple):
    """One inequality of a claim: the quantity lies above (side 1) or below (-1) the bound."""

    method: str
    quantity: str
    side: int
    bound: float = 0.0  # percentage points


PARTS = {
    "b": [Part(MAML, "without head", 1, -2.0), Part(META_SGD, "without head", 1, -2.0)],
    "c": [Part(DIFFERENCE, "pre-adaptation", 1)],
    "d": [Part(MAML, "on-task change", -1), Part(META_SGD, "on-task change", -1)],
    "e": [Part(MAML, "off-task change", -1), Part(META_SGD, "off-task change", 1)],
    "f": [Part(DIFFERENCE, "off-task change", 1)],
}


def claims(features: pd.DataFrame | None, rates: pd.DataFrame | None) -> pd.DataFrame:
    """Verdicts on the paper's claims (a) to (f), by `RULES`; one row a claim.

    features, rates: the tables of notebooks 3 and 2; None or empty, or without one of the two
    methods, where not measured. Methods other than MAML and Meta-SGD are left aside. Columns:
    claim, statement, paper (its number), measured (the number that decides, with its 95 %
    interval: over seeds if there are at least 3, otherwise over episodes), networks and methods
    (the verdicts). Raises ValueError for missing columns, values or episodes.
    """
    tables = {} if features is None or features.empty else grids(features)
    findings = {"a": _judge_rates(rates)}
    for claim, parts in PARTS.items():
        findings[claim] = _judge_parts(parts, tables)
    measured, *verdicts = findings["f"]
    if measured != NOT_MEASURED:
        p_value = paper_t_test(features).p_value
        findings["f"] = (f"{measured}; the paper's test p = {p_value:.2g}", *verdicts)
    rows = [(claim, *CLAIMS[claim], *findings[claim]) for claim in CLAIMS]
    columns = ["claim", "statement", "paper", "measured", "networks", "methods"]
    return pd.DataFrame(rows, columns=columns)


def verdict(intervals: list[Callable[[float], Interval]], sides: list[tuple[int, float]]) -> str:
    """The rule for a conjunction of inequalities, from the intervals of its parts.

    intervals: for each part a function from confidence to its interval; sides: for each part
    (1, bound) where the claim says "above" and (-1, bound) where it says "below". Bounds of NaN,
    as of a single value, never decide.
    """
    parts = list(zip(intervals, sides, strict=True))
    if all(_beyond(interval(1 - ERROR_RATE), *side) for interval, side in parts):
        return REPRODUCED
    corrected = 1 - ERROR_RATE / len(parts)
    if any(_beyond(interval(corrected), -side, bound) for interval, (side, bound) in parts):
        return CONTRADICTED
    return UNDECIDED


def _beyond(interval: Interval, side: int, bound: float) -> bool:
    return interval.low > bound if side > 0 else interval.high < bound


def _judge_parts(
    parts: list[Part], tables: dict[tuple[str, str], pd.DataFrame]
) -> tuple[str, str, str]:
    """Measured text, verdict over episodes and verdict over seeds of one claim on features."""
    if any((part.method, part.quantity) not in tables for part in parts):
        return NOT_MEASURED, UNDECIDED, UNDECIDED
    of = [tables[part.method, part.quantity] for part in parts]
    sides = [(part.side, part.bound) for part in parts]
    n_seeds, n_episodes = min(grid.shape[0] for grid in of), of[0].shape[1]
    over_episodes = [lambda level, g=grid: interval_over_episodes(g, level) for grid in of]
    over_seeds = [lambda level, g=grid: interval_over_seeds(g, level) for grid in of]
    enough = n_episodes >= MIN_EPISODES
    networks = verdict(over_episodes, sides) if enough else UNDECIDED
    methods = verdict(over_seeds, sides) if enough and n_seeds >= MIN_SEEDS else UNDECIDED
    if n_seeds >= MIN_SEEDS:
        shown, count = over_seeds, f"{n_seeds} seeds"
    else:
        shown, count = over_episodes, f"{n_episodes} episodes"
    texts = [
        f"{part.method} {_points(interval(1 - ERROR_RATE))}"
        for part, interval in zip(parts, shown, strict=True)
    ]
    return f"{', '.join(texts)} points over {count}", networks, methods


def _points(interval: Interval) -> str:
    return f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def _judge_rates(rates: pd.DataFrame | None) -> tuple[str, str, str]:
    """Measured text, verdict on these networks and verdict over seeds of claim (a)."""
    if rates is None or rates.empty:
        return NOT_MEASURED, UNDECIDED, UNDECIDED
    means = last_mean_rates(rates)
    shown = (means * pd.Series(RATE_SIGNS) > 0).all(axis=1)
    networks = REPRODUCED if shown.all() else UNDECIDED if shown.any() else CONTRADICTED
    methods = UNDECIDED
    if len(means) >= MIN_SEEDS:
        over_seeds = [lambda level, m=means[name]: mean_interval(m, level) for name in means]
        methods = verdict(over_seeds, [(sign, 0.0) for sign in RATE_SIGNS.values()])
    texts = ", ".join(f"{layer} {mean:+.4f}" for layer, mean in means.mean().items())
    return f"{texts}; all signs in {shown.sum()} of {len(means)} networks", networks, methods


def last_mean_rates(rates: pd.DataFrame) -> pd.DataFrame:
    """Mean rate of weights and biases at each network's last update: [seeds, 5 layers].

    Raises ValueError for missing columns, repeated rows, or a network without one of the layers.
    """
    missing = [column for column in RATES if column not in rates]
    if missing:
        raise ValueError(f"rates: missing column(s) {', '.join(missing)}; see notebook 2")
    last = rates[rates["update"] == rates.groupby("seed")["update"].transform("max")]
    last = last[(last.group == "weights+bias") & last.layer.isin(list(RATE_SIGNS))]
    if last.duplicated(["seed", "layer"]).any():
        raise ValueError("rates: repeated rows of seed, update, layer; pass each run once")
    means = last.pivot(index="seed", columns="layer", values="mean").reindex(columns=[*RATE_SIGNS])
    if means.empty or means.isna().to_numpy().any():
        raise ValueError("rates: a network lacks weights+bias rows for conv1 to conv4 and logits")
    return means


def claims_markdown(table: pd.DataFrame) -> str:
    """The table of `claims` as Markdown, for terminals and pages."""
    return table.to_markdown(index=False) + "\n"
