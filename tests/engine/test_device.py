import pytest
import torch

from negmeta_utils import adaptation, evaluation, training
from negmeta_utils.engine import meta_gradient
from negmeta_utils.engine.device import exact_products


def precisions():
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


def test_products_are_exact_inside_and_as_they_were_outside():
    torch.set_float32_matmul_precision("medium")
    try:
        before = precisions()
        with exact_products():
            assert precisions() == (False, "highest")
        assert precisions() == before
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.slow
def test_a_training_is_exact(tiny_config, tmp_path, monkeypatch):
    seen, gradient = [], meta_gradient.meta_gradient

    def noted(*arguments):
        seen.append(precisions())
        return gradient(*arguments)

    monkeypatch.setattr(meta_gradient, "meta_gradient", noted)
    training.train(tiny_config, tmp_path / "run")
    assert set(seen) == {(False, "highest")}


@pytest.mark.slow
def test_so_is_an_evaluation_of_any_network(run, images, monkeypatch):
    seen, adapt = [], adaptation.adapt

    def noted(*arguments, **named):
        seen.append(precisions())
        return adapt(*arguments, **named)

    monkeypatch.setattr(adaptation, "adapt", noted)
    evaluation.evaluate_features(run, images, 2, engine="reference")
    assert set(seen) == {(False, "highest")}
