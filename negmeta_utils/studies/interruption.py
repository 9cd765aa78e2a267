"""How `negmeta study` ends on Ctrl-C and SIGTERM: in one line, with no process left behind.

The first signal stops the kernels, which write their checkpoints, and no further job is given to a
worker. The next ends all at once, as does the first while nothing is executed. Dask is not told to
close: that takes seconds, and what it says meanwhile is not for users.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STATUS = 130
SAID = "negmeta: interrupted; the same command goes on from here\n"


def ignore_in_workers() -> None:
    """In a process that dask starts for a study: signals to all of a terminal, or of a batch job,
    are the study's own business."""
    if multiprocessing.parent_process() is not None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def ending_this_process() -> Iterator[None]:
    """Within, a signal ends this process and all below it: see `end`."""
    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def raised_once() -> Iterator[None]:
    """Within, the first signal raises KeyboardInterrupt, where it would have ended this process;
    from then on signals are what they were before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    if before[signal.SIGTERM] is not end:
        yield  # not in `ending_this_process`: whoever calls has handlers of their own
        return

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def interrupt(number: int, frame: object) -> None:
        restore()
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        restore()


def end(*_: object) -> None:
    """Say in one line that it was interrupted, kill every process below this one, and exit."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with suppress(RuntimeError, OSError):  # it may be in use where the signal came
        sys.stdout.flush()
    with suppress(OSError):  # the terminal may be gone
        clear = "\r\033[J" if os.isatty(2) else ""  # the lines of running jobs
        os.write(2, f"{clear}{SAID}".encode())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # other threads miss the processes below
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    os._exit(STATUS)
