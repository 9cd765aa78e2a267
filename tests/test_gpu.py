"""What only a GPU can show. Skipped where there is none."""

from dataclasses import replace

import pytest
import torch

from negmeta_utils import adjoint, capture, updates
from negmeta_utils.side_by_side import train_side_by_side
from negmeta_utils.training import train
from tests.test_adjoint import assert_same, random_setting

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def on_gpu(tensors):
    return {name: value.float().cuda() for name, value in tensors.items()}


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-3), ("tf32", 0.1)])
@pytest.mark.parametrize("image_size, channels", [(28, 1), (84, 3)])
def test_meta_gradient_is_the_cpus_in_float64(precision, tolerance, image_size, channels):
    params, alpha, episodes = random_setting("meta-sgd", image_size, channels)
    expected = adjoint.meta_gradient(params, alpha, episodes, 2)
    there = type(episodes)(
        *(v.cuda() if v.dtype == torch.int64 else v.float().cuda() for v in episodes)
    )
    with capture.arithmetic(precision):
        ours = adjoint.meta_gradient(on_gpu(params), on_gpu(alpha), there, 2)
    back = [{n: v.double().cpu() for n, v in group.items()} for group in (ours.params, ours.alpha)]
    found = type(ours)(ours.loss.double().cpu(), expected.accuracy, *back)
    assert_same(found, expected, tolerance)


def test_a_captured_training_is_the_plain_one(tiny_config, tmp_path, monkeypatch):
    config = replace(tiny_config, device="cuda", n_updates=6)
    captured = train(config, tmp_path / "captured")
    monkeypatch.setattr(updates, "as_graph", lambda step: step)
    plain = train(config, tmp_path / "plain")
    for name, value in plain.params.items():
        assert torch.equal(captured.params[name], value), name


def test_side_by_side_on_streams_is_alone(tiny_config, tmp_path):
    configs = {
        tmp_path / str(seed): replace(tiny_config, device="cuda", seed=seed) for seed in (0, 1)
    }
    for run, config in zip(train_side_by_side(configs), configs.values(), strict=True):
        alone = train(config, tmp_path / f"alone-{config.seed}")
        for name, value in alone.params.items():
            assert torch.equal(run.params[name], value), name
