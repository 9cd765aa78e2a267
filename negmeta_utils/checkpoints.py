"""The state of a training, and its way to disk and back."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from negmeta_utils import runs
from negmeta_utils.model import Params

ADAM = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class State:
    """A training between two meta-updates.

    history, rates, every_rate: tables to be joined, as far as they are known.
    rows: the history's rows since the last checkpoint, their losses still on the device.
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
    rows: list[dict] = field(default_factory=list)


def save(state: State, directory: Path) -> None:
    """Write history, rates and checkpoint: the checkpoint last, since a continuation drops rows
    that are ahead of it.

    Raises FloatingPointError where a loss since the last checkpoint is not finite.
    """
    rows = pd.DataFrame(state.rows)
    for column in ("train_loss", "train_accuracy"):
        rows[column] = torch.stack(list(rows[column])).cpu().numpy()
    broken = rows.loc[~np.isfinite(rows["train_loss"]), "update"]
    if len(broken):
        raise FloatingPointError(
            f"{directory}: the loss stopped being finite at meta-update {broken.iloc[0]}; the "
            "last checkpoint is from before; lower outer_lr or inner_lr"
        )
    state.history.append(rows)
    state.rows = []
    runs.write_table(directory / "history.parquet", pd.concat(state.history))
    runs.write_table(directory / "rates.parquet", pd.concat(state.rates))
    runs.write_table(directory / "every_rate.parquet", pd.concat(state.every_rate))
    adam = state.optimizer.state_dict()["state"]
    groups = {"params": state.params, "alpha": state.alpha}
    for key in ADAM:
        groups[key] = {str(index): values[key] for index, values in adam.items()}
    metadata = {
        "update": state.update,
        "seconds": state.seconds,
        "outer_lr": state.optimizer.param_groups[0]["lr"],
        "scheduler": state.scheduler.state_dict() if state.scheduler else None,
    }
    runs.write_tensors(directory / "checkpoint.safetensors", groups, metadata)


def resume(directory: Path, state: State) -> State:
    """`state` as the checkpoint in `directory` left it; unchanged where there is none."""
    path = directory / "checkpoint.safetensors"
    if not path.exists():
        return state
    groups, metadata = runs.read_tensors(path)
    for name in state.params:
        state.params[name].copy_(groups["params"][name])
        state.alpha[name].copy_(groups["alpha"][name])
    saved = state.optimizer.state_dict()
    saved["state"] = {
        int(index): {key: groups[key][index] for key in ADAM} for index in groups["step"]
    }
    saved["param_groups"][0]["lr"] = metadata["outer_lr"]
    state.optimizer.load_state_dict(saved)
    if state.scheduler is not None:
        state.scheduler.load_state_dict(metadata["scheduler"])
    state.update, state.seconds = metadata["update"], metadata["seconds"]
    for name in ("history", "rates", "every_rate"):
        table = pd.read_parquet(directory / f"{name}.parquet")
        setattr(state, name, [table[table["update"] <= state.update]])
    return state
