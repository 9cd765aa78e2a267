"""nbval over the study's notebooks."""

import os
import subprocess
import sys

from negmeta_utils.studies import study_file

NOTEBOOKS = sorted(study_file.NOTEBOOKS.glob("*.ipynb"))


def nbval(*arguments):
    """Notebooks of one folder, and before them options of pytest."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax",
         "--nbval-cell-timeout=600", "--nbval-kernel-startup-timeout=600",
         "--rootdir", str(arguments[-1].parent), *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
