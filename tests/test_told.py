"""Numbers in prose, compared with the shipped tables that they are of."""

from negmeta_utils.runs import ROOT, load_run

RESULTS = (ROOT / "docs" / "results.md").read_text()
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
