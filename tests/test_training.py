"""The outer loop: what it computes, and that stopping changes nothing."""

import itertools
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from negmeta_utils import adaptation, checkpoints, config, objective, runs, training
from negmeta_utils.adaptation import METHODS, init_alpha
from negmeta_utils.config import TrainConfig
from negmeta_utils.data import datasets
from negmeta_utils.data.splits import load_split
from negmeta_utils.engine import library
from negmeta_utils.engine.adam import Adam
from negmeta_utils.episodes import draw_episodes
from negmeta_utils.model import init_params
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.storage import files
from negmeta_utils.training import train


class Stopped(Exception):
    """What a test raises to stop a training."""


def train_and_stop_once(config, folder, monkeypatch, after):
    """Train to the end, stopped once after `after` meta-updates."""
    step, updates = training._meta_update, []

    def stopping(*arguments):
        if len(updates) == after:
            raise Stopped
        updates.append(1)
        step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_meta_update", stopping)
        with pytest.raises(Stopped):
            train(config, folder)
    return train(config, folder)


def assert_same_run(a, b):
    for group in ("params", "alpha"):
        for name, value in getattr(a, group).items():
            assert torch.equal(value, getattr(b, group)[name]), f"{group} {name}"
    for table in ("history", "rates", "every_rate"):
        assert getattr(a, table)().equals(getattr(b, table)()), table
    assert a.final_accuracy().equals(b.final_accuracy())
    kept = [sorted((run.directory / runs.KEPT).iterdir()) for run in (a, b)]
    assert [path.name for path in kept[0]] == [path.name for path in kept[1]]
    for one, other in zip(*kept, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_a_manifest_names_what_digits_depend_on(tiny_config, tmp_path):
    known = train(replace(tiny_config, n_updates=1), tmp_path).manifest["environment"]
    told = Path("/proc/cpuinfo")  # of Linux
    processors = re.findall(r"model name\s*: (.*)", told.read_text() if told.exists() else "")
    assert known["processor"] in processors or not processors
    assert known["vectors"] == torch.backends.cpu.get_cpu_capability()
    compiler = os.environ.get("CC", "cc").split()
    if shutil.which(compiler[0]):
        said = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
        assert said.startswith(known["compiler"])
    else:
        assert known["compiler"] is None
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())[1]
    assert (known["blas"] == "MKL") == (blas == "mkl")
    assert known["packages"]["torch"] == version("torch")
    assert known["threads"] == torch.get_num_threads()


def test_a_processor_without_avx2_is_told_that_digits_differ(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "arithmetic", lambda: {"vectors": "DEFAULT"})
    said = []
    train(replace(tiny_config, n_updates=1), tmp_path, said.append)
    assert sum("the last digits, and with them the network, differ" in line for line in said) == 1


def every_bad_check_cuts(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)


@pytest.mark.slow
def test_a_run_that_is_complete_trains_on(tiny_config, tmp_path):
    config = replace(tiny_config, n_updates=8, val_every=2, checkpoint_every=3, keep_at=[2])
    short = train(replace(config, n_updates=4), tmp_path / "run")
    with pytest.raises(ValueError, match="with n_updates=4, not 3"):
        train(replace(config, n_updates=3), tmp_path / "run")
    assert train(replace(config, n_updates=4), tmp_path / "run").manifest == short.manifest
    assert_same_run(train(config, tmp_path / "run"), train(config, tmp_path / "whole"))


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
@pytest.mark.parametrize("after", [2, 4, 7])
@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(
    tiny_config, tmp_path, monkeypatch, after, schedule
):
    monkeypatch.setattr(checkpoints, "plateau", every_bad_check_cuts)
    config = replace(
        tiny_config, lr_schedule=schedule, val_every=1, val_fresh=True, outer_lr=0.5,
        alpha_lr=0.25, keep_at=[3, 8],
    )  # fmt: skip
    whole = train(config, tmp_path / "whole")
    resumed = train_and_stop_once(config, tmp_path / "resumed", monkeypatch, after)
    assert_same_run(whole, resumed)
    (continued,) = resumed.manifest["continued"]
    losses = whole.history().set_index("update")["val_loss"]
    best = losses.index[losses < losses.cummin().shift(fill_value=math.inf)]
    halts = {*range(0, after + 1, config.checkpoint_every), *best[best <= after]}
    assert continued["update"] == max(halts)
    assert 0 < continued["seconds"] < resumed.manifest["results"]["seconds_training"]
    assert "continued" not in whole.manifest
    for name in ("outer_lr", "alpha_lr"):
        assert (whole.history()[name].nunique() > 1) == (schedule == "plateau")
    assert (whole.history()["alpha_lr"] == whole.history()["outer_lr"] / 2).all()


@pytest.mark.slow
@pytest.mark.parametrize("alpha_lr", [None, 0.01])
def test_training_is_adam_on_the_reference_meta_gradient(tiny_config, tmp_path, alpha_lr):
    config = replace(tiny_config, n_updates=3, engine="reference", alpha_lr=alpha_lr)
    run = train(config, tmp_path / "run")
    images = datasets.load("mini-imagenet", "train", 16, config.data_dir)
    params = init_params(0, 3, 16, 2, config.n_filters)
    alpha = init_alpha("meta-sgd", params)
    of_params = Adam(params.values(), lr=0.001)
    of_alpha = Adam(alpha.values(), lr=alpha_lr or 0.001)
    for update in range(3):
        indices = range(3 * update, 3 * update + 3)
        episodes = draw_episodes(images, 0, "train", indices, 2, 1, 3)
        gradient = adaptation.meta_gradient(params, alpha, episodes, 2)
        for name in params:
            params[name].grad, alpha[name].grad = gradient.params[name], gradient.alpha[name]
        of_params.step()
        of_alpha.step()
    for name in params:
        torch.testing.assert_close(run.params[name], params[name])
        torch.testing.assert_close(run.alpha[name], alpha[name])


@pytest.mark.slow
@pytest.mark.parametrize("n_filters", [4, 32], ids=["torch", "c"])
def test_both_engines_train_the_same_model(tiny_config, tmp_path, n_filters):
    config = replace(tiny_config, n_filters=n_filters, n_updates=6)
    runs_by_engine = [
        train(replace(config, engine=engine), tmp_path / engine)
        for engine in ("reference", "adjoint")
    ]
    for name, value in runs_by_engine[0].alpha.items():
        torch.testing.assert_close(value, runs_by_engine[1].alpha[name], rtol=1e-3, atol=1e-4)
    assert runs_by_engine[1].parameters["engine"] == "adjoint"


@pytest.mark.parametrize("method", METHODS)
def test_only_meta_sgd_changes_its_rates(tiny_config, tmp_path, method):
    run = train(replace(tiny_config, method=method, n_updates=2, test_episodes=0), tmp_path / "run")
    before = init_alpha(method, run.params, 0.01)
    changed = any(not torch.equal(before[name], run.alpha[name]) for name in before)
    assert changed == METHODS[method].learns_alpha


@pytest.mark.slow
def test_positive_rates_stay_positive_where_free_ones_do_not(tiny_config, tmp_path):
    least = {}
    for method in ("meta-sgd", "meta-sgd-positive"):
        config = replace(tiny_config, method=method, outer_lr=0.01, n_updates=12)
        alpha = train(config, tmp_path / method).alpha
        least[method] = min(float(value.min()) for value in alpha.values())
    assert least["meta-sgd"] < 0 < least["meta-sgd-positive"]


@pytest.mark.slow
def test_a_prototypical_network_learns_without_its_linear_layer(tiny_config, tmp_path):
    config = replace(tiny_config, method="protonet", n_updates=40, test_episodes=60)
    run = train(config, tmp_path / "run")
    fresh = init_params(
        config.seed, 3, run.parameters["image_size"], config.n_way, config.n_filters
    )
    torch.testing.assert_close(run.params["logits.weight"], fresh["logits.weight"])
    assert run.final_accuracy().mean() > 0.65, "two ways: chance is 0.5"


@pytest.mark.slow
def test_a_run_directory_holds_what_its_users_need(tiny_config, tmp_path):
    lines = []
    run = train(tiny_config, tmp_path / "run", lines.append)
    assert sorted(path.name for path in (tmp_path / "run").glob("[!.]*")) == [
        "accuracy.parquet", "checkpoint.safetensors", "every_rate.parquet", "history.parquet",
        "kept", "manifest.json", "model.safetensors", "rates.parquet",
    ]  # fmt: skip
    manifest = run.manifest
    assert manifest["status"] == "complete"
    assert manifest["parameters"]["n_updates"] == 12
    assert manifest["parameters"]["engine"] == "adjoint", "auto is resolved"
    assert manifest["environment"]["packages"]["torch"] == torch.__version__.split("+")[0]
    assert manifest["data"]["train"]["classes"] == 8
    assert manifest["results"]["test_episodes"] == 10
    assert run.history()["update"].tolist() == list(range(1, 13))
    assert run.history().dropna()["update"].tolist() == [4, 8, 12]
    assert sorted(run.rates()["update"].unique()) == [0, 4, 8, 12]
    assert "12 meta-updates in" in lines[-1]
    images = load_split("mini-imagenet", "test", 16, tiny_config.data_dir, "64/16/20")
    of_run = TrainConfig(**run.parameters)
    found = objective.evaluate(of_run, CONV4, run.params, run.alpha, images, "final", range(10))
    table = files.read_table(tmp_path / "run" / "accuracy.parquet")
    for column, values in zip(("loss", "accuracy"), found, strict=True):
        assert table[column].tolist() == values.tolist()


def test_the_plateau_is_that_of_the_validation_loss(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "plateau", every_bad_check_cuts)
    config = replace(tiny_config, lr_schedule="plateau", val_every=1, outer_lr=0.5, n_updates=12)
    history = train(config, tmp_path / "run").history()
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=0.5)
    scheduler, expected = every_bad_check_cuts(optimizer), []
    for loss in history["val_loss"]:
        expected.append(optimizer.param_groups[0]["lr"])
        scheduler.step(loss)
    assert history["outer_lr"].tolist() == expected and len(set(expected)) > 2


def test_the_last_line_on_progress_tells_the_accuracy_of_the_last_update(
    tiny_config, tmp_path, monkeypatch
):
    seconds = itertools.count(step=2)  # a line at every meta-update
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    lines = []
    run = train(replace(tiny_config, n_updates=4), tmp_path, lines.append)
    accuracy = run.history()["train_accuracy"].iloc[-1]
    assert lines[-2].startswith("meta-update 4 of 4, 0.0 min left")
    assert lines[-2].endswith(f"training accuracy {accuracy:.2f}")


@pytest.mark.slow
def test_a_model_learns_to_tell_the_colours_apart(tiny_config, tmp_path):
    run = train(replace(tiny_config, n_updates=40, test_episodes=60), tmp_path / "run")
    assert run.final_accuracy().mean() > 0.65, "two ways: chance is 0.5"


def test_a_run_goes_below_the_working_directory(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train(replace(tiny_config, n_updates=1), "run-b")
    assert run.directory == tmp_path / "run-b"
    assert (tmp_path / "run-b" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_complete_run_is_not_trained_again(tiny_config, tmp_path, monkeypatch):
    first = train(tiny_config, tmp_path / "run")
    monkeypatch.setattr(training, "_meta_update", lambda *_: pytest.fail("trained again"))
    assert_same_run(first, train(tiny_config, tmp_path / "run"))


def test_a_folder_of_tables_is_not_trained_over(tiny_config, tmp_path):
    (tmp_path / "rates.parquet").write_bytes(b"mine")
    with pytest.raises(ValueError, match="holds tables and no run; choose another folder"):
        train(tiny_config, tmp_path)
    assert (tmp_path / "rates.parquet").read_bytes() == b"mine"


def test_a_directory_of_another_configuration_is_refused(tiny_config, tmp_path):
    train(replace(tiny_config, n_updates=3, val_every=2), tmp_path / "run")
    for other in (2, 12):  # the check at 3 is of a training that ends there
        with pytest.raises(ValueError, match=f"with n_updates=3, not {other}; choose another"):
            train(replace(tiny_config, n_updates=other, val_every=2), tmp_path / "run")
    with pytest.raises(ValueError, match="of a run with val_every=2, not"):
        train(tiny_config, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tiny_config, tmp_path):
    config = replace(tiny_config, outer_lr=1e30, n_updates=20, checkpoint_every=1)
    with pytest.raises(FloatingPointError, match="stopped being finite at meta-update"):
        train(config, tmp_path / "run")
    groups, metadata = files.read_tensors(tmp_path / "run" / "checkpoint.safetensors")
    assert metadata["update"] >= 1
    assert not (tmp_path / "run" / "model.safetensors").exists()
    with pytest.raises(FileNotFoundError, match="no finished run there"):
        runs.load_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "sgd"}, "method='sgd'"),
        ({"lr_schedule": "cosine"}, "lr_schedule='cosine'"),
        ({"classes": "64/36"}, "classes='64/36': not one of 64/16/20, 80/20"),
        ({"alpha_lr": 0.1, "method": "maml"}, "alpha_lr=0.1: maml learns no rates; use None"),
        ({"alpha_lr": 0}, "alpha_lr=0: must be a positive number"),
        ({"val_fresh": 1}, "val_fresh=1: must be True or False"),
        ({"keep_at": 5}, "keep_at=5: must be a list of at most 10 meta-updates"),
        ({"keep_at": [*range(1, 12)]}, "must be a list of at most 10 meta-updates"),
        ({"keep_at": ["best"]}, "keep_at='best': must be a whole number"),
        ({"keep_at": [0]}, "keep_at=0: must be at least 1"),
        ({"keep_at": [13]}, "keep_at=13: training ends at 12; lower it"),
        ({"engine": "fast"}, "engine='fast'"),
        ({"n_updates": 0}, "n_updates=0: must be at least 1"),
        ({"inner_lr": float("nan")}, "inner_lr=nan: must be a positive number"),
        ({"n_way": 7}, "n_way=7: the val split has 6 classes"),
        ({"n_query": 8}, r"n_shot \+ n_query = 9: class"),
        ({"device": "cuda:9"}, "device='cuda:9'"),
        ({"image_size": 8}, "image_size=8"),
        ({"n_updates": "many"}, "n_updates='many': must be a whole number"),
        ({"n_way": 2.0}, "n_way=2.0: must be a whole number"),
        ({"n_way": 1}, "n_way=1: must be at least 2"),
        ({"n_shot": 0}, "n_shot=0: must be at least 1"),
        ({"inner_steps": 0}, "inner_steps=0: must be at least 1"),
        ({"n_filters": 0}, "n_filters=0: must be at least 1"),
        ({"val_every": 0}, "val_every=0: must be at least 1"),
        ({"n_tasks": True}, "n_tasks=True: must be a whole number"),
        ({"n_tasks": [3]}, r"n_tasks=\[3\]: must be a whole number"),
        ({"image_size": "84"}, "image_size='84': must be a whole number or None"),
        ({"seed": -1}, "seed=-1: must be at least 0"),
        ({"seed": 2**63}, "too large"),
        ({"outer_lr": "1e-3"}, r"outer_lr='1e-3': must be a number \(in YAML 1.0e-3"),
        ({"outer_lr": float("inf")}, "outer_lr=inf: must be a positive number"),
        ({"outer_lr": -1}, "outer_lr=-1: must be a positive number"),
        ({"dataset": None}, "dataset=None: must be text"),
        ({"data_dir": 5}, "data_dir=5: must be text or None"),
        ({"alpha_init": "normal"}, "alpha_init='normal'"),
        ({"alpha_init": "uniform", "method": "maml"}, "alpha_init='uniform'"),
        ({"device": "gpu"}, "device='gpu': use 'auto', 'cpu' or 'cuda'"),
        ({"device": "meta"}, "device='meta': use"),
        ({"dataset": "imagenet"}, "imagenet"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_and_leaves_nothing(
    tiny_config, tmp_path, change, message
):
    with pytest.raises(ValueError, match=message) as raised:
        train(replace(tiny_config, **change), tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_every_rate_is_kept_some_twenty_times(tiny_config, tmp_path):
    config = replace(tiny_config, n_updates=50, val_every=1, val_episodes=1, test_episodes=0)
    run = train(config, tmp_path)
    kept = run.every_rate()
    assert sorted(set(kept["update"])) == [*range(0, 50, 3), 50]
    end = kept[kept["update"] == 50].groupby("name", observed=True)["rate"]
    for name, values in end:
        assert values.tolist() == pytest.approx(run.alpha[name].flatten().tolist(), abs=6e-5)


@pytest.mark.slow
@pytest.mark.skipif(library.compiler_version() is None, reason="PyTorch's own Adam imports it")
def test_torchs_compiler_which_takes_a_second_is_not_imported(tiny_config, tmp_path):
    """By a training that begins, and by one that goes on."""
    longer = replace(tiny_config, method="meta-sgd-positive", lr_schedule="plateau")
    code = (
        "import sys; from negmeta_utils.config import TrainConfig; "
        "from negmeta_utils.training import train; "
        f"train({replace(longer, n_updates=4)!r}, {str(tmp_path)!r}); "
        f"train({longer!r}, {str(tmp_path)!r}); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
