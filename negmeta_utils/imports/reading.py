"""Somebody else's file of tensors, read without executing anything and without more memory than
the file is large."""

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from negmeta_utils.data.names import first_line, one_line
from negmeta_utils.imports.formats import without_prefix
from negmeta_utils.networks.modules import same_values

SUFFIXES = (".pt", ".pth", ".ckpt", ".tar", ".bin")
WHOLE = "it may be cut short; fetch it again"


def read_tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors, or of a .pt or .pth as `torch.save` writes, by their keys, in
    the order of the file; of one that holds several dictionaries, those of the largest.

    Tensors of a .pt are views of the file, read when they are looked at. Raises ValueError, in one
    line, for what is no such file, needs code to be read, or claims more than it holds.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; correct the path")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: must end in .safetensors, {', '.join(SUFFIXES)}")
    return _read_torch(path)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        # Its header is checked against the file's length before anything else is read.
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: not safetensors ({error}); {WHOLE}") from error


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path}: not what torch.save has written since 1.6; {WHOLE}, or load it where it was "
            "written and save its state_dict() anew"
        )
    with zipfile.ZipFile(path) as archive:
        packed = [entry.filename for entry in archive.infolist() if entry.compress_type]
    if packed:
        raise ValueError(f"{path}: {packed[0]} is compressed, which torch.save does not do")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: holds more than tensors, and reading it could execute code; save the "
            "module's state_dict() alone"
        ) from error
    except Exception as error:  # damaged content can raise errors of any kind
        raise ValueError(f"{path}: cannot be read ({first_line(error)}); {WHOLE}") from error
    with one_line(path):
        return _chosen(path, _dictionaries(content))


def _chosen(path: Path, found: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The largest of these dictionaries, held to what the file can hold. Raises ValueError where
    another could be meant as well."""
    tensors = max(found, key=len, default={})
    if not tensors:
        raise ValueError(f"{path}: no dictionary of tensors in it; save a state_dict()")
    most = path.stat().st_size
    for key, value in tensors.items():
        _check_claim(path, key, value, most)
    if rival := next((other for other in found if _rivals(tensors, other)), None):
        raise ValueError(
            f"{path}: several dictionaries in it may be the one, with {min(tensors)!r} and with "
            f"{min(rival)!r}; save the one that counts alone"
        )
    return tensors


def _check_claim(path: Path, key: str, value: torch.Tensor, most: int) -> None:
    """Raise ValueError for a tensor of more elements than a file of `most` bytes has room for, and
    for one that does not hold every element."""
    if value.layout != torch.strided:
        raise ValueError(f"{path}: {key} is sparse; save its to_dense()")
    claimed = value.numel() * value.element_size()
    if claimed > value.untyped_storage().nbytes() or value.untyped_storage().nbytes() > most:
        raise ValueError(f"{path}: {key} claims {claimed} bytes, more than the file holds; {WHOLE}")


def _rivals(tensors: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether `other` could be meant as well, such as rates or averages beside weights: its tensors
    or these stretch to the others' shapes, or it has a name in common, a wrapper's prefix aside;
    and not just the same values."""
    one, other = without_prefix(tensors), without_prefix(other)
    shared = one.keys() & other.keys()
    if all(same_values(one[name], other[name]) for name in shared):
        alike = len(one) == len(other) and all(map(_stretch, one.values(), other.values()))
        return not shared and alike
    return True


def _stretch(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether one of the two tensors can be expanded to the other's shape."""
    try:
        return torch.broadcast_shapes(one.shape, other.shape) in (one.shape, other.shape)
    except RuntimeError:
        return False


def _dictionaries(content: object) -> list[dict[str, torch.Tensor]]:
    """Those of tensors by text keys, in `content` or dictionaries within it."""
    if not isinstance(content, dict):
        return []
    tensors = ((k, v) for k, v in content.items() if torch.is_tensor(v) and not v.is_nested)
    own = {key: value for key, value in tensors if isinstance(key, str)}
    return [own, *(found for value in content.values() for found in _dictionaries(value))]
