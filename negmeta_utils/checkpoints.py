"""The state of a training, and its way to disk and back."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from negmeta_utils import runs, storage
from negmeta_utils.adaptation import METHODS, constrained, init_alpha, unconstrained
from negmeta_utils.config import TrainConfig
from negmeta_utils.engine.adam import Adam
from negmeta_utils.model import Params, init_params

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


def fresh_state(config: TrainConfig, channels: int, device: torch.device) -> State:
    """Where a training begins: update 0."""
    params = init_params(config.seed, channels, config.image_size, config.n_way, config.n_filters)
    alpha = init_alpha(config.method, params, config.inner_lr, config.alpha_init, config.seed)
    params = {name: value.to(device) for name, value in params.items()}
    alpha = {n: value.to(device) for n, value in unconstrained(config.method, alpha).items()}
    learned = [{"params": list(params.values())}]
    if METHODS[config.method].learns_alpha:
        alpha_lr = config.alpha_lr or config.outer_lr
        learned.append({"params": list(alpha.values()), "lr": alpha_lr})
    optimizer = Adam(learned, config.outer_lr)
    scheduler = plateau(optimizer) if config.lr_schedule == "plateau" else None
    return State(params, alpha, optimizer, scheduler)


def plateau(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
    """The outer rates' fall where validation stalls, as in oscarknagg/few-shot (its
    `few_shot/callbacks.py`, as `experiments/maml.py` sets it), whose layer names the paper has.

    A check is bad if the loss is not below the best by 1e-4; the tenth bad one halves the rate of
    every group, and the count begins again. A cut of 1e-4 or less is skipped: 1e-3 ends at
    1.25e-4, and a rate of 2e-4 or less never falls.
    """
    return torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        factor=0.5,
        patience=9,  # torch acts at the first bad check beyond it
        threshold=1e-4,
        threshold_mode="abs",
        eps=1e-4,
    )


def find_run(directory: Path, manifest: dict) -> dict | None:
    """The manifest in `directory`, if any. Raises ValueError where it is one of another
    configuration or of other images than `manifest`."""
    path = directory / "manifest.json"
    if not path.exists():
        return None
    found = storage.read_json(path)
    check_same_run(path, identity(found), manifest)
    return found


def begin(directory: Path, manifest: dict, found: dict | None) -> dict:
    """Write the manifest of a run that begins, or goes on: maybe by another commit or machine."""
    if found is not None:
        continued = {key: manifest[key] for key in ("started", "environment")}
        manifest = {**found, "continued": [*found.get("continued", []), continued]}
    storage.write_json(directory / "manifest.json", manifest)
    return manifest


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
    groups = {"params": state.params, "alpha": constrained(method, state.alpha)}
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
