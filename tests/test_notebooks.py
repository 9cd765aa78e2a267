"""The notebooks as users open them: held still by nbval, parameterised by papermill."""

import os
import subprocess
import sys
from xml.etree import ElementTree

import nbformat
import papermill
import pytest
from checking_notebooks import NOTEBOOKS, nbval

from negmeta_utils.config import TrainConfig
from negmeta_utils.storage import paths
from negmeta_utils.studies import study_file

TRAIN = study_file.NOTEBOOKS / "01_train.ipynb"
CHECKED = "nbval-check-output"  # the tag of a cell
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def checked_cells(notebook):
    return [cell for cell in notebook.cells if CHECKED in cell.metadata.get("tags", [])]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """What nbval says of each notebook's cells: of all in one process, which takes 3 s to begin."""
    report = tmp_path_factory.mktemp("nbval") / "cells.xml"
    printed = nbval(f"--junitxml={report}", *NOTEBOOKS).stdout
    assert report.is_file(), printed
    return ElementTree.parse(report).findall(".//testcase")


@by_name
def test_nbval_holds_the_notebook_still(path, cells):
    own = [cell for cell in cells if cell.get("classname") == path.name]
    code = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert len(own) == len(code)
    for cell in own:
        wrong = "".join(said.text or "" for said in cell)  # a failure, an error or a skip
        assert not wrong, f"{cell.get('name')}: {wrong[-3000:]}"


@by_name
def test_every_checked_cell_holds_an_output_to_check(path):
    cells = checked_cells(nbformat.read(path, 4))
    assert cells, "nothing in this notebook is held still"
    for cell in cells:
        assert any(output.get("text") for output in cell.outputs), cell.source


def test_a_checked_cell_without_stored_output_fails(tmp_path):
    """nbval alone passes a stripped notebook with nothing compared; the test above must not."""
    notebook = nbformat.read(NOTEBOOKS[0], 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    path = tmp_path / "stripped.ipynb"
    nbformat.write(notebook, path)
    with pytest.raises(AssertionError):
        test_every_checked_cell_holds_an_output_to_check(path)


def test_nbval_fails_on_a_changed_output(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("print(1 + 1)", metadata={"tags": [CHECKED]})],
        metadata={"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}},
    )
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text="3\n")]
    nbformat.write(notebook, tmp_path / "changed.ipynb")
    assert nbval(tmp_path / "changed.ipynb").returncode == 1


@by_name
def test_papermill_sees_every_parameter_with_type_and_help(path):
    inspected = papermill.inspect_notebook(str(path))
    assert "out_dir" in inspected
    for name, parameter in inspected.items():
        assert parameter["inferred_type_name"] != "None", name
        assert parameter["help"], f"{name} has no comment that says what it is"


def test_the_help_of_papermill_names_the_parameters():
    shown = subprocess.run(
        [sys.executable, "-m", "papermill", "--help-notebook", str(TRAIN)],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    assert "n_updates: int (default 60)" in shown
    assert "the paper has 60,000" in shown


def test_the_training_notebook_has_every_field_of_the_configuration():
    inspected = set(papermill.inspect_notebook(str(TRAIN)))
    assert inspected == set(TrainConfig.__dataclass_fields__) | {"out_dir"}


@by_name
def test_notebooks_define_no_long_function_and_no_machine(path):
    notebook = nbformat.read(path, 4)
    assert notebook.metadata.kernelspec.name == "python3"
    text = nbformat.writes(notebook)
    for place in (str(paths.ROOT), os.path.expanduser("~/"), "/tmp/"):
        assert place not in text, f"{place} is a path of one machine"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert "class " not in cell.source
            assert "\ndef " not in cell.source
