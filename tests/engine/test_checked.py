"""Trainings on devices that the engine is not tested on, for which a CPU stands here."""

import warnings
from dataclasses import replace

import pandas as pd
import pytest
import torch
from random_settings import random_setting

from negmeta_utils import adaptation
from negmeta_utils.engine import checked
from negmeta_utils.engine import meta_gradient as adjoint
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.runs import load_run
from negmeta_utils.training import train

META_GRADIENT = adjoint.meta_gradient


@pytest.fixture
def untested_device(monkeypatch):
    monkeypatch.setattr(checked, "tested_on", lambda device: False)


@pytest.fixture
def engine(monkeypatch):
    """Put another function in the place of the engine's meta-gradient and count its calls."""
    calls = []

    def put(function):
        def counted(*arguments):
            calls.append(1)
            return function(*arguments)

        monkeypatch.setattr(adjoint, "meta_gradient", counted)
        return calls

    return put


def doubled(*arguments):
    gradient = META_GRADIENT(*arguments)
    return gradient._replace(params={name: 2 * v for name, v in gradient.params.items()})


def not_a_number(*arguments):
    gradient = META_GRADIENT(*arguments)
    return gradient._replace(alpha={name: v * float("nan") for name, v in gradient.alpha.items()})


def failing(*arguments):
    raise RuntimeError("no kernel image is available for execution on the device\nand more")


@pytest.fixture(scope="module")
def both():
    """The same meta-gradient by engine and reference, in float32."""
    *values, episodes = random_setting("meta-sgd", 16, n_filters=32)
    params, alpha = ({name: v.float() for name, v in group.items()} for group in values)
    images = {"support": episodes.support.float(), "query": episodes.query.float()}
    arguments = params, alpha, episodes._replace(**images), 2
    return adjoint.meta_gradient(*arguments), adaptation.meta_gradient(*arguments)


def test_a_right_engine_has_no_fault(both):
    ours, theirs = both
    assert checked.fault(lambda batch: ours, lambda batch: theirs) is None


@pytest.mark.parametrize(("group", "of"), [("params", ""), ("alpha", "the rates of ")])
def test_one_missing_tensor_is_a_fault(both, group, of):
    ours, theirs = both
    gradient = getattr(ours, group)
    for name in gradient.keys() - CONV4.still:
        without = ours._replace(**{group: {**gradient, name: torch.zeros_like(gradient[name])}})
        said = checked.fault(lambda batch, wrong=without: wrong, lambda batch: theirs)
        expected = f"its gradient of {of}{name} is 1 times the reference's length away from it"
        assert said == expected


def test_of_a_tensor_that_vanishes_rounding_is_none(both):
    ours, theirs = both
    size = float(theirs.params["conv2.weight"].norm())
    for share, passes in ((1e-4, True), (1, False)):
        bias = torch.full((32,), share * size)
        theirs = theirs._replace(params={**theirs.params, "conv2.bias": bias})
        assert (checked.fault(lambda batch: ours, lambda batch, t=theirs: t) is None) == passes


def test_one_batch_that_agrees_is_enough(both):
    """In another, rounding may choose another place of pooling."""
    ours, theirs = both
    off = ours._replace(params={name: 1.5 * value for name, value in ours.params.items()})
    last = checked.BATCHES - 1
    for batches in ({last}, set()):
        said = checked.fault(lambda batch, b=batches: ours if batch in b else off, lambda _: theirs)
        assert (said is None) == bool(batches)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (doubled, " is 1 times the reference's length away from it"),
        (not_a_number, "its gradient of the rates of conv1.weight is nan times"),
        (failing, "it fails with RuntimeError: no kernel image is available"),
    ],
)
def test_with_a_faulty_engine_training_goes_on_with_the_reference(
    wrong, said, tiny_config, tmp_path, engine, untested_device
):
    calls = engine(wrong)
    with pytest.warns(RuntimeWarning, match="engine: reference, as the adjoint") as caught:
        run = train(tiny_config, tmp_path / "run")
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert said in str(caught[0].message)
    assert len(calls) == (1 if wrong is failing else checked.BATCHES)
    assert said in run.manifest["environment"]["engine"]
    assert run.parameters["engine"] == "adjoint", "which is what was asked for"


@pytest.mark.slow
def test_its_results_are_the_references(tiny_config, tmp_path, engine, untested_device):
    engine(failing)
    with pytest.warns(RuntimeWarning):
        run = train(tiny_config, tmp_path / "run")
    reference = train(replace(tiny_config, engine="reference"), tmp_path / "reference")
    pd.testing.assert_frame_equal(run.history(), reference.history())
    assert run.final_accuracy().equals(reference.final_accuracy())
    for name, value in reference.params.items():
        assert torch.equal(run.params[name], value)


@pytest.mark.slow
def test_a_right_engine_is_compared_once_and_used(tiny_config, tmp_path, engine, untested_device):
    calls = engine(adjoint.meta_gradient)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        run = train(tiny_config, tmp_path / "run")
    assert len(calls) == 1 + tiny_config.n_updates
    assert run.manifest["environment"]["engine"].startswith("adjoint, compared")


@pytest.mark.slow
def test_where_it_is_tested_nothing_is_computed_twice(tiny_config, tmp_path, engine):
    calls = engine(adjoint.meta_gradient)
    train(tiny_config, tmp_path)
    assert len(calls) == tiny_config.n_updates
    assert load_run(tmp_path).manifest["environment"]["engine"] == "adjoint"
