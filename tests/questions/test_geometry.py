"""Measures of representations against brute force."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from negmeta_utils import adaptation
from negmeta_utils.data import datasets
from negmeta_utils.episodes import draw_pairs
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.questions.geometry import (
    class_cosines,
    linear_cka,
    measure_geometry,
    variance_ratio,
)
from negmeta_utils.training import train

N_WAY, N = 3, 4


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(N_WAY, 1, 6, generator=generator, dtype=torch.float64)
    return (centres + 0.5 * torch.randn(N_WAY, N, 6, generator=generator).double()).flatten(0, 1)


def test_cka_is_the_feature_space_formula_and_knows_rotations(features):
    generator = torch.Generator().manual_seed(1)
    other = features[:, :4] + torch.randn(len(features), 4, generator=generator).double()
    x, y = features.numpy() - features.numpy().mean(0), other.numpy() - other.numpy().mean(0)
    expected = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert float(linear_cka(features, other)) == pytest.approx(expected)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator).double()).Q
    assert float(linear_cka(features, 3 * features @ rotation + 1)) == pytest.approx(1)


def test_cosines_are_means_over_pairs(features):
    labels = np.repeat(np.arange(N_WAY), N)
    similarity = cosine_similarity(features.numpy())
    same = labels[:, None] == labels
    off_diagonal = ~np.eye(len(labels), dtype=bool)
    within, between = class_cosines(features, N_WAY)
    assert float(within) == pytest.approx(similarity[same & off_diagonal].mean())
    assert float(between) == pytest.approx(similarity[~same].mean())


def test_an_image_without_features_is_like_no_other():
    dead = torch.eye(6, 9)
    dead[0] = 0
    assert [float(value) for value in class_cosines(dead, 3)] == [0, 0]


def test_variance_ratio_is_goldblums(features):
    values = features.numpy().reshape(N_WAY, N, -1)
    means = values.mean(1)
    within = sum(
        np.linalg.norm(values[i, j] - means[i]) ** 2 for i in range(N_WAY) for j in range(N)
    )
    between = sum(np.linalg.norm(mean - means.mean(0)) ** 2 for mean in means)
    expected = N_WAY / (N_WAY * N) * within / between
    assert float(variance_ratio(features, N_WAY)) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("disjoint", [False, True])
def test_a_row_is_measured_on_its_task_before_and_after(disjoint, tiny_config, tiny_data, tmp_path):
    run = train(replace(tiny_config, n_updates=4), tmp_path / "run")
    images = datasets.load("mini-imagenet", "test", 16, str(tiny_data))
    table = measure_geometry([run], images, 3, 5, disjoint).set_index(["episode", "task", "layer"])
    n_way = run.parameters["n_way"]
    for episode in range(3):
        pair = draw_pairs(images, run.parameters, 5, range(episode, episode + 1), disjoint)
        task = pair[0]
        adapted = adaptation.adapt(
            run.params, run.alpha, task.support[0], task.support_labels,
            run.parameters["inner_steps"],
        )  # fmt: skip
        for which, drawn in zip(("on-task", "off-task"), pair, strict=True):
            before, after = (
                CONV4.activations(params, drawn.query[0])["conv3"]
                for params in (run.params, adapted)
            )
            row = table.loc[(episode, which, "conv3")]
            assert row["cka"] == pytest.approx(float(linear_cka(before, after)), abs=1e-4)
            for when, features in (("before", before), ("after", after)):
                within, between = class_cosines(features, n_way)
                ratio = variance_ratio(features, n_way)
                for name, value in (("within", within), ("between", between), ("ratio", ratio)):
                    assert row[f"{name}_{when}"] == pytest.approx(float(value), rel=1e-3)
            for name in ("within", "between", "ratio"):
                assert row[f"{name}_change"] == row[f"{name}_after"] - row[f"{name}_before"]


@pytest.mark.slow
def test_what_does_not_adapt_does_not_move(tiny_config, tiny_data, tmp_path):
    run = train(tiny_config, tmp_path / "run")
    images = datasets.load("mini-imagenet", "test", 16, str(tiny_data))
    moved = measure_geometry([run], images, 2)
    assert moved["cka"].between(0, 1 - 1e-6).all()
    assert sorted(moved["task"].unique()) == ["off-task", "on-task"]
    assert len(moved) == 2 * 2 * 4
    unmoving = replace(run, alpha={name: 0 * rate for name, rate in run.alpha.items()})
    still = measure_geometry([unmoving], images, 2)
    assert still["cka"].to_numpy() == pytest.approx(1, abs=1e-5)
    assert still["ratio_before"].to_numpy() == pytest.approx(still["ratio_after"].to_numpy())
