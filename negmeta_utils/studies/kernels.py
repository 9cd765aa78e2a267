"""The kernels of a study: this Python and this package, whatever surrounds them."""

import os
import sysconfig
from typing import Any

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from traitlets import Integer, Unicode

from negmeta_utils import runs

OPTIONS = ("--IPKernelApp.log_level=50", "--InteractiveShellApp.ignore_cwd=True")
LEFT_OUT = (
    "MATPLOTLIBRC", "PYTHONSTARTUP", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONHOME",
    "PYTHONBREAKPOINT", "PYTHONWARNINGS", "PYTHONCASEOK", "PYTHONIOENCODING",
)  # fmt: skip


class StudyKernelManager(AsyncKernelManager):
    """Starts kernels of this Python, which inherit a file descriptor, and does not tell the
    terminal that one was interrupted, which is how Jupyter ends every kernel.

    lock: the descriptor; profiles: an empty folder, in place of IPython's with the user's start-up
    files; progress: the file for what the notebook says of how far it is.
    """

    lock = Integer(config=True)
    profiles = Unicode(config=True)
    progress = Unicode(config=True)

    @property
    def kernel_spec(self) -> KernelSpec:
        """Of this Python, in place of what the user or the site calls python3."""
        return KernelSpec(**get_kernel_dict())

    async def start_kernel(self, **settings: Any) -> None:
        settings["extra_arguments"] = [*settings.get("extra_arguments", ()), *OPTIONS]
        settings["env"] = environment(settings.get("env") or dict(os.environ), self.profiles)
        settings["env"][runs.PROGRESS_FILE] = self.progress
        await super().start_kernel(pass_fds=(self.lock,), **settings)


def environment(users: dict[str, str], profiles: str) -> dict[str, str]:
    """What a kernel is started with: the user's variables, but for those that would change a
    study's results or break it."""
    kept = {name: value for name, value in users.items() if name not in LEFT_OUT}
    own = [] if str(runs.ROOT) == sysconfig.get_path("purelib") else [str(runs.ROOT)]
    # This very package comes first, but for an empty folder: the launcher drops what comes first if
    # it is the working directory, as the clone often is.
    path = [profiles, *own, *filter(None, [users.get("PYTHONPATH")])]
    return kept | {
        "IPYTHONDIR": profiles,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONSAFEPATH": "1",  # no modules from the working directory
        "PYTHONUTF8": "1",
    }
