"""Several trainings in one process on one GPU, which a single one does not fill."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch

from negmeta_utils import guards, runs
from negmeta_utils.capture import arithmetic
from negmeta_utils.config import TrainConfig
from negmeta_utils.training import meta_updates


def train_side_by_side(
    trainings: dict[Path, TrainConfig], report: Callable[[str], None] = lambda text: None
) -> list[runs.Run]:
    """What `training.train` does with each of several run directories and configurations, a
    meta-update of each in turn; on a GPU each on a CUDA stream of its own, so that they overlap.

    All must have one `precision`, a setting of the whole process: ValueError otherwise. SIGINT and
    SIGTERM end the first to notice with a checkpoint, and the others at their last one.
    """
    precisions = {config.precision for config in trainings.values()}
    if len(precisions) != 1:
        raise ValueError(f"precision={sorted(precisions)}: side by side all must have the same")
    with arithmetic(precisions.pop()), guards.signals_noted() as signals:
        going = {}
        for directory, config in trainings.items():
            device = runs.resolve_device(config.device)
            stream = torch.cuda.Stream(device) if device.type == "cuda" else None
            said = partial(_report, report, Path(directory).name)
            steps = meta_updates(config, directory, said, lambda: nullcontext(signals))
            going[directory] = stream, steps
        while going:
            for directory, (stream, steps) in list(going.items()):
                with torch.cuda.stream(stream):
                    if next(steps, "ended") == "ended":
                        del going[directory]
    return [runs.load_run(directory) for directory in trainings]


def _report(report: Callable[[str], None], name: str, text: str) -> None:
    report(f"{name}: {text}")
