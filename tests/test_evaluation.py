"""Prototype evaluation against a few lines of NumPy and scikit-learn."""

import threading
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier

from negmeta_utils import evaluation, runs
from negmeta_utils.adaptation import adapt
from negmeta_utils.engine.engines import ENGINES, engine_of
from negmeta_utils.episodes import draw_classes, draw_episodes, draw_rows
from negmeta_utils.evaluation import check_comparable, evaluate_features, shared_test_images
from negmeta_utils.model import embed, forward
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.prototypes import prototype_accuracy
from negmeta_utils.training import train


def numpy_prototypes(support, query, n_way, labels):
    support, query = support.numpy(), query.numpy()
    centroids = support.reshape(n_way, -1, support.shape[-1]).mean(1)
    similarity = (query @ centroids.T) / np.outer(
        np.linalg.norm(query, axis=1), np.linalg.norm(centroids, axis=1)
    )
    return (similarity.argmax(1) == labels.numpy()).mean()


@pytest.mark.parametrize("n_shot", [1, 3])
def test_prototype_accuracy_equals_numpys(n_shot):
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(4, 5 * n_shot, 20, generator=generator)
    labels = torch.arange(5).repeat_interleave(6)
    query = torch.randn(4, 30, 20, generator=generator) + support[:, ::n_shot][:, labels]
    got = prototype_accuracy(support, query, 5, labels)
    expected = [numpy_prototypes(s, q, 5, labels) for s, q in zip(support, query, strict=True)]
    assert got.tolist() == pytest.approx(expected)
    assert 0.3 < got.mean() < 1


def test_one_shot_prototypes_are_scikit_learns_nearest_neighbour_by_cosine():
    generator = torch.Generator().manual_seed(1)
    support, query = (
        torch.randn(1, 5, 8, generator=generator),
        torch.randn(1, 50, 8, generator=generator),
    )
    labels = torch.arange(5).repeat_interleave(10)
    neighbour = KNeighborsClassifier(1, metric="cosine").fit(support[0], np.arange(5))
    assert prototype_accuracy(support, query, 5, labels).item() == pytest.approx(
        neighbour.score(query[0], labels)
    )


@pytest.mark.parametrize(
    ("name", "words"), [("conv1.weight", "the features"), ("logits.bias", "the answers")]
)
def test_what_is_not_finite_is_no_accuracy_of_chance(name, words, run, images):
    alpha = {key: value.clone() for key, value in run.alpha.items()}
    alpha[name][...] = float("inf")
    manifest = {**run.manifest, "parameters": {**run.parameters, "inner_steps": 1}}
    with pytest.raises(FloatingPointError, match=f"evaluation: {words} .* are not finite"):
        evaluate_features(replace(run, alpha=alpha, manifest=manifest), images, 2)


def test_a_row_is_what_the_reference_gives_one_task_at_a_time(run, images):
    table = evaluate_features(run, images, 7, eval_seed=5)
    settings = run.parameters
    for index in (0, 4, 6):
        a, b = (
            draw_episodes(images, 5, stream, range(index, index + 1), 2, 1, 3)
            for stream in ("test", "other")
        )
        adapted = adapt(
            run.params, run.alpha, a.support[0], a.support_labels, settings["inner_steps"]
        )
        expected = {
            name: numpy_prototypes(embed(p, e.support[0]), embed(p, e.query[0]), 2, e.query_labels)
            for name, p, e in (
                ("same_before", run.params, a),
                ("same_after", adapted, a),
                ("other_before", run.params, b),
                ("other_after", adapted, b),
            )
        }
        answers = forward(adapted, a.query[0]).argmax(1)
        expected["ordinary"] = (answers == a.query_labels).float().mean().item()
        assert table.loc[index, list(expected)].to_dict() == pytest.approx(expected)
        classes = [set(draw_classes(images.class_sizes, 5, s, index, 2)) for s in ("test", "other")]
        assert table.loc[index, "shared_classes"] == len(classes[0] & classes[1])


def test_the_table_is_the_same_for_any_number_of_threads(run, images, set_threads):
    tables = []
    for number in (1, 2, 5):
        set_threads(number)
        tables.append(evaluate_features(run, images, 12))
        assert torch.get_num_threads() == number
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2])
    assert not tables[0].equals(evaluate_features(run, images, 12, eval_seed=1))


def test_threads_share_the_pairs_and_a_network_of_ones_own_has_one(run, images, set_threads):
    set_threads(2)
    workers, both = {}, threading.Barrier(2, timeout=60)

    def note(name, engine):
        def embed(*arguments):
            if name == "conv4" and threading.current_thread() not in met:
                met.add(threading.current_thread())
                both.wait()  # or one thread might be done before the other begins
            workers.setdefault(name, set()).add(threading.current_thread().name)
            return engine.embed(*arguments)

        return engine._replace(embed=embed)

    met = set()
    for name, network in (("conv4", CONV4), ("own", replace(CONV4, name="own"))):
        engine = note(name, engine_of(network))
        with patch.object(evaluation, "engine_of", lambda *_, engine=engine: engine):
            evaluation.evaluate(network, run.params, run.alpha, images, 4, 2, n_query=2)
    assert {len(names) for names in workers.values()} == {1, 2}
    assert workers["own"] == {threading.current_thread().name}


def test_zero_rates_change_no_feature(run, images):
    still = replace(run, alpha={k: torch.zeros_like(v) for k, v in run.alpha.items()})
    table = evaluate_features(still, images, 8)
    assert table["same_after"].equals(table["same_before"])
    assert table["other_after"].equals(table["other_before"])


@pytest.mark.slow
def test_every_run_is_judged_on_the_same_episodes(run, images, tiny_config, tmp_path):
    other = train(replace(tiny_config, method="maml", seed=3, n_updates=2), tmp_path / "run")
    still = [
        replace(r, params=run.params, alpha={k: torch.zeros_like(v) for k, v in r.alpha.items()})
        for r in (run, other)
    ]
    columns = ["same_before", "other_before", "shared_classes"]
    first, second = (evaluate_features(r, images, 8)[columns] for r in still)
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.slow
def test_disjoint_pairs_share_no_class_and_keep_their_first_task(run, images):
    usual, disjoint = (evaluate_features(run, images, 40, 5, disjoint=d) for d in (False, True))
    assert (disjoint["shared_classes"] == 0).all() and (usual["shared_classes"] > 0).any()
    for column in ("same_before", "same_after", "ordinary"):
        assert disjoint[column].equals(usual[column]), "A is the same task"
    again = evaluate_features(run, images, 40, 5, first=7, disjoint=True)
    pd.testing.assert_frame_equal(again, disjoint[7:].reset_index(drop=True))


def test_a_disjoint_second_task_is_drawn_from_the_other_classes(random_images):
    sizes, drawn = random_images.class_sizes, []
    first_rows = np.concatenate([[0], np.cumsum(sizes)])
    for index in range(200):
        first = draw_classes(sizes, 3, "test", index, 5)
        other = draw_classes(sizes, 3, "other", index, 5, apart_from="test")
        rows = draw_rows(sizes, 3, "other", index, 5, 4, apart_from="test")
        assert len(set(other)) == 5 and not set(first) & set(other)
        assert (np.searchsorted(first_rows, rows, "right") - 1 == other[:, None]).all()
        drawn += list(other)
    # Every class is as likely as any other: 1,000 draws of 12 classes.
    counts = np.bincount(drawn, minlength=12)
    assert stats.chisquare(counts).pvalue > 0.001


def test_classes_that_do_not_suffice_for_two_tasks_are_refused(run, images):
    few = replace(run, manifest={**run.manifest, "parameters": {**run.parameters, "n_way": 4}})
    with pytest.raises(ValueError, match="disjoint=True: two tasks need 8 classes, this split has"):
        evaluate_features(few, images, 3, disjoint=True)


def test_no_episodes_are_refused(run, images):
    for first, n_episodes in ((0, 0), (0, -1), (3, 3)):
        with pytest.raises(ValueError, match=f"^n_episodes={n_episodes}: must be"):
            evaluate_features(run, images, n_episodes, first=first)


def test_plain_autograd_gives_what_the_adjoint_gives(run, images):
    tasks = draw_episodes(images, 0, "test", range(3), 2, 1, 3)
    arguments = (run.params, run.alpha, tasks.support, tasks.support_labels, 2)
    adapted = {name: engine_of(CONV4, name).adapt(*arguments) for name in ENGINES}
    for name, value in adapted["reference"].items():
        torch.testing.assert_close(value, adapted["adjoint"][name], rtol=1e-4, atol=1e-5)
    for params in (run.params, adapted["adjoint"]):
        plainly, fast = (
            engine_of(CONV4, e).embed([params], tasks.query)[0] for e in ("reference", "adjoint")
        )
        torch.testing.assert_close(plainly, fast, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dataset", "classes", "image_size", "n_way", "n_shot", "n_query"])
def test_runs_that_differ_in_their_task_are_not_compared(run, name):
    other = {**run.manifest, "parameters": {**run.parameters, name: "another"}}
    with pytest.raises(ValueError, match=f"{name}='another', but"):
        check_comparable([run, replace(run, manifest=other)])


def test_runs_of_different_tasks_or_data_are_refused(run, tiny_config, tmp_path):
    five = train(replace(tiny_config, n_query=2, n_updates=1, test_episodes=0), tmp_path / "run")
    with pytest.raises(ValueError, match="n_query=2, but 3 in"):
        shared_test_images([run, five], tiny_config.data_dir)
    manifest = {**run.manifest, "data": {"test": {"fingerprint": "0"}}}
    with pytest.raises(ValueError, match="trained with other images"):
        shared_test_images([replace(run, manifest=manifest)], tiny_config.data_dir)
    assert shared_test_images([run], tiny_config.data_dir).n_classes == 6
    assert isinstance(run, runs.Run)
