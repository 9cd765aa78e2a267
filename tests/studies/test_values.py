from unittest import mock

import nbformat
import pytest

from negmeta_utils.studies import planning, study_file, values


def steps(**overrides):
    return study_file.read_study(study_file.find_study("demo"), overrides)


STUDIES = study_file.NOTEBOOKS / "studies"


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.yml")))
def test_every_study_of_the_package_has_values_that_its_notebooks_take(name):
    values.check_values(study_file.read_study(study_file.find_study(name), {}))


@pytest.mark.parametrize(
    ("target", "value", "said"),
    [
        ("features.n_episodes", 0, "step 'features': n_episodes=0: must be at least 1"),
        ("features.disjoint", "no", "step 'features': disjoint='no': must be True or False"),
        ("train.seed", [0, -1], "step 'train': seed=-1: must be at least 0"),
    ],
)
def test_what_a_notebook_would_refuse_is_refused(target, value, said):
    with pytest.raises(ValueError, match=said):
        values.check_values(steps(**{target: value}))


@pytest.mark.parametrize(
    ("notebook", "name", "value"),
    [
        ("00_explore", "n_episodes", 0),
        ("09_linear_theory", "n_repetitions", 0),
        ("09_linear_theory", "n_learners", 0),
        ("09_linear_theory", "seed", -1),
    ],
)
def test_so_is_what_would_leave_a_table_empty(notebook, name, value):
    path = study_file.NOTEBOOKS / f"{notebook}.ipynb"
    step = {"path": path, "grid": {}, "parameters": {name: value}}
    with pytest.raises(ValueError, match=f"step 'own': {name}={value}: must be at least"):
        values.check_values({"own": step})


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError("gone"), FileNotFoundError),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text"), ValueError),
    ],
)
def test_data_that_cannot_be_found_or_read_is_told_with_its_step(monkeypatch, error, kind):
    monkeypatch.setattr(values.datasets, "locate", mock.Mock(side_effect=error))
    path = study_file.NOTEBOOKS / "01_train.ipynb"
    job = planning.Job("t", "t-0", path, {"dataset": "mini-imagenet"}, (), "key")
    with pytest.raises(kind, match="step 't': .*(gone|no text)") as told:
        values.check_data([job])
    assert type(told.value) is kind


def test_notebooks_of_ones_own_may_declare_what_is_not_known_here(tmp_path):
    cells = ["from x import Y", "a: Y = Y()\nb: int = 2 * 3\nc: int = 1", "%time\nfoo.begin(a)"]
    notebook = written(cells, tmp_path / "own.ipynb")
    step = {"path": notebook, "grid": {"a": [1, "x"]}, "parameters": {"b": 3}}
    values.check_values({"own": step})
    with pytest.raises(ValueError, match="step 'own': c='x': must be a whole number"):
        values.check_values({"own": step | {"parameters": {"c": "x"}}})


def written(cells, path):

    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    made.cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(made, path)
    return path
