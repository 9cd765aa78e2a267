"""Trainings on devices that the engine is not tested on, for which a CPU stands here."""

import warnings
from dataclasses import replace

import pandas as pd
import pytest
import torch

from negmeta_utils.engine import checked
from negmeta_utils.engine import meta_gradient as adjoint
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (doubled, "its meta-gradient is 1 times the reference's length away from it"),
        (not_a_number, "its meta-gradient is nan times"),
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
    assert len(calls) == 1
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
