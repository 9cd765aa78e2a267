"""The answers that notebooks open on are what the shipped tables say."""

import re
from collections.abc import Iterable, Iterator

import nbformat
import pandas as pd
import pytest
from answers import (
    FIGURES,
    LONGEST,
    answer,
    of_claims,
    of_negative_rates,
    of_single_mechanisms,
    questions,
    verdict,
)
from bs4 import BeautifulSoup
from scipy.stats import t

from negmeta_utils.evidence.claims import claims_markdown
from negmeta_utils.evidence.contrasts import (
    accuracy_grids,
    against_base,
    contrasts,
    sentence,
)
from negmeta_utils.evidence.learned_rates import distance_to_paper
from negmeta_utils.evidence.quantities import META_SGD, effect_sizes, grids
from negmeta_utils.evidence.words import signed
from negmeta_utils.explore.measures import layer_rates
from negmeta_utils.plots.style import LABELS, NAMES
from negmeta_utils.plots.tables import in_print
from negmeta_utils.questions.across_datasets import changes_by_dataset
from negmeta_utils.questions.interventions import AS_LEARNED
from negmeta_utils.questions.mechanism import answers, compared, primary_contrasts
from negmeta_utils.questions.uses import changes_over_steps
from negmeta_utils.runs import load_run
from negmeta_utils.storage.paths import ROOT
from negmeta_utils.studies.study_file import NOTEBOOKS

KINDS = ("normalised", "float64")  # of images and of precision
TRIPLE = re.compile(r"([+−][\d.]+) \[([+−][\d.]+), ([+−][\d.]+)\]")


def numbers(texts: Iterable[str]) -> list[float]:
    """Of text with a minus sign."""
    return [float(text.replace("−", "-")) for text in texts]


def of_longest_run() -> pd.DataFrame:
    return pd.concat(map(pd.read_parquet, sorted(LONGEST.glob("*/features.parquet"))))


def of_features() -> Iterator[pd.DataFrame]:
    table = effect_sizes(of_longest_run())
    yield table[table["over"] == "episodes"]


def of_verdicts(job: str = "statistics") -> pd.DataFrame:
    """The intervals over eight seeds by which the methods were judged."""
    claims = of_claims(f"decide/{job}")
    found = TRIPLE.findall(in_print(" ".join(claims["measured"])))
    return pd.DataFrame(map(numbers, found), columns=["points", "low", "high"])


def of_pairs_apart() -> pd.DataFrame:
    """Of pairs of tasks that share no class."""
    table = of_longest_run()
    return effect_sizes(table[table["shared_classes"] == 0])


def of_single_networks() -> Iterator[pd.DataFrame]:
    """Of both at 84×84, at the end, best validation and a third, and of the chosen recipe's at
    60,000."""
    for folder in ("paper-84", "paper-84/best", "paper-84/at-20000", "recipes"):
        yield effect_sizes(pd.read_parquet(FIGURES / folder / "features" / "features.parquet"))


def of_length() -> Iterator[pd.DataFrame]:
    """Of Meta-SGD's five networks of the paper's length, and of these against a third of it."""
    yield effect_sizes(pd.read_parquet(FIGURES / "length" / "features" / "features.parquet"))
    longer = pd.read_csv(FIGURES / "length" / "against-20000.csv")
    minus = {"minus_base": "points", "minus_low": "low", "minus_high": "high"}
    yield longer[list(minus)].rename(columns=minus)
    yield pd.read_csv(FIGURES / "length" / "mechanism" / "equivalence.csv")
    found = pd.read_csv(FIGURES / "length" / "mechanism" / "contrasts.csv")
    yield found
    yield found[list(minus)].rename(columns=minus)


def of_rates_that_move() -> pd.DataFrame:
    """Mean rates of eight networks by layer, without those of biases."""
    table = pd.read_csv(FIGURES / "decide" / "alpha" / "table1_weights.csv")
    return table.rename(columns={"mean": "points", "mean_low": "low", "mean_high": "high"})


def of_answer_3() -> Iterator[pd.DataFrame]:
    yield from (*of_features(), *of_single_networks(), of_verdicts(), *of_length())


def of_mechanism() -> Iterator[pd.DataFrame]:
    yield from of_single_mechanisms()
    for name in ("paper-28", "paper-84", "recipes"):
        yield of_negative_rates(f"{name}/mechanism")[0].to_frame().T
    for study in ("decide", "questions"):
        folder = FIGURES / study / "mechanism"
        yield pd.read_csv(folder / "equivalence.csv")
        for name in ("interventions", "maml_parts"):
            table = pd.read_parquet(folder / f"{name}.parquet")
            for found in compared(table, "variant", AS_LEARNED).values():
                yield from (found, against_base(found))
        trained = pd.read_parquet(folder / "positive.parquet")
        yield from map(against_base, compared(trained, "method", META_SGD).values())


def of_datasets() -> Iterator[pd.DataFrame]:
    table = questions("datasets/features.parquet")
    for _, rows in table.groupby("dataset"):
        yield contrasts({"": grids(rows)["meta-sgd - maml", "pre-adaptation"]})
    yield from changes_by_dataset(table.assign(backbone="conv4"), LABELS).values()
    yield pd.read_csv(FIGURES / "questions" / "datasets" / "rates.csv").rename(
        columns={"mean": "points", "mean_low": "low", "mean_high": "high"}
    )
    yield pd.read_csv(FIGURES / "backbones" / "backbones" / "backbones.csv")


def of_steps() -> Iterator[pd.DataFrame]:
    yield changes_over_steps(questions("inner_steps/steps.parquet"))


def of_uses() -> Iterator[pd.DataFrame]:
    for _, rows in questions("test_time/uses.parquet").groupby("method"):
        yield against_base(contrasts(accuracy_grids(rows, "use"), "no adaptation"))


def of_methods() -> Iterator[pd.DataFrame]:
    for name in ("features", "features_uniform"):
        for (method, _), grid in grids(questions(f"{name}/features.parquet")).items():
            yield contrasts({method: grid})
    backbones = pd.read_parquet(FIGURES / "backbones" / "backbones" / "features.parquet")
    yield from changes_by_dataset(backbones, LABELS).values()
    theory = pd.read_csv(FIGURES / "linear-theory" / "few-tasks" / "best_rates.csv")
    yield theory.rename(columns={"rate": "points"})


def check_intervals(text: str, tables: Iterable[pd.DataFrame], least: int) -> None:
    """Every "+0.04 [−0.12, +0.20]" of `text`, of which there are at least `least`, is a row of the
    tables, rounded."""
    known = [
        row for table in tables for row in table[["points", "low", "high"]].to_numpy().tolist()
    ]
    found = TRIPLE.findall(text)
    assert len(found) >= least
    for texts in found:
        half = 0.501 / 10 ** len(texts[0].partition(".")[2])
        said = numbers(texts)
        assert any(
            all(abs(a - b) <= half for a, b in zip(said, row, strict=True)) for row in known
        ), texts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "tables", "least"),
    [
        ("03", of_answer_3, 10),
        ("05", lambda: [*of_mechanism(), *of_length()], 24),
        ("06", of_datasets, 16),
        ("07", of_steps, 1),
        ("08", of_uses, 6),
    ],
)
def test_every_interval_of_an_answer_is_in_the_tables(number, tables, least):
    check_intervals(answer(number), tables(), least)


@pytest.mark.slow
def test_every_interval_of_the_open_questions_is_in_the_tables():
    page = (ROOT / "docs" / "results.md").read_text()
    of = (of_features, of_mechanism, of_length, of_datasets, of_steps, of_uses, of_methods)
    check_intervals(
        page[page.index("## The open questions") :], (t for tables in of for t in tables()), 19
    )


@pytest.mark.slow
def test_every_interval_of_the_longest_and_the_short_runs_is_in_the_tables():
    page = (ROOT / "docs" / "results.md").read_text()
    longest, _, after = page.partition("## On drawn characters")
    longest = longest[longest.index("## At the paper's length, on") :]
    check_intervals(longest, (*of_features(), of_pairs_apart()), 15)
    short = after[after.index("## What the two short runs") : after.index("## Normalised images")]
    check_intervals(short, [pd.read_csv(FIGURES / "mini-imagenet" / "effects.csv")], 2)


@pytest.mark.slow
def test_every_interval_of_eight_seeds_is_in_the_tables():
    page = (ROOT / "docs" / "results.md").read_text()
    own = page[page.index("## Eight seeds") : page.index("## At the paper's length, on")]
    effects = pd.read_csv(FIGURES / "decide" / "statistics" / "effects.csv")
    positive = pd.read_parquet(FIGURES / "decide" / "features-positive" / "features.parquet")
    tables = [of_verdicts(), of_verdicts("statistics-best"), effects, effect_sizes(positive)]
    tables += [*of_mechanism(), *of_single_networks(), *of_length(), of_rates_that_move()]
    large = pd.read_parquet(FIGURES / "paper-84" / "features" / "features.parquet")
    tables.append(effect_sizes(large[large["shared_classes"] == 0]))
    check_intervals(own, tables, 35)
    jobs = ("statistics", "statistics-best")
    end, best = (of_claims(f"decide/{job}")["methods"] for job in jobs)
    assert list(end == best) == [True, True, True, False, False, False]
    assert list(best[3:]) == ["reproduced", "undecided", "undecided"]
    p = pd.read_csv(FIGURES / "decide" / "statistics-best" / "p_values.csv").set_index("claim")
    assert f"(Holm) its p is {p.loc['d', 'Holm methods']:.3f}, more than 1.4 %" in own


@pytest.mark.slow
def test_every_interval_of_the_readme_is_in_the_tables():
    page = (ROOT / "README.md").read_text()
    tables = [*of_features(), of_pairs_apart(), *of_mechanism(), *of_single_networks()]
    tables += [of_verdicts(), of_verdicts("statistics-best"), *of_length(), of_rates_that_move()]
    check_intervals(page[: page.index("## Two commands")], tables, 18)


def test_the_verdicts_on_the_methods_that_notebook_4_opens_on():
    claims = of_claims("decide/statistics")
    verdicts = dict(zip(claims["claim"], claims["methods"], strict=True))
    said = "(a) is {a} at that length, (b) {b}, (c) {c}, and the verdict on (d), for MAML, (e)"
    said += " and (f) is *{d}*"
    assert said.format(**verdicts) in answer("04")
    assert verdicts["d"] == verdicts["e"] == verdicts["f"]


def test_the_verdicts_that_notebook_4_opens_on_are_those_at_the_papers_size():
    for row in of_claims("paper-84/statistics").itertuples():
        cells = [f"({row.claim}) {row.statement}", verdict(row, "networks")]
        cells += [in_print(row.measured), in_print(row.paper)]
        assert f"| {' | '.join(cells)} |" in answer("04")
        assert row.methods == "undecided"
    small = of_claims("paper-28")["networks"].value_counts()
    assert dict(small) == {"reproduced": 2, "contradicted": 2, "no such effect": 2}
    assert "two claims hold, two are contradicted, and of two there is no such" in answer("04")


def test_notebook_2_opens_on_the_last_rates_at_the_papers_size():
    table = pd.read_csv(FIGURES / "paper-84" / "alpha" / "table1.csv").set_index(["group", "layer"])
    own = table.loc["weights+bias"]
    for layer in ("conv1", "conv2", "conv3", "conv4"):
        assert f"{layer} ({own.loc[layer, 'mean']:+.3f})".replace("-", "−") in answer("02")
    assert f"{own.loc['logits', 'mean']:+.3f} (the paper's: +0.043)" in answer("02")
    *first, last = (f"{100 * share:.0f}" for share in own["share_negative"].iloc[:4])
    assert f"{', '.join(first)} and {last} % are negative" in answer("02")
    spread = own["std"] / own["paper std"]
    said = f"spread {spread.min():.1f} to {spread.max():.1f} times as far as the paper's"
    assert said in answer("02")
    rates = load_run("mini-imagenet-meta-sgd-0").rates()
    weights = rates[rates["group"] == "weights+bias"]
    means = weights.pivot(index="update", columns="layer", values="mean")
    negative = means.drop(columns="logits") < 0
    assert not negative.all(axis=1).any() and "Never were all four negative" in answer("02")
    ways = [f"from {own.index[own][0]:,} " for _, own in negative.items()]
    ends = [f"to {own.index[own][-1]:,}" for _, own in negative.items()]
    for layer, after in ((0, " meta-updates"), (1, ".")):
        assert f"{ways[layer]}{ends[layer]}{after}" in answer("02")
    apart = distance_to_paper(rates)
    apart = apart[apart["group"] == "weights+bias"].set_index("update")["distance"]
    assert f"after {apart.idxmin():,} meta-updates, where they are nearest" in answer("02")
    assert "spread three to eleven times as far as the paper's" in answer("02")


@pytest.mark.parametrize("number", [f"{number:02}" for number in range(11)])
def test_a_notebook_opens_on_a_figure(number):
    assert "](attachment:" in answer(number)


def percent(text: str) -> float:
    return float(text.removesuffix(" %"))


def test_notebook_0_opens_on_its_own_table_and_on_the_papers_size():
    (path,) = NOTEBOOKS.glob("00_*.ipynb")
    pages = [
        output.data["text/html"]
        for cell in nbformat.read(path, 4).cells
        for output in cell.get("outputs", ())
        if "flipped" in output.get("data", {}).get("text/html", "")
    ]
    (table,) = BeautifulSoup(pages[0], "html.parser")("table")
    rows = [[cell.text for cell in row("td")] for row in table("tr")[1:]]
    flipped = [percent(row[3]) for row in rows if row[1] != "before"]
    change = [
        percent(row[2]) - percent(before[2])
        for row in rows
        for before in rows
        if row[0] == before[0] and (row[1], before[1]) != ("before",) * 2 and before[1] == "before"
    ]
    said = f"{min(flipped):.0f} to {max(flipped):.0f} % of all answers flip"
    assert said in answer("00")
    changes = f"by {signed(min(change), 1)} to {signed(max(change), 1)} points"
    assert changes in answer("00")
    table1 = pd.read_csv(FIGURES / "paper-84" / "alpha" / "table1.csv")
    table1 = table1.set_index(["group", "layer"])
    conv3 = table1.loc[("weights+bias", "conv3")]
    assert f"{100 * conv3['share_negative']:.0f} % of the third convolution's" in answer("00")
    assert f"a mean of {signed(conv3['mean'], 4)}" in answer("00")


def test_notebook_1_opens_on_the_accuracies_at_both_sizes():
    large = [load_run(f"mini-imagenet-{method}-0") for method in ("maml", "meta-sgd")]
    small = [load_run(str(path)) for path in sorted(LONGEST.iterdir())]
    curves = [run.history().dropna(subset=["val_accuracy"]) for run in [*large, *small]]
    best = [rows.loc[rows["val_accuracy"].idxmax()] for rows in curves]
    accuracies = [f"{100 * row['val_accuracy']:.1f}" for row in best]
    updates = [f"{row['update']:,.0f}" for row in best]
    late = [f"{100 * rows['val_accuracy'].tail(5).mean():.1f}" for rows in curves[:2]]
    ends = " and ".join(f"{100 * rows['val_accuracy'].iloc[-1]:.1f}" for rows in curves[2:])
    test = " and ".join(f"{100 * run.final_accuracy().mean():.1f}" for run in large)
    histories = [run.history()["train_accuracy"] for run in large]
    trained = [f"{100 * accuracy.tail(1000).mean():.0f}" for accuracy in histories]
    for said in (
        f"{late[0]} % (MAML) and {late[1]} % (Meta-SGD), after a best single check of",
        f"of {accuracies[0]} and {accuracies[1]} % at {updates[0]} and {updates[1]} meta-updates",
        f"reach {test} % on 600",
        f"to {trained[0]} and {trained[1]} %.",
        f"after {updates[2]} and {updates[3]} meta-updates ({accuracies[2]} and {accuracies[3]} %)",
        f"falls to {ends} %",
    ):
        assert said in answer("01"), said


def percents(shares: Iterable[float]) -> str:
    return ", ".join(f"{100 * share:.0f}" for share in shares) + " %"


def test_shares_of_negative_rates_in_answers_are_those_of_the_tables():
    steps = pd.read_csv(FIGURES / "questions" / "inner_steps" / "rates.csv")
    own = steps[steps["group"] == "weights+bias"].groupby("layer")["share_negative"]
    for layer in ("conv1", "conv2", "logits"):
        assert f"{layer} {percents(own.get_group(layer))}" in answer("07")
    page = (ROOT / "docs" / "results.md").read_text()
    both = " and ".join(percents(own.get_group(layer)) for layer in ("conv1", "conv2"))
    assert f"({both} for 1" in page
    most = [100 * own.get_group(layer).iloc[-1] for layer in ("conv3", "conv4")]
    assert f"({most[0]:.0f} and {most[1]:.0f} % negative with ten steps)" in answer("07")
    rates = pd.read_csv(FIGURES / "questions" / "datasets" / "rates.csv")
    rates = rates[(rates["group"] == "weights+bias") & (rates["layer"] != "logits")]
    names = {"omniglot": "Omniglot", "glyphs": "glyphs", "mini-imagenet": "Mini-ImageNet"}
    for dataset, name in names.items():
        shares = percents(rates.loc[rates["dataset"] == dataset, "share_negative"])
        assert f"{name} {shares}" in answer("06")
    uniform = pd.read_csv(FIGURES / "questions" / "alpha_uniform" / "table1.csv")
    uniform = uniform[uniform["group"] == "weights+bias"]
    means = ", ".join(f"{row.layer} {row.mean:+.3f}" for row in uniform.itertuples())
    assert means in page
    assert f"({percents(uniform['share_negative'][:4])} of the convolutions')" in page
    of_omniglot = rates.loc[rates["dataset"] == "omniglot", "share_negative"]
    for layer, share in zip(("conv1", "conv2", "conv3", "conv4"), of_omniglot, strict=True):
        assert f"{100 * share:.0f} % of {layer}" in answer("05")


def test_notebook_8_opens_on_the_accuracy_without_adaptation():
    uses = questions("test_time/uses.parquet")
    none = uses[uses["use"] == "no adaptation"].groupby("method")["accuracy"].mean() * 100
    assert f"{none['maml']:.1f} % (MAML) and {none['meta-sgd']:.1f} % (Meta-SGD)" in answer("08")


def test_notebook_10_opens_on_the_distances_at_the_end_of_training():
    table = pd.read_csv(FIGURES / "recipes" / "distances.csv")
    own = table[table["group"] == "weights+bias"].sort_values("distance", ignore_index=True)
    texts = [f"{distance:.2f}" for distance in own["distance"]]
    assert own["recipe"][0] == "constant, from U[0.005, 0.1], outer rate 0.0001"
    assert own["recipe"][1] == "plateau, from U[0.005, 0.1], outer rate 0.0001"
    assert f"of {texts[0]} with a constant outer rate and {texts[1]} with the" in answer("10")
    assert f"the others end at {texts[2]} to {texts[-1]}" in answer("10")
    rates = pd.read_parquet(FIGURES / "recipes" / "recipes.parquet")
    last = rates[(rates["update"] == 20_000) & (rates["group"] == "weights+bias")]
    negative = (last["mean"] < 0).groupby(last["layer"]).sum()
    assert negative.to_dict() == {"conv1": 0, "conv2": 0, "conv3": 3, "conv4": 0, "logits": 0}


def test_notebook_0_says_how_much_of_the_variance_of_rates_is_between_channels_and_filters():
    (path,) = NOTEBOOKS.glob("00_*.ipynb")
    (said,) = (c.source for c in nbformat.read(path, 4).cells if "of the variance" in c.source)
    run = load_run("glyphs-meta-sgd-0")
    end = {layer: layer_rates(run, layer).filters[-1] for layer in ("conv2", "conv3", "conv4")}
    of_filters = [100 * end[n].mean(axis=1).var() / end[n].var() for n in ("conv2", "conv3")]
    assert f"the filters ({of_filters[0]:.0f} and {of_filters[1]:.0f} %)" in said
    of_channels = end["conv4"].reshape(len(end["conv4"]), -1, 9).mean(axis=(0, 2))
    share = 100 * of_channels.var() / end["conv4"].var()
    assert f"{share:.0f} % of the variance of the rates is between channels" in said


def test_what_normalised_images_and_float64_change_is_what_the_table_says():
    table = pd.read_csv(FIGURES / "images-and-precision" / "trainings.csv")
    accuracy = table.pivot(index="seed", columns="kind", values="accuracy")
    page = (ROOT / "docs" / "results.md").read_text()
    for kind in KINDS:
        change = accuracy[kind] - accuracy["as they are"]
        low, high = t.interval(0.95, len(change) - 1, change.mean(), change.sem())
        assert f"{signed(change.mean(), 1)} [{signed(low, 1)}, {signed(high, 1)}]" in page
    wide = table.set_index(["kind", "seed"]).drop(columns="accuracy")
    for word, said in (("mean", "at most {:.3f} and"), ("std", "at most {:.4f} on average")):
        columns = wide.columns[wide.columns.str.endswith(word)]
        changes = [wide.loc[k, columns] - wide.loc["as they are", columns] for k in KINDS]
        means = pd.concat(change.mean() for change in changes).abs()
        half = t.ppf(0.975, 2) * pd.concat(change.sem() for change in changes)
        assert said.format(means.max()) in page
        assert f"±{(means + half).max():.3f}" in page


@pytest.mark.slow
@pytest.mark.parametrize("study", ["decide", "questions"])
def test_the_shipped_answer_of_notebook_5_is_that_of_its_tables(study):
    folder = FIGURES / study / "mechanism"
    variants, trained, parts = (
        pd.read_parquet(folder / f"{name}.parquet")
        for name in ("interventions", "positive", "maml_parts")
    )
    found = answers(
        primary_contrasts(variants),
        compared(variants, "variant", AS_LEARNED),
        compared(trained, "method", "meta-sgd"),
        compared(parts, "variant", AS_LEARNED),
    )
    assert (folder / "summary.md").read_text().splitlines()[2:] == [f"- {line}" for line in found]


@pytest.mark.parametrize("name", ["questions/datasets", "backbones/backbones"])
def test_the_shipped_answer_of_notebook_6_is_that_of_its_table(name):
    features, labels = pd.read_parquet(FIGURES / name / "features.parquet"), LABELS | NAMES
    changes = changes_by_dataset(features.assign(**missing(features)), labels)
    lines = (FIGURES / name / "summary.md").read_text().splitlines()[2:]
    rows = changes["off-task change"]
    assert lines[: len(rows)] == [
        f"- {sentence(row, f'{row.condition}, off-task')}" for _, row in rows.iterrows()
    ]


def missing(features: pd.DataFrame) -> dict[str, str]:
    return {} if "backbone" in features else {"backbone": "conv4"}


def test_the_shipped_verdicts_in_words_are_those_of_their_tables():
    for path in FIGURES.rglob("claims.csv"):
        shown = (path.parent / "summary.md").read_text()
        assert claims_markdown(pd.read_csv(path, keep_default_na=False)) == shown, path
