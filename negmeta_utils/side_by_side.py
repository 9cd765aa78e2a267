"""Several trainings in one process on one GPU, which a single one does not fill."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch

from negmeta_utils import guards, runs
from negmeta_utils.capture import arithmetic
from negmeta_utils.config import TrainConfig
from negmeta_utils.training import meta_updates


def train_side_by_side(
    trainings: dict[Path, TrainConfig],
    report: Callable[[str], None] = lambda text: None,
    deadline: float = math.inf,
) -> list[runs.Run]:
    """What `training.train` does with each of several run directories and configurations, a
    meta-update of each in turn; on a GPU each on a CUDA stream of its own, so that they overlap.

    deadline: a time of `time.monotonic`. When it comes, as on SIGINT and SIGTERM, every training
    ends after its current meta-update with a checkpoint, and SystemExit or KeyboardInterrupt is
    raised. Raises ValueError unless all have one `precision`, a setting of the whole process.
    """
    precisions = {config.precision for config in trainings.values()}
    if len(precisions) != 1:
        raise ValueError(f"precision={sorted(precisions)}: side by side all must have the same")
    with arithmetic(precisions.pop()), guards.signals_noted() as signals:
        going = {
            directory: (_stream(config), _steps(directory, config, report, signals))
            for directory, config in trainings.items()
        }
        stopped = None
        while going:
            if time.monotonic() > deadline and not signals:
                signals.append(signal.SIGTERM)
            for directory, (stream, steps) in list(going.items()):
                try:
                    with torch.cuda.stream(stream):
                        ended = next(steps, "ended") == "ended"
                except (SystemExit, KeyboardInterrupt) as error:
                    report(str(error))
                    ended, stopped = True, error
                if ended:
                    del going[directory]
    if stopped:
        raise stopped
    return [runs.load_run(directory) for directory in trainings]


def _stream(config: TrainConfig) -> torch.cuda.Stream | None:
    device = runs.resolve_device(config.device)
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def _steps(
    directory: Path, config: TrainConfig, report: Callable[[str], None], signals: list[int]
) -> Iterator[None]:
    said = partial(_report, report, Path(directory).name)
    return meta_updates(config, directory, said, lambda: nullcontext(signals))


def _report(report: Callable[[str], None], name: str, text: str) -> None:
    report(f"{name}: {text}")
