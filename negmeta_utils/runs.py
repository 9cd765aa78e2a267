"""What a run leaves on disk.

A run directory holds

    manifest.json           parameters as resolved, versions, device, data, commit, timings, results
    history.parquet         one row a meta-update
    rates.parquet           the learned rates by layer, along training
    every_rate.parquet      every single rate, at some twenty of those points
    checkpoint.safetensors  everything that training needs to go on
    model.safetensors       parameters and rates at the end
    accuracy.parquet        loss and accuracy on the test classes, one row an episode
    01_train.ipynb          the notebook as executed, where a study ran it

Every file is written to the side, synced and renamed, so a reader sees a whole file or none.
"""

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]  # the clone: notebooks name files relative to it
PRETRAINED = Path(__file__).resolve().parent / "pretrained"
# Parameters that say where a run is computed, not what: a continuation may change them.
PLACE = ("data_dir", "device", "checkpoint_every")
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scipy", "safetensors")


@dataclass(frozen=True)
class Run:
    """A finished training: its manifest, and its parameters and rates on the CPU."""

    directory: Path
    manifest: dict
    params: dict[str, torch.Tensor]
    alpha: dict[str, torch.Tensor]

    @property
    def parameters(self) -> dict:
        return self.manifest["parameters"]

    def history(self) -> pd.DataFrame:
        return pd.read_parquet(self.directory / "history.parquet")

    def rates(self) -> pd.DataFrame:
        return pd.read_parquet(self.directory / "rates.parquet")

    def every_rate(self) -> pd.DataFrame:
        return pd.read_parquet(self.directory / "every_rate.parquet")

    def final_accuracy(self) -> pd.Series:
        return pd.read_parquet(self.directory / "accuracy.parquet")["accuracy"]


def resolve(path: str | Path) -> Path:
    """`path` itself if absolute, else below the clone: papermill runs a notebook in the caller's
    folder and nbval in the notebook's, so the working directory says nothing."""
    return ROOT / Path(path).expanduser()


def output_folder(path: str | None) -> Path:
    """The folder a notebook writes to, made where missing; a temporary one for None."""
    if path is None:
        return Path(tempfile.mkdtemp(prefix="negmeta-"))
    folder = resolve(path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_tables(folders: list[str], name: str) -> pd.DataFrame:
    """The tables `name` of several folders, one below the other. Raises FileNotFoundError."""
    paths = [resolve(folder) / name for folder in folders]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such table; name a folder that holds one")
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def load_run(name: str | Path) -> Run:
    """A finished run, by directory or by the name of one that comes with the package.

    Raises FileNotFoundError for a directory without a finished run, ValueError for files that do
    not hold one.
    """
    shipped = PRETRAINED / str(name)
    directory = shipped if shipped.is_dir() else resolve(name)
    if not (directory / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"{directory}: no finished run there (no model.safetensors); train one with "
            f"01_train.ipynb, or name a shipped one: {', '.join(shipped_runs())}"
        )
    tensors, _ = read_tensors(directory / "model.safetensors")
    return Run(
        directory, read_json(directory / "manifest.json"), tensors["params"], tensors["alpha"]
    )


def shipped_runs() -> list[str]:
    """Names of the runs that come with the package."""
    return sorted(p.name for p in PRETRAINED.iterdir()) if PRETRAINED.is_dir() else []


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; synced and renamed to `path` if all went well,
    removed if not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict:
    """Raises ValueError where `path` is not JSON."""
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); delete the run and start again") from error


def write_table(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd")


def write_tensors(path: Path, groups: dict[str, dict[str, torch.Tensor]], metadata: dict) -> None:
    """Named groups of tensors and JSON-able metadata, as safetensors."""
    flat = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    with replacing(path) as temporary:
        save_file(flat, temporary, {"json": json.dumps(metadata)})


def read_tensors(path: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict]:
    """What `write_tensors` wrote: groups on the CPU, and the metadata. safetensors orders its
    tensors by itself; the metadata's `order` is not needed because names carry the meaning.

    Raises ValueError where `path` is not such a file, or is cut short.
    """
    groups: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads(file.metadata()["json"])
            for key in file.keys():  # noqa: SIM118 (not a dictionary)
                group, name = key.split("/", 1)
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a checkpoint of this package ({error})") from error
    return groups, metadata


def environment(device: torch.device) -> dict:
    """What a result may depend on besides its parameters."""
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
    }


def device_name(device: torch.device) -> str:
    """The hardware in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def resolve_device(name: str) -> torch.device:
    """The device of that name; auto is CUDA where there is one, else the CPU.

    Raises ValueError for CUDA that is absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name!r}: no CUDA device here; use device='auto' or 'cpu'")
    return torch.device(name)


def _git_commit() -> str | None:
    """The clone's commit, marked where the working tree differs from it; None outside a clone."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
