"""The state of a training, and its way to disk and back."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from negmeta_utils import runs, storage
from negmeta_utils.adaptation import rates
from negmeta_utils.model import Params

ADAM = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class State:
    """A training between two meta-updates.

    history, rates, every_rate: tables to be joined, as far as they are known.
    rows: the history's rows since the last checkpoint, their training losses still on the device,
    and None where there was no validation.
    best_loss: the lowest validation loss so far, of the network that is kept as "best".
    """

    params: Params
    alpha: Params
    optimizer: torch.optim.Adam
    scheduler: torch.optim.lr_scheduler.ReduceLROnPlateau | None
    history: list[pd.DataFrame] = field(default_factory=list)
    rates: list[pd.DataFrame] = field(default_factory=list)
    every_rate: list[pd.DataFrame] = field(default_factory=list)
    update: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    rows: list[dict] = field(default_factory=list)


def save(state: State, directory: Path, manifest: dict) -> None:
    """Write history, rates and checkpoint: the checkpoint last, since a continuation drops rows
    that are ahead of it. `manifest` is the run's.

    Raises FloatingPointError, and writes nothing, where `check_finite` does.
    """
    check_finite(state, directory)
    rows = pd.DataFrame(state.rows)
    for column in ("train_loss", "train_accuracy"):
        rows[column] = torch.stack(list(rows[column])).cpu().numpy()
    for column in ("val_loss", "val_accuracy"):
        rows[column] = rows[column].astype(float)
    state.history.append(rows)
    state.rows = []
    storage.write_table(directory / "history.parquet", pd.concat(state.history))
    storage.write_table(directory / "rates.parquet", pd.concat(state.rates))
    storage.write_table(directory / "every_rate.parquet", pd.concat(state.every_rate))
    adam = state.optimizer.state_dict()["state"]
    groups = {"params": state.params, "alpha": state.alpha}
    for key in ADAM:
        groups[key] = {str(index): values[key] for index, values in adam.items()}
    metadata = {
        "run": identity(manifest),
        "update": state.update,
        "seconds": state.seconds,
        "outer_lrs": [group["lr"] for group in state.optimizer.param_groups],
        "scheduler": state.scheduler.state_dict() if state.scheduler else None,
        "best_loss": state.best_loss,
    }
    storage.write_tensors(directory / "checkpoint.safetensors", groups, metadata)


def keep(state: State, directory: Path, method: str, name: str) -> None:
    """Write parameters and rates as they are now, for `runs.load_run` to find by `name`.

    A training that goes on from an earlier checkpoint writes the same once more.
    """
    folder = directory / runs.KEPT
    storage.make_folder(folder)
    groups = {"params": state.params, "alpha": rates(method, state.alpha)}
    storage.write_tensors(folder / f"{name}.safetensors", groups, {"update": state.update})


def check_finite(state: State, directory: Path) -> None:
    """Raise FloatingPointError, with the first meta-update at fault, where a loss since the last
    checkpoint is not finite, or parameters and rates as the last meta-update left them are not."""
    losses = torch.stack([row["train_loss"] for row in state.rows]).isfinite().tolist()
    broken = [
        row["update"]
        for row, finite in zip(state.rows, losses, strict=True)
        if not finite or not math.isfinite(row["val_loss"] or 0)
    ]
    left = [*state.params.values(), *state.alpha.values()]
    if not torch.stack([value.isfinite().all() for value in left]).all():
        broken.append(state.update)
    if broken:
        raise FloatingPointError(
            f"{directory}: the loss stopped being finite at meta-update {broken[0]}; the last "
            "checkpoint is from before; lower outer_lr or inner_lr, in another folder"
        )


def identity(manifest: dict) -> dict:
    """What two runs must have in common for one to go on with the other's checkpoint."""
    parameters = manifest.get("parameters", {}).items()
    return {
        "parameters": {name: value for name, value in parameters if name not in runs.PLACE},
        "data": manifest.get("data"),
    }


def check_same_run(path: Path, found: dict, manifest: dict) -> None:
    """Raise ValueError where `found`, the identity of the run that `path` belongs to, is not that
    of `manifest`."""
    wanted = identity(manifest)
    for name, value in wanted["parameters"].items():
        if found["parameters"].get(name) != value:
            raise ValueError(
                f"{path}: of a run with {name}={found['parameters'].get(name)!r}, not {value!r}; "
                "choose another folder, or delete that run"
            )
    if found["data"] != wanted["data"]:
        raise ValueError(f"{path}: of a run on other images; choose another folder")


def resume(directory: Path, state: State, manifest: dict) -> State:
    """`state` as the checkpoint in `directory` left it; unchanged where there is none.

    Raises ValueError where it is no checkpoint, or not one of the run of `manifest`.
    """
    path = directory / "checkpoint.safetensors"
    if not path.exists():
        return state
    groups, metadata = storage.read_tensors(path)
    if "run" not in metadata:
        raise ValueError(f"{path}: not the checkpoint of a training; delete it to start again")
    check_same_run(path, metadata["run"], manifest)
    for name in state.params:
        state.params[name].copy_(groups["params"][name])
        state.alpha[name].copy_(groups["alpha"][name])
    saved = state.optimizer.state_dict()
    saved["state"] = {
        int(index): {key: groups[key][index] for key in ADAM} for index in groups["step"]
    }
    for group, outer_lr in zip(saved["param_groups"], metadata["outer_lrs"], strict=True):
        group["lr"] = outer_lr
    state.optimizer.load_state_dict(saved)
    if state.scheduler is not None:
        state.scheduler.load_state_dict(metadata["scheduler"])
    for name in ("update", "seconds", "best_loss"):
        setattr(state, name, metadata[name])
    for name in ("history", "rates", "every_rate"):
        table = storage.read_table(directory / f"{name}.parquet")
        setattr(state, name, [table[table["update"] <= state.update]])
    return state
