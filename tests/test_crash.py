"""Trainings that are killed, interrupted or broken, and what is left of them."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import nbformat
import numpy as np
import psutil
import pytest
import torch
from killing import (
    PROCESSES,
    assert_same_results,
    kill_at_random,
    start,
)

from negmeta_utils import objective, runs, training
from negmeta_utils.storage import atomic, files
from negmeta_utils.studies import study_file
from negmeta_utils.training import train


@pytest.fixture
def eventful(tiny_config):
    """A training whose every part of the state matters: learned rates with an outer rate of their
    own, validations that count, and networks kept along the way."""
    return replace(
        tiny_config, lr_schedule="plateau", outer_lr=0.1, alpha_lr=0.05, val_fresh=True,
        keep_at=[1, 3], n_updates=4, n_tasks=1, inner_steps=1,
        val_every=2, val_episodes=2, test_episodes=4, checkpoint_every=2,
    )  # fmt: skip


def test_a_training_killed_at_any_step_of_writing_ends_the_same(eventful, tmp_path):
    train(eventful, tmp_path / "whole")
    for event in itertools.count(1):
        folder = tmp_path / str(event)
        process = start(eventful, folder, event)
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        for path in folder.glob("[!.]*.parquet"):
            files.read_table(path)
        train(eventful, folder)
        assert_same_results(tmp_path / "whole", folder)
    assert event > 20, "at least ten files were written"


def test_a_training_killed_at_random_ten_times_ends_the_same(eventful, tmp_path):
    """`make soak` does so hundreds of times."""
    kill_at_random(replace(eventful, n_updates=10, checkpoint_every=1), tmp_path, kills=10)


def signalled_after(monkeypatch, update, number):
    """Let the training of this process get a signal in the middle of that meta-update."""
    step = training._meta_update

    def stepping(config, state, *rest):
        if state.update == update - 1:
            os.kill(os.getpid(), number)
        step(config, state, *rest)

    monkeypatch.setattr(training, "_meta_update", stepping)


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_ends_a_training_with_a_checkpoint(eventful, tmp_path, monkeypatch, number, kind):
    config = replace(eventful, n_updates=9, checkpoint_every=100)
    train(config, tmp_path / "whole")
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        signalled_after(patch, 5, number)
        with pytest.raises(kind, match="stopped after meta-update 5, its checkpoint") as raised:
            train(config, tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert signal.getsignal(number) is handler
    assert files.read_tensors(tmp_path / "run" / "checkpoint.safetensors")[1]["update"] == 5
    train(config, tmp_path / "run")
    assert_same_results(tmp_path / "whole", tmp_path / "run")


def test_a_signal_during_the_last_checkpoint_ends_it_before_its_test(
    eventful, tmp_path, monkeypatch
):
    save = training.save

    def saving(state, *rest):
        save(state, *rest)
        if state.update == eventful.n_updates:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(training, "save", saving)
        with pytest.raises(KeyboardInterrupt, match="its checkpoint is kept; train again"):
            train(eventful, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert train(eventful, tmp_path / "run").manifest["status"] == "complete"


def test_a_second_signal_does_not_wait(eventful, tmp_path, monkeypatch):
    def stuck(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on after two signals")

    monkeypatch.setattr(training, "_meta_update", stuck)
    with pytest.raises(KeyboardInterrupt):
        train(eventful, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_off_the_main_thread_signals_are_left_alone(eventful, tmp_path):
    thread = threading.Thread(target=train, args=(eventful, tmp_path / "run"))
    thread.start()
    thread.join()
    assert runs.load_run(tmp_path / "run").manifest["status"] == "complete"


def hold(folder, held):
    with atomic.sole_user(folder):
        held.set()
        time.sleep(600)


def test_a_folder_has_one_user_until_it_ends_even_by_sigkill(eventful, tmp_path):
    held = PROCESSES.Event()
    process = PROCESSES.Process(target=hold, args=(tmp_path / "run", held))
    process.start()
    assert held.wait(300)
    with pytest.raises(BlockingIOError, match="in use by another process; wait") as raised:
        train(eventful, tmp_path / "run")
    assert "\n" not in str(raised.value)
    process.kill()
    process.join()
    train(eventful, tmp_path / "run")


def test_a_run_moved_away_does_not_write_over_the_one_begun_in_its_place(
    eventful, tmp_path, monkeypatch
):
    config, other = replace(eventful, n_updates=8), replace(eventful, seed=9)
    step = training._meta_update

    def stepping(config, state, *rest):
        if config.n_updates == 8 and state.update == 5:
            (tmp_path / "run").rename(tmp_path / "moved")
            train(other, tmp_path / "run")
        step(config, state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_meta_update", stepping)
        with pytest.raises(OSError, match="run: moved or deleted while in use") as raised:
            train(config, tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert runs.load_run(tmp_path / "run").parameters["seed"] == 9
    train(config, tmp_path / "moved")
    train(config, tmp_path / "whole")
    assert_same_results(tmp_path / "whole", tmp_path / "moved")


def broken_after(monkeypatch, update, part):
    """Let one value of `part` of the state become infinite in that meta-update."""
    step = training._meta_update

    def stepping(config, state, *rest):
        step(config, state, *rest)
        if state.update == update:
            if part == "loss":
                state.rows[-1]["train_loss"] = torch.tensor(float("nan"))
            elif part.startswith("exp_avg"):
                state.optimizer.state[state.params["logits.bias"]][part][0] = float("inf")
            else:
                getattr(state, part)["logits.bias"][0] = float("inf")

    monkeypatch.setattr(training, "_meta_update", stepping)


@pytest.mark.parametrize(
    ("part", "at", "named", "kept"),
    [
        ("loss", 6, 6, 4),  # noticed at the checkpoint after 8
        ("params", 5, 6, 4),  # the loss shows it one meta-update later
        ("alpha", 8, 8, 4),  # the last before a checkpoint: no loss has shown it yet
        ("params", 12, 12, 8),  # the last of all
        ("exp_avg", 5, 6, 4),  # Adam's moments show in no loss
        ("exp_avg_sq", 12, 12, 8),
    ],
)
def test_what_is_not_finite_is_named_and_reaches_no_checkpoint(
    eventful, tmp_path, monkeypatch, part, at, named, kept
):
    config = replace(eventful, n_updates=12, val_every=12, checkpoint_every=4)
    broken_after(monkeypatch, at, part)
    folder = tmp_path / "run"
    with pytest.raises(FloatingPointError, match=f"finite at meta-update {named};") as raised:
        train(config, folder)
    assert "\n" not in str(raised.value)
    groups, metadata = files.read_tensors(folder / "checkpoint.safetensors")
    assert metadata["update"] == kept
    for group in groups.values():
        assert all(value.isfinite().all() for value in group.values())
    assert files.read_table(folder / "history.parquet")["update"].max() == kept
    assert not (folder / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("stream", "words"), [("val", "at meta-update 8;"), ("final", "episode 1")]
)
def test_an_evaluation_that_is_not_finite_hides_nothing(
    eventful, tmp_path, monkeypatch, stream, words
):
    evaluate = objective.evaluate

    def breaking(*arguments):
        loss, accuracy = evaluate(*arguments)
        if stream in arguments and (stream == "final" or len(validations) == 1):
            loss[1] = float("inf")
        validations.append("val" in arguments)
        return loss, accuracy

    validations = []
    monkeypatch.setattr(objective, "evaluate", breaking)
    config = replace(eventful, n_updates=12, val_every=4, checkpoint_every=4)
    with pytest.raises(FloatingPointError, match=words):
        train(config, tmp_path / "run")
    assert atomic.read_json(tmp_path / "run" / "manifest.json")["status"] == "running"
    kept = files.read_tensors(tmp_path / "run" / "checkpoint.safetensors")[1]["update"]
    assert kept == (4 if stream == "val" else 12)


@pytest.mark.parametrize(
    "allocate",
    [lambda: torch.empty(2**50), lambda: np.empty(2**50), lambda: out_of_memory_on_a_gpu()],
    ids=["torch", "numpy", "cuda"],
)
def test_memory_that_does_not_suffice_names_the_settings(eventful, tmp_path, monkeypatch, allocate):
    monkeypatch.setattr(training, "_meta_update", lambda *arguments: allocate())
    with pytest.raises(MemoryError, match="device='cpu': out of memory; lower n_tasks, n_query"):
        train(eventful, tmp_path / "run")


def out_of_memory_on_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory.\nOf the allocated memory ...")


LONG = {"n_updates": 10_000, "val_every": 10_000, "checkpoint_every": 1}
SMALL = {"n_filters": 32, "n_way": 2, "n_query": 2, "n_tasks": 1, "inner_steps": 1}


@contextmanager
def papermill(folder, **parameters):
    """A process that executes notebook 1, which does not outlive the test; nor does its kernel,
    which looks after its parent."""
    given = {**SMALL, **parameters, "out_dir": folder / "run"}
    options = [word for name, value in given.items() for word in ("-p", name, str(value))]
    process = subprocess.Popen(
        [sys.executable, "-m", "papermill", str(study_file.NOTEBOOKS / "01_train.ipynb"),
         str(folder / "executed.ipynb"), *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("receiver", "number", "kind"),
    [
        ("papermill", signal.SIGINT, "KeyboardInterrupt"),  # Ctrl-C
        ("kernel", signal.SIGTERM, "SystemExit"),
    ],
)
def test_a_signal_to_a_notebook_leaves_a_checkpoint(tmp_path, receiver, number, kind):
    folder = tmp_path / "run"
    with papermill(tmp_path, **LONG) as process:
        while not (folder / "checkpoint.safetensors").exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        (kernel,) = (
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "ipykernel_launcher" in " ".join(child.cmdline())
        )
        (process if receiver == "papermill" else kernel).send_signal(number)
        process.communicate()
    assert process.returncode > 0
    cells = nbformat.read(tmp_path / "executed.ipynb", 4).cells
    (error,) = (o for c in cells for o in c.get("outputs", []) if o.output_type == "error")
    update = files.read_tensors(folder / "checkpoint.safetensors")[1]["update"]
    assert error.ename == kind
    assert f"{folder}: stopped after meta-update {update}, its checkpoint is kept" in error.evalue
    assert files.read_table(folder / "history.parquet")["update"].max() == update
    assert not kernel.is_running()
    assert {path.name for path in folder.glob(".*")} == {".lock"}


def test_a_notebook_whose_loss_is_not_finite_fails_and_says_when(tmp_path):
    with papermill(tmp_path, outer_lr=1e30, n_updates=20, checkpoint_every=1) as process:
        last = process.communicate()[1].strip().splitlines()[-1]
    assert process.returncode > 0
    assert last.startswith("FloatingPointError: ")
    assert "the loss stopped being finite at meta-update 2; the last checkpoint is from" in last
    assert files.read_tensors(tmp_path / "run/checkpoint.safetensors")[1]["update"] == 1
