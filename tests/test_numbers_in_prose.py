"""Numbers in prose, compared with the shipped tables that they are of."""

import json
import re

import pandas as pd
import pytest
from answers import FIGURES, LONGEST, answer, of_claims, verdict

from negmeta_utils.evidence import claims as judged
from negmeta_utils.evidence.contrasts import against_base
from negmeta_utils.evidence.intervals import estimate, over_episodes, over_seeds
from negmeta_utils.evidence.learned_rates import PAPER_TABLE_1, distance_to_paper, last_mean_rates
from negmeta_utils.evidence.looks import levels
from negmeta_utils.evidence.power import seeds_needed, seeds_to_decide
from negmeta_utils.evidence.quantities import (
    DIFFERENCE,
    MAML,
    META_SGD,
    PAPER_CHANGES,
    effect_sizes,
    grids,
)
from negmeta_utils.evidence.quantities import changes as relative
from negmeta_utils.evidence.rules import PARTS
from negmeta_utils.evidence.words import signed as with_sign
from negmeta_utils.evidence.words import with_interval
from negmeta_utils.plots.tables import in_print
from negmeta_utils.questions.interventions import (
    AS_LEARNED,
    AS_LONG,
    ONE_CLASS,
    WITHOUT_NEGATIVE,
)
from negmeta_utils.questions.mechanism import (
    FLIPPED,
    WHOLE,
    compared,
    minus_learned,
    primary_contrasts,
)
from negmeta_utils.runs import load_run
from negmeta_utils.storage.atomic import read_json
from negmeta_utils.storage.paths import ROOT

README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "docs" / "results.md").read_text()
AS_WORDED = "paper: two-sample, off-task - on-task"  # the paper's t-test
STATISTICS = (ROOT / "docs" / "statistics.md").read_text()
NETWORKS = [load_run(str(LONGEST / f"{method}-0")) for method in ("maml", "meta-sgd")]
SINGLE = ("paper-28", "paper-84", "recipes")  # networks whose interventions are shown
LARGE = [load_run(f"mini-imagenet-{method}-0") for method in ("maml", "meta-sgd")]


def signed(value):
    text = f"{value:+.3f}".replace("-", "−")
    return "0.000" if text in ("+0.000", "−0.000") else text


def test_the_best_and_the_last_validation_are_the_curves():
    curves = [run.history().dropna(subset=["val_accuracy"]) for run in NETWORKS]
    best = [curve.loc[curve["val_accuracy"].idxmax()] for curve in curves]
    updates = " and ".join(f"{int(row['update']):,}" for row in best)
    accuracy = " and ".join(f"{100 * row['val_accuracy']:.1f}" for row in best)
    last = " and ".join(f"{100 * curve['val_accuracy'].iloc[-1] + 1e-9:.1f}" for curve in curves)
    assert f"it is best at {updates} meta-updates ({accuracy} %," in RESULTS
    assert f"falls from then on, to {last} %" in RESULTS


def test_the_mean_rates_of_the_last_updates_lie_in_the_ranges_given():
    rates = NETWORKS[1].rates()
    late = rates[(rates["group"] == "weights+bias") & (rates["update"] >= 50_000)]
    ends = late.groupby("layer")["mean"].agg(["min", "max"]).drop("logits")
    ranges = [f"[{signed(row['min'])}, {signed(row['max'])}]" for _, row in ends.iterrows()]
    assert f"the four lie in {', '.join(ranges[:3])} and {ranges[3]}" in RESULTS


def test_the_recipes_are_those_of_the_table():
    table = pd.read_csv(FIGURES / "recipes" / "distances.csv")
    rows = [line for line in RESULTS.splitlines() if " of 5 | " in line]
    assert len(rows) == 8
    for line, row in zip(rows, table[table["group"] == "weights+bias"].itertuples(), strict=True):
        schedule, start, rate, *numbers = line.strip("| ").split(" | ")
        assert f"{schedule}, from {start}, outer rate {rate}" == row.recipe
        nearest = f"{row.nearest_distance:.2f} at {row.nearest_update:,}"
        assert numbers == [f"{row.distance:.2f}", f"{row.signs} of 5", nearest]


def test_no_recipe_gives_the_signs():
    rates = pd.read_parquet(FIGURES / "recipes" / "recipes.parquet")
    own = rates[rates["group"] == "weights+bias"]
    last = own[own["update"] == 20_000]
    negative = last["mean"].lt(0).groupby(last["layer"]).sum()
    assert negative.to_dict() == {"conv1": 0, "conv2": 0, "conv3": 3, "conv4": 0, "logits": 0}
    assert "that of conv3 in three of eight" in RESULTS
    signs = own.assign(right=(own["mean"] < 0) == own["layer"].str.startswith("conv"))
    assert not signs.groupby(["recipe", "update"])["right"].all().any()
    nearest = own[own["recipe"] == "constant, from U[0.005, 0.1], outer rate 0.0001"]
    falls = nearest.pivot(index="update", columns="layer", values="mean").drop(columns="logits")
    assert (falls.loc[20_000] < falls.loc[16_000]).all()
    trainings = json.loads((FIGURES / "recipes" / "trainings.json").read_text())
    assert {round(each["results"]["seconds_training"]) for each in trainings.values()} == {207}


def test_how_near_the_chosen_recipe_comes_in_other_networks():
    shares = pd.read_parquet(FIGURES / "recipes" / "recipes.parquet")
    own = shares[(shares["group"] == "weights+bias") & (shares["update"] == 20_000)]
    ratio = own.pivot(index="recipe", columns="layer", values="std")
    ratio /= PAPER_TABLE_1.set_index("layer")["paper std"]
    near = ratio[ratio.index.str.endswith("from U[0.005, 0.1], outer rate 0.0001")]
    assert near["logits"].round(2).between(0.66, 0.69).all()
    assert near.drop(columns="logits").stack().between(0.9, 1.25).all()
    assert "two thirds of it in the linear layer" in RESULTS
    rates = pd.read_parquet(FIGURES / "decide" / "alpha" / "rates.parquet")
    found = distance_to_paper(rates[rates["update"] == 20_000])
    eight = found.loc[found["group"] == "weights+bias", "distance"]
    assert len(eight) == 8
    assert f"are {eight.min():.2f} to {eight.max():.2f} from table 1" in RESULTS


def test_what_is_said_of_the_chosen_recipe_at_60_000():
    folder = FIGURES / "recipes" / "longest"
    table = pd.read_csv(folder / "table1.csv").set_index(["group", "layer"]).loc["weights+bias"]
    told = ", ".join(f"{layer} {with_sign(mean, 4)}" for layer, mean in table["mean"].items())
    assert told in RESULTS
    shares = [f"{100 * share:.0f}" for share in table["share_negative"]]
    assert f"with {', '.join(shares[:3])} and {shares[3]} % of the convolutions' rates" in RESULTS
    assert f"deviations of {', '.join(f'{std:.3f}' for std in table['std'])} (the" in RESULTS
    run = load_run(str(FIGURES / "recipes" / "network"))
    curve = run.history().dropna(subset=["val_accuracy"])
    best = curve.loc[curve["val_accuracy"].idxmax()]
    test = 100 * run.final_accuracy().mean()
    said = f"{test:.1f} % on 600 test tasks, where validation accuracy was highest at"
    assert f"{said} {int(best['update']):,} ({100 * best['val_accuracy']:.1f} %)" in RESULTS


def test_the_verdicts_that_the_fourth_one_changed_are_those_named():
    """By the first rules, of three verdicts, what is *no such effect* was *undecided*."""
    claims = of_claims("paper-28").set_index("claim")
    changed = [f"({name})" for name in claims.index[claims["networks"] == "no such effect"]]
    assert f"{' and '.join(changed)}, from *undecided* to" in STATISTICS


def test_the_time_of_a_study_is_that_of_its_meta_updates():
    speed, studies = ((ROOT / "docs" / f"{page}.md").read_text() for page in ("speed", "studies"))
    found = re.search(
        r"takes ([\d.]+) to ([\d.]+) s .* at 28×28 and ([\d.]+) to ([\d.]+) s at", speed
    )
    hours = [60_000 * float(seconds) / 3600 for seconds in found.groups()]
    small, large = (f"{low:.0f} to {high:.0f}" for low, high in (hours[:2], hours[2:]))
    wide = re.search(r"([\d.]+) to ([\d.]+) s and ([\d.]+) to ([\d.]+) s with AVX-512", speed)
    faster = [60_000 * float(seconds) / 3600 for seconds in wide.groups()]
    of_both = f"{large} hours for each network on one core with AVX2, "
    of_both += f"{faster[2]:.0f} to {faster[3]:.0f} with AVX-512; with `--set image_size=28` "
    assert f"{of_both}{small}, or {faster[0]:.0f} |" in studies
    assert f"in {small} hours of training (both networks at once" in RESULTS
    assert f"[{found[3]} to {found[4]} s](speed.md) of one core" in studies
    assert f"so 60,000 of them are {large} hours" in studies
    assert hours[2] < 33 < hours[3] and "some 33,000 core hours" in studies


@pytest.mark.parametrize(
    "run", ["decide/statistics", "paper-84/statistics", "paper-28", "demo", "mini-imagenet"]
)
def test_the_verdicts_are_those_of_the_table(run):
    for row in of_claims(run).itertuples():
        numbers = f"{in_print(row.paper)} | {in_print(row.measured)}"
        verdicts = f"{verdict(row, 'networks')} | {verdict(row, 'methods')}"
        assert f"| ({row.claim}) {row.statement} | {numbers} | {verdicts} |" in RESULTS


def test_the_intervals_drawn_for_the_methods_are_those_of_the_verdicts():
    effects = pd.read_csv(FIGURES / "decide" / "statistics" / "effects.csv")
    own = effects[effects["over"] == "seeds"].set_index(["method", "quantity"])
    claims = of_claims("decide/statistics").set_index("claim")
    quantities = {
        "b": "without head",
        "c": "pre-adaptation",
        "d": "on-task change",
        "e": "off-task change",
        "f": "off-task change",
    }
    for claim, quantity in quantities.items():
        methods = ["meta-sgd - maml"] if claim in "cf" else ["maml", "meta-sgd"]
        for method in methods:
            row = own.loc[(method, quantity)]
            bounds = f"{row.points:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
            assert f"{method} {bounds}" in claims.loc[claim, "measured"]


def test_what_is_said_of_eight_seeds():
    claims = of_claims("decide/statistics").set_index("claim")
    p = pd.read_csv(FIGURES / "decide" / "statistics" / "p_values.csv").set_index("claim")
    level = levels([8, 12])[8]
    assert f"judged at {100 * level:.1f} % instead of 5 %" in README
    assert (p.loc[["d", "e", "f"], "p methods"] < level).all()
    assert set(p.loc[["d", "e", "f"], "Holm methods"].round(3)) == {0.032}
    assert (p.loc[["a", "b"], "Holm methods"] < level).all()
    said = "(a) and (b) still stand there; (d), (e) and (f) have p = 0.032 and do not."
    assert said in README
    assert list(claims.loc[["e", "f"], "methods"]) == ["no such effect"] * 2  # so no second look
    apart = claims[claims["networks"] != claims["methods"]]["networks"]
    assert apart.to_dict() == {"c": "contradicted", "f": "reproduced"}
    said = "the left have (c) *contradicted* and (f) *reproduced*, not by the paper's own test;"
    assert said in README and "the paper's own test no" in claims.loc["f", "note"]
    rates = pd.read_parquet(FIGURES / "decide" / "alpha" / "rates.parquet")
    means = rates[rates["group"] == "weights+bias"].pivot_table("mean", "update", "layer")
    body = means.drop(columns="logits")
    assert (body.loc[19_600] > body.loc[20_000]).all() and (body.loc[20_000] > 0).all()
    table = pd.read_csv(FIGURES / "decide" / "alpha" / "table1.csv").set_index(["group", "layer"])
    shares = table.loc["weights+bias", "share_negative"].drop("logits")
    first, *others, last = (f"{100 * share:.0f}" for share in shares)
    said = f"{first}, {', '.join(others)} and {last} % of the single rates are negative"
    assert said in README and said in RESULTS


@pytest.mark.slow
def test_how_many_seeds_would_decide_which_features_are_better():
    table = pd.read_parquet(FIGURES / "decide" / "features" / "features.parquet")
    grid = grids(table)["meta-sgd - maml", "pre-adaptation"]
    shown = round(seeds_to_decide(grid), -1), seeds_needed(grid, 0.5, 10_000)
    said = "it would take some {} seeds to show a difference of this size, and {} for half a point"
    assert said.format(*shown) in README and said.format(*shown) in RESULTS


def test_the_test_accuracies_of_eight_seeds():
    manifests = FIGURES.glob("decide/networks/*/manifest.json")
    found = pd.DataFrame(
        [
            (each["parameters"]["method"], each["results"]["test_accuracy"])
            for each in map(read_json, manifests)
        ],
        columns=["method", "accuracy"],
    )
    means = 100 * found.groupby("method")["accuracy"].mean()
    assert len(found) == 24
    said = "{maml:.1f} % (MAML), {meta-sgd:.1f} % (Meta-SGD) and {meta-sgd-positive:.1f} %"
    assert said.format_map(means) in RESULTS


def test_how_far_meta_sgd_is_ahead_on_the_way():
    runs = [load_run(str(path)) for path in (FIGURES / "decide" / "networks").glob("m*-[0-7]")]
    curves = pd.concat([run.history().assign(method=run.parameters["method"]) for run in runs])
    means = curves.pivot_table("val_accuracy", "update", "method")
    ahead = 100 * (means["meta-sgd"] - means["maml"])
    assert f"by {ahead[400]:.1f} points at 400 meta-updates and {ahead[4_000]:.1f} at" in RESULTS
    assert f"from 8,000 on by {ahead.loc[8_000:].mean():.1f} on average" in RESULTS


def test_what_is_said_of_rates_at_the_papers_size():
    rates = LARGE[1].rates()
    weights = rates[rates["group"] == "weights+bias"]
    means = weights.pivot(index="update", columns="layer", values="mean")
    last, body = means.loc[60_000], means.drop(columns="logits")
    first, second, third, fourth, _ = (with_sign(value, 4) for value in last)
    assert f"conv3 {third} and conv4 {fourth}" in RESULTS
    for layer, end in (("conv1", first), ("conv2", second)):
        below = body.index[body[layer] < 0]
        assert f"({end}) was negative from {below[0]:,} to {below[-1]:,} meta-updates" in RESULTS
    assert list(last[:4] < 0) == [False, False, True, True]
    assert (body < 0).any().all() and not (body < 0).all(axis=1).any()
    *some, lowest = (with_sign(value, 4) for value in body.min())
    assert f"At their lowest the four are {', '.join(some)} and {lowest} " in RESULTS
    ends = weights[weights["update"] == 60_000]
    *some, share = (f"{100 * value:.0f}" for value in ends["share_negative"][:4])
    assert f"{', '.join(some)} and {share} % of the convolutions' rates are negative" in RESULTS
    wider = ends["std"].to_numpy() / PAPER_TABLE_1["paper std"]
    assert f"spread {wider.min():.1f} to {wider.max():.1f} times as far" in RESULTS
    table = pd.read_csv(FIGURES / "paper-84" / "alpha" / "table1.csv")
    *some, head = (with_sign(mean, 4) for mean in table.loc[table["group"] == "both", "mean"])
    assert f"the five means are {', '.join(some)} and {head}: the same signs" in RESULTS
    apart = distance_to_paper(rates)
    apart = apart[apart["group"] == "weights+bias"].set_index("update")["distance"]
    said = f"{apart[60_000]:.2f}, and was smallest, {apart.min():.2f}, after {apart.idxmin():,}"
    assert said in RESULTS


def test_the_plan_says_how_far_means_still_moved_after_a_third():
    rates = pd.read_parquet(FIGURES / "paper-84" / "at-20000" / "alpha" / "rates.parquet")
    rates = rates[rates["group"] == "weights+bias"]
    means = rates.pivot(index="update", columns="layer", values="mean")
    spread = rates[rates["update"] == 20_000].set_index("layer")["std"]
    moved = ((means.loc[20_000] - means.loc[16_000]) / spread).drop("logits")
    plan = (ROOT / "notebooks" / "studies" / "paper.yml").read_text()
    assert f"({-moved.max():.2f} to {-moved.min():.2f})" in plan


def test_the_jolt_in_the_training_at_the_papers_size():
    maml, meta_sgd = (100 * run.history().set_index("update")["train_accuracy"] for run in LARGE)
    before, after, later = (
        meta_sgd.loc[slice(*part)].mean()
        for part in ((29_900, 30_060), (30_061, 30_080), (30_300, 30_500))
    )
    said = f"fell from {before:.0f} to {after:.0f} % within 20 meta-updates after 30,060"
    assert said in RESULTS and later > before - 3
    rates = LARGE[1].rates()
    means = rates[rates["group"] == "weights+bias"].pivot(
        index="update", columns="layer", values="mean"
    )
    lowest = means.loc[30_000:].idxmin()
    assert lowest["conv1"] == 30_000 and lowest[["conv4", "logits"]].min() > 59_000
    turns = f"until {lowest['conv2']:,} and {lowest['conv3']:,} meta-updates and then rise"
    assert f"conv1's mean rises, conv2's and conv3's fall {turns}" in RESULTS
    ends = means.iloc[-1].sub(PAPER_TABLE_1.set_index("layer")["paper mean"]).abs().max()
    assert ends < 0.016
    assert "lies within 0.016 of the paper's" in RESULTS
    assert abs(maml.loc[30_081:30_100].mean() - maml.loc[29_900:30_080].mean()) < 4


def test_the_signs_of_the_longest_run_come_when_it_is_said():
    rates = NETWORKS[1].rates()
    own = rates[rates["group"] == "weights+bias"]
    means = own.pivot(index="update", columns="layer", values="mean")
    changed = {layer: ((column < 0) != (column.iloc[-1] < 0)) for layer, column in means.items()}
    last = {layer: means.index[other][-1] for layer, other in changed.items() if other.any()}
    since = {layer: f"{update + 500:,}" for layer, update in last.items()}
    assert list(means.columns[means.iloc[-1] < 0]) == ["conv2", "conv3"]
    assert f"negative for good from {since['conv3']} meta-updates on" in RESULTS
    assert f"the second's from {since['conv2']}, and" in RESULTS
    assert f"The first one's is positive for good from {since['conv1']} on" in RESULTS
    assert f"the first mean to stay negative does so from {since['conv3']} on." in RESULTS
    shares = own[own["update"] == 60_000].set_index("layer")["share_negative"]
    first, *others = (f"{100 * share:.0f}" for share in shares.drop("logits"))
    assert f"({others[0]}, {others[1]} and {others[2]} %), of the first {first} %" in RESULTS
    longest = pd.read_csv(FIGURES / "recipes" / "longest" / "table1.csv")
    shares = longest.loc[longest["group"] == "weights+bias", "share_negative"]
    recipe = ", ".join(f"{100 * share:.0f}" for share in shares[:4])
    said = f"more ({first}, {', '.join(others)} % and, by the nearest recipe, {recipe} %, one"
    assert said in RESULTS


def test_how_far_the_rates_of_the_longest_run_are_from_the_papers():
    table = pd.read_csv(FIGURES / "paper-28" / "table1.csv").query("group == 'weights+bias'")
    spread = table["std"] / table["paper std"]
    assert (round(spread.min()), round(spread.max())) == (3, 11)
    assert "three to eleven times as far as in its table 1" in RESULTS
    logits = table.set_index("layer").loc["logits"]
    assert round(logits["mean"] / logits["paper mean"]) == 10
    assert f"to {logits['mean']:+.3f}, ten times the paper's" in RESULTS


def test_the_accuracies_of_the_longest_run():
    training = [run.history()["train_accuracy"].tail(1000).mean() for run in NETWORKS]
    texts = " and ".join(f"{100 * accuracy:.0f}" for accuracy in training)
    assert f"rises to {texts} % (the last 1,000 meta-updates)" in RESULTS
    test = [100 * run.final_accuracy() for run in NETWORKS]
    half = [1.96 * values.std() / len(values) ** 0.5 for values in test]
    ends = [f"{v.mean():.1f} ± {h:.1f} %" for v, h in zip(test, half, strict=True)]
    assert f"on 600 test tasks, {' and '.join(ends)} (the paper" in RESULTS
    hours = {round(run.manifest["results"]["seconds_training"] / 3600, 1) for run in NETWORKS}
    assert hours == {4.3} and "Training took 4.3 hours for each network" in RESULTS
    assert [len(run.manifest["continued"]) for run in NETWORKS] == [7, 7]
    assert "stopped and resumed seven times" in RESULTS


def test_the_changes_and_p_values_of_the_longest_run():
    changes = pd.read_csv(FIGURES / "paper-28" / "changes.csv").set_index("method")
    folder = LONGEST / "meta-sgd-0"
    exact = relative(pd.read_parquet(folder / "features.parquet"))["off_task_relative"].item()
    assert f"points, {exact:.2f} % of what they were" in RESULTS
    gained = changes["pre_adaptation"] - changes["ordinary"]
    alone = " and ".join(f"{gained[method]:.1f}" for method in ("maml", "meta-sgd"))
    assert f"better than the whole adapted model, by {alone} points" in RESULTS
    p = pd.read_csv(FIGURES / "paper-28" / "t_tests.csv").set_index("reading")["p_value"]
    assert p["paired, off-task change"] < 1e-4 and p["two-sample, off-task change"] < 1e-4
    assert "measured on the same images (p < 0.0001)" in RESULTS
    other_images = p["two-sample, off-task change, paper"]
    assert f"for the evaluation before adaptation (p = {other_images:.2f})" in RESULTS
    as_worded = f"(p = {p[AS_WORDED]:.2f})"
    assert f"about its test {as_worded}" in RESULTS and f"says no {as_worded}" in STATISTICS
    alone = [p[f"{test}, off-task alone"] for test in ("two-sample", "paired")]
    said = f"gives p = {alone[0]:.2g} (two-sample) and {alone[1]:.2g} (paired)"
    assert said in STATISTICS


def test_the_pairs_of_tasks_without_a_common_class():
    folders = [LONGEST / f"{method}-0" for method in ("maml", "meta-sgd")]
    table = pd.concat([pd.read_parquet(folder / "features.parquet") for folder in folders])
    apart = table[table["shared_classes"] == 0]
    assert round(apart["episode"].nunique() / table["episode"].nunique(), 1) == 0.2
    assert "four of five pairs of tasks share a class" in RESULTS
    assert f"share none ({apart['episode'].nunique():,} pairs)" in RESULTS
    found = effect_sizes(apart)
    found = found[(found["over"] == "episodes") & (found["quantity"] == "off-task change")]
    texts = {
        row.method: f"{with_sign(row.points)} [{with_sign(row.low)}, {with_sign(row.high)}]"
        for row in found.itertuples()
    }
    assert f"makes MAML's features worse, {texts['maml']}, as in the paper" in RESULTS
    assert f"by as much as elsewhere, {texts['meta-sgd']}." in RESULTS


def test_how_wide_the_recipes_end():
    rates = pd.read_parquet(FIGURES / "recipes" / "recipes.parquet")
    own = rates[rates["group"] == "weights+bias"].merge(PAPER_TABLE_1, on="layer")
    last = own[(own["update"] == 20_000) & (own["alpha_lr"] == 0.001)]
    wide = last["std"] / last["paper std"]
    assert f"ends {wide.min():.1f} to {wide.max():.1f} times as wide" in RESULTS
    wider = own[(own["alpha_lr"] == 0.001) & (own["std"] > own["paper std"])]
    passed = wider.groupby(["recipe", "layer"])["update"].min()
    assert f"passes the paper's in every layer within {passed.max():,} meta-updates" in RESULTS
    body = PAPER_TABLE_1["paper std"][:4]
    assert f"the paper's are {body.min()} to {body.max()} in the convolutions" in RESULTS
    assert f"a standard deviation of {(0.1 - 0.005) / 12**0.5:.3f} before" in RESULTS


def test_the_shares_and_numbers_of_seeds_of_the_backbones():
    shares = {}
    for name in ("conv4", "resnet12"):
        rates = pd.read_parquet(FIGURES / "backbones" / f"alpha_{name}" / "rates.parquet")
        own = rates[(rates["update"] == rates["update"].max()) & (rates["layer"] != "logits")]
        negative = (own["share_negative"] * own["n"]).groupby(own["seed"]).sum()
        of_seeds = 100 * negative / own.groupby("seed")["n"].sum()
        shares[name] = of_seeds.min(), of_seeds.max()
        means = rates[(rates["update"] == rates["update"].max())]
        assert (means.loc[means["group"] == "weights+bias", "mean"] > 0).all()
    low, high = shares["conv4"]
    assert f"{low:.0f} to {high:.0f} % of Conv4's single rates" in RESULTS
    assert {round(share) for share in shares["resnet12"]} == {6}
    assert "and 6 % of the ResNet-12's are negative" in RESULTS
    table = pd.read_csv(FIGURES / "backbones" / "backbones" / "backbones.csv")
    needed = table[table["quantity"] == "off-task change"].set_index("condition")["needed"]
    seeds = [needed[f"glyphs, ResNet-12 minus Conv4: {name}"] for name in ("MAML", "Meta-SGD")]
    assert f"{seeds[0]} and {seeds[1]} seeds would decide" in RESULTS


def test_the_methods_whose_features_are_best_before_adaptation():
    table = pd.read_csv(FIGURES / "questions" / "features" / "changes.csv")
    before = table.groupby("method")["pre_adaptation"].mean().sort_values(ascending=False)
    assert list(before.index[:3]) == ["protonet", "anil", "meta-sgd"]
    first, second, third = (f"{accuracy:.0f}" for accuracy in before.iloc[:3])
    assert second == third
    assert f"network, {first} %, then ANIL and Meta-SGD, {second} %" in RESULTS


def test_what_the_two_short_runs_show():
    tables = {run: pd.read_csv(FIGURES / run / "table1.csv") for run in ("demo", "mini-imagenet")}
    mini = tables["mini-imagenet"].set_index(["group", "layer"])
    convolutions = mini.loc["weights+bias"].drop("logits")["share_negative"]
    assert 0.19 < convolutions.min() < 0.21 and 0.39 < convolutions.max() < 0.42
    assert "a fifth to two fifths of every convolution's rates are negative" in RESULTS
    assert (mini.loc["weights+bias", "mean"] > 0).all()
    fourth = mini.loc["batchnorm", "conv4"]
    said = f"({100 * fourth['share_negative']:.0f} % of them, mean {signed(fourth['mean'])})"
    assert said in RESULTS
    longest = pd.read_csv(FIGURES / "paper-28" / "table1.csv").set_index(["group", "layer"])
    longest = longest.loc["batchnorm"]
    assert longest["mean"].idxmax() == "conv4"
    fourth = longest.loc["conv4"]
    negative, mean = 100 * fourth["share_negative"], signed(fourth["mean"])
    assert f"the most positive ({negative:.0f} % negative, mean {mean})" in RESULTS
    demo = tables["demo"]
    assert (demo.loc[demo["group"] == "batchnorm", "mean"] > 0).all()
    changes = pd.read_csv(FIGURES / "demo" / "changes.csv").groupby("method")["on_task"].mean()
    assert [round(change) for change in changes] == [5, 6]
    assert "on-task by five to six points" in RESULTS
    on_task = pd.read_csv(FIGURES / "mini-imagenet" / "changes.csv")["on_task"]
    assert (on_task.abs() < 0.5).all()
    assert "both on-task changes are below half a point" in RESULTS
    trainings = [
        json.loads((FIGURES / "mini-imagenet" / f"train-{method}-0.json").read_text())
        for method in ("meta-sgd", "maml")
    ]
    minutes = [f"{each['results']['seconds_training'] / 60:.0f}" for each in trainings]
    assert f"{' and '.join(minutes)} minutes of training for Meta-SGD and MAML" in RESULTS


def test_notebook_10_says_how_wide_the_papers_rates_and_the_longest_runs_are():
    body, logits = PAPER_TABLE_1["paper std"][:4], PAPER_TABLE_1["paper std"][4]
    assert {f"{spread:.2f}" for spread in body} == {"0.03"} and f"{logits:.2f}" == "0.07"
    assert "standard deviations of 0.03 in the convolutions and 0.07 in the linear" in answer("10")
    table = pd.read_csv(FIGURES / "paper-28" / "table1.csv").query("group == 'weights+bias'")
    widest = (table["std"] / table["paper std"]).max()
    assert round(widest) == 11 and "yields up to eleven times these" in answer("10")
    assert f"has a standard deviation of {(0.1 - 0.005) / 12**0.5:.3f}, and in" in answer("10")


def test_the_readme_says_how_long_make_study_took():
    """The measured seconds are told with their machine in docs/results.md."""
    minutes, seconds, figure = map(
        int,
        re.search(
            r"took (\d+) minutes (\d+) seconds, its first figure (\d+) seconds,", RESULTS
        ).groups(),
    )
    assert (round(minutes + seconds / 60), round(figure / 60)) == (7, 1)
    fast = re.search(r"took (\d+) minutes (\d+) seconds, idle, its first figure (\d+),", RESULTS)
    minutes, seconds, figure = map(int, fast.groups())
    assert (round(minutes + seconds / 60), round(figure / 60, 1)) == (4, 0.5)
    assert (
        "that takes four minutes on two cores with AVX-512 and seven on two slow ones (the first "
        "figure comes after half a minute, or one)," in README
    )


def test_how_nearly_maml_off_task_is_not_smaller_than_half_of_the_papers_effect():
    changes = grids(pd.read_parquet(FIGURES / "decide" / "features" / "features.parquet"))
    change = over_seeds(changes[MAML, "off-task change"], skewed=True)
    low = change.interval(1 - levels([8, 12])[8]).low
    said = f"at the level of the verdict its interval ends at {low:.3f}, and the margin is 0.069"
    assert PARTS["e"][0].margin == 0.069 and low > -0.069
    assert said.replace("-", "−") in RESULTS


def test_what_the_networks_at_84_reach():
    maml, meta_sgd = (100 * run.final_accuracy().astype(float) for run in LARGE)
    apart = estimate(meta_sgd - maml).interval()
    assert f"{maml.mean():.1f} and {meta_sgd.mean():.1f} %, Meta-SGD {apart.mean:.1f} " in RESULTS
    low = with_sign(apart.low, 1).removeprefix("+")
    assert f"[{low}, {apart.high:.1f}] points more on the same tasks" in RESULTS
    last = [100 * run.history()["val_accuracy"].dropna().tail(5).mean() for run in LARGE]
    assert f"over the last five checks, {last[0]:.1f} and {last[1]:.1f} %" in RESULTS
    assert f"({last[0]:.1f} and {last[1]:.1f} % in validation; the paper: 46 and 47 %)" in README


def test_shuffled_signs_matter_to_the_whole_adapted_model_of_the_eight():
    variants = pd.read_parquet(FIGURES / "decide" / "mechanism" / "interventions.parquet")
    whole = against_base(compared(variants, "variant", AS_LEARNED)[WHOLE]).set_index("condition")
    row = whole.loc["signs shuffled"]
    said = f"whose accuracy it changes by {with_interval(row.points, row.low, row.high)}"
    assert said in (ROOT / "notebooks" / "05_mechanism.ipynb").read_text()


@pytest.mark.slow
def test_the_verdicts_at_the_best_validation_over_the_pairs_that_were_looked_at_first():
    features = pd.read_parquet(FIGURES / "decide" / "features-best" / "features.parquet")
    rates = pd.read_parquet(FIGURES / "decide" / "alpha-best" / "rates.parquet")
    found = judged.claims(features[features["episode"] < 2500], rates, [8, 12]).set_index("claim")
    assert found.loc["d", "methods"] == "undecided"
    assert found.loc["f", "methods"] == "no such effect"
    assert "methods: not by Holm" in found.loc["f", "note"]
    said = "(d) was undecided and (f) *no such effect*, which did not survive Holm"
    assert f"Over the first 2,500 of these pairs, published a day earlier, {said}" in RESULTS


def in_words(effects: pd.DataFrame, over: str = "episodes") -> dict[tuple, str]:
    """Every effect over episodes or over seeds, by method and quantity."""
    effects = effects[effects["over"] == over].set_index(["method", "quantity"])
    rows = effects[["points", "low", "high"]].T.items()
    return {key: with_interval(*row) for key, row in rows}


def test_the_points_of_the_readme_name_the_method_and_the_change_of_each_number():
    best = in_words(pd.read_csv(FIGURES / "decide" / "statistics-best" / "effects.csv"), "seeds")
    off, on = (
        [best[method, f"{where}-task change"] for method in (MAML, META_SGD)]
        for where in ("off", "on")
    )
    shown = [pd.read_csv(FIGURES / of / "mechanism" / "equivalence.csv") for of in SINGLE]
    small, large, gaining = (
        {
            of.quantity: with_interval(of.points, of.low, of.high)
            for of in table[table["rates"] == WITHOUT_NEGATIVE].itertuples()
        }
        for table in shown
    )
    for said in (
        f"says, by {on[0]} (MAML) and {on[1]} (Meta-SGD), which is (d) *reproduced*, not by Holm;",
        f"change by {off[0]} and {off[1]}, which leaves (e) and (f) undecided",
        f"by {gaining['off-task change']} and {small['off-task change']} in the two that gain more",
        f"and by {large['off-task change']} at 84×84.",
        f"and by {large['on-task change']} at 84×84.",
    ):
        assert said in README, said
    best = [
        load_run(str(FIGURES / "decide" / "networks" / f"{name}-{seed}@best")).update
        for name in ("maml", "meta-sgd-meta-sgd")
        for seed in range(8)
    ]
    assert f"loss, at {min(best):,} to {max(best):,} meta-updates; 10,000 pairs" in RESULTS


GROUPS = {  # how a row begins: tables of features and of rates; over seeds or over pairs
    "eight by each method, 28×28, 20,000 meta-updates": (
        "decide/features", "decide/alpha", "seeds",
    ),
    "five of these, trained on, 28×28, 60,000": ("length/features", "length/alpha", "seeds"),
    "one more of Meta-SGD, 28×28, 60,000": ("recipes/features", "recipes/longest", "episodes"),
    "one by each method, by another recipe, 28×28, 60,000": (
        "paper-28/networks/*", "paper-28/networks/meta-sgd-0", "episodes",
    ),
    "one by each method, 84×84, 60,000": ("paper-84/features", "paper-84/alpha", "episodes"),
}  # fmt: skip


def test_the_table_of_all_groups_of_networks():
    pages = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", page) for page in (README, RESULTS)]
    for group, (of_features, of_rates, over) in GROUPS.items():
        tables = [*FIGURES.glob(f"{of_features}/features.parquet")]
        told = in_words(effect_sizes(pd.concat(map(pd.read_parquet, tables))), over)
        off = [told.get((method, "off-task change")) for method in (MAML, META_SGD)]
        rates = pd.read_parquet(FIGURES / of_rates / "rates.parquet")
        means = last_mean_rates(rates).mean().drop("logits")
        negative = ", ".join(means.index[means < 0]) or "none"
        maml = off[0] or {"one": "–", "five": "to follow"}[group.split()[0]]
        row = f"| {group} | {maml} | {off[1]} | {told[META_SGD, 'on-task change']} | {negative} |"
        assert all(row in page for page in pages), row


def test_what_adaptation_does_to_features_at_84():
    told, before = (
        in_words(pd.read_csv(FIGURES / "paper-84" / job / "effects.csv"))
        for job in ("statistics", "at-20000/statistics")
    )
    notebook = (ROOT / "notebooks" / "03_feature_adaptation.ipynb").read_text()
    for quantity in ("off-task change", "on-task change"):
        for method in (MAML, META_SGD):
            assert all(told[method, quantity] in page for page in (README, RESULTS, notebook))
            assert before[method, quantity] in RESULTS
    for method in (MAML, META_SGD):
        assert all(told[method, "without head"] in page for page in (README, RESULTS))
    assert f"difference off-task, {told[DIFFERENCE, 'off-task change']}, has" in RESULTS
    assert f"by {told[DIFFERENCE, 'pre-adaptation']} points (Meta-SGD minus MAML)" in RESULTS
    features = pd.read_parquet(FIGURES / "paper-84" / "features" / "features.parquet")
    apart = features.groupby("method")["ordinary"].mean()
    assert f"adapted model is better, by {100 * (apart[META_SGD] - apart[MAML]):.2f}." in RESULTS
    alone = (features.loc[features["method"] == MAML, "shared_classes"] == 0).sum()
    assert len(features) == 80_000 and f"({alone:,} of them share no class)" in RESULTS
    verdicts = list(of_claims("paper-84/statistics")["networks"])
    assert verdicts == ["contradicted"] * 6 and "all six of its claims are contradicted**" in README
    apart = in_words(effect_sizes(features[features["shared_classes"] == 0]))
    off = {method: apart[method, "off-task change"] for method in (META_SGD, MAML, DIFFERENCE)}
    said = f"off-task {off[META_SGD]} (Meta-SGD) and {off[MAML]} (MAML), the difference "
    assert f"it is the same: {said}{off[DIFFERENCE]}." in RESULTS


def test_what_adaptation_does_at_the_best_validation_at_84():
    folder = FIGURES / "paper-84" / "best"
    features = pd.read_parquet(folder / "features" / "features.parquet")
    assert set(features["episode"]) == set(range(2500))
    told = in_words(effect_sizes(features))
    off, on = (told[META_SGD, f"{where}-task change"] for where in ("off", "on"))
    assert f"by {off} off-task and {on} on-task (2,500 pairs)" in README
    assert f"off-task by {off} points and on-task by {on}" in RESULTS
    off, on = (told[MAML, f"{where}-task change"] for where in ("off", "on"))
    assert f"hardly change, {off} and {on}. So it is" in RESULTS
    best = [load_run(str(folder / "networks" / f"{m}-0@best")).update for m in (META_SGD, MAML)]
    assert f"after {best[0]:,} meta-updates Meta-SGD's" in RESULTS
    assert f"MAML's after {best[1]:,} hardly" in RESULTS


def test_what_adapting_does_to_the_network_of_the_chosen_recipe_at_its_end():
    features = pd.read_parquet(FIGURES / "recipes" / "features" / "features.parquet")
    assert len(features) == 10_000 and set(features["shared_classes"]) == {0}
    told = in_words(effect_sizes(features))
    off, on = (told[META_SGD, f"{where}-task change"] for where in ("off", "on"))
    assert f"off-task {off} points, on-task {on}, where the eight networks" in RESULTS
    plan = (ROOT / "notebooks" / "studies" / "recipes.yml").read_text().replace("\n# ", " ")
    assert f"off-task {off} points, on-task {on} (95 %, over pairs)" in plan


def test_negative_rates_do_not_make_the_gain_of_the_network_of_the_chosen_recipe():
    folder = FIGURES / "recipes" / "mechanism"
    variants = pd.read_parquet(folder / "interventions.parquet")
    features = pd.read_parquet(FIGURES / "recipes" / "features" / "features.parquet").head(2500)
    learned = variants[variants["variant"] == AS_LEARNED].reset_index(drop=True)
    pd.testing.assert_frame_equal(learned[features.columns], features)  # of the same pairs
    table = pd.read_csv(folder / "equivalence.csv").set_index(["quantity", "rates"])
    told = {key: with_interval(row.points, row.low, row.high) for key, row in table.iterrows()}
    without, long, one = WITHOUT_NEGATIVE, WITHOUT_NEGATIVE + AS_LONG, ONE_CLASS
    off, on = table.loc["off-task change"], table.loc["on-task change"]
    assert off.loc[without, "verdict"] == "unchanged"
    assert all(told["off-task change", without] in page for page in (README, RESULTS, STATISTICS))
    assert f"within ±0.1 (p = {off.loc[without, 'p_value']:.3f})" in RESULTS
    p = f"{off.loc[long, 'p_value']:.3f}"
    told_long = f"{told['off-task change', long]}, just not within it (p = {p})"
    assert told_long in RESULTS and told_long in answer("05")
    assert set(off["verdict"].drop([without, one])) == {"undecided"}
    assert set(on["verdict"].drop(one)) == {"undecided"}
    assert on.loc[one, "verdict"] == "down"
    said = f"without the negative rates, {told['on-task change', without]}. Of the method"
    assert said in answer("05")


def test_the_figure_of_interventions_shows_differences_and_not_flipped_signs():
    variants = pd.read_parquet(FIGURES / "decide" / "mechanism" / "interventions.parquet")
    tables = compared(variants, "variant", AS_LEARNED)
    panels = minus_learned(tables)
    assert list(panels) == [f"{q}, minus as learned" for q in ("on-task change", "off-task change")]
    for quantity, panel in zip(tables, panels.values(), strict=False):
        table = tables[quantity].set_index("condition")
        assert set(table.index) - set(panel["condition"]) == {AS_LEARNED, FLIPPED}
        shown = panel.set_index("condition")["points"]
        expected = table["points"] - table.loc[AS_LEARNED, "points"]
        pd.testing.assert_series_equal(shown, expected[shown.index], check_names=False)


def test_what_five_networks_of_meta_sgd_do_at_the_papers_length():
    folder = FIGURES / "length"
    features = pd.read_parquet(folder / "features" / "features.parquet")
    assert features.groupby("seed").size().to_dict() == dict.fromkeys(range(3, 8), 10_000)
    assert set(features["shared_classes"]) == {0}
    told = in_words(effect_sizes(features), "seeds")
    off, on = (told[META_SGD, f"{where}-task change"] for where in ("off", "on"))
    notebook = (ROOT / "notebooks" / "03_feature_adaptation.ipynb").read_text()
    assert f"off-task by {off} points over five seeds" in RESULTS and f"On-task by {on}," in RESULTS
    maml, meta_sgd = map(with_sign, PAPER_CHANGES["points"])
    said = f"The paper's +0.2 % is {meta_sgd} points and its −0.3 % {maml} if they are percent"
    assert said in README and said in RESULTS
    assert f"gain {off} points off-task and {on} on-task" in notebook
    change = grids(features)[META_SGD, "off-task change"]
    each = [over_episodes(change.loc[[seed]]).interval() for seed in change.index]
    least, most = (with_sign(of(one.mean for one in each)) for of in (min, max))
    assert f"the five networks have {least} to {most}, of which the intervals of two," in RESULTS
    assert sum(one.low < 0 for one in each) == 2
    table = pd.read_csv(folder / "against-20000.csv").query("condition == '60,000'")
    longer = {
        row.quantity: with_interval(row.minus_base, row.minus_low, row.minus_high)
        for row in table.itertuples()
    }
    assert f"the same networks have {longer['off-task change']} points more" in RESULTS
    assert f"at 60,000 minus that at 20,000 is {longer['off-task change']} points." in README
    assert f"On-task they have {longer['on-task change']} more" in RESULTS
    of = table.set_index("quantity")
    assert of.loc["off-task change", "needed_minus"] == 10 and "ten seeds would" in RESULTS
    networks = [load_run(str(path)) for path in (folder / "networks").iterdir()]
    reached = [100 * run.final_accuracy().mean() for run in networks]
    assert f"they reach {min(reached):.1f} to {max(reached):.1f} %." in RESULTS


def test_the_rates_of_five_networks_of_meta_sgd_at_the_papers_length():
    folder = FIGURES / "length" / "alpha"
    table = pd.read_csv(folder / "table1.csv").set_index(["group", "layer"]).loc["weights+bias"]
    told = [with_sign(mean, 4) for mean in table["mean"]]
    said = ", ".join(f"{layer} {mean}" for layer, mean in zip(table.index, told, strict=True))
    shares = [f"{100 * share:.0f}" for share in table["share_negative"]]
    assert f"{said}, with {', '.join(shares[:3])} and {shares[3]} % of the" in RESULTS
    assert (
        f"negative, {told[0]}, {told[1]} and {told[2]}, and the fourth's is not, {told[3]}"
        in README
    )
    notebook = (ROOT / "notebooks" / "02_alpha_distribution.ipynb").read_text()
    assert f"(conv1 {told[0]}, conv2 {told[1]}, conv3 {told[2]}; conv4 {told[3]})" in notebook
    rates = pd.read_parquet(folder / "rates.parquet")
    means = rates[rates["group"] == "weights+bias"].pivot_table("mean", ["update", "seed"], "layer")
    assert ((means.loc[60_000] < 0).to_numpy() == [True, True, True, False, False]).all()
    assert (means.loc[20_000] > 0).all(axis=None)
    assert judged.claims(None, rates).set_index("claim").loc["a", "methods"] == "contradicted"


def test_what_it_changes_that_rates_start_independently_of_the_weights():
    folder = FIGURES / "start"
    features = pd.read_parquet(folder / "features" / "features.parquet")
    assert features.groupby("seed").size().to_dict() == dict.fromkeys(range(3, 8), 10_000)
    assert set(features["shared_classes"]) == {0} and set(features["method"]) == {META_SGD}
    apart = pd.read_csv(folder / "changes_apart.csv").query("over == 'seeds'").set_index("quantity")
    told = {row.Index: with_interval(row.points, row.low, row.high) for row in apart.itertuples()}
    off = apart.loc["off-task change"]
    assert off["verdict"] == "unchanged" and off["n"] == 5
    assert (
        f"same seeds is {told['off-task change']} points (90 %, over seeds), within the ±0.1"
        in RESULTS
    )
    assert (
        f"(p = {off['p_value']:.2g}); on-task, secondary, it is {told['on-task change']}" in RESULTS
    )
    assert f"the off-task change by {told['off-task change']} points (90 %, over seeds)" in README
    decide = pd.read_parquet(FIGURES / "decide" / "features" / "features.parquet")
    decide = decide[decide["seed"].isin(range(3, 8))]
    both = (decide, pd.concat([decide[decide["method"] == MAML], features[decide.columns]]))
    verdicts = []
    for of, study in zip(both, ("decide", "start"), strict=True):
        rates = pd.read_parquet(FIGURES / study / "alpha" / "rates.parquet")
        found = judged.claims(of.reset_index(drop=True), rates[rates["seed"].isin(range(3, 8))])
        verdicts.append(found[["claim", "networks", "methods"]])
    pd.testing.assert_frame_equal(*verdicts)
    means = pd.read_csv(folder / "means_apart.csv")
    said = ", ".join(
        f"{row.layer} {with_sign(row.minus, 4)} [{with_sign(row.low, 4)}, {with_sign(row.high, 4)}]"
        for row in means.itertuples()
    )
    assert f"mean rates differ by {said} (new minus published" in RESULTS


def test_what_five_networks_of_the_papers_length_do_without_their_negative_rates():
    folder = FIGURES / "length" / "mechanism"
    variants = pd.read_parquet(folder / "interventions.parquet")
    assert set(variants.groupby(["seed", "variant"]).size()) == {2500}
    primary = primary_contrasts(variants)
    row = primary[(primary["rates"] == WITHOUT_NEGATIVE) & (primary["over"] == "seeds")].iloc[0]
    told = with_interval(row.points, row.low, row.high)
    assert (row.verdict, row.n) == ("unchanged", 5)
    assert f"differs by {told} points (90 %, over seeds), within the ±0.1" in RESULTS
    assert f"named beforehand (p = {row.p_value:.4f})" in RESULTS
    assert f"and by {told} in the five that gain a little, within ±0.1" in README
    assert f"equivalence, {told} points (90 %; p = {row.p_value:.4f})." in STATISTICS
    assert f"by {told} (90 %, over seeds; planned), within ±0.1 (p = {row.p_value:.4f})" in answer(
        "05"
    )
    tables = compared(variants, "variant", AS_LEARNED)
    on_task, whole = (
        with_interval(row.points, row.low, row.high)
        for name in ("on-task change", WHOLE)
        for row in against_base(tables[name]).query("condition == @WITHOUT_NEGATIVE").itertuples()
    )
    assert f"and {on_task} in the five (95 %, secondary)" in README
    assert f"and in the five, {whole}.\n" in README
    assert f"by {on_task}, and the whole adapted model better, by {whole}" in RESULTS
    assert f"without them, {on_task} (95 %), and the whole adapted model gains, {whole}." in answer(
        "05"
    )
