"""The runs that come with the package."""

import pandas as pd

from negmeta_utils import runs
from negmeta_utils.runs import END, Run, load_run, shipped_runs
from negmeta_utils.storage.files import read_table

EVAL_SEED = 0  # of the pairs of tasks in the shipped tables
LISTED = ("method", "dataset", "seed", "n_updates", "n_filters", "image_size")


def load_pretrained(method: str, dataset: str, seed: int = 0) -> Run:
    """The shipped run of that method, data set and training seed. Raises ValueError where there
    is none."""
    name = f"{dataset}-{method}-{seed}"
    if name not in shipped_runs():
        raise ValueError(f"{name}: no such shipped run; there are {', '.join(shipped_runs())}")
    return load_run(name)


def list_pretrained() -> pd.DataFrame:
    """One row a shipped run: name, method, dataset, seed, n_updates, n_filters, image_size (in
    pixels), test_accuracy (0..1) and size_mb (of all its files). Notebooks take the names."""
    records = []
    for name in shipped_runs():
        run = load_run(name)
        size = sum(file.stat().st_size for file in run.directory.rglob("*.*"))
        records.append(
            {
                "name": name,
                **{key: run.parameters[key] for key in LISTED},
                "test_accuracy": run.manifest["results"]["test_accuracy"],
                "size_mb": size / 1e6,
            }
        )
    return pd.DataFrame(records)


def shipped_features(run: Run, eval_seed: int) -> pd.DataFrame | None:
    """The table of `evaluation.evaluate_features` that comes with a shipped run; None where there
    is none, or it is of other pairs of tasks."""
    path = run.file_named("features.parquet")
    known = run.directory.parent == runs.PRETRAINED and run.network == END
    if not known or eval_seed != EVAL_SEED or not path.is_file():
        return None
    return read_table(path)
