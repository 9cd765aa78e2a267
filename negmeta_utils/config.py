"""What a training depends on: its settings (`TrainConfig`), and what it is computed with."""

import os
import platform
import subprocess
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Optional, get_type_hints

import torch

from negmeta_utils.adaptation import METHODS, init_alpha
from negmeta_utils.data.splits import CLASSES
from negmeta_utils.engine.device import arithmetic, device_name, resolve_device
from negmeta_utils.engine.engines import resolve_engine
from negmeta_utils.episodes import ImageSet
from negmeta_utils.networks.catalogue import NETWORKS, check_name, checked, find
from negmeta_utils.networks.network import Network
from negmeta_utils.parameters import check_value
from negmeta_utils.storage.paths import ROOT

MOST_KEPT = 10  # networks along a training, besides the best and the last
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scipy", "safetensors")
LEAST = {"seed": 0, "test_episodes": 0, "n_way": 2}  # of the others 1


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training depends on; the defaults are the paper's settings where it states them.

    Fields are the parameters of `01_train.ipynb` under the same names, explained there.
    Raises ValueError, naming the parameter, for a value that cannot be with any data.
    """

    dataset: str = "mini-imagenet"
    classes: str = "64/16/20"
    method: str = "meta-sgd"
    seed: int = 0
    n_way: int = 5
    n_shot: int = 1
    n_query: int = 10
    image_size: Optional[int] = None
    network: str = "conv4"
    n_filters: int = 64
    n_tasks: int = 3
    inner_steps: int = 5
    inner_lr: float = 0.01
    alpha_init: str = "constant"
    outer_lr: float = 0.001
    alpha_lr: Optional[float] = None
    lr_schedule: str = "constant"
    n_updates: int = 60_000
    val_every: int = 500
    val_episodes: int = 40
    val_fresh: bool = False
    test_episodes: int = 600
    checkpoint_every: int = 500
    keep_at: list[int] = field(default_factory=list)
    data_dir: Optional[str] = None
    device: str = "auto"
    engine: str = "auto"

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(TrainConfig).items():
            value = getattr(self, name)
            if name != "keep_at":
                check_value(name, value, kind, LEAST.get(name, 1))
            if kind is float:  # a rate of 1 must not make tensors of whole numbers
                object.__setattr__(self, name, float(value))
        check_name(self.network)
        if self.network in NETWORKS:  # one's own is known once the images are
            network = find(self.network)
            resolve_engine(self.engine, network)
            if self.image_size is not None:
                network.check_image_size(self.image_size)
        if self.classes not in CLASSES:
            raise ValueError(f"classes={self.classes!r}: not one of {', '.join(CLASSES)}")
        if self.lr_schedule not in ("constant", "plateau"):
            raise ValueError(f"lr_schedule={self.lr_schedule!r}: use 'constant' or 'plateau'")
        init_alpha(self.method, {}, alpha_init=self.alpha_init)  # knows which of them go together
        if self.alpha_lr is not None and not METHODS[self.method].learns_alpha:
            raise ValueError(f"alpha_lr={self.alpha_lr}: {self.method} learns no rates; use None")
        self._check_keep_at()

    def _check_keep_at(self) -> None:
        if not isinstance(self.keep_at, list) or len(self.keep_at) > MOST_KEPT:
            raise ValueError(
                f"keep_at={self.keep_at!r}: must be a list of at most {MOST_KEPT} meta-updates"
            )
        for update in self.keep_at:
            check_value("keep_at", update, int)
            if update > self.n_updates:
                raise ValueError(f"keep_at={update}: training ends at {self.n_updates}; lower it")

    def resolved(self, images: ImageSet) -> "TrainConfig":
        """With image size, device and engine as they will be.

        Raises ValueError, naming the parameter, for a value that does not go with `images` or
        with this machine.
        """
        network = self.find_network(images)
        return replace(
            self,
            image_size=images.image_size,
            device=str(resolve_device(self.device)),
            engine=resolve_engine(self.engine, network),
        )

    def find_network(self, images: ImageSet) -> Network:
        """The network that this trains on `images`. Raises ValueError as `catalogue.checked`."""
        return checked(
            self.network,
            channels=images.channels,
            image_size=images.image_size,
            n_way=self.n_way,
            n_filters=self.n_filters,
        )


def environment(device: torch.device) -> dict:
    """What a result may depend on besides its parameters."""
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "device": device_name(device),
        **arithmetic(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """The clone's commit, marked where the working tree differs from it; None outside a clone."""
    if not (ROOT / ".git").exists():  # installed, maybe inside a clone of something else
        return None
    # Hooks of Git set variables that name another repository.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=ROOT,
            env=own,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
