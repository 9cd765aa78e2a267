"""Evaluations that go on where they were stopped."""

import pandas as pd
import pytest

from negmeta_utils import evaluation, features
from negmeta_utils.evaluation import evaluate_resumably, forget
from negmeta_utils.features import evaluate_features


@pytest.fixture
def images(run, tiny_data):
    return features.test_images([run], str(tiny_data))


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(evaluation, "episodes_at_once", lambda *_: 4)


def test_stopped_in_the_middle_it_goes_on(run, images, small_batches, tmp_path, monkeypatch):
    whole = evaluate_features(run, images, 11)
    calls = []

    def broken(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(arguments)
        return evaluate_features(*arguments)

    monkeypatch.setattr(evaluation, "evaluate_features", broken)
    with pytest.raises(KeyboardInterrupt):
        evaluate_resumably(run, images, 11, 0, tmp_path)
    monkeypatch.setattr(evaluation, "evaluate_features", evaluate_features)
    seen = []
    table = evaluate_resumably(run, images, 11, 0, tmp_path, seen.append)
    pd.testing.assert_frame_equal(table, whole)
    assert len(seen) == 1, "eight of eleven were kept"
    assert len(list(tmp_path.iterdir())) == 1
    forget(tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_episodes_are_not_mistaken_for_these(run, images, tmp_path):
    first = evaluate_resumably(run, images, 5, 0, tmp_path)
    other = evaluate_resumably(run, images, 5, 1, tmp_path)
    assert not first.equals(other)
    pd.testing.assert_frame_equal(evaluate_resumably(run, images, 3, 0, tmp_path), first.head(3))


def test_a_deadline_leaves_a_shorter_table(run, images, tmp_path):
    assert len(evaluate_resumably(run, images, 5, 0, tmp_path, deadline=0)) == 0
    assert not list(tmp_path.iterdir())
