"""What the tables say of each of the paper's claims: a text, two judgements and notes, before the
claims are corrected for being six (`claims`)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from negmeta_utils.evidence.collapsed import (
    KEYS,
    NO_TRAININGS,
    collapsed,
    seeds_trained,
    without,
)
from negmeta_utils.evidence.intervals import (
    Estimate,
    Interval,
    estimate,
    over_episodes,
    over_episodes_apart,
    over_seeds,
    over_unshared_seeds,
)
from negmeta_utils.evidence.learned_rates import last_mean_rates
from negmeta_utils.evidence.looks import levels, look
from negmeta_utils.evidence.quantities import DIFFERENCE, MAML, META_SGD, grids, known_seeds
from negmeta_utils.evidence.rules import (
    CONTRADICTED,
    ERROR_RATE,
    MIN_EPISODES,
    MIN_SEEDS,
    NO_EFFECT,
    NO_JUDGEMENT,
    PARTS,
    REPRODUCED,
    UNDECIDED,
    Judgement,
    Part,
    judge,
    parts_of_rates,
    without_effect,
)
from negmeta_utils.evidence.t_tests import OFF_TASK_ALONE, paper_t_test, t_test
from negmeta_utils.evidence.words import p_said

NOT_MEASURED = "not measured"

Tables = dict[tuple[str, str], pd.DataFrame]


class Finding(NamedTuple):
    """What was measured of one claim: a text, a judgement for each column of verdicts, notes."""

    measured: str = NOT_MEASURED
    networks: Judgement = NO_JUDGEMENT
    methods: Judgement = NO_JUDGEMENT
    notes: tuple[str, ...] = ()


class Estimates(NamedTuple):
    """Of one quantity: over episodes, over seeds, and how many there are of each.

    n_seeds: of each method that it compares, one number where they are compared in pairs.
    """

    networks: Estimate
    methods: Estimate
    n_seeds: tuple[int, ...]
    n_episodes: int

    @property
    def paired(self) -> bool:
        return len(self.n_seeds) == 1


def findings(
    features: pd.DataFrame | None,
    rates: pd.DataFrame | None,
    looks: Sequence[int] = (),
    left_out: pd.DataFrame | None = None,
) -> dict[str, Finding]:
    """The finding of each claim; arguments as of `claims.claims`."""
    planned = levels(looks) if looks else None
    measured = features is not None and not features.empty
    if left_out is None:
        left_out = collapsed(features) if measured else NO_TRAININGS
    lost = left_out[left_out["seed"] >= 0]
    notes = tuple(f"left out as collapsed: {m} {s}" for m, s in left_out[KEYS].to_numpy())
    found = {"a": _judge_rates(rates, left_out, planned)}
    if not measured:
        found |= dict.fromkeys(PARTS, Finding())
    else:
        kept = without(features, left_out)
        tables, trained = grids(kept), seeds_trained(kept, lost)
        for claim, parts in PARTS.items():
            found[claim] = _judge_parts(parts, tables, trained, planned)
        if found["f"].measured != NOT_MEASURED:
            found["f"] = _with_papers_test(found["f"], kept)
    return {claim: f._replace(notes=f.notes + notes) for claim, f in found.items()}


def _with_papers_test(found: Finding, features: pd.DataFrame) -> Finding:
    """(f) with what the paper's own test says, which is about iterations and not about seeds."""
    own, alone = paper_t_test(features), t_test(features, OFF_TASK_ALONE)
    found = found._replace(measured=f"{found.measured}; the paper's test {p_said(own['p_value'])}")
    if found.networks.verdict != REPRODUCED or _finds_it(own) == "yes":
        return found
    note = (
        f"direction and interval yes, the paper's own test {_finds_it(own)} "
        f"(read as off-task accuracy alone {_finds_it(alone)}: {p_said(alone['p_value'])})"
    )
    return found._replace(notes=(*found.notes, note))


def _finds_it(test: Mapping) -> str:
    """Whether one of `t_tests.t_test` finds Meta-SGD the better."""
    if test["p_value"] > ERROR_RATE:
        return "no"
    return "yes" if test["statistic"] > 0 else "no, the opposite"


def _estimates(part: Part, tables: Tables) -> Estimates | None:
    """None where not measured."""
    key = (part.method, part.quantity)
    if part.method != DIFFERENCE:
        return _of_grid(tables[key]) if key in tables else None
    maml, meta_sgd = (tables.get((method, part.quantity)) for method in (MAML, META_SGD))
    if maml is None or meta_sgd is None:
        return None
    if maml.index.equals(meta_sgd.index):
        return _of_grid(tables[key])
    networks = over_episodes_apart(meta_sgd, maml)
    maml, meta_sgd = known_seeds(maml), known_seeds(meta_sgd)
    n_seeds = len(maml), len(meta_sgd)
    methods = over_unshared_seeds(meta_sgd, maml, skewed=True) if min(n_seeds) else networks
    return Estimates(networks, methods, n_seeds, maml.shape[1])


def _of_grid(grid: pd.DataFrame) -> Estimates:
    networks, seeded = over_episodes(grid), known_seeds(grid)
    methods = over_seeds(seeded, skewed=True) if len(seeded) else networks
    return Estimates(networks, methods, seeded.shape[:1], seeded.shape[1])


def _judge_parts(
    parts: list[Part], tables: Tables, trained: dict[str, int], planned: dict[int, float] | None
) -> Finding:
    measured = [_estimates(part, tables) for part in parts]
    of = [one for one in measured if one is not None]
    if len(of) < len(parts):
        return Finding()
    counts = list(dict.fromkeys(n for one in of for n in one.n_seeds))
    n_seeds, n_episodes = min(counts), of[0].n_episodes
    level, of_look = look(_trained(parts, trained), n_seeds, planned)
    networks, methods = [one.networks for one in of], [one.methods for one in of]
    judged = {"networks": NO_JUDGEMENT, "methods": NO_JUDGEMENT}
    if n_episodes >= MIN_EPISODES:
        judged["networks"] = judge(networks, parts)
        if n_seeds >= MIN_SEEDS and level:
            judged["methods"] = judge(methods, parts, level)
    enough = n_seeds >= MIN_SEEDS
    pairs = f"{n_episodes:,} pairs of tasks"
    seeds = f"{' and '.join(map(str, counts))} seeds"
    shown, count = (methods, seeds) if enough else (networks, pairs)
    texts = {  # one for each method: the two parts of (b) share an estimate
        part.method: f"{part.method} {_points(one.interval(1 - ERROR_RATE))}"
        for part, one in zip(parts, shown, strict=True)
    }
    notes = []
    for column, ests in (("networks", networks), ("methods", methods)):
        if judged[column].verdict == NO_EFFECT and len(parts) > 1:
            of_methods = without_effect(ests, parts, judged[column].level)
            notes.append(f"{column}: no such effect for {', '.join(of_methods)}")
    if not all(one.paired for one in of):
        notes.append("seeds not the same, compared by Welch")
    text = f"{', '.join(texts.values())} points over {count}"
    return Finding(text, **judged, notes=tuple(notes + of_look))


def _trained(parts: list[Part], trained: dict[str, int]) -> list[int]:
    """How many seeds were trained of each method of a claim."""
    methods = {part.method for part in parts}
    both = {MAML, META_SGD} if DIFFERENCE in methods else set()
    return [trained.get(method, 0) for method in methods - {DIFFERENCE} | both]


def _points(interval: Interval) -> str:
    return f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def _judge_rates(
    rates: pd.DataFrame | None, left_out: pd.DataFrame, planned: dict[int, float] | None
) -> Finding:
    if rates is None or rates.empty:
        return Finding()
    means, lost = last_mean_rates(rates), left_out.loc[left_out["method"] == META_SGD, "seed"]
    trained = known_seeds(means).index.union(lost[lost >= 0])
    means = means[~means.index.isin(lost)]
    if means.empty:
        return Finding()
    parts = parts_of_rates(means)
    shown = (means * [part.side for part in parts] > 0).all(axis=1)
    networks = REPRODUCED if shown.all() else UNDECIDED if shown.any() else CONTRADICTED
    seeded = known_seeds(means)
    level, of_look = look([len(trained)], len(seeded), planned)
    methods = NO_JUDGEMENT
    if len(seeded) >= MIN_SEEDS and level:
        methods = judge([estimate(seeded[name], skewed=True) for name in means], parts, level)
    texts = ", ".join(f"{layer} {mean:+.4f}" for layer, mean in means.mean().items())
    measured = f"{texts}; all signs in {shown.sum()} of {len(means)} networks"
    return Finding(measured, Judgement(networks), methods, tuple(of_look))
