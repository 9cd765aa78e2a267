"""Tables and tensors come back as they were written, and what is broken is named."""

import os
import resource

import numpy as np
import pandas as pd
import pytest
import torch

from negmeta_utils.storage import atomic, files


def test_tensors_and_metadata_come_back_as_they_went(tmp_path):
    groups = {
        "params": {"conv1.weight": torch.rand(2, 3), "b": torch.tensor(1.5)},
        "alpha": {"conv1.weight": torch.rand(3, 2).T},
    }
    files.write_tensors(tmp_path / "a.safetensors", groups, {"update": 7, "best": float("inf")})
    back, metadata = files.read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"update": 7, "best": float("inf")}
    assert {g: set(t) for g, t in back.items()} == {g: set(t) for g, t in groups.items()}
    for group, tensors in groups.items():
        for name, value in tensors.items():
            assert torch.equal(back[group][name], value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_broken_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "checkpoint.safetensors"
    files.write_tensors(path, {"params": {"w": torch.rand(100)}}, {})
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with pytest.raises(ValueError, match="not (a whole file|what was written)") as raised:
        files.read_tensors(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", None])
def test_a_broken_table_is_named(tmp_path, content):
    path = tmp_path / "history.parquet"
    files.write_table(path, pd.DataFrame({"a": [1]}))
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    with pytest.raises(ValueError, match="history.parquet: not (a whole|what was)") as raised:
        files.read_table(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: atomic.write_json(path, {"a": "b" * 10_000}),
        lambda path: files.write_table(path, pd.DataFrame({"a": np.random.rand(10_000)})),
        lambda path: files.write_tensors(path, {"params": {"w": torch.rand(10_000)}}, {}),
    ],
    ids=["json", "table", "tensors"],
)
def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path, write):
    path = tmp_path / "file"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # what is beyond fails
    try:
        with pytest.raises(OSError, match=r"cannot be written \(.*make room there") as raised:
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_are_as_readable_as_the_umask_says(tmp_path, umask):
    before = os.umask(umask)
    try:
        atomic.write_json(tmp_path / "a.json", {})
        files.write_table(tmp_path / "a.parquet", pd.DataFrame({"a": [1]}))
        files.write_tensors(tmp_path / "a.safetensors", {"a": {"b": torch.zeros(2)}}, {})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}
