import torch

from negmeta_utils import training
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


def test_a_training_is_exact(tiny_config, tmp_path, monkeypatch):
    seen, step = [], training._meta_update
    monkeypatch.setattr(
        training, "_meta_update", lambda *arguments: (seen.append(precisions()), step(*arguments))
    )
    training.train(tiny_config, tmp_path / "run")
    assert set(seen) == {(False, "highest")}
