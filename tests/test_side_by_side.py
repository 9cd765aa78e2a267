"""Trainings side by side are the trainings that each would be alone."""

from dataclasses import replace

import pytest
import torch

from negmeta_utils.side_by_side import train_side_by_side
from negmeta_utils.training import train


def test_each_run_is_what_it_would_be_alone(tiny_config, tmp_path):
    config = replace(tiny_config, n_updates=4)
    longer = replace(config, seed=1, n_updates=6, method="maml")
    lines = []
    together = train_side_by_side({tmp_path / "a": config, tmp_path / "b": longer}, lines.append)
    for run, its_config, name in zip(together, (config, longer), "ab", strict=True):
        alone = train(its_config, tmp_path / f"{name} alone")
        assert run.parameters == alone.parameters
        for key, value in alone.params.items():
            assert torch.equal(run.params[key], value)
    assert {line.split(":")[0] for line in lines} == {"a", "b"}


def test_one_precision_for_all(tiny_config, tmp_path):
    other = replace(tiny_config, precision="tf32")
    with pytest.raises(ValueError, match="precision"):
        train_side_by_side({tmp_path / "a": tiny_config, tmp_path / "b": other})


def test_one_that_was_stopped_goes_on_side_by_side(tiny_config, tmp_path):
    config = replace(tiny_config, n_updates=4)
    train(config, tmp_path / "a")
    (again,) = train_side_by_side({tmp_path / "a": config})
    assert again.manifest["status"] == "complete"
