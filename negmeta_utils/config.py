"""What a training depends on."""

from dataclasses import asdict, dataclass, replace
from typing import Optional

from negmeta_utils import runs
from negmeta_utils.adaptation import METHODS
from negmeta_utils.episodes import ImageSet, check_episode_fits
from negmeta_utils.model import n_features

ENGINES = ("auto", "adjoint", "reference")  # auto is the adjoint; the reference is to be read


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training depends on; the defaults are the paper's settings.

    Fields are the parameters of `01_train.ipynb` under the same names, explained there.
    """

    dataset: str = "mini-imagenet"
    method: str = "meta-sgd"
    seed: int = 0
    n_way: int = 5
    n_shot: int = 1
    n_query: int = 10
    image_size: Optional[int] = None
    n_filters: int = 64
    n_tasks: int = 3
    inner_steps: int = 5
    inner_lr: float = 0.01
    alpha_init: str = "constant"
    outer_lr: float = 0.001
    lr_schedule: str = "constant"
    n_updates: int = 60_000
    val_every: int = 500
    val_episodes: int = 40
    test_episodes: int = 600
    checkpoint_every: int = 500
    data_dir: Optional[str] = None
    device: str = "auto"
    engine: str = "auto"

    def resolved(self, images: ImageSet) -> "TrainConfig":
        """With image size, device and engine as they will be, after a check of every value.

        Raises ValueError, naming the parameter, for a value that cannot be.
        """
        self._check()
        check_episode_fits(images, self.n_way, self.n_shot + self.n_query)
        n_features(images.image_size)
        return replace(
            self,
            image_size=images.image_size,
            device=str(runs.resolve_device(self.device)),
            engine="adjoint" if self.engine == "auto" else self.engine,
        )

    def _check(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r}: not one of {', '.join(METHODS)}")
        if self.engine not in ENGINES:
            raise ValueError(f"engine={self.engine!r}: not one of {', '.join(ENGINES)}")
        if self.lr_schedule not in ("constant", "plateau"):
            raise ValueError(f"lr_schedule={self.lr_schedule!r}: use 'constant' or 'plateau'")
        for name, value in asdict(self).items():
            least = 0 if name in ("seed", "test_episodes") else 1
            if isinstance(value, int) and value < least:
                raise ValueError(f"{name}={value}: must be at least {least}")
            if isinstance(value, float) and not 0 < value < float("inf"):
                raise ValueError(f"{name}={value}: must be a positive number")
