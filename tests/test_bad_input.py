"""What a user may get wrong: through the command line and through papermill, one line that says
what and where, a failure for the shell, and nothing half-written."""

import functools
import os
import subprocess
import sys

import hostile_data
import hostile_notebooks
import hostile_studies
import jupyter_client
import nbclient.util
import papermill.cli
import pytest
from papermill.exceptions import PapermillExecutionError

from negmeta_utils.data import preparing
from negmeta_utils.storage import paths
from negmeta_utils.studies import cli

CASES = hostile_studies.CASES + hostile_notebooks.CASES + hostile_data.CASES


def contents(folder):
    """Every file and folder below `folder`, files with their bytes, but for the executed copy and
    a cache folder with its lock."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name not in ("executed.ipynb", "cache", preparing.LOCK)
    }


@pytest.fixture(scope="module")
def kernel():
    """One kernel for all: a case takes half a second in it, and four with a kernel of its own."""
    manager = jupyter_client.AsyncKernelManager(kernel_name="python3")
    nbclient.util.run_sync(manager.start_kernel)()
    yield manager
    nbclient.util.run_sync(manager.shutdown_kernel)(now=True)


def start_again(kernel):
    """Let the kernel be as if it had started just now."""
    client = kernel.blocking_client()
    client.start_channels()
    client.wait_for_ready()
    client.execute_interactive(
        f"get_ipython().reset()\nimport os\nos.environ.update({dict(os.environ)!r})\ndel os"
    )
    client.stop_channels()


def line_of_negmeta(arguments, capsys):
    capsys.readouterr()
    try:
        status = cli.main(arguments)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("negmeta")
    return line


def line_of_papermill(arguments, kernel, monkeypatch):
    start_again(kernel)
    execute = functools.partial(papermill.execute_notebook, km=kernel)
    monkeypatch.setattr(papermill.cli, "execute_notebook", execute)
    with pytest.raises(PapermillExecutionError) as raised:
        papermill.cli.papermill.main(
            [*arguments, "--no-progress-bar", "--log-level", "ERROR"], standalone_mode=False
        )
    return raised.value.evalue


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.door}: {case.name}")
def test_bad_input_is_named_in_one_line(case, tmp_path, monkeypatch, capsys, request):
    monkeypatch.chdir(paths.ROOT)
    if case in hostile_data.CASES:  # the others take the glyphs from the cache that there is
        monkeypatch.setenv("NEGMETA_CACHE", str(tmp_path / "cache"))
    arguments = case.prepare(tmp_path)
    before = contents(tmp_path)
    if case.door == "negmeta":
        line = line_of_negmeta(arguments, capsys)
    else:
        line = line_of_papermill(arguments, request.getfixturevalue("kernel"), monkeypatch)
    assert "\n" not in line
    for word in case.words:
        assert word in line
    assert contents(tmp_path) == before


MODULES = {"negmeta": "negmeta_utils.studies.cli", "papermill": "papermill"}


@pytest.mark.parametrize("name", ["an unknown study", "an absent kernel", "text for a number"])
def test_the_commands_themselves_fail_for_the_shell(name, tmp_path):
    (case,) = (case for case in [*CASES, hostile_notebooks.ABSENT_KERNEL] if case.name == name)
    result = subprocess.run(
        [sys.executable, "-m", MODULES[case.door], *case.prepare(tmp_path)],
        cwd=paths.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode > 0
    *before, line = result.stderr.strip().splitlines()
    assert all(word in line for word in case.words)
    assert not before or case.door == "papermill", "which tells where in the notebook it was"
