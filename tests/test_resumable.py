"""Evaluations that go on where they were stopped."""

import shutil

import pandas as pd
import pytest
import torch

from negmeta_utils import resumable, runs
from negmeta_utils.evaluation import evaluate_adaptations, evaluate_features, shared_test_images
from negmeta_utils.questions.interventions import adaptations
from negmeta_utils.resumable import evaluate_resumably, features_of_run, forget
from negmeta_utils.storage import files


@pytest.fixture
def images(run, tiny_data):
    return shared_test_images([run], str(tiny_data))


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(resumable, "episodes_at_once", lambda *_: 4)


def test_stopped_in_the_middle_it_goes_on(run, images, small_batches, tmp_path, monkeypatch):
    whole = evaluate_features(run, images, 11)
    calls = []

    def broken(*arguments, **settings):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(arguments)
        return evaluate_adaptations(*arguments, **settings)

    monkeypatch.setattr(resumable, "evaluate_adaptations", broken)
    with pytest.raises(KeyboardInterrupt):
        features_of_run(run, images, 11, 0, tmp_path)
    monkeypatch.setattr(resumable, "evaluate_adaptations", evaluate_adaptations)
    seen = []
    table = features_of_run(run, images, 11, 0, tmp_path, seen.append)
    pd.testing.assert_frame_equal(table, whole)
    assert len(seen) == 1, "eight of eleven were kept"
    assert len(list(tmp_path.iterdir())) == 1
    forget(tmp_path)
    assert not list(tmp_path.iterdir())


def test_several_ways_to_adapt_go_on_together(run, images, small_batches, tmp_path):
    ways = adaptations(run, images, 0)
    few = {name: ways[name] for name in list(ways)[:2]}

    def kept(of, n_episodes):
        return in_order(evaluate_resumably(run, images, of, n_episodes, 0, tmp_path))

    def in_order(table):
        return table.sort_values(["variant", "episode"], ignore_index=True)

    whole = in_order(evaluate_adaptations(run, images, ways, 11))
    assert len(kept(ways, 8)) == 8 * len(ways)
    pd.testing.assert_frame_equal(kept(ways, 11), whole)
    pd.testing.assert_frame_equal(kept(ways, 4), in_order(whole[whole["episode"] < 4]))
    assert set(kept(few, 4)["variant"]) == set(few), "other ways are another table"


def test_other_episodes_are_not_mistaken_for_these(run, images, tmp_path):
    first = features_of_run(run, images, 5, 0, tmp_path)
    other = features_of_run(run, images, 5, 1, tmp_path)
    assert not first.equals(other)
    pd.testing.assert_frame_equal(features_of_run(run, images, 3, 0, tmp_path), first.head(3))


def test_pairs_drawn_or_computed_in_another_way_are_another_table(run, images, tmp_path):
    usual = features_of_run(run, images, 5, 0, tmp_path)
    disjoint = features_of_run(run, images, 5, 0, tmp_path, disjoint=True)
    plain = features_of_run(run, images, 5, 0, tmp_path, engine="reference")
    assert len(list(tmp_path.iterdir())) == 3
    assert usual["same_before"].equals(disjoint["same_before"])
    assert usual["shared_classes"].any() and not disjoint["shared_classes"].any()
    accuracies = usual.columns[4:]
    pd.testing.assert_frame_equal(plain[accuracies], usual[accuracies], atol=1 / 6)


def test_tasks_may_be_of_the_classes_that_were_trained_on(run, tiny_config, tmp_path):
    def table(split):
        return resumable.features_table(
            [run], 4, 0, str(tmp_path), tiny_config.data_dir, torch.device("cpu"), eval_split=split
        )[0]

    for split in ("train", "val"):
        images = shared_test_images([run], tiny_config.data_dir, split)
        assert images.n_classes == {"train": 8, "val": 6}[split]
        pd.testing.assert_frame_equal(table(split), evaluate_features(run, images, 4))
    for name, value in (("eval_split", "all"), ("engine", "fast")):
        with pytest.raises(ValueError, match=f"{name}='{value}': not one of"):
            resumable.features_table([run], 4, 0, None, None, None, **{name: value})
    for n_episodes in (0, -1):
        with pytest.raises(ValueError, match=f"n_episodes={n_episodes}: must be at least 1"):
            resumable.features_table([run], n_episodes, 0, None, None, None)


@pytest.fixture
def shipped(run, images, tmp_path, monkeypatch):
    """`run` among the runs that come with the package, with a table of seven episodes."""
    shutil.copytree(run.directory, tmp_path / "shipped" / "a-run")
    monkeypatch.setattr(runs, "PRETRAINED", tmp_path / "shipped")
    table = evaluate_features(run, images, 7)
    files.write_table(tmp_path / "shipped" / "a-run" / "features.parquet", table)
    return runs.load_run("a-run"), table


def table_of(trained, n_episodes, eval_seed, folder, data_dir):
    device = torch.device("cpu")
    out_dir = str(folder / "out")
    table, made = resumable.features_table(
        trained, n_episodes, eval_seed, out_dir, data_dir, device
    )
    assert made == folder / "out" and made.is_dir()
    return table


def test_what_comes_with_a_run_needs_no_images(shipped, tmp_path):
    run, table = shipped
    nowhere = str(tmp_path / "no-data")
    pd.testing.assert_frame_equal(table_of([run], None, 0, tmp_path, nowhere), table)
    pd.testing.assert_frame_equal(table_of([run], 5, 0, tmp_path, nowhere), table.head(5))
    assert runs.read_tables(["a-run"], "features.parquet").equals(table)
    for n_episodes, eval_seed in ((8, 0), (5, 1)):
        with pytest.raises(FileNotFoundError):
            table_of([run], n_episodes, eval_seed, tmp_path / "refused", nowhere)
    assert not (tmp_path / "refused").exists()


def test_what_does_not_come_with_a_run_is_evaluated(shipped, run, images, tmp_path, tiny_data):
    known, table = shipped
    more = table_of([known], 9, 0, tmp_path, str(tiny_data))
    pd.testing.assert_frame_equal(more, evaluate_features(run, images, 9))
    of_two = table_of([known, run], None, 0, tmp_path, str(tiny_data))
    assert len(of_two) == 2 * resumable.FEW_EPISODES, "the other run comes with none"
    other = table_of([known], 7, 1, tmp_path, str(tiny_data))
    pd.testing.assert_frame_equal(other, evaluate_features(run, images, 7, eval_seed=1))


def test_a_table_in_the_folder_of_a_run_of_ones_own_is_not_taken(run, tmp_path, tiny_data):
    shutil.copytree(run.directory, tmp_path / "own")
    files.write_table(tmp_path / "own" / "features.parquet", pd.DataFrame({"a": [1]}))
    own = runs.load_run(tmp_path / "own")
    table = table_of([own], 3, 0, tmp_path / "own", str(tiny_data))
    assert list(table["episode"]) == [0, 1, 2]


def test_progress_counts_to_the_number_that_was_asked_for(run, images, small_batches, tmp_path):
    lines = []
    features_of_run(run, images, 6, 0, tmp_path, lines.append)
    assert lines == [f"{run.name}: {n} of 6 episodes" for n in (4, 6)]
