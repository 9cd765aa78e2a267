"""Trainings in processes of their own, which are killed."""

import itertools
import multiprocessing
import os
import random
import signal
import time

import torch

from negmeta_utils import runs
from negmeta_utils.training import train

# One server that has imported torch forks the processes that are killed.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["negmeta_utils.training"])
RESULTS = ("model.safetensors", "history.parquet", "rates.parquet", "accuracy.parquet")


def train_until(event, config, folder):
    """Train in a process of its own, which kills itself at its sync number `event`: every file is
    synced before it gets its name, and its folder after."""
    torch.set_num_threads(1)
    count, sync = itertools.count(1), os.fsync

    def deadly(descriptor):
        if next(count) == event:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = deadly
    train(config, folder)


def start(config, folder, event=None):
    process = PROCESSES.Process(target=train_until, args=(event, config, folder))
    process.start()
    return process


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def assert_same_results(whole, folder):
    names = files_below(whole)
    assert files_below(folder) == names, "and nothing half-written"
    for name in (*RESULTS, *(name for name in names if name.startswith(runs.KEPT))):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def kill_at_random(config, folder, kills, seed=0):
    """Train in folders below `folder`, killed at random moments, `kills` times in all: each must
    end as one that is never killed. Returns the number of trainings."""
    whole = folder / "whole"
    train(config, whole)
    start(config, folder / "first").join()  # the server takes seconds to begin with
    started = time.monotonic()
    start(config, folder / "second").join()
    seconds = time.monotonic() - started
    moments = random.Random(seed)
    for number in itertools.count():
        done = None
        while done is None:
            process = start(config, folder / str(number))
            process.join(moments.uniform(0, seconds) if kills else None)
            done = process.exitcode
            process.kill()
            process.join()
            kills -= done is None
        assert done == 0
        assert_same_results(whole, folder / str(number))
        if not kills:
            return number + 1
