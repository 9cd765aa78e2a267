import time
from io import StringIO
from unittest.mock import Mock

import pytest

from negmeta_utils import notebook, parameters
from negmeta_utils.studies import live
from negmeta_utils.studies.execute import PROGRESS
from negmeta_utils.studies.planning import Job, write_plan


class Terminal(StringIO):
    def isatty(self):
        return True


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Two jobs of which one runs, looked at a hundred times a second."""
    monkeypatch.setattr(live, "SECOND", 0.01)
    monkeypatch.setattr(live, "MINUTE", 0.01)
    jobs = [Job("train", f"train-{n}", tmp_path / "a.ipynb", {}, (), "key") for n in range(2)]
    write_plan(jobs, tmp_path)
    for job in jobs:
        (tmp_path / job.name).mkdir()
    return tmp_path


@pytest.mark.parametrize("stream", [Terminal, StringIO])
def test_the_line_of_a_running_job_is_shown(study, monkeypatch, capsys, stream):
    monkeypatch.setattr("sys.stderr", error := stream())
    (study / "train-0" / PROGRESS).write_text("of a job that was killed")
    with live.shown(study, ["train-0", "train-1"]) as say:
        (study / "train-1" / PROGRESS).write_text("meta-update 3 of 9")
        say("[1/2] train-0: done")
        time.sleep(0.5)
    printed = capsys.readouterr().out
    lines = error.getvalue() if error.isatty() else printed
    assert "train-1: meta-update 3 of 9" in lines
    assert "0 done, 0 running, 0 failed, 2 to come" in lines
    assert "killed" not in lines
    assert "[1/2] train-0: done" in printed


def test_a_notebook_tells_its_progress_to_its_study(tmp_path, monkeypatch):
    (tmp_path / "train-0").mkdir()
    monkeypatch.setenv(parameters.PROGRESS_FILE, str(tmp_path / "train-0" / PROGRESS))
    monkeypatch.setattr(notebook, "display", Mock())
    notebook.progress()("meta-update 3 of 9")
    assert live.running(tmp_path, ["train-0", "train-1"]) == {"train-0": "meta-update 3 of 9"}
