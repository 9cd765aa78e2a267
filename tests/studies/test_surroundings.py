"""What a study's kernels take from the user's surroundings, and what they do not."""

import errno
import fcntl
import json
import os
import sys
import tempfile
import venv
from pathlib import Path

import nbformat
import papermill
import pytest
import small_studies

from negmeta_utils import parameters
from negmeta_utils.data import scratch
from negmeta_utils.storage import paths
from negmeta_utils.studies import execute, kernels, planning, scheduling

SEEN = """
import json, os, sys, yaml, matplotlib.pyplot as plt, negmeta_utils
from negmeta_utils.plots.style import set_style
at_first = plt.rcParams["backend"]
set_style()
plt.plot([1, 2])
print(json.dumps({
    "python": sys.executable, "package": negmeta_utils.__file__, "yaml": yaml.__file__,
    "backend": at_first, "usetex": plt.rcParams["text.usetex"],
    "threads": os.environ["OMP_NUM_THREADS"], "isa": os.environ.get("DNNL_MAX_CPU_ISA"),
}))
"""


def site_of_its_own(folder):
    """A Python whose site would stop every kernel: its sitecustomize.py, and IPython's
    configuration and start-up files for all its users."""
    venv.create(folder)
    ipython = folder / "etc" / "ipython"
    (ipython / "startup").mkdir(parents=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "these.pth").write_text("\n".join(p for p in sys.path if os.path.isdir(p)))
    names = ("ipython_config.py", "ipython_kernel_config.py", "startup/00.py")
    for file in (packages / "sitecustomize.py", *(ipython / name for name in names)):
        file.write_text("raise SystemExit('not to be run')")
    return folder / "bin" / "python"


def test_a_kernel_is_this_python_with_nothing_of_the_users(tmp_path, monkeypatch):
    """One kernel, in surroundings that would each break it or change what it shows."""
    python = site_of_its_own(tmp_path / "site")
    monkeypatch.setattr(sys, "executable", str(python))
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    here = tmp_path / "here"
    modules = tmp_path / "modules"
    for folder in (spec, startup, here, modules):
        folder.mkdir(parents=True)
    kernel = {"argv": ["/bin/false", "{connection_file}"], "display_name": "", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel))
    for file in (startup / "00.py", here / "yaml.py", here / "start.py"):
        file.write_text("raise SystemExit('not to be run')")
    (here / "matplotlibrc").write_text("text.usetex: True")
    for name, value in {
        "JUPYTER_PATH": tmp_path / "jupyter", "IPYTHONDIR": tmp_path / "ipython",
        "PYTHONSTARTUP": here / "start.py", "MATPLOTLIBRC": here / "matplotlibrc",
        "MPLBACKEND": "Agg", "JUPYTER_CONFIG_DIR": here, "LC_ALL": "C", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": modules, "PYTHONPLATLIBDIR": "nowhere", "DNNL_MAX_CPU_ISA": "SSE41",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(here)
    small_studies.small_notebook(tmp_path / "notebooks", SEEN)
    notebook = tmp_path / "notebooks" / "small.ipynb"
    job = planning.Job("n", "n", notebook, {"out_dir": str(tmp_path)}, (), "key")
    result = execute.execute(job, tmp_path / "out")
    assert result.state == "done", result.error
    outputs = nbformat.read(tmp_path / "out" / "small.ipynb", 4).cells[-1].outputs
    assert any("image/png" in output.get("data", {}) for output in outputs)
    (said,) = (json.loads(output.text) for output in outputs if output.output_type == "stream")
    assert said["python"] == sys.executable
    assert said["package"].startswith(str(paths.ROOT))
    assert not said["yaml"].startswith(str(here))
    assert "inline" in said["backend"]
    assert said["usetex"] is False
    assert said["threads"] == "1"
    assert said["isa"] is None


def test_this_package_comes_before_another_on_the_users_path():
    given = {"PYTHONPATH": "/other", "PYTHONSTARTUP": "/start.py", "OMP_NUM_THREADS": "3"}
    kept = kernels.variables(given, "/profiles")
    assert kept["PYTHONPATH"] == os.pathsep.join(["/profiles", str(paths.ROOT), "/other"])
    assert kept["OMP_NUM_THREADS"] == "3"
    assert "PYTHONSTARTUP" not in kept


@pytest.mark.parametrize("name", ["PYTHONWARNINGS", "ONEDNN_DEFAULT_FPMATH_MODE", "MKL_CBWR"])
def test_variables_that_change_digits_or_what_is_shown_are_left_out(name):
    given = {name: "1", "PYTHONDONTWRITEBYTECODE": "1", "MKL_NUM_THREADS": "2"}
    kept = kernels.variables(given, "/profiles")
    assert name not in kept
    assert kept["PYTHONDONTWRITEBYTECODE"] == "1" and kept["MKL_NUM_THREADS"] == "2"


def test_packages_are_found_where_this_process_finds_them(monkeypatch):
    """As on clusters whose sitecustomize.py says where they are."""
    monkeypatch.setattr(sys, "path", ["/known"])
    exec(kernels.customize(["", "here", "/known", "/of/the/site"]))
    assert sys.path == ["/known", "/of/the/site"]


def test_jobs_are_done_where_there_are_no_locks(tmp_path, monkeypatch):
    def no_locks(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    said = pytest.warns(UserWarning, match=f"{tmp_path}: no locks on this file system")
    with said, execute._locked(tmp_path):
        assert not execute.in_execution(tmp_path)


def test_sockets_lie_where_their_names_are_short_enough(tmp_path, monkeypatch):
    for name, parent in (("t" * 90, "/tmp"), ("t", tmp_path / "t")):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
        monkeypatch.setattr(scratch, "LONGEST", len(str(tmp_path)) + 2)
        with scratch.temporary(for_sockets=True) as folder:
            assert folder.parents[1] == Path(parent)


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    for name in scheduling.THREADS:
        monkeypatch.delenv(name, raising=False)
    assert set(scheduling._threads(1).values()) == {"1"}
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    assert scheduling._threads(1)["MKL_NUM_THREADS"] == "5"
    monkeypatch.delattr(os, "sched_getaffinity")
    assert scheduling.cores() == 64


@pytest.mark.parametrize("name", ["PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"])
def test_what_papermill_adds_is_no_mistyped_parameter(name):
    def notebook(code):
        return {"__annotations__": {"seed": int}, "In": ["", f"# Parameters\n{code} = 1\n"]}

    parameters.refuse_unknown(notebook(name))
    with pytest.raises(ValueError, match="sed: the notebook has no such parameter"):
        parameters.refuse_unknown(notebook("sed"))


def test_a_kernel_has_minutes_to_start_on_a_busy_machine(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(
        papermill, "execute_notebook", lambda *_, **settings: given.update(settings)
    )
    job = planning.Job("n", "n", tmp_path / "n.ipynb", {}, (), "key")
    execute.execute(job, tmp_path / "out")
    assert given["start_timeout"] == execute.START_TIMEOUT >= 300
