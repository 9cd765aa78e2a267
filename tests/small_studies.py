"""Studies made for tests: of small notebooks, and of the project's own cut down to seconds."""

import os
import subprocess
import sys
import time

import nbformat
import psutil
import yaml

from negmeta_utils.studies import study_file
from negmeta_utils.studies.kernels import MODULE

# `negmeta ARGUMENTS` on notebooks of the test's own.
PROGRAM = """
import signal
import sys
from pathlib import Path
from negmeta_utils.studies import cli, planning, study_file
study_file.NOTEBOOKS = Path(sys.argv[1])
# As in a terminal: what a script starts in the background ignores it, and so would the tests' own.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(cli.main(sys.argv[2:]))
"""


def write_study(path, steps):
    path.write_text(yaml.safe_dump({"steps": steps}, sort_keys=False))
    return path


def small_notebook(folder, code):
    """A notebook with the parameters out_dir, number, device and runs, and one cell of `code`."""
    folder.mkdir(exist_ok=True)
    parameters = "out_dir: str = ''\nnumber: int = 0\ndevice: str = 'cpu'\nruns: list = []"
    cells = [nbformat.v4.new_code_cell(parameters), nbformat.v4.new_code_cell(code)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "small.ipynb")


def start(notebooks, *arguments):
    """`negmeta ARGUMENTS` in a process, and process group, of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(notebooks), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for(condition, process=None, seconds=300):
    """Until `condition()`, which `process` ought to bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def kernels(process):
    """The kernels below a process: psutil's processes."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [p for p in below if MODULE in p.cmdline()]


TINY = {
    "dataset": "mini-imagenet", "image_size": 16, "n_way": 2, "n_query": 3, "n_filters": 32,
    "n_updates": 4, "val_every": 2, "val_episodes": 3, "test_episodes": 6, "device": "cpu",
}  # fmt: skip

# What the demo, with one seed by each method, takes instead of its own parameters.
TINY_DEMO = {**TINY, "dataset": "glyphs", "features.n_episodes": 35, "train.seed": [0]}


def options(overrides):
    """Them as options of `negmeta study`."""
    return [word for name, value in overrides.items() for word in ("--set", f"{name}={value}")]


def tiny_demo(path, data_dir):
    """The demo with two methods, one seed, on noise: seconds."""
    steps = yaml.safe_load((study_file.NOTEBOOKS / "studies" / "demo.yml").read_text())["steps"]
    steps["train"]["grid"]["seed"] = [0]
    steps["train"]["parameters"] = {**TINY, "data_dir": str(data_dir)}
    steps["features"]["parameters"].update(n_episodes=35, data_dir=str(data_dir), device="cpu")
    return write_study(path, steps)
