"""Numbers in prose, compared with the shipped tables that they are of."""

import json
import re

import pandas as pd

from negmeta_utils.runs import ROOT, load_run

RESULTS = (ROOT / "docs" / "results.md").read_text()
STATISTICS = (ROOT / "docs" / "statistics.md").read_text()
NETWORKS = [load_run(f"mini-imagenet-{method}-0") for method in ("maml", "meta-sgd")]


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
    table = pd.read_csv(ROOT / "figures" / "recipes" / "distances.csv")
    rows = [line for line in RESULTS.splitlines() if " of 5 | " in line]
    assert len(rows) == 8
    for line, row in zip(rows, table[table["group"] == "weights+bias"].itertuples(), strict=True):
        schedule, start, rate, *numbers = line.strip("| ").split(" | ")
        assert f"{schedule}, from {start}, outer rate {rate}" == row.recipe
        nearest = f"{row.nearest_distance:.2f} at {row.nearest_update:,}"
        assert numbers == [f"{row.distance:.2f}", f"{row.signs} of 5", nearest]


def test_no_recipe_gives_the_signs():
    rates = pd.read_parquet(ROOT / "figures" / "recipes" / "recipes.parquet")
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
    trainings = json.loads((ROOT / "figures" / "recipes" / "trainings.json").read_text())
    assert {round(each["results"]["seconds_training"]) for each in trainings.values()} == {207}


def test_the_verdicts_that_the_fourth_one_changed_are_those_named():
    """By the first rules, of three verdicts, what is *no such effect* was *undecided*."""
    claims = pd.read_csv(ROOT / "figures" / "paper-28" / "claims.csv").set_index("claim")
    changed = [f"({name})" for name in claims.index[claims["networks"] == "no such effect"]]
    said = f"{' and '.join(changed)} were *undecided*"
    assert said in (ROOT / "README.md").read_text()
    assert f"{' and '.join(changed)}, from *undecided* to" in STATISTICS


def test_the_time_of_a_study_is_that_of_its_meta_updates():
    speed, studies = ((ROOT / "docs" / f"{page}.md").read_text() for page in ("speed", "studies"))
    found = re.search(
        r"takes ([\d.]+) to ([\d.]+) s .* at 28×28 and ([\d.]+) to ([\d.]+) s at", speed
    )
    hours = [60_000 * float(seconds) / 3600 for seconds in found.groups()]
    small, large = (f"{low:.0f} to {high:.0f}" for low, high in (hours[:2], hours[2:]))
    assert f"{large} hours for each network on one core, or {small} with" in studies
    assert f"[{found[3]} to {found[4]} s](speed.md) of one core" in studies
    assert f"so 60,000 of them are {large} hours" in studies
    assert hours[2] < 33 < hours[3] and "some 33,000 core hours" in studies
