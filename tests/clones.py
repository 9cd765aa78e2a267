"""Fresh clones of this project, for tests of what its pages tell people to type."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from negmeta_utils.storage import paths


def run(command, folder, **environment):
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def make_says(target, clone):
    """The commands of a target of the Makefile, a line each."""
    shown = run(f"make -n --no-print-directory {target}", clone, MAKEFLAGS="", MAKELEVEL="0")
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def copy_clone(folder):
    """Copy what git tracks and what it does not ignore; `.venv` is this environment."""
    for name in run("git ls-files -co --exclude-standard", paths.ROOT).stdout.splitlines():
        if (paths.ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths.ROOT / name, folder / name, follow_symlinks=False)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    for part in ("lib", "pyvenv.cfg"):
        (folder / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    for stamp in ("made", "made-tests"):
        (folder / ".venv" / stamp).touch()
    return folder
