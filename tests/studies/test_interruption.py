"""What SIGINT and SIGTERM do to `negmeta study`, without dask and kernels."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from negmeta_utils.studies import interruption

# Starts a process, as a study does its workers, and then does what the test says.
PROGRAM = """
import subprocess, time
from negmeta_utils.studies import interruption
with interruption.ending_this_process():
    print(subprocess.Popen(["sleep", "600"], start_new_session=True).pid, flush=True)
    {body}
"""
EXECUTES = """
    try:
        with interruption.raised_once():
            print("executing", flush=True)
            time.sleep(600)
    except KeyboardInterrupt:
        print("stopping", flush=True)
        {then}
"""
WAITS, ENDS = "time.sleep(600)", "interruption.end()"


def started(body):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    return process, int(process.stdout.readline())


def ends_all(process, below):
    """Within seconds, in one line."""
    _, error = process.communicate(timeout=60)
    return (process.returncode, error) == (interruption.STATUS, interruption.SAID) and gone(below)


def gone(pid):
    """Whether a process ends in ten seconds: the system may take a moment, and nobody may ask how
    an orphan ended."""
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("number", interruption.SIGNALS)
@pytest.mark.parametrize("then", [WAITS, ENDS])
def test_the_first_is_raised_and_the_next_ends_all(number, then):
    process, below = started(EXECUTES.format(then=then))
    assert process.stdout.readline() == "executing\n"
    process.send_signal(number)
    assert process.stdout.readline() == "stopping\n"
    if then == WAITS:
        process.send_signal(number)
    assert ends_all(process, below)


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_while_nothing_is_executed_the_first_ends_all(number):
    process, below = started(WAITS)
    process.send_signal(number)
    assert ends_all(process, below)


def test_handlers_are_as_before_in_the_end():
    before = [signal.getsignal(number) for number in interruption.SIGNALS]
    with interruption.ending_this_process():
        with interruption.raised_once():
            assert signal.getsignal(signal.SIGTERM) is not interruption.end
        assert signal.getsignal(signal.SIGTERM) is interruption.end
    assert [signal.getsignal(number) for number in interruption.SIGNALS] == before


def test_in_a_process_that_is_no_worker_signals_stay(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    interruption.ignore_in_workers()
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setattr("multiprocessing.parent_process", lambda: "a study")
    try:
        interruption.ignore_in_workers()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
