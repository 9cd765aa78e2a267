"""Notebook 5 on tables that it wrote, and on runs whose tables it writes."""

import shutil

import pandas as pd
import pytest
from answers import FIGURES
from in_process import execute

from negmeta_utils.questions.interventions import WITHOUT_NEGATIVE
from negmeta_utils.questions.mechanism_tables import WRITTEN, folder_of_tables, read_tables
from negmeta_utils.runs import PACKAGE
from negmeta_utils.storage.files import read_table, write_table

NOTEBOOK = "05_mechanism"
SHIPPED = "figures/length/mechanism"  # of five networks, the interventions alone


def written(folder, variants):
    folder.mkdir()
    write_table(folder / WRITTEN, variants)
    return folder


def test_one_folder_of_tables_is_told_from_runs():
    assert folder_of_tables([SHIPPED]).samefile(PACKAGE / SHIPPED)
    assert folder_of_tables(["glyphs-meta-sgd-0", "figures/decide/networks/maml-0@best"]) is None


@pytest.mark.parametrize(
    ("runs", "left_out"),
    [
        ([SHIPPED, "figures/decide/mechanism"], "figures/decide/mechanism"),
        (["glyphs-meta-sgd-0", SHIPPED], "glyphs-meta-sgd-0"),
        ([SHIPPED, SHIPPED], "the second one"),
    ],
)
def test_tables_beside_anything_else_are_refused(runs, left_out):
    said = f"runs: {SHIPPED} holds tables of notebook 5, .* leave out {left_out}, or name runs"
    with pytest.raises(ValueError, match=said) as told:
        folder_of_tables(runs)
    assert "\n" not in str(told.value)


def test_a_folder_with_neither_tables_nor_a_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"runs=\[\]: must be a list of folders"):
        folder_of_tables([])
    said = rf"{tmp_path}: neither a run nor tables of notebook 5 \({WRITTEN}\) there; name runs of"
    with pytest.raises(FileNotFoundError, match=said) as told:
        folder_of_tables(["glyphs-meta-sgd-0", str(tmp_path)])
    assert "\n" not in str(told.value)


def test_what_was_not_measured_is_none(tmp_path):
    variants = read_table(FIGURES / "length" / "mechanism" / WRITTEN).query("episode < 20")
    tables = read_tables(written(tmp_path / "some", variants))
    assert tables.positive is tables.maml_parts is tables.geometry is tables.rates is None
    (networks,) = tables.networks.itertuples(index=False)
    assert tuple(networks) == ("meta-sgd", "end", 5, 20, 0)
    with pytest.raises(ValueError, match=f"{WRITTEN}: no column 'variant'; name a folder that"):
        read_tables(written(tmp_path / "bare", variants.drop(columns="variant")))
    fewer = variants[variants["variant"] != WITHOUT_NEGATIVE]
    with pytest.raises(ValueError, match=f"{WRITTEN}: no rows of 'negative set to zero'; execute"):
        read_tables(written(tmp_path / "fewer", fewer))


@pytest.mark.slow
def test_the_notebook_says_what_was_not_measured(tmp_path):
    """Of a single network, five of whose interventions alone were measured."""
    shown = execute(NOTEBOOK, {"runs": ["figures/paper-84/mechanism"], "out_dir": str(tmp_path)})
    assert "notebook 2 shows those of runs" in shown
    assert "Not measured: no networks of `meta-sgd-positive`." in shown
    assert "Not measured: no networks of MAML." in shown and "*Not measured.*" in shown
    answers = (tmp_path / "summary.md").read_text()
    assert "over 2500 episodes: −0.69 [−0.82, −0.55] (90 %): worse" in answers
    assert "MAML" not in answers and "flipped" not in answers


@pytest.mark.slow
def test_as_it_stands_the_notebook_answers_as_the_study_did(tmp_path):
    execute(NOTEBOOK, {"out_dir": str(tmp_path)})
    shipped = FIGURES / "decide" / "mechanism"
    assert (tmp_path / "summary.md").read_text() == (shipped / "summary.md").read_text()
    found, known = (pd.read_csv(folder / "equivalence.csv") for folder in (tmp_path, shipped))
    pd.testing.assert_frame_equal(found, known)


@pytest.mark.slow
def test_tables_that_were_measured_are_read_again(tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    few = {"n_episodes": 2, "n_geometry": 1, "out_dir": str(first)}
    first.mkdir()
    shutil.copy(FIGURES / "questions" / "mechanism" / "positive.parquet", first)  # of others
    measured = execute(NOTEBOOK, {"runs": ["glyphs-meta-sgd-0"], **few})
    assert "Not measured: no networks of `meta-sgd-positive`." in measured
    shown = execute(NOTEBOOK, {"runs": [str(first)], "out_dir": str(again)})
    assert "Not measured: no networks of `meta-sgd-positive`." in shown
    assert (
        "notebook 2 shows those of runs" in shown and "Not measured: no networks of MA" not in shown
    )
    of = {path.name for path in first.iterdir()}
    tables = {"interventions.parquet", "maml_parts.parquet", "geometry.parquet"}
    assert {path.name for path in again.iterdir()} == of - tables and tables < of
    for path in again.iterdir():
        assert path.read_bytes() == (first / path.name).read_bytes()
