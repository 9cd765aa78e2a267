"""Trainings that are killed, interrupted or broken, and what is left of them."""

import itertools
import multiprocessing
import os
import random
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from negmeta_utils import guards, runs, training
from negmeta_utils.training import train

# One server that has imported torch forks the processes that are killed.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["negmeta_utils.training"])
RESULTS = ("model.safetensors", "history.parquet", "rates.parquet", "accuracy.parquet")


def train_until(event, config, folder):
    """Train in a process of its own, which kills itself right before the file system call number
    `event` of those that make a file durable and visible."""
    torch.set_num_threads(1)
    count = itertools.count(1)

    def deadly(call):
        def called(*arguments):
            if next(count) == event:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments)

        return called

    os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
    train(config, folder)


def start(config, folder, event=None):
    process = PROCESSES.Process(target=train_until, args=(event, config, folder))
    process.start()
    return process


def assert_same_results(whole, folder):
    names = {path.name for path in whole.iterdir()}
    assert {path.name for path in folder.iterdir()} == names, "and nothing half-written"
    for name in RESULTS:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.fixture
def eventful(tiny_config):
    """A training whose every part of the state matters: learned rates, and an outer rate that
    falls within a few validations."""
    return replace(tiny_config, lr_schedule="plateau", val_every=2, checkpoint_every=2, outer_lr=0.1)


def test_a_training_killed_at_any_step_of_writing_ends_the_same(eventful, tmp_path):
    config = replace(eventful, n_updates=4)
    train(config, tmp_path / "whole")
    for event in itertools.count(1):
        folder = tmp_path / str(event)
        process = start(config, folder, event)
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        for path in folder.glob("[!.]*.parquet"):
            runs.read_table(path)
        train(config, folder)
        assert_same_results(tmp_path / "whole", folder)
    assert event > 30, "ten files, each synced, renamed, and its folder synced"


def kill_at_random(config, folder, kills, seed=0):
    """Train into folders below `folder`, killed at random moments, `kills` times in all; each ends
    as one that is never killed."""
    whole = folder / "whole"
    started = time.monotonic()
    start(config, whole).join()
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


def test_a_training_killed_at_random_25_times_ends_the_same(eventful, tmp_path):
    kill_at_random(replace(eventful, n_updates=40), tmp_path, kills=25)
