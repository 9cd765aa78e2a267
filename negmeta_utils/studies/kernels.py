"""The kernels of a study: this Python and this package, whatever surrounds them."""

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import get_kernel_dict, make_ipkernel_cmd
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from traitlets import Integer, Unicode

from negmeta_utils import parameters
from negmeta_utils.storage import paths

MODULE = "negmeta_utils.studies.kernel"
OPTIONS = ("--IPKernelApp.log_level=50", "--InteractiveShellApp.ignore_cwd=True")
# How the names of variables begin that would change digits, start code or break a kernel.
LEFT_OUT = (
    "PYTHON", "MATPLOTLIBRC", "ATEN_CPU_CAPABILITY", "MKL_CBWR", "DNNL_", "ONEDNN_",
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32",
)  # fmt: skip
HARMLESS = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONNOUSERSITE")
# In place of the site's file and the user's: where packages are found is all that they may change.
CUSTOMIZE = "import sys\nsys.path += [path for path in {} if path not in sys.path]\n"


class StudyKernelManager(AsyncKernelManager):
    """Starts kernels of this Python, which inherit a file descriptor, and does not tell the
    terminal that one was interrupted, which is how Jupyter ends every kernel.

    lock: the descriptor; profiles: a folder to be made, in place of IPython's with the user's
    start-up files; progress: the file for what the notebook says of how far it is.
    """

    lock = Integer(config=True)
    profiles = Unicode(config=True)
    progress = Unicode(config=True)

    @property
    def kernel_spec(self) -> KernelSpec:
        """The kernel of this Python, in place of what the user or the site calls python3."""
        return KernelSpec(**get_kernel_dict() | {"argv": make_ipkernel_cmd(MODULE)})

    async def start_kernel(self, **settings: Any) -> None:
        settings["extra_arguments"] = [*settings.get("extra_arguments", ()), *OPTIONS]
        settings["env"] = variables(settings.get("env") or dict(os.environ), self.profiles)
        settings["env"][parameters.PROGRESS_FILE] = self.progress
        Path(self.profiles).mkdir(exist_ok=True)
        for name in ("sitecustomize.py", "usercustomize.py"):
            Path(self.profiles, name).write_text(customize(sys.path))
        await super().start_kernel(pass_fds=(self.lock,), **settings)


def customize(path: list[str]) -> str:
    """A sitecustomize.py that finds the packages which this process finds, and does no more."""
    return CUSTOMIZE.format([folder for folder in path if os.path.isabs(folder)])


def variables(users: dict[str, str], profiles: str) -> dict[str, str]:
    """The environment variables of a kernel: the user's, but for those that would change a study's
    results or break it."""
    kept = {
        name: value
        for name, value in users.items()
        if name in HARMLESS or not name.startswith(LEFT_OUT)
    }
    own = [] if str(paths.ROOT) == sysconfig.get_path("purelib") else [str(paths.ROOT)]
    # `profiles` comes first, for its sitecustomize.py, and then this very package.
    path = [profiles, *own, *filter(None, [users.get("PYTHONPATH")])]
    return kept | {
        "IPYTHONDIR": profiles,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONSAFEPATH": "1",  # no modules from the working directory
        "PYTHONUTF8": "1",
    }
