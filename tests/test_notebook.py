"""The set-up cell of notebooks: what it refuses, and its line of progress."""

from types import SimpleNamespace
from typing import Optional

import matplotlib as mpl
import pytest
from IPython.core.events import EventManager
from IPython.display import display

import negmeta_utils as nm
from negmeta_utils import notebook
from negmeta_utils.plots import style

KINDS = {"n_episodes": Optional[int], "eval_seed": int, "disjoint": bool, "runs": list[str]}
VALUES = {"n_episodes": None, "eval_seed": 0, "disjoint": False, "runs": []}


def names(cell="", **values):
    """A notebook's globals() after the cell that papermill puts in."""
    return {"__annotations__": KINDS, "In": ["", cell]} | VALUES | values


def test_a_notebook_that_can_run_gets_the_style(monkeypatch):
    with mpl.rc_context():
        mpl.rcdefaults()
        nm.begin(names(), n_episodes=1, eval_seed=0)
        found = dict(mpl.rcParams)
        style.set_style()
        assert found == dict(mpl.rcParams)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"n_episodes": 0}, "n_episodes=0: must be at least 1"),
        ({"n_episodes": "9"}, "n_episodes='9': must be a whole number or None"),
        ({"eval_seed": -1}, "eval_seed=-1: must be at least 0"),
        ({"eval_seed": None}, "eval_seed=None: must be a whole number"),
        ({"disjoint": "false"}, "disjoint='false': must be True or False"),
        ({"cell": "# Parameters\nn_episode = 3\n"}, "n_episode: the notebook has no such param"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(values, said):
    with pytest.raises(ValueError, match=said):
        nm.begin(names(**values), n_episodes=1, eval_seed=0)


def test_progress_replaces_its_line_until_the_cell_has_ended(monkeypatch):
    shown, shell = [], SimpleNamespace(events=EventManager(None, {"post_run_cell": print}))

    class Line:
        def update(self, what):
            shown.append(what.data)

    def first(what, display_id):
        assert display_id
        shown.append(what.data)
        return Line()

    assert notebook.display is display
    monkeypatch.setattr(notebook, "display", first)
    monkeypatch.setattr(notebook, "get_ipython", lambda: shell)
    report = notebook.progress()
    report("3 of 7")
    assert shown == ["starting", "3 of 7"]
    for _ in range(2):
        shell.events.trigger("post_run_cell", SimpleNamespace(success=True))
        assert shown == ["starting", "3 of 7", ""]
    notebook.progress()("4 of 7")
    shell.events.trigger("post_run_cell", SimpleNamespace(success=False))
    assert shown[3:] == ["starting", "4 of 7"], "an error leaves it"


def test_answers_are_shown_and_left_for_the_report(tmp_path):
    shown = notebook.write_summary(tmp_path, "Is it?", iter(["**Yes**, here", "no, there"]))
    assert shown.data == "- **Yes**, here\n- no, there"
    assert (tmp_path / "summary.md").read_text() == f"**Is it?**\n\n{shown.data}\n"
