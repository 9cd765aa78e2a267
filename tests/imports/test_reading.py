"""Files that are not what they should be."""

import pickle
import struct
import zipfile
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file

from negmeta_utils.imports.reading import read_tensors_of


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def write_bomb(path):
    """A .pt whose tensors are packed: a thousand times as large as the file."""
    torch.save({"a": torch.zeros(10**6)}, path.with_suffix(".plain"))
    plain = zipfile.ZipFile(path.with_suffix(".plain"))
    with plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))


def cut(path):
    torch.save({"a": torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:3000])


def cut_safetensors(path):
    save_file({"a": torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:3000])


def hollow(path):
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("archive/data.pkl", b"")
        packed.writestr("archive/version", b"3")


def twins(path):
    weights, rates = ({"a": torch.rand(3), "b": torch.rand(3)} for _ in range(2))
    torch.save({"alpha": rates, "params": weights}, path)


def averaged(path):
    weights = {"conv.weight": torch.rand(3), "conv.bias": torch.rand(3)}
    mean = {f"module.{name}": value / 2 for name, value in weights.items()}
    torch.save({"ema": mean, "model": weights}, path)


def longer(path):
    weights = {"a": torch.rand(3), "b": torch.rand(3)}
    torch.save({"params": weights, "rates": {**weights, "a": weights["a"] / 9, "scale": 1}}, path)


def as_long(path):
    torch.save({"alpha": {"alpha.a": torch.rand(3)}, "params": {"a": torch.rand(3)}}, path)


def scalar_rates(path):
    weights = {"a": torch.rand(3, 2), "b": torch.rand(4)}
    rates = {"lrs.0": torch.tensor(0.1), "lrs.1": torch.tensor(0.2)}
    torch.save({"model": weights, "lrs": rates}, path)


def swa(path):
    module = torch.nn.Linear(2, 2)
    mean = torch.optim.swa_utils.AveragedModel(module)
    torch.save({"mean": mean.state_dict(), "model": torch.nn.Linear(2, 2).state_dict()}, path)


def within_itself(path):
    content = {"a": torch.rand(2)}
    content["all"] = content
    torch.save(content, path)


def in_both_layouts(path):
    eye = torch.eye(3)
    torch.save({"m": {"a": eye, "b": eye}, "e": {"a": eye.to_sparse()}}, path)


def claimed(path):
    torch.save({"a": torch.rand(1).expand(10**9)}, path)


def sparse(path):
    torch.save({"a": torch.eye(3).to_sparse()}, path)


BROKEN = {
    "scalar_rates.pt": (scalar_rates, "may be the one, with 'a' and with 'lrs.0'; save the one"),
    "swa.pt": (swa, "several dictionaries in it may be the one"),
    "within_itself.pt": (within_itself, r"within_itself.pt: cannot be read \(RecursionError"),
    "in_both_layouts.pt": (in_both_layouts, "several dictionaries in it may be the one"),
    "claimed.pt": (claimed, "a claims 4000000000 bytes, more than the file holds"),
    "sparse.pt": (sparse, r"a is sparse; save its to_dense\(\)"),
    "twins.pt": (twins, "several dictionaries in it may be the one, with 'a' and with 'a'; save"),
    "averaged.pt": (averaged, "with 'module.conv.bias' and with 'conv.bias'; save the one that"),
    "longer.pt": (longer, "several dictionaries in it may be the one"),
    "as_long.pt": (as_long, "several dictionaries in it may be the one"),
    "hollow.pt": (hollow, r"cannot be read \(.+\)"),
    "code.pt": (lambda path: torch.save({"a": Evil()}, path), "reading it could execute code"),
    "module.pt": (lambda path: torch.save(torch.nn.Linear(2, 2), path), "could execute code"),
    "pickle.pt": (lambda path: path.write_bytes(pickle.dumps({})), "not what torch.save"),
    "page.pth": (lambda path: path.write_text("<!doctype html>"), "not what torch.save"),
    "page.safetensors": (lambda path: path.write_text("<!doctype html>"), "not safetensors"),
    "cut.pt": (cut, "it may be cut short"),
    "cut.safetensors": (cut_safetensors, "it may be cut short"),
    "bomb.pt": (write_bomb, "is compressed"),
    "numbers.pt": (lambda path: torch.save({"epoch": 3}, path), "no dictionary of tensors"),
    "list.pt": (lambda path: torch.save([torch.rand(2)], path), "no dictionary of tensors"),
    "weights.npz": (lambda path: path.touch(), "must end in .safetensors"),
    "absent.pt": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_file_of_tensors_is_refused(tmp_path, capsys, name):
    make, said = BROKEN[name]
    make(tmp_path / name)
    with pytest.raises(ValueError, match=said) as told:
        read_tensors_of(tmp_path / name)
    assert "\n" not in str(told.value)
    assert "executed" not in capsys.readouterr().out


def test_the_same_weights_twice_are_no_riddle(tmp_path):
    weights = {"a": torch.rand(2), "b": torch.tensor([1.0, float("nan")])}
    wrapped = {f"module.{name}": value.clone() for name, value in weights.items()}
    torch.save({"model": weights, "state_dict": weights, "net": wrapped}, tmp_path / "all.pt")
    assert list(read_tensors_of(tmp_path / "all.pt")) == ["a", "b"]


def test_damage_of_any_kind_is_told(tmp_path, monkeypatch):
    torch.save({"a": torch.rand(2)}, tmp_path / "a.pt")
    for error in (IndexError("pop from empty list"), TypeError("no"), struct.error("short")):
        monkeypatch.setattr(torch, "load", mock.Mock(side_effect=error))
        with pytest.raises(ValueError, match=r"a.pt: cannot be read \(.*\); it may be cut short"):
            read_tensors_of(tmp_path / "a.pt")


def test_the_largest_dictionary_within_is_taken(tmp_path):
    weights = {"a": torch.rand(2), "b": torch.rand(3)}
    content = {"epoch": 3, "model": weights, "optimizer": {"state": {0: torch.rand(4)}}}
    torch.save(content, tmp_path / "all.tar")
    found = read_tensors_of(tmp_path / "all.tar")
    assert list(found) == ["a", "b"] and torch.equal(found["b"], weights["b"])


def test_tensors_beside_the_weights_may_be_of_any_kind(tmp_path):
    weights = {"a": torch.rand(2), "b": torch.rand(3), "c": torch.rand(4)}
    adam = {"step": torch.tensor(7.0), "exp_avg": torch.rand(2), "exp_avg_sq": torch.rand(2)}
    graph = {"edges": torch.eye(3).to_sparse(), "ones": torch.ones(1).expand(10**9)}
    ragged = torch.nested.nested_tensor([torch.rand(2), torch.rand(3)], layout=torch.strided)
    beside = {"optimizer": {"a": adam}, "graph": graph, "ragged": {"all": ragged}}
    torch.save({"params": weights} | beside, tmp_path / "all.pt")
    assert list(read_tensors_of(tmp_path / "all.pt")) == ["a", "b", "c"]
