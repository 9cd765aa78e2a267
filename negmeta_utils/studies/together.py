"""The trainings of a study on one NVIDIA GPU, those that are alike side by side."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from negmeta_utils.checkpoints import is_at_its_end
from negmeta_utils.config import TrainConfig
from negmeta_utils.engine.device import resolve_device
from negmeta_utils.runs import update_of
from negmeta_utils.storage import atomic
from negmeta_utils.studies.planning import Job, is_complete
from negmeta_utils.studies.values import TRAINING, notebook_defaults

NOTEBOOK = "01_train"


def train_jobs(jobs: list[Job], out_dir: Path, say: Callable[[str], None]) -> None:
    """Train every network of `jobs` to its last meta-update, those that are alike and as far
    side by side, in the folder where its notebook will look for it and go on: to the accuracy on
    the test classes. Where the kernels fail on this GPU, `say` is told, and the notebooks train
    them.

    Raises ValueError where there is no such GPU, or a network that cannot be trained so.
    """
    resolve_device("cuda")
    # Triton comes with PyTorch for such a GPU alone, so nothing else imports this.
    from negmeta_utils.gpu.training import ALIKE, train_together
    from negmeta_utils.training import load_splits

    waiting = []
    for job in jobs:
        folder = out_dir / job.name
        if job.notebook.stem == NOTEBOOK and not is_complete(job, folder):
            config, manifest = _config(job), folder / "manifest.json"
            found = atomic.read_json(manifest) if manifest.exists() else None
            if not is_at_its_end(found, config.n_updates):
                waiting.append((config, folder))

    def shape(pair: tuple[TrainConfig, Path]) -> tuple:
        config, folder = pair
        return *(str(getattr(config, name)) for name in ALIKE), update_of(folder)

    for _, alike in groupby(sorted(waiting, key=shape), shape):
        configs, folders = zip(*alike, strict=True)
        splits = load_splits(configs[0])[1]
        resolved = [config.resolved(splits["train"]) for config in configs]
        say(f"{len(configs)} networks side by side: {', '.join(f.name for f in folders)}")
        try:
            fault = train_together(resolved, list(folders), splits, say)
        except (FloatingPointError, MemoryError) as error:  # the others and the notebooks go on
            fault = str(error)
        if fault:
            say(f"not side by side: {fault}; each trains by itself")


def _config(job: Job) -> TrainConfig:
    """Of the notebook, which has defaults of its own."""
    settings = notebook_defaults(job.notebook) | job.parameters | {"device": "cuda"}
    return TrainConfig(**{name: settings[name] for name in TRAINING if name in settings})
