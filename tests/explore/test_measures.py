"""What notebook 0 shows, against the reference implementation, scikit-learn and NumPy."""

from base64 import b64decode
from dataclasses import replace

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from negmeta_utils import shipped
from negmeta_utils.adaptation import adapt
from negmeta_utils.episodes import draw_episodes
from negmeta_utils.evaluation import evaluate_features
from negmeta_utils.explore import measures, pictures, widgets
from negmeta_utils.model import LAYERS, embed, forward
from negmeta_utils.runs import load_run

INDEX, STEPS = 3, 4


@pytest.fixture(scope="module")
def answers(run, images):
    return measures.episode_answers(run, images, INDEX, eval_seed=5)


@pytest.fixture(scope="module")
def steps(run, images):
    return measures.adaptation_steps(run, images, INDEX, STEPS, eval_seed=5)


def test_layers_of_normalisation_alone_are_not_browsed(run, monkeypatch):
    """A network may begin with one; it has no weights' rates to show."""
    rates = run.rates()
    alone = rates[rates["layer"] == "conv1"].assign(layer="norm", group="batchnorm")
    chosen = []
    monkeypatch.setattr(type(run), "rates", lambda self: pd.concat([alone, rates]))
    monkeypatch.setattr(widgets.widgets, "Dropdown", lambda options, **_: chosen.append(options))
    monkeypatch.setattr(widgets, "_follow", lambda picture, **controls: None)
    monkeypatch.setattr(widgets, "_show", lambda shown: None)
    widgets.browse_rates({"a": run})
    assert list(LAYERS) in chosen and not any("norm" in options for options in chosen)


def task(run, images, stream):
    p = run.parameters
    drawn = draw_episodes(
        images, 5, stream, range(INDEX, INDEX + 1), p["n_way"], p["n_shot"], p["n_query"]
    )
    return drawn.support[0], drawn.support_labels, drawn.query[0], drawn.query_labels


def nearest(params, support, labels, query):
    neighbour = KNeighborsClassifier(1, metric="cosine")
    return neighbour.fit(embed(params, support), labels).predict(embed(params, query))


def test_answers_are_those_of_the_nearest_support_image(run, images, answers):
    support, labels, query, query_labels = task(run, images, "test")
    other, other_labels, *_ = task(run, images, "other")
    n_steps = run.parameters["inner_steps"]
    params = {
        "before": run.params,
        "on-task": adapt(run.params, run.alpha, support, labels, n_steps),
        "off-task": adapt(run.params, run.alpha, other, other_labels, n_steps),
    }
    for condition in measures.CONDITIONS:
        expected = nearest(params[condition], support, labels, query)
        assert answers.table[condition].tolist() == expected.tolist(), condition
    assert answers.table["label"].tolist() == query_labels.tolist()
    assert torch.equal(torch.from_numpy(answers.query).flatten(0, 1), query)


def test_answers_are_right_as_often_as_notebook_3_says(run, images, answers):
    row = evaluate_features(run, images, INDEX + 1, eval_seed=5).iloc[INDEX]
    right = measures.count_flips(answers.table).set_index("condition")["right"]
    assert right["before"] == pytest.approx(row["same_before"])
    assert right["on-task"] == pytest.approx(row["same_after"])


def test_flips_are_counted_from_before():
    table = pd.DataFrame(
        {
            "label": [0, 0, 1, 1],
            "before": [0, 2, 1, 0],
            "on-task": [0, 0, 2, 2],
            "off-task": [1, 1, 1, 0],
        }
    )
    counted = measures.count_flips(table).set_index("condition")
    assert counted.loc["before"].tolist() == [0.5, 0, 0, 0]
    assert counted.loc["on-task"].tolist() == [0.5, 0.75, 0.25, 0.25]
    assert counted.loc["off-task"].tolist() == [0.25, 0.5, 0, 0.25]


def test_steps_are_those_of_the_reference(run, images, steps):
    support, labels, query, query_labels = task(run, images, "test")
    for row in steps.curves.itertuples():
        params = adapt(run.params, run.alpha, support, labels, row.step)
        logits = forward(params, query)
        expected = F.cross_entropy(logits, query_labels).item()
        assert row.query_loss == pytest.approx(expected, rel=1e-4)
        expected = F.cross_entropy(forward(params, support), labels).item()
        assert row.support_loss == pytest.approx(expected, rel=1e-4)
        assert steps.answers[row.step].tolist() == logits.argmax(1).tolist()
        assert row.accuracy == pytest.approx((logits.argmax(1) == query_labels).float().mean())
        by_prototypes = nearest(params, support, labels, query) == query_labels.numpy()
        assert row.prototype_accuracy == pytest.approx(by_prototypes.mean())
    assert len(steps.curves) == STEPS + 1


def test_a_prototypical_network_answers_by_its_prototypes(run, images):
    parameters = run.parameters | {"method": "protonet"}
    own = replace(run, manifest={**run.manifest, "parameters": parameters})
    steps = measures.adaptation_steps(own, images, INDEX, 0, eval_seed=5)
    support, labels, query, query_labels = task(run, images, "test")
    centroids = KNeighborsClassifier(1)  # of one support image a class each
    assert run.parameters["n_shot"] == 1
    found = centroids.fit(embed(run.params, support), labels).predict(embed(run.params, query))
    right = found == query_labels.numpy()
    (row,) = steps.curves.itertuples()
    assert row.accuracy == pytest.approx(right.mean())


def test_places_are_one_projection_of_all_steps(run, images, steps):
    support, labels, query, _ = task(run, images, "test")
    embedded = []
    for step in range(STEPS + 1):
        params = adapt(run.params, run.alpha, support, labels, step)
        both = torch.cat([embed(params, support), embed(params, query)])
        embedded.append(both / both.norm(dim=1, keepdim=True))
    flat = torch.cat(embedded).double().numpy()
    u, s, _ = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    expected = (u[:, :2] * s[:2]).reshape(STEPS + 1, -1, 2)
    signs = np.sign((expected * steps.places).sum((0, 1)))
    assert steps.places == pytest.approx(expected * signs, abs=1e-4)
    assert steps.explained == pytest.approx((s[:2] ** 2).sum() / (s**2).sum(), abs=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layers_rates_end_as_the_runs(run, layer):
    rates = measures.layer_rates(run, layer)
    weights = run.alpha[f"{layer}.weight"]
    assert rates.updates.tolist() == [0, 4, 8, 12]
    assert (rates.values[0] == pytest.approx(0.01)) and rates.values.shape[1] > weights.numel()
    assert rates.filters[-1, 1] == pytest.approx(weights[1].flatten().numpy(), abs=6e-5)
    both = torch.cat([weights.flatten(), run.alpha[f"{layer}.bias"]])
    assert sorted(rates.values[-1]) == pytest.approx(sorted(both.tolist()), abs=6e-5)


def test_a_rates_picture_has_every_rate_and_axes_that_stay(run):
    rates = measures.layer_rates(run, "conv2")
    first, last = (pictures.rates_picture(run.rates(), rates, "conv2", k) for k in (0, 3))
    for number, (a, b) in enumerate(zip(first.axes, last.axes, strict=True)):
        assert a.get_xlim() == pytest.approx(b.get_xlim())
        assert number == 5 or a.get_ylim() == pytest.approx(b.get_ylim())
    assert len({axis.get_ylim() for axis in last.axes[:5]}) == 1, "layers have one scale"
    histogram, heat_map = last.axes[5:7]
    assert max(h.values.max() for h in map(StepPatch.get_data, histogram.patches)) == pytest.approx(
        histogram.get_ylim()[1] / 1.08
    )
    bars = [bar.get_data() for bar in histogram.patches]
    assert sum(bar.values.sum() for bar in bars) == rates.values.shape[1]
    assert bars[0].values.sum() == (rates.values[-1] < 0).sum()
    shown = heat_map.images[0].get_array()
    assert (np.diff(shown.mean(1)) <= 1e-6).all()
    assert sorted(shown.ravel()) == sorted(rates.filters[-1].ravel())


def test_an_answers_picture_numbers_what_is_wrong_and_frames_what_flipped(answers):
    generator = np.random.default_rng(0)
    given = pd.DataFrame(
        generator.integers(0, 2, (len(answers.table), 3)), columns=list(measures.CONDITIONS)
    )
    label = answers.table["label"]
    picture = pictures.answers_picture({"": answers._replace(table=given.assign(label=label))})
    (axis,) = picture.axes
    wrong = given.to_numpy()[given.ne(label, axis=0)]
    numbers = [int(text.get_text()) for text in axis.texts if text.get_fontsize() == 8]
    assert sorted(numbers) == sorted(wrong + 1)
    tiles, frames = axis.collections
    assert len(tiles.get_paths()) == given.size
    assert len(frames.get_paths()) == given.ne(given["before"], axis=0).sum().sum()


def test_two_networks_answer_the_same_episode_in_a_row_of_tiles_each(answers):
    turned = answers.table.assign(before=answers.table["off-task"])
    of = {"one": answers, "other": answers._replace(table=turned)}
    picture = pictures.answers_picture(of)
    (axis,) = picture.axes
    tiles = [collection.get_paths() for collection in axis.collections[::2]]
    assert [len(paths) for paths in tiles] == [3 * len(answers.table)] * 2
    upper, lower = (np.array([path.vertices[0] for path in paths]) for paths in tiles)
    assert (upper[:, 0] == lower[:, 0]).all() and len(set(lower[:, 1] - upper[:, 1])) == 1
    scores = [text.get_text() for text in picture.texts]
    assert scores[0].startswith("A  one") and scores[1].startswith("B  other")


def test_a_steps_picture_has_a_mark_for_every_image(steps):
    for step in (0, STEPS):
        axis = pictures.steps_picture(steps, step, 2).axes[2]
        marks = np.concatenate([line.get_xydata() for line in axis.lines])
        assert sorted(marks[:, 0]) == pytest.approx(sorted(steps.places[step, :, 0]))
        ways = [path.vertices for lines in axis.collections for path in lines.get_paths()]
        assert {len(way) for way in ways} == {step + 1}


def test_a_picture_follows_its_control_and_is_drawn_once(monkeypatch):
    shown, drawn = [], []

    def picture(number):
        drawn.append(number)
        figure = Figure(figsize=(1, 1))
        figure.text(0.5, 0.5, number)
        return figure

    monkeypatch.setattr(widgets, "display", lambda bundle, raw: shown.append(bundle))
    number = ipywidgets.IntSlider(1, 0, 3)
    box = widgets._follow(picture, number=number)
    widgets._show(box)
    (bundle,), image = shown, box.children[-1]
    first = image.value
    assert b64decode(bundle["image/png"]) == first
    number.value = 2
    assert image.value != first
    number.value = 1
    assert image.value == first
    assert drawn == [1, 2]


def test_shipped_runs_are_listed_and_load_by_what_the_list_says():
    table = shipped.list_pretrained()
    assert {"glyphs-maml-0", "glyphs-meta-sgd-0"} <= set(table["name"])
    assert (table["size_mb"] < table["n_filters"].map({32: 0.55, 64: 5})).all()
    for row in table.itertuples():
        run = shipped.load_pretrained(row.method, row.dataset, seed=row.seed)
        assert run.directory == load_run(row.name).directory
        assert run.final_accuracy().mean() == pytest.approx(row.test_accuracy, abs=1e-6)
        rates = measures.layer_rates(run, "logits").filters[-1]
        end = run.alpha["logits.weight"].expand(rates.shape)
        assert rates == pytest.approx(end.numpy(), abs=6e-5)


def test_a_run_that_is_not_shipped_is_refused():
    with pytest.raises(ValueError, match="glyphs-boil-7: no such shipped run; there are glyphs-"):
        shipped.load_pretrained("boil", "glyphs", seed=7)


def test_principal_components_are_those_of_scikit_learn():
    points = np.random.default_rng(0).normal(size=(40, 12)) * np.arange(1, 13)
    oracle = PCA(2, svd_solver="full")
    expected = oracle.fit_transform(points)
    places, share = measures.principal_components(points)
    assert share == pytest.approx(oracle.explained_variance_ratio_.sum())
    np.testing.assert_allclose(places, expected, atol=1e-9)
