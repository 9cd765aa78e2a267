"""The report: what it says of a study, to whom, and what it says where there is little."""

import json
import re
import shutil
from pathlib import Path

import every_figure
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from accessibility import contrast, faint, problems
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

from negmeta_utils.plots import style
from negmeta_utils.plots.tables import in_print
from negmeta_utils.storage import atomic, files, paths
from negmeta_utils.studies import cli, planning, report, study_file
from negmeta_utils.studies.report_scope import PAPER, scope
from negmeta_utils.studies.report_verdicts import verdicts

PUBLISHED = paths.ROOT / "figures" / "demo"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FIGURES = {
    "train-maml-0": {"figure5": "training_curves"},
    "train-maml-1": {"figure5": "training_curves"},
    "alpha": {"figure6": "rates_histogram"},
    "features": {"figure7": "feature_accuracy", "feature_changes": "feature_changes"},
    "statistics": {},
}
NOTEBOOKS = {
    "train-maml-0": "01_train",
    "train-maml-1": "01_train",
    "alpha": "02_alpha_distribution",
    "features": "03_feature_adaptation",
    "statistics": "04_statistics",
}
NEEDS = {
    "features": ["train-maml-0", "train-maml-1"],
    "statistics": ["features", "alpha"],
}


def plan(out_dir, notebooks):
    """A plan of these jobs: name -> notebook."""
    jobs = [
        planning.Job(name.split("-")[0], name, Path(f"{notebook}.ipynb"), {}, (), "0")
        for name, notebook in notebooks.items()
    ]
    planning.write_plan(jobs, out_dir)


def finish(folder, notebook, parameters=None, needs=()):
    """The record of a complete job in its folder."""
    record = {
        "key": "0", "notebook": notebook, "parameters": parameters or {}, "needs": list(needs),
        "seconds": 60.0,
    }  # fmt: skip
    atomic.write_json(folder / "job.json", record)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study's results and their report: the notebooks as they come, and the tables published of
    the demo."""
    out_dir = tmp_path_factory.mktemp("runs") / "demo"
    style.set_style()
    plan(out_dir, NOTEBOOKS)
    for name, notebook in NOTEBOOKS.items():
        folder = out_dir / name
        folder.mkdir(parents=True)
        shutil.copy(study_file.NOTEBOOKS / f"{notebook}.ipynb", folder)
        for saved, drawn in FIGURES[name].items():
            style.save(every_figure.FIGURES[drawn](), folder, saved)
        if notebook == "01_train":
            manifest = json.loads((PUBLISHED / f"{name}.json").read_text())
            atomic.write_json(folder / "manifest.json", manifest)
        needs = NEEDS.get(name, [])
        parameters = {"runs": [str(out_dir / n) for n in needs]} if needs else {}
        finish(folder, notebook, {**parameters, "out_dir": str(folder)}, needs)
    for name, table in (("alpha", "table1.csv"), ("features", "features.parquet")):
        shutil.copy(PUBLISHED / table, out_dir / name)
    for table in ("claims.csv", "effects.csv", "summary.md"):
        shutil.copy(PUBLISHED / table, out_dir / "statistics")
    plt.close("all")
    write(out_dir)
    return out_dir


@pytest.fixture
def results(finished, tmp_path):
    """A copy to change."""
    return shutil.copytree(finished, tmp_path / "demo")


def write(out_dir):
    assert cli.main(["report", "demo", "--out", str(out_dir)]) == 0


def page_of(out_dir):
    return (out_dir / "report.html").read_text(encoding="utf-8")


def soup_of(out_dir):
    return BeautifulSoup(page_of(out_dir), "html.parser")


def text_of(tag):
    return " ".join(tag.text.split())


def test_the_verdicts_come_first_and_are_those_of_the_table(finished):
    main = soup_of(finished).main
    claims = main.find("section")
    assert claims.h2.text == "Claims"
    table = pd.read_csv(PUBLISHED / "claims.csv")
    for row, card in zip(table.itertuples(), claims.find_all("article"), strict=True):
        assert text_of(card.h3) == f"({row.claim}) {row.statement}"
        said = text_of(card)
        assert f"these networks: {row.networks} the methods: {row.methods}" in said
        assert in_print(row.paper) in said
        assert in_print(row.measured) in said


def test_numbers_and_names_are_set_as_in_print():
    assert in_print("meta-sgd - maml -1.7 [-4.7, +1.3]") == ("Meta-SGD − MAML −1.7 [−4.7, +1.3]")


def test_it_begins_with_what_the_study_can_show(finished):
    assert text_of(soup_of(finished).select_one(".scope")) == (
        "300 meta-updates on drawn characters at 28×28, 2 networks by each method, 1/200 of the "
        "paper's training: a check that everything works, not a test of the paper."
    )


@pytest.mark.parametrize(
    ("changes", "seeds", "ends"),
    [
        ({}, 3, "3 networks by each method: a test of the paper's claims."),
        ({}, 1, "one network by each method: a test of these networks, not of the methods."),
        (
            {},
            (8, 1),
            "1 to 8 networks by each method: a test of these networks, not of the methods.",
        ),
        ({"image_size": 28}, 3, "a test of the paper's claims, though with another image size."),
        (
            {"n_updates": 5_999},
            9,
            "training: a check that everything works, not a test of the paper.",
        ),
    ],
)
def test_what_a_study_can_show_follows_from_its_trainings(changes, seeds, ends):
    known = {**PAPER, **changes}
    each = (seeds, seeds) if isinstance(seeds, int) else seeds
    trained = [
        {"parameters": {**known, "method": method, "seed": seed}}
        for method, n in zip(("maml", "meta-sgd"), each, strict=True)
        for seed in range(n)
    ]
    assert scope(trained).endswith(ends)


def test_verdicts_of_several_jobs_say_which(tmp_path):
    for name in ("statistics", "statistics-best"):
        shutil.copytree(PUBLISHED, tmp_path / name)
    rows = verdicts([tmp_path / "statistics", tmp_path / "alpha", tmp_path / "statistics-best"])
    assert [row["job"] for row in rows] == ["statistics"] * 6 + ["statistics-best"] * 6
    assert {row["job"] for row in verdicts([tmp_path / "statistics"])} == {""}


def test_a_verdict_that_does_not_survive_holm_says_so(results):
    """As the rules say, at the level of their look, and not by a level of the report's own."""
    claims = pd.read_csv(PUBLISHED / "claims.csv")
    p_values = pd.read_csv(PUBLISHED / "p_values.csv").assign(**{"Holm methods": 0.03})
    p_values.to_csv(results / "statistics" / "p_values.csv", index=False)
    lost = claims["methods"] != "undecided"
    claims["note"] = lost.map({True: "methods: not by Holm", False: "another note"})
    claims.to_csv(results / "statistics" / "claims.csv", index=False)
    write(results)
    cards = soup_of(results).find(id="claims").find_all("article")
    for card, expected in zip(cards, lost, strict=True):
        said = "the methods: not significant after Holm's correction for all claims (p = 0.03)"
        assert (said in text_of(card)) == expected
        assert "these networks: not significant" not in text_of(card)
        assert "not by Holm" not in text_of(card)


def test_several_trainings_are_one_figure(results):
    for name in ("train-maml-0", "train-maml-1"):
        history = {"update": range(1, 301), "val_accuracy": [None] * 299 + [0.5]}
        files.write_table(results / name / "history.parquet", pd.DataFrame(history))
    write(results)
    (figure5, *_) = soup_of(results).find(id="figures").find_all("figure")
    (image,) = figure5.find_all("img")
    assert "MAML, mean of 2" in image["alt"]


def test_trainings_that_differ_in_more_than_method_and_seed_keep_a_figure_each(results):
    for name in ("train-maml-0", "train-maml-1"):
        history = pd.DataFrame({"update": [1, 2], "val_accuracy": [None, 0.5]})
        files.write_table(results / name / "history.parquet", history)
        manifest = json.loads((results / name / "manifest.json").read_text())
        manifest["parameters"]["seed"] = 0
        atomic.write_json(results / name / "manifest.json", manifest)
    write(results)
    (figure5, *_) = soup_of(results).find(id="figures").find_all("figure")
    assert len(figure5.find_all("img")) == 2


def test_a_network_along_the_way_of_a_run_is_named_without_its_folder(results):
    record = json.loads((results / "features" / "job.json").read_text())
    record["parameters"]["runs"] = [f"{path}@best" for path in record["parameters"]["runs"]]
    atomic.write_json(results / "features" / "job.json", record)
    write(results)
    figures = soup_of(results).find(id="figures").get_text()
    assert "@best" not in figures and "at best" in figures.replace("\xa0", " ")
    record["parameters"]["runs"][0] = record["parameters"]["runs"][0].removesuffix("@best")
    atomic.write_json(results / "features" / "job.json", record)
    write(results)
    figures = soup_of(results).find(id="figures").get_text()
    assert "at end, best" in figures.replace("\xa0", " ")


def test_a_figure_has_its_caption_settings_and_words(finished):
    soup = soup_of(finished)
    section = soup.find(id="figures")
    assert [text_of(h) for h in section.find_all("h4")] == [
        "Figure 5: accuracy over training",
        "Figure 6: the distribution by layer",
        "Figure 7: accuracy by prototypes, and of the whole adapted model",
        "On-task and off-task changes",
    ]
    figure5, figure6, *_ = section.find_all("figure")
    assert "negative rates in orange" in text_of(figure6.figcaption)
    assert "% negative" in figure6.img["alt"]
    assert [text_of(p) for p in figure5.select(".which")] == ["seed 0", "seed 1"]
    settings = [text_of(p) for p in section.select(".settings")]
    assert "n_updates 300; " in settings[0].replace("\xa0", " ")
    assert "seed 0, 1; " in settings[1].replace("\xa0", " "), "of all that a figure rests on"
    assert not any(str(finished) in text for text in settings)


def test_tables_and_provenance_are_those_of_the_files(finished):
    soup = soup_of(finished)
    tables = {t.caption.text: t for t in soup.find(id="tables").find_all("table")}
    assert set(tables) == {"table 1", "effects"}
    cells = [[c.text for c in r.find_all(["th", "td"])] for r in tables["table 1"]("tr")]
    table1 = pd.read_csv(PUBLISHED / "table1.csv")
    assert cells[0] == [column.replace("_", " ") for column in table1]
    column = list(table1).index("mean")
    assert [float(row[column].replace("−", "-")) for row in cells[1:]] == pytest.approx(
        list(table1["mean"]), rel=1e-3
    )
    rows = len(pd.read_parquet(PUBLISHED / "features.parquet"))
    assert f"features.parquet ({rows:,} rows in 1 folder(s))" in text_of(soup.find(id="tables"))
    method = [row.find(["th", "td"]).text for row in tables["effects"]("tr")[1:]]
    assert {"MAML", "Meta-SGD"} <= set(method)
    manifest = json.loads((PUBLISHED / "train-maml-0.json").read_text())
    provenance = text_of(soup.find(id="provenance"))
    known = manifest["environment"]
    for fact in (
        known["device"], known["python"], known["packages"]["torch"], known["git_commit"],
        manifest["started"], f"{manifest['results']['seconds_training']:g}",
        manifest["data"]["test"]["fingerprint"],
    ):  # fmt: skip
        assert fact in provenance


def test_the_page_stands_alone_and_its_notebooks_are_a_link_away(finished):
    page = page_of(finished)
    soup = BeautifulSoup(page, "html.parser")
    assert not soup.find_all(["script", "link", "iframe", "object"])
    assert "@import" not in page and "url(" not in soup.style.text
    assert all(image["src"].startswith("data:image/") for image in soup.find_all("img"))
    links = [a["href"] for a in soup.find(id="notebooks").find_all("a")]
    assert len(links) == 2 * len(NOTEBOOKS)
    for link in links:
        assert (finished / link).is_file()
    exported = (finished / "report-notebooks" / "statistics.html").read_text(encoding="utf-8")
    assert "Verdicts" in exported and "reproduced" in exported


def test_the_page_is_accessible(finished):
    page = page_of(finished)
    assert problems(page) == []
    for broken, good in (
        (' alt="', ' data-alt="'), ("<h3", "<h5"), (' scope="col"', ""), (' lang="en"', ""),
    ):  # fmt: skip
        assert problems(page.replace(broken, good)), "the check sees nothing"


def test_contrast_is_that_of_wcag():
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)  # WCAG's own example
    assert faint("p { color: #777 } b { color: #fff; background: #111 }") == [
        "p: contrast 4.5 of #777 on #fff"
    ]


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no browser here")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_finds_nothing_to_complain_of(finished, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto((finished / "report.html").as_uri())
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert shown, "an image does not open"
    page.close()


def test_another_notebook_is_reported_by_what_it_leaves(results):
    folder = results / "mechanism-0"
    folder.mkdir()
    shutil.copy(study_file.NOTEBOOKS / "02_alpha_distribution.ipynb", folder / "05_mechanism.ipynb")
    (folder / "summary.md").write_text("# Answer\n\n**No.**\n\n| a | b |\n| - | - |\n| 1 | 2 |\n")
    plt.figure().savefig(folder / "unknown_plot.png")
    pd.DataFrame({"rate": range(100)}).to_csv(folder / "long.csv", index=False)
    finish(folder, "05_mechanism", {"k": 3})
    plan(results, {**NOTEBOOKS, "mechanism-0": "05_mechanism"})
    write(results)
    page = page_of(results)
    assert problems(page) == []
    soup = BeautifulSoup(page, "html.parser")
    assert soup.find(id="answers").strong.text == "No."
    assert "unknown plot" in [text_of(h) for h in soup.find(id="figures").find_all("h4")]
    assert "The first 14 of 100 rows; all digits in mechanism-0/long.csv." in text_of(
        soup.find(id="tables")
    )


def test_a_study_that_trains_nothing_is_reported_too(results):
    for name in NOTEBOOKS:
        if name != "alpha":
            shutil.rmtree(results / name)
    finish(results / "alpha", NOTEBOOKS["alpha"], {"runs": ["a-shipped-one"], "steps": [1, 2]})
    write(results)
    page = page_of(results)
    assert problems(page) == []
    soup = BeautifulSoup(page, "html.parser")
    assert "No network was trained" in text_of(soup.find(id="provenance"))
    shown = text_of(soup.select_one(".settings"))
    assert shown == "Settings: runs a-shipped-one; steps 1, 2."


def test_what_was_not_planned_is_not_reported(results):
    shutil.copytree(results / "train-maml-1", results / "train-maml-9")
    atomic.write_json(results / "train-maml-0" / "job.json", {"key": "of other settings"})
    jobs, missing = report.complete_jobs(results)
    assert sorted(job.name for job in jobs) == ["alpha", "features", "statistics", "train-maml-1"]
    assert missing == ["train-maml-0"]
    shutil.rmtree(results / "train-maml-1")
    assert report.complete_jobs(results)[1] == ["train"], "a step that has nothing complete"


def test_without_statistics_it_says_so_and_reports_the_rest(results, capsys):
    shutil.rmtree(results / "statistics")
    write(results)
    soup = soup_of(results)
    assert "not in the report, since not complete: statistics" in capsys.readouterr().out
    assert "No verdicts yet" in text_of(soup.find(id="claims"))
    assert "not complete: statistics" in text_of(soup.header)
    assert len(soup.find(id="figures").find_all("figure")) == 4


def test_a_job_that_failed_is_named_and_its_leftovers_are_not_shown(results, capsys):
    (results / "train-maml-1" / "job.json").unlink()
    write(results)
    soup = soup_of(results)
    assert "since not complete: train-maml-1" in capsys.readouterr().out
    assert len(soup.find(id="figures").figure.find_all("img")) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], r"study 'nothing': no such file; the studies here are backbones, decide, "),
        (["demo", "--out", "EMPTY"], r"EMPTY: no study was started there"),
    ],
)
def test_what_cannot_be_reported_is_one_line(arguments, said, tmp_path, capsys):
    places = [str(tmp_path) if word == "EMPTY" else word for word in arguments]
    assert cli.main(["report", *places]) == 2
    error = capsys.readouterr().err
    assert re.search(said.replace("EMPTY", re.escape(str(tmp_path))), error)
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_study_that_cannot_be_read_whole_leaves_the_last_report(results, capsys):
    before = page_of(results)
    (results / "alpha" / "job.json").write_text("{")
    assert cli.main(["report", "demo", "--out", str(results)]) == 2
    assert "alpha/job.json: not a whole file" in capsys.readouterr().err
    assert page_of(results) == before
