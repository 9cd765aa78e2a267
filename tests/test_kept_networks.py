"""Networks kept along a training: which they are, and their names wherever a run is named."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from negmeta_utils import checkpoints, objective, runs, training
from negmeta_utils.data import datasets
from negmeta_utils.evidence.learned_rates import each_network, table_1
from negmeta_utils.evidence.quantities import by_network, changes
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.plots import style
from negmeta_utils.questions.trainings import without_collapsed
from negmeta_utils.resumable import features_table
from negmeta_utils.storage import files
from negmeta_utils.training import train

CHECKS = [4, 8, 11]  # the last meta-update is always one


@pytest.fixture(scope="module", params=[False, True], ids=["same tasks", "fresh tasks"])
def trained(request, tiny_config, tmp_path_factory):
    """A training that keeps a network at every validation, and one between two of them."""
    config = replace(
        tiny_config, n_updates=11, keep_at=[*CHECKS, 6], val_fresh=request.param, outer_lr=0.02
    )
    return config, train(config, tmp_path_factory.mktemp("kept") / "run")


def network(run, name):
    return runs.load_run(f"{run.directory}@{name}")


def same(a, b):
    return all(torch.equal(a.params[name], b.params[name]) for name in a.params) and all(
        torch.equal(a.alpha[name], b.alpha[name]) for name in a.alpha
    )


def test_a_kept_network_is_the_one_a_shorter_training_ends_with(trained, tmp_path):
    config, run = trained
    shorter = train(replace(config, n_updates=6, keep_at=[]), tmp_path / "shorter")
    assert same(network(run, "6"), shorter)
    assert same(network(run, "11"), run)
    assert not same(network(run, "6"), run)


def test_the_best_network_is_that_of_the_lowest_validation_loss(trained):
    _, run = trained
    best = network(run, "best")
    losses = run.history().set_index("update")["val_loss"].dropna()
    assert losses.index.tolist() == CHECKS
    assert best.update == losses.idxmin()
    assert same(best, network(run, best.update))


def test_validation_tasks_are_counted(trained):
    config, run = trained
    config = replace(config, device="cpu")
    images = datasets.load("mini-imagenet", "val", 16, config.data_dir)
    history = run.history().set_index("update")
    for number, update in enumerate(CHECKS):
        first = config.val_episodes * number if config.val_fresh else 0
        kept, episodes = network(run, update), range(first, first + config.val_episodes)
        found = objective.evaluate(config, CONV4, kept.params, kept.alpha, images, "val", episodes)
        for column, values in zip(("val_loss", "val_accuracy"), found, strict=True):
            assert history.loc[update, column] == pytest.approx(float(values.mean()), rel=1e-6)


def test_the_tables_of_a_kept_network_end_with_it(trained):
    _, run = trained
    kept = network(run, "6")
    assert (kept.name, kept.network, kept.update) == ("run@6", "6", 6)
    assert kept.rates()["update"].unique().tolist() == [0, 4, 6]
    assert set(kept.rates()["network"]) == {"6"}
    assert kept.history()["update"].max() == 6
    assert len(kept.final_accuracy()) == 0
    last = kept.rates().query("update == 6 and layer == 'conv1' and group == 'weights+bias'")
    rates = torch.cat([kept.alpha[f"conv1.{part}"].flatten() for part in ("weight", "bias")])
    assert last["mean"].item() == pytest.approx(rates.double().mean().item())


def test_networks_of_one_run_are_evaluated_side_by_side(trained, tmp_path):
    config, run = trained
    names = [f"{run.directory}@best", f"{run.directory}@6", str(run.directory)]
    several = runs.load_runs(names, several=True)
    out = str(tmp_path / "out")
    table, _ = features_table(several, 8, 0, out, config.data_dir, torch.device("cpu"))
    assert len(list((tmp_path / "out").glob(".kept-*.parquet"))) == 3, "a table a network"
    assert table.groupby("network", sort=False).size().to_dict() == {"best": 8, "6": 8, "end": 8}
    told = by_network(table)
    assert set(told["method"]) == {"meta-sgd@best", "meta-sgd@6", "meta-sgd@end"}
    assert len(changes(told)) == 3
    assert style.label("meta-sgd@6") == "Meta-SGD, update 6"
    one = table[table["network"] == "best"]
    assert set(by_network(one)["method"]) == {"meta-sgd"}


def test_a_kept_network_needs_no_table_of_the_test_at_the_end(trained, tmp_path):
    """Published ones come without it."""
    _, run = trained
    shutil.copytree(run.directory, tmp_path / "run")
    (tmp_path / "run" / "accuracy.parquet").unlink()
    best = runs.load_run(f"{tmp_path}/run@best")
    assert best.final_accuracy().empty
    assert [one.name for one in without_collapsed([best])[0]] == ["run@best"]


def test_two_names_of_one_network_are_evaluated_under_both(trained, tmp_path):
    config, run = trained
    best = network(run, "best")
    both = [best, network(run, str(best.update))]
    table, _ = features_table(both, 3, 0, str(tmp_path), config.data_dir, torch.device("cpu"))
    assert table.groupby("network").size().to_dict() == {"best": 3, str(best.update): 3}


def test_a_new_best_network_comes_with_a_checkpoint(trained, tmp_path, monkeypatch):
    """Else a continuation by other digits might end with one that it never came to."""
    config, run = trained
    saved = []

    def save(state, directory, manifest):
        saved.append(state.update)
        checkpoints.save(state, directory, manifest)

    monkeypatch.setattr(training, "save", save)
    train(replace(config, checkpoint_every=1000), tmp_path / "run")
    losses = run.history().set_index("update")["val_loss"].dropna()
    best = losses[losses == losses.cummin()].index
    assert sorted({*best, config.n_updates}) == sorted(set(saved))


def test_networks_of_one_run_do_not_pass_for_several_seeds(trained, tmp_path):
    _, run = trained
    names = [f"{run.directory}@best", str(run.directory)]
    with pytest.raises(ValueError, match="runs: run@best and run are of one training; name one"):
        runs.load_runs(names)
    rates = pd.concat([network.rates() for network in runs.load_runs(names, several=True)])
    files.write_table(tmp_path / "rates.parquet", rates)
    with pytest.raises(ValueError, match="of several networks of one training"):
        runs.read_tables([str(tmp_path)], "rates.parquet")


def test_table_1_has_every_network(trained):
    _, run = trained
    names = [f"{run.directory}@6", str(run.directory)]
    several = runs.load_runs(names, several=True)
    table = each_network(table_1, pd.concat([network.rates() for network in several]))
    for network in several:
        own = table[table["network"] == network.network].drop(columns="network")
        pd.testing.assert_frame_equal(own.reset_index(drop=True), table_1(network.rates()))


def test_a_network_that_was_not_kept_is_named_in_one_line(trained):
    _, run = trained
    with pytest.raises(FileNotFoundError, match="no network '5' there; it has 4, 6, 8, 11, best,"):
        network(run, "5")


def test_a_network_of_a_training_that_goes_on_is_there(trained, tmp_path, monkeypatch):
    config, run = trained

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "unfinished")
    assert same(runs.load_run(f"{tmp_path}/unfinished@6"), network(run, "6"))
    for other in ("unfinished", "unfinished@best"):  # which may still change
        with pytest.raises(FileNotFoundError, match="it has begun, but not ended"):
            runs.load_run(tmp_path / other)


def test_tables_that_end_before_a_kept_network_are_not_given_as_its_own(
    trained, tmp_path, monkeypatch
):
    config, run = trained
    step = training._meta_update

    def stop(config, state, images):
        if state.update == 7:
            raise RuntimeError
        step(config, state, images)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_meta_update", stop)
        with pytest.raises(RuntimeError):
            train(replace(config, checkpoint_every=5), tmp_path / "unfinished")
    early = runs.load_run(f"{tmp_path}/unfinished@6")
    assert same(early, network(run, "6"))
    for table in (early.rates, early.history):
        with pytest.raises(ValueError, match="ends at meta-update 5, before the network '6'"):
            table()
    train(config, tmp_path / "unfinished")
    pd.testing.assert_frame_equal(early.rates(), network(run, "6").rates())


def test_a_loss_that_is_no_number_makes_no_best_network(trained, tmp_path):
    config, _ = trained
    state = SimpleNamespace(rows=[{}], scheduler=None, best_loss=1.5, kept={})
    losses, accuracies = np.array([np.nan, 1.0]), np.array([0.5, 0.5])
    assert not training.note_validation(config, state, tmp_path, losses, accuracies)
    assert state.best_loss == 1.5 and not list(tmp_path.iterdir())


def test_a_folder_named_as_a_network_of_a_run_is_refused(tiny_config, tmp_path):
    with pytest.raises(ValueError, match="exp@2024: what follows an @ names a network of a run"):
        train(tiny_config, tmp_path / "exp@2024")
    with pytest.raises(ValueError, match="@best: what follows an @ names a network of a run"):
        train(tiny_config, tmp_path / "@best")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["runs/a@b", "a@b/run", "you@best.org"])
def test_an_at_sign_of_a_folder_is_no_network(name):
    assert runs.split_name(name) == (name, runs.END)
