"""Numbers without an interval in the answers of notebooks 3 and 5 to 9, by the shipped tables."""

import pandas as pd
import pytest
import yaml
from answers import FIGURES, answer, of_negative_rates, questions

from negmeta_utils.evidence.contrasts import (
    DOWN,
    MARGIN,
    UNCHANGED,
    UNDECIDED,
    UP,
    accuracy_grids,
    change_grids,
    contrasts,
)
from negmeta_utils.evidence.intervals import over_seeds
from negmeta_utils.evidence.quantities import grids, mean_interval
from negmeta_utils.evidence.words import fixed, p_said, signed, with_interval
from negmeta_utils.plots.style import LABELS
from negmeta_utils.questions.across_datasets import changes_by_dataset
from negmeta_utils.questions.interventions import AS_LEARNED, WITHOUT_NEGATIVE
from negmeta_utils.questions.linear_theory import MixedRegression
from negmeta_utils.questions.uses import changes_over_steps
from negmeta_utils.storage.paths import ROOT
from negmeta_utils.studies.study_file import NOTEBOOKS

RESULTS = (ROOT / "docs" / "results.md").read_text()
WORDS = {1: "one", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}
MECHANISM = {  # by folder, what the first column of notebook 5's table says behind their number
    "decide": ", Mini-ImageNet at 28×28, 20,000 meta-updates",
    "length": " of these, 60,000 meta-updates",
    "recipes": " by the same recipe, 60,000 meta-updates",
    "paper-28": " by another recipe, 60,000 meta-updates",
    "paper-84": " at 84×84, 60,000 meta-updates",
    "questions": ", Omniglot at 28×28, 1,000 meta-updates",
}
MEANS = {UNCHANGED: f"within ±{MARGIN}", UP: "better", DOWN: "worse", UNDECIDED: "undecided"}


def test_notebook_3_opens_on_as_many_pairs_as_were_evaluated():
    effects = pd.read_csv(FIGURES / "paper-84" / "statistics" / "effects.csv")
    assert set(effects.loc[effects["over"] == "episodes", "n"]) == {40_000}
    assert "over 40,000 pairs of tasks" in answer("03")


def mean_changes(table):
    """Off-task and on-task, by variant."""
    return (
        {name: grid.to_numpy().mean() for name, grid in change_grids(table, "variant", q).items()}
        for q in ("off-task change", "on-task change")
    )


@pytest.mark.slow
def test_notebook_5_says_how_much_of_the_gain_negative_rates_carry():
    table = pd.read_parquet(FIGURES / "paper-28" / "mechanism" / "interventions.parquet")
    assert f"Over {table['episode'].nunique():,} pairs of tasks" in answer("05")
    off_task, on_task = mean_changes(table)
    shipped = pd.read_csv(FIGURES / "paper-28" / "mechanism" / "equivalence.csv")
    primary = shipped.set_index(["quantity", "rates"]).loc["off-task change", WITHOUT_NEGATIVE]
    assert off_task[WITHOUT_NEGATIVE] - off_task[AS_LEARNED] == pytest.approx(primary["points"])
    gain = off_task[AS_LEARNED]
    assert round(-primary["points"] / gain, 1) == 0.2 and 0.3 < -primary["low"] / gain < 0.4
    assert "a fifth of the gain, two fifths at most" in answer("05")
    assert "a fifth of the gain, two fifths at most" in RESULTS
    assert f"the on-task change, {signed(on_task[AS_LEARNED])} points as learned," in answer("05")
    assert abs(off_task["support of one class"]) < 0.05 and "and so it is gone" in answer("05")


@pytest.mark.slow
def test_the_table_that_notebook_5_opens_on():
    _, said = answer("05").split("## The answer so far\n\n")
    opening, table, _ = said.split("\n\n", 2)
    verdicts, rows = {}, []
    for name, what in MECHANISM.items():
        learned, without = of_negative_rates(f"{name}/mechanism")
        number = WORDS[without.n if without.over == "seeds" else 1]
        cells = [f"{number}{what} (`figures/{name}`)", with_interval(*learned)]
        cells += [with_interval(without.points, without.low, without.high)]
        verdicts[name] = MEANS[without.verdict]
        rows.append(f"| {' | '.join([*cells, verdicts[name]])} |")
    assert table.splitlines()[2:] == rows
    within = [name for name, verdict in verdicts.items() if verdict == MEANS[UNCHANGED]]
    assert f"within ±0.1 points of what it was in {WORDS[len(within)]} of the six" in opening
    assert (verdicts["paper-84"], verdicts["questions"]) == ("worse", "undecided")
    learned, without = of_negative_rates("length/mechanism")
    assert f"Where the gain is {signed(learned.points)} points, as in five networks" in opening
    assert round(-without.low, 2) == round(learned.points, 2)  # "could still make all of it"


def test_what_is_said_of_the_mechanism_in_eight_networks():
    table = pd.read_csv(FIGURES / "decide" / "mechanism" / "equivalence.csv")
    of_method = table[table["over"] == "seeds"]
    assert set(of_method["n"]) == {8} and set(of_method["verdict"]) == {UNCHANGED}
    for p in of_method["p_value"]:
        assert f"({p_said(p)})" in answer("05") and f"({p_said(p)})" in RESULTS
    assert of_method["low"].min() > -0.1 and "±0.1" in answer("05")


@pytest.mark.slow
def test_what_the_correction_for_skewed_seeds_does_to_the_mechanism():
    table = pd.read_parquet(FIGURES / "decide" / "mechanism" / "interventions.parquet")
    grids_of = change_grids(table, "variant", "off-task change")
    p_values = [
        over_seeds(grids_of[name] - grids_of[AS_LEARNED], skewed=True).p_outside(MARGIN)
        for name in (WITHOUT_NEGATIVE, f"{WITHOUT_NEGATIVE}, steps as long")
    ]
    without, as_long = (p_said(p).removeprefix("p = ") for p in p_values)
    page = (ROOT / "docs" / "statistics.md").read_text()
    said = f"are {without} (negative rates set to zero) and {as_long} (with steps as long)"
    assert said in page


@pytest.mark.slow
def test_without_positive_rates_eight_networks_are_at_chance():
    table = pd.read_parquet(FIGURES / "decide" / "mechanism" / "interventions.parquet")
    assert table["seed"].nunique() == 8
    assert f"{table['episode'].nunique():,} pairs of tasks without" in answer("05")
    whole = contrasts(accuracy_grids(table, "variant", "ordinary")).set_index("condition")
    assert whole.loc["positive set to zero", "points"] == pytest.approx(20, abs=0.2)
    assert "Without them the whole adapted model is at chance" in answer("05")


def test_notebook_5_says_how_alike_activations_stay_and_how_classes_tighten():
    table = questions("mechanism/geometry.parquet")
    by_layer = table.groupby(["method", "task", "layer"])
    alike = [fixed(cka) for cka in by_layer["cka"].mean()["maml", "on-task"]]
    assert f"{', '.join(alike[:3])} and {alike[3]} from conv1 to conv4" in answer("05")
    ratio = by_layer["ratio_change"].mean().xs("conv4", level="layer")
    maml, meta_sgd = (signed(ratio[method, "on-task"]) for method in ("maml", "meta-sgd"))
    assert f"conv4 on-task (MAML {maml}, Meta-SGD {meta_sgd}) and by" in answer("05")
    of_on_task = [ratio[m, "off-task"] / ratio[m, "on-task"] for m in ("maml", "meta-sgd")]
    assert round(max(of_on_task), 1) == 0.5 and round(min(of_on_task), 2) == 0.35
    assert "by a third to a half of that off-task" in answer("05")


def test_notebook_6_says_how_many_seeds_would_decide():
    table = questions("datasets/features.parquet")
    off_task = changes_by_dataset(table.assign(backbone="conv4"), LABELS)["off-task change"]
    difference = off_task.set_index("condition").loc["omniglot: Meta-SGD − MAML"]
    seeds = WORDS[int(difference["needed"])]
    assert f"{seeds} seeds would decide one as large as Omniglot's" in answer("06")
    of_methods = off_task[off_task["condition"].str.endswith("Meta-SGD − MAML")]
    assert set(of_methods["verdict"]) == {"undecided"}
    for dataset in ("omniglot", "mini-imagenet"):
        rows = grids(table[table["dataset"] == dataset])["meta-sgd - maml", "pre-adaptation"]
        assert int(contrasts({"": rows})["needed"].item()) == 5
    assert "five seeds would decide" in answer("06")


def test_notebook_6_says_which_means_are_negative_and_how_accurate_networks_are():
    rates = pd.read_csv(FIGURES / "questions" / "datasets" / "rates.csv")
    rates = rates[rates["group"] == "weights+bias"]
    negative = rates[rates["mean"] < 0]
    assert list(negative["dataset"] + " " + negative["layer"]) == [
        "omniglot conv1", "glyphs conv1", "glyphs conv2",
    ]  # fmt: skip
    assert (negative["mean_high"] > 0).all() and "none is distinguishable" in answer("06")
    table = questions("datasets/features.parquet")
    mini = table[table["dataset"] == "mini-imagenet"].groupby("method")["ordinary"].mean()
    said = f"accuracies are {100 * mini['maml']:.0f} and {100 * mini['meta-sgd']:.0f} %"
    assert said in answer("06")
    assert all(mini[m] < (0.2 + paper) / 2 for m, paper in (("maml", 0.46), ("meta-sgd", 0.47)))
    shares = (
        f"{100 * share:.0f}"
        for share in rates.loc[rates["dataset"] == "mini-imagenet", "share_negative"][:4]
    )
    assert f"(Mini-ImageNet {', '.join(shares)} %)" in RESULTS


@pytest.mark.slow
def test_notebook_7_says_what_as_many_steps_as_in_training_change():
    table = changes_over_steps(questions("inner_steps/steps.parquet"))
    same = table[table["x"] == table["inner_steps"]].sort_values("inner_steps")
    on_task = same[same["quantity"] == "on-task change"]
    assert (on_task["low"] > 0).all() and "every interval above zero" in answer("07")
    for method, label, unit in (("maml", "MAML", " points"), ("meta-sgd", "Meta-SGD", "")):
        points = [signed(value, 1) for value in on_task.loc[on_task["method"] == method, "points"]]
        assert f"{label} {', '.join(points)}{unit}" in answer("07")
    off_task = same[same["quantity"] == "off-task change"]
    assert len(off_task) == 8 and "The eight intervals all contain zero" in answer("07")
    assert ((off_task["low"] < 0) & (off_task["high"] > 0)).all()
    largest = off_task.loc[off_task["points"].abs().idxmax()]
    assert (largest["method"], largest["inner_steps"]) == ("maml", 1)
    assert f"({WORDS[int(largest['needed'])]} seeds would decide" in answer("07")


def test_notebook_8_says_what_each_use_adds():
    uses = questions("test_time/uses.parquet")
    added = {}
    for method, rows in uses.groupby("method"):
        accuracy = {use: g.to_numpy().mean() for use, g in accuracy_grids(rows, "use").items()}
        none = accuracy["no adaptation"]
        added[method] = {use: signed(value - none, 1) for use, value in accuracy.items()}
    maml, meta_sgd = added["maml"], added["meta-sgd"]
    head = "the task itself, own head"
    assert f"({maml[head]} and {meta_sgd[head]})" in answer("08")
    itself = f"{maml['the task itself']} (MAML) and {meta_sgd['the task itself']} (Meta-SGD)"
    assert f"to the task itself, {itself} points over no adaptation" in RESULTS
    others = uses["use"].str.contains("other task")
    assert uses[others].groupby(["method", "use"]).ngroups == 6
    assert "one of six such intervals" in answer("08")


def test_notebook_9_opens_on_the_rates_of_the_study():
    few, more = (FIGURES / "linear-theory" / f"{name}-tasks" for name in ("few", "more"))
    rates = pd.read_csv(few / "best_rates.csv").set_index("vary")
    best = rates.loc["meta-training"]
    assert best["closed_form"] == pytest.approx(MixedRegression().best_train_rate(), abs=1e-4)
    measured = with_interval(best["rate"], best["low"], best["high"])
    assert f"rate of meta-training is {measured} and the learned one" in answer("09")
    learned = pd.read_csv(few / "learned_rates.csv").query("what == 'for the loss of new tasks'")
    assert len(learned) == 4 and "four learners" in answer("09")
    of_learners = with_interval(*mean_interval(learned["rate"]))
    said = f"learned one {of_learners}, for {fixed(best['closed_form'], 3)} in closed form"
    assert said in answer("09")
    ten = pd.read_csv(more / "best_rates.csv").set_index("vary").loc["meta-training"]
    measured_with_ten = with_interval(ten["rate"], ten["low"], ten["high"])
    assert f"over 200 repetitions, the measured one is {measured_with_ten}" in answer("09")
    assert rates.loc["both", "rate"] > 0 and rates.loc["both", "low"] > 0
    assert f"closed form {fixed(best['closed_form'])}, measured {measured}" in RESULTS
    study = yaml.safe_load((NOTEBOOKS / "studies" / "linear-theory.yml").read_text())["steps"]
    repetitions = [step["parameters"]["n_repetitions"] for step in study.values()]
    assert repetitions == [1000, 200] and "With 1000 repetitions" in answer("09")


@pytest.mark.slow
def test_what_negative_rates_do_at_the_papers_size_and_length():
    table = pd.read_parquet(FIGURES / "paper-84" / "mechanism" / "interventions.parquet")
    off_task, on_task = mean_changes(table)
    for page in (answer("05"), RESULTS):
        assert signed(off_task[AS_LEARNED]) in page and signed(on_task[AS_LEARNED]) in page
    assert 1.8 < off_task[WITHOUT_NEGATIVE] / off_task[AS_LEARNED] < 2  # "nearly twice"
    adapted = 100 * table.groupby("variant")["ordinary"].mean()
    said = f"{adapted['signs shuffled']:.1f} % instead of {adapted[AS_LEARNED]:.1f}"
    assert said in answer("05") and said in RESULTS
    shipped = pd.read_parquet(FIGURES / "paper-84" / "features" / "features.parquet")
    own = shipped[shipped["method"] == "meta-sgd"].head(table["episode"].nunique())
    learned = table[table["variant"] == AS_LEARNED]
    for column in ("same_before", "same_after", "other_before", "other_after", "ordinary"):
        assert (own[column].to_numpy() == learned[column].to_numpy()).all()
