"""Bad data, through the command line and through papermill: one line, and nothing left behind."""

import json
import os
import subprocess
import sys

import pytest
from hostile_data import CASES

from negmeta_utils import cli, runs


def contents(folder):
    """Every file and folder below `folder`, files with their bytes, but for the executed copy."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != "executed.ipynb"
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_data_are_named_in_one_line(case, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("NEGMETA_CACHE", str(tmp_path / "cache"))
    arguments = case.prepare(tmp_path)
    before = contents(tmp_path)
    if case.door == "negmeta":
        assert cli.main(arguments) != 0
        output = capfd.readouterr()
        (line,) = output.err.splitlines()
        assert line.startswith("negmeta: ")
        assert "run by a pickle" not in output.out
    else:
        result = subprocess.run(
            [sys.executable, "-m", "papermill", *arguments, "--log-level", "ERROR"],
            cwd=runs.ROOT, capture_output=True, text=True, check=False, env={**os.environ},
        )  # fmt: skip
        assert result.returncode != 0
        cells = json.loads((tmp_path / "executed.ipynb").read_text())["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        (line,) = [o["evalue"] for o in outputs if o["output_type"] == "error"]
    assert all(word in line for word in case.words), line
    assert "\n" not in line
    assert contents(tmp_path) == before
