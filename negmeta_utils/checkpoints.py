"""The state of a training, and its way to disk and back."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import torch

from negmeta_utils import runs
from negmeta_utils.adaptation import METHODS, constrained, init_alpha, unconstrained
from negmeta_utils.config import TrainConfig
from negmeta_utils.engine.adam import Adam
from negmeta_utils.episodes import ImageSet
from negmeta_utils.networks.network import Network, Params
from negmeta_utils.storage import atomic, digests, files

ADAM = ("step", "exp_avg", "exp_avg_sq")
AGAIN = "restore the files from a copy, or delete {} and train again"
LENGTH = "n_updates"  # the one parameter that a run may be given a larger value of later
TABLES = ("history", "rates", "every_rate")


@dataclass
class State:
    """A training between two meta-updates.

    history, rates, every_rate: tables to be joined, as far as they are known.
    rows: the history's rows since the last checkpoint, their training losses still on the device,
    and None where there was no validation.
    best_loss: the lowest validation loss so far, of the network that is kept as "best".
    kept: digests of the files of the networks that are kept, by name.
    """

    network: Network
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
    kept: dict[str, str] = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)


def fresh_state(
    config: TrainConfig, network: Network, images: ImageSet, device: torch.device
) -> State:
    """Where a training on images of this kind begins: update 0."""
    sizes = images.channels, images.image_size, config.n_way, config.n_filters
    params = network.init(config.seed, *sizes)
    alpha = init_alpha(
        config.method, params, config.inner_lr, config.alpha_init, config.seed, network
    )
    params = {name: value.to(device).contiguous() for name, value in params.items()}
    alpha = {n: value.to(device) for n, value in unconstrained(config.method, alpha).items()}
    learned: list[dict[str, Any]] = [{"params": list(params.values())}]
    if METHODS[config.method].learns_alpha:
        alpha_lr = config.alpha_lr or config.outer_lr
        learned.append({"params": list(alpha.values()), "lr": alpha_lr})
    optimizer = Adam(learned, config.outer_lr)
    scheduler = plateau(optimizer) if config.lr_schedule == "plateau" else None
    return State(network, params, alpha, optimizer, scheduler)


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
    configuration, of other images or other code of a network than `manifest`, or of a training
    that cannot be extended to that length: it is longer, or its own length is no multiple of
    `val_every`; and for a folder of tables, which a run would replace."""
    path = directory / "manifest.json"
    if not path.exists():
        if (directory / "rates.parquet").exists():
            raise ValueError(f"{directory}: holds tables and no run; choose another folder")
        return None
    found = atomic.read_json(path)
    check_same_run(path, identity(found), manifest)
    known, wanted = (of["parameters"][LENGTH] for of in (found, manifest))
    if known > wanted or (known < wanted and known % found["parameters"]["val_every"]):
        raise _other_run(path, LENGTH, known, wanted)
    return found


def is_at_its_end(found: dict | None, n_updates: int) -> bool:
    """Whether a run is complete, and not to be trained for longer now."""
    return (
        found is not None
        and found["status"] == "complete"
        and found["parameters"][LENGTH] == n_updates
    )


def begin(directory: Path, manifest: dict, found: dict | None, state: State) -> dict:
    """Write the manifest of a run that begins, or goes on from `state`: maybe by another commit or
    machine, or for longer than it was meant to."""
    if found is not None:
        continued = {key: manifest[key] for key in ("started", "environment")}
        continued |= {"update": state.update, "seconds": state.seconds}
        length = {LENGTH: manifest["parameters"][LENGTH]}
        manifest = {
            **{key: value for key, value in found.items() if key not in ("results", "files")},
            "status": "running",
            "parameters": found["parameters"] | length,
            "continued": [*found.get("continued", []), continued],
        }
    atomic.write_json(directory / "manifest.json", manifest)
    return manifest


def save(state: State, directory: Path, manifest: dict) -> None:
    """Write history, rates and checkpoint: the checkpoint last, since a continuation drops rows
    that are ahead of it. `manifest` is the run's.

    Raises FloatingPointError, and writes nothing, where `check_finite` does.
    """
    check_finite(state, directory)
    rows = pd.DataFrame(state.rows).drop(columns="largest")
    for column in ("train_loss", "train_accuracy"):
        rows[column] = torch.stack(list(rows[column])).cpu().numpy()
    for column in ("val_loss", "val_accuracy"):
        rows[column] = rows[column].astype(float)
    state.history.append(rows)
    tables = {}
    for name in TABLES:
        table = pd.concat(getattr(state, name), ignore_index=True)
        setattr(state, name, [table])
        tables[name] = files.digest_of(table)
        files.write_table(directory / f"{name}.parquet", table)
    state.rows = []
    adam = state.optimizer.state_dict()["state"]
    groups = {"params": state.params, "alpha": state.alpha}
    for key in ADAM:
        groups[key] = {str(index): values[key] for index, values in adam.items()}
    metadata = {
        "run": identity(manifest),
        "update": state.update,
        "seconds": state.seconds,
        "outer_lrs": [group["lr"] for group in state.optimizer.param_groups],
        "tables": tables,
        "kept": state.kept,
        "scheduler": state.scheduler.state_dict() if state.scheduler else None,
        "best_loss": state.best_loss,
    }
    files.write_tensors(directory / "checkpoint.safetensors", groups, metadata)


def keep(state: State, directory: Path, method: str, name: str) -> None:
    """Write parameters and rates as they are now, for `runs.load_run` to find by `name`.

    A training that goes on from an earlier checkpoint writes the same once more.
    """
    folder = directory / runs.KEPT
    atomic.make_folder(folder)
    groups = {"params": state.params, "alpha": constrained(method, state.alpha)}
    path = folder / f"{name}.safetensors"
    state.kept[name] = files.write_tensors(path, groups, {"update": state.update})


def largest(state: State) -> torch.Tensor:
    """The largest absolute value in parameters, rates and Adam's moments, as a scalar on their
    device: not finite where one of them is not."""
    moments = [values[key] for values in state.optimizer.state.values() for key in ADAM[1:]]
    tensors = [*state.params.values(), *state.alpha.values(), *moments]
    return torch.nn.utils.get_total_norm(tensors, math.inf)


def check_finite(state: State, directory: Path) -> None:
    """Raise FloatingPointError, with the first meta-update at fault, where since the last
    checkpoint a loss, a parameter, a rate or one of Adam's moments was not finite."""
    scalars = [row[name] for name in ("train_loss", "largest") for row in state.rows]
    losses, values = torch.stack(scalars).isfinite().view(2, -1).tolist()
    values[-1] = bool(largest(state).isfinite())
    for row, loss, value in zip(state.rows, losses, values, strict=True):
        if not loss or not math.isfinite(row["val_loss"] or 0):
            _raise_not_finite(directory, "the loss", row["update"])
        if not value:
            _raise_not_finite(directory, "a parameter, rate or moment of Adam", row["update"])


def _raise_not_finite(directory: Path, what: str, update: int) -> NoReturn:
    raise FloatingPointError(
        f"{directory}: {what} stopped being finite at meta-update {update}; the last checkpoint is "
        "from before; lower outer_lr or inner_lr, in another folder"
    )


def identity(manifest: dict) -> dict:
    """What two runs must have in common for one to go on with the other's checkpoint: all but
    where they train, and how long."""
    parameters = manifest.get("parameters", {}).items()
    free = (*runs.PLACE, LENGTH)
    return {
        "parameters": {name: value for name, value in parameters if name not in free},
        "data": manifest.get("data"),
        "network": manifest.get("network"),  # its code, where it is one of your own
    }


def check_same_run(path: Path, found: dict, manifest: dict) -> None:
    """Raise ValueError where `found`, the identity of the run that `path` belongs to, is not that
    of `manifest`."""
    wanted = identity(manifest)
    for name, value in wanted["parameters"].items():
        if found["parameters"].get(name) != value:
            raise _other_run(path, name, found["parameters"].get(name), value)
    if found["data"] != wanted["data"]:
        raise ValueError(f"{path}: of a run on other images; choose another folder")
    if found.get("network", wanted["network"]) != wanted["network"]:
        raise ValueError(
            f"{path}: of a run of another {wanted['parameters']['network']} than is there now; "
            "restore that file, or choose another folder"
        )


def _other_run(path: Path, name: str, found: object, wanted: object) -> ValueError:
    return ValueError(
        f"{path}: of a run with {name}={found!r}, not {wanted!r}; choose another folder, or delete "
        "that run"
    )


def resume(directory: Path, state: State, manifest: dict) -> State:
    """`state` as the checkpoint in `directory` left it; unchanged where there is none.

    Raises ValueError where it is no checkpoint, or not one of the run of `manifest`, and where
    tables or kept networks beside it are not those that it was written with.
    """
    path = directory / "checkpoint.safetensors"
    if not path.exists():
        return state
    groups, metadata = files.read_tensors(path)
    if "run" not in metadata:
        raise ValueError(f"{path}: not the checkpoint of a training; delete it to start again")
    check_same_run(path, metadata["run"], manifest)
    _fill(state.params, groups.get("params", {}), path)
    _fill(state.alpha, groups.get("alpha", {}), path)
    for name in ("update", "seconds", "best_loss", "kept"):
        setattr(state, name, metadata[name])
    _resume_optimizer(state, groups, metadata, path)
    for name in TABLES:
        setattr(state, name, [_known_rows(directory, name, state.update, metadata["tables"][name])])
    for name, digest in state.kept.items():
        _check_kept(directory / runs.KEPT / f"{name}.safetensors", digest, state.update)
    return state


def _fill(into: Params, tensors: Params, path: Path) -> None:
    """Copy tensors of the same names and shapes. Raises ValueError where they are others."""
    if {n: t.shape for n, t in into.items()} != {n: t.shape for n, t in tensors.items()}:
        raise _foreign(path, "tensors of another network")
    for name, tensor in tensors.items():
        into[name].copy_(tensor)


def _resume_optimizer(state: State, groups: dict[str, Params], metadata: dict, path: Path) -> None:
    learned = [param for group in state.optimizer.param_groups for param in group["params"]]
    shapes = {str(index): param.shape for index, param in enumerate(learned)}
    for key, expected in zip(ADAM, (dict.fromkeys(shapes, ()), shapes, shapes), strict=True):
        if {n: t.shape for n, t in groups.get(key, {}).items()} != expected:
            raise _foreign(path, "an optimiser of another network")
    if {float(step) for step in groups["step"].values()} != {state.update}:
        raise _foreign(path, f"an optimiser that is not at meta-update {state.update}")
    saved = state.optimizer.state_dict()
    saved["state"] = {int(n): {key: groups[key][n] for key in ADAM} for n in shapes}
    outer_lrs = [group["lr"] for group in saved["param_groups"]]
    if state.scheduler is not None:
        state.scheduler.load_state_dict(metadata["scheduler"])
        outer_lrs = state.scheduler.get_last_lr()
    if outer_lrs != metadata["outer_lrs"]:
        raise _foreign(path, f"outer rates {metadata['outer_lrs']} where {outer_lrs} belong")
    for group, outer_lr in zip(saved["param_groups"], outer_lrs, strict=True):
        group["lr"] = outer_lr
    state.optimizer.load_state_dict(saved)


def _known_rows(directory: Path, name: str, update: int, digest: str) -> pd.DataFrame:
    """The rows of a table until `update`: a later checkpoint may not have been finished."""
    path = directory / f"{name}.parquet"
    table = files.read_table(path)
    if "update" in table:
        table = table[table["update"] <= update]
    if files.digest_of(table) != digest:
        raise _foreign(path, "rows that are not those of the checkpoint beside it")
    return table


def _check_kept(path: Path, digest: str, update: int) -> None:
    """Raise ValueError unless a kept network is the checkpoint's, or from after it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: gone; {AGAIN.format(path.parents[1])}")
    _, metadata = files.read_tensors(path)
    if metadata.get("update", 0) <= update and digests.check(path) != digest:
        raise _foreign(path, "a network that is not that of the checkpoint beside it")


def _foreign(path: Path, what: str) -> ValueError:
    folder = path.parents[1] if path.parent.name == runs.KEPT else path.parent
    return ValueError(f"{path}: {what}; {AGAIN.format(folder)}")
