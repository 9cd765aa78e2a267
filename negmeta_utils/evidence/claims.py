"""The rules by which each claim of the paper is judged, written before any data are looked at.

| claim | statement | quantity | claim holds where it is |
| --- | --- | --- | --- |
| a | every convolution's mean learned rate is negative and the linear layer's is positive | mean \
rate of each layer at the last update, weights and biases | below 0 for all but the last (conv1 to \
conv4 of the paper's network), above 0 for the last (logits) |
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
with fewer than 3 seeds. Imported networks of unknown seed (a negative one stands for it) are left
out. For (a) a t interval over seeds; for the others also the spread over
episodes enters (`intervals.over_seeds`).

*p*: the smallest error rate at which the rule still gives a definite verdict, so that p is at most
5 % exactly where the verdict is definite. It is twice the smaller of two one-sided p-values:
against the claim's being false (the largest over its parts) and against its being true (k times the
smallest over its parts, towards the other side).

*Holm*: a verdict is at most 5 % likely to be wrong *for each claim*; among six claims one wrong
verdict is likelier. The verdicts stay what they are, each at 5 %, and Holm's correction says which
of them survive together: where it is at most 5 %, the probability that any such verdict of the
column is wrong is at most 5 %, whatever the dependence between the claims. It is over all one-sided
p-values of the column, two for each claim; what is not measured, or has too few seeds or episodes,
counts as 1. (a) of these networks has no sampling error, therefore no p, and no place in its
column's family.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from negmeta_utils.evidence.intervals import (
    Estimate,
    Interval,
    estimate,
    over_episodes,
    over_seeds,
)
from negmeta_utils.evidence.learned_rates import layers_of
from negmeta_utils.evidence.power import MIN_SEEDS
from negmeta_utils.evidence.quantities import DIFFERENCE, MAML, META_SGD, grids
from negmeta_utils.evidence.t_tests import paper_t_test

RULES = __doc__

REPRODUCED, CONTRADICTED, UNDECIDED = "reproduced", "contradicted", "undecided"
NOT_MEASURED = "not measured"
ERROR_RATE = 0.05
MIN_EPISODES = 30

RATES = ["seed", "update", "layer", "group", "mean"]

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


class Judgement(NamedTuple):
    """A verdict and its one-sided p-values: against the claim's being false, and its being true."""

    verdict: str
    p_false: float
    p_true: float


class Finding(NamedTuple):
    """What was measured of one claim: a text, and a judgement for each column of verdicts."""

    measured: str
    networks: Judgement
    methods: Judgement


NO_JUDGEMENT = Judgement(UNDECIDED, np.nan, np.nan)


def claims(features: pd.DataFrame | None, rates: pd.DataFrame | None) -> pd.DataFrame:
    """Verdicts on the paper's claims (a) to (f), by `RULES`; one row a claim.

    features, rates: the tables of notebooks 3 and 2; None or empty, or without one of the two
    methods, where not measured. Methods other than MAML and Meta-SGD are left aside. Columns:
    claim, statement, paper (its number), measured (the number that decides, with its 95 %
    interval: over seeds if there are at least 3, otherwise over episodes), networks and methods
    (the verdicts). Raises ValueError for missing columns, values or episodes.
    """
    rows = [
        (claim, *CLAIMS[claim], found.measured, found.networks.verdict, found.methods.verdict)
        for claim, found in _findings(features, rates).items()
    ]
    columns = ["claim", "statement", "paper", "measured", "networks", "methods"]
    return pd.DataFrame(rows, columns=columns)


def p_values(features: pd.DataFrame | None, rates: pd.DataFrame | None) -> pd.DataFrame:
    """How sure the verdicts of `claims` are, one by one and together, by `RULES`; a row a claim.

    Columns: claim; for each column of verdicts the verdict, its p-value and Holm's correction of
    it over the claims: networks, p networks, Holm networks, methods, p methods, Holm methods. NaN
    where there is nothing to test.
    """
    found = _findings(features, rates)
    table = {"claim": list(found)}
    for column in ("networks", "methods"):
        judged = [getattr(finding, column) for finding in found.values()]
        one_sided = np.array([(j.p_false, j.p_true) for j in judged])
        counted = slice(1, None) if column == "networks" else slice(None)  # RULES on (a)
        corrected = np.full_like(one_sided, np.nan)
        corrected[counted] = _holm(one_sided[counted])
        table[column] = [j.verdict for j in judged]
        table[f"p {column}"] = np.minimum(1, 2 * one_sided.min(axis=1))
        table[f"Holm {column}"] = corrected.min(axis=1)
    return pd.DataFrame(table)


def _holm(one_sided: np.ndarray) -> np.ndarray:
    """Holm's step-down correction over all of an array; NaN counts as 1 and stays NaN."""
    flat = np.nan_to_num(one_sided.ravel(), nan=1.0)
    order = np.argsort(flat)
    steps = np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1))
    corrected = np.empty_like(flat)
    corrected[order] = np.minimum(1, steps)
    return np.where(np.isnan(one_sided), np.nan, corrected.reshape(one_sided.shape))


def _findings(features: pd.DataFrame | None, rates: pd.DataFrame | None) -> dict[str, Finding]:
    tables = {} if features is None or features.empty else grids(features)
    found = {"a": _judge_rates(rates)}
    for claim, parts in PARTS.items():
        found[claim] = _judge_parts(parts, tables)
    if found["f"].measured != NOT_MEASURED:
        p_value = paper_t_test(features).p_value
        text = f"{found['f'].measured}; the paper's test p = {p_value:.2g}"
        found["f"] = found["f"]._replace(measured=text)
    return found


def judge(estimates: list[Estimate], sides: list[tuple[int, float]]) -> Judgement:
    """The rule for a conjunction of inequalities, from the estimates of its parts.

    sides: for each part (1, bound) where the claim says "above" and (-1, bound) where it says
    "below". An estimate without error, as of a single value, never decides.
    """
    parts = list(zip(estimates, sides, strict=True))
    on_side = np.array([_p_beyond(of, side, bound) for of, (side, bound) in parts])
    opposite = np.array([_p_beyond(of, -side, bound) for of, (side, bound) in parts])
    if np.isnan(on_side).any():
        return NO_JUDGEMENT
    p_false, p_true = on_side.max(), min(1, len(parts) * opposite.min())
    if 2 * p_false <= ERROR_RATE:
        return Judgement(REPRODUCED, p_false, p_true)
    decided = 2 * p_true <= ERROR_RATE
    return Judgement(CONTRADICTED if decided else UNDECIDED, p_false, p_true)


def _p_beyond(of: Estimate, side: int, bound: float) -> float:
    return of.p_above(bound) if side > 0 else of.p_below(bound)


def _judge_parts(parts: list[Part], tables: dict[tuple[str, str], pd.DataFrame]) -> Finding:
    if any((part.method, part.quantity) not in tables for part in parts):
        return Finding(NOT_MEASURED, NO_JUDGEMENT, NO_JUDGEMENT)
    of = [tables[part.method, part.quantity] for part in parts]
    sides = [(part.side, part.bound) for part in parts]
    seeded = [grid[grid.index >= 0] for grid in of]  # an imported network's seed may be unknown
    n_seeds, n_episodes = min(grid.shape[0] for grid in seeded), of[0].shape[1]
    networks, methods = [over_episodes(g) for g in of], []
    enough = n_episodes >= MIN_EPISODES
    if n_seeds >= MIN_SEEDS:
        methods = [over_seeds(grid) for grid in seeded]
        shown, count = methods, f"{n_seeds} seeds"
    else:
        shown, count = networks, f"{n_episodes} episodes"
    texts = [
        f"{part.method} {_points(one.interval(1 - ERROR_RATE))}"
        for part, one in zip(parts, shown, strict=True)
    ]
    return Finding(
        f"{', '.join(texts)} points over {count}",
        judge(networks, sides) if enough else NO_JUDGEMENT,
        judge(methods, sides) if enough and methods else NO_JUDGEMENT,
    )


def _points(interval: Interval) -> str:
    return f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def _judge_rates(rates: pd.DataFrame | None) -> Finding:
    if rates is None or rates.empty:
        return Finding(NOT_MEASURED, NO_JUDGEMENT, NO_JUDGEMENT)
    means = last_mean_rates(rates)
    signs = [-1] * (means.shape[1] - 1) + [1]  # the last layer is the linear one
    shown = (means * signs > 0).all(axis=1)
    networks = REPRODUCED if shown.all() else UNDECIDED if shown.any() else CONTRADICTED
    methods = NO_JUDGEMENT
    seeded = means[means.index >= 0]
    if len(seeded) >= MIN_SEEDS:
        sides = [(sign, 0.0) for sign in signs]
        methods = judge([estimate(seeded[name]) for name in seeded], sides)
    texts = ", ".join(f"{layer} {mean:+.4f}" for layer, mean in means.mean().items())
    measured = f"{texts}; all signs in {shown.sum()} of {len(means)} networks"
    return Finding(measured, Judgement(networks, np.nan, np.nan), methods)


def last_mean_rates(rates: pd.DataFrame) -> pd.DataFrame:
    """Mean rate of weights and biases at each network's last update: [seeds, layers], from the
    image to the classes.

    Raises ValueError for missing columns, repeated rows, or networks of different layers.
    """
    missing = [column for column in RATES if column not in rates]
    if missing:
        raise ValueError(f"rates: missing column(s) {', '.join(missing)}; see notebook 2")
    last = rates[rates["update"] == rates.groupby("seed")["update"].transform("max")]
    last = last[last.group == "weights+bias"]
    if last.duplicated(["seed", "layer"]).any():
        raise ValueError("rates: repeated rows of seed, update, layer; pass each run once")
    means = last.pivot(index="seed", columns="layer", values="mean")[layers_of(last)]
    if means.empty or means.isna().to_numpy().any():
        raise ValueError("rates: networks differ in their layers; judge those of one kind together")
    return means


def claims_markdown(table: pd.DataFrame) -> str:
    """The table of `claims` as Markdown, for terminals and pages."""
    return table.to_markdown(index=False) + "\n"
