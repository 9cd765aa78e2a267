"""Bad parameters of notebooks and bad run directories: cases for `test_bad_input`."""

import contextlib
import functools
import shutil
import tempfile
from pathlib import Path

import pandas as pd
from hostile import Case

from negmeta_utils import runs
from negmeta_utils.config import TrainConfig
from negmeta_utils.storage import atomic, files
from negmeta_utils.studies import study_file
from negmeta_utils.training import train

SMALL = {
    "n_filters": 32, "n_updates": 2, "n_way": 2, "n_query": 2, "val_every": 2, "val_episodes": 2,
    "test_episodes": 0,
}  # fmt: skip
HELD = contextlib.ExitStack()  # to the end of this process


def notebook(name, prepare=lambda folder: {}, options=()):
    """`prepare` of a case: notebook `name` with the parameters that `prepare` returns."""

    def prepared(folder):
        given = [word for n, v in prepare(folder).items() for word in ("-p", n, str(v))]
        paths = [study_file.NOTEBOOKS / f"{name}.ipynb", folder / "executed.ipynb"]
        return [*map(str, paths), *given, *options]

    return prepared


def training(**values):
    return notebook("01_train", lambda folder: {**SMALL, "out_dir": folder / "run", **values})


@functools.cache
def trained_once():
    folder = Path(HELD.enter_context(tempfile.TemporaryDirectory()), "run")
    train(TrainConfig(dataset="glyphs", checkpoint_every=1, **SMALL), folder)
    (folder / "model.safetensors").unlink()
    return folder


def trained(folder):
    """A finished run in `folder`/run, and the parameters to call notebook 1 with for the same."""
    shutil.copytree(trained_once(), folder / "run")
    return {**SMALL, "checkpoint_every": 1, "out_dir": folder / "run"}


def unfinished(folder):
    """The same, as it is after a crash."""
    given = trained(folder)
    path = folder / "run" / "manifest.json"
    atomic.write_json(path, {**atomic.read_json(path), "status": "running"})
    return given


def with_checkpoint(spoil):
    def prepare(folder):
        given = unfinished(folder)
        spoil(folder / "run" / "checkpoint.safetensors")
        return given

    return notebook("01_train", prepare)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def of_another_network(path):
    groups, metadata = files.read_tensors(path)
    metadata["run"]["parameters"]["n_filters"] = 64
    files.write_tensors(path, groups, metadata)


def of_other_images(path):
    groups, metadata = files.read_tensors(path)
    metadata["run"]["data"]["val"]["fingerprint"] = "other"
    files.write_tensors(path, groups, metadata)


def shipped_copy(folder, **changed):
    """A run that comes with the package, with other parameters in its manifest."""
    copy = folder / "copy"
    shutil.copytree(runs.PRETRAINED / "glyphs-maml-0", copy)
    manifest = atomic.read_json(copy / "manifest.json")
    manifest["parameters"].update(changed)
    atomic.write_json(copy / "manifest.json", manifest)
    return copy


def with_runs(name, folders):
    """`prepare` of notebook `name` with a list of runs."""

    def prepare(folder):
        listed = ", ".join(map(str, folders(folder)))
        return [*notebook(name)(folder), "-y", f"{{runs: [{listed}], out_dir: {folder / 'out'}}}"]

    return prepare


def spoilt_manifest(folder):
    copy = shipped_copy(folder)
    (copy / "manifest.json").write_text("{")
    return [copy]


def without_columns(folder):
    (folder / "features").mkdir()
    table = pd.DataFrame({"method": ["maml"], "seed": [0]})
    files.write_table(folder / "features/features.parquet", table)
    return [*notebook("04_statistics")(folder), "-y", f"features: ['{folder / 'features'}']"]


def in_the_way(folder):
    (folder / "run").write_text("a file")
    return {**SMALL, "out_dir": folder / "run"}


def held(folder):
    (folder / "run").mkdir()
    HELD.enter_context(atomic.sole_user(folder / "run"))
    return {**SMALL, "out_dir": folder / "run"}


def spoilt(file):
    """`prepare` of a case: a finished run whose `file` is an empty JSON object."""

    def prepare(folder):
        given = trained(folder)
        atomic.write_json(folder / "run" / file, {})
        return given

    return prepare


def of_two_data_sets(folder):
    return ["glyphs-maml-0", shipped_copy(folder, dataset="omniglot")]


def one_run(folder):
    return {"runs": "glyphs-maml-0", "out_dir": folder / "out"}


def with_one(name, **value):
    """`prepare` of a case: notebook `name` with one bad value."""
    return notebook(name, lambda folder: {"out_dir": folder / "out", **value})


TRAIN, ALPHA, FEATURES = "01_train", "02_alpha_distribution", "03_feature_adaptation"
EXPLORE, THEORY = "00_explore", "09_linear_theory"
CASES = [
    Case(name, "papermill", prepare, words)
    for name, prepare, words in [
        ("an unknown parameter", training(n_upd=3), ("n_upd:", "n_updates")),
        ("text for a number", training(n_updates="many"), ("n_updates='many'", "whole number")),
        ("a fraction of a class", training(n_way=2.5), ("n_way=2.5: must be a whole number",)),
        ("a rate that is no number", training(outer_lr="nan"), ("outer_lr=nan", "positive")),
        ("a truth for a number", training(inner_steps=True), ("inner_steps=True", "whole number")),
        ("no inner step", training(inner_steps=0), ("inner_steps=0: must be at least 1",)),
        ("an image too small", training(image_size=8), ("image_size=8", "raise it")),
        ("more ways than classes", training(n_way=999), ("n_way=999", "classes; lower n_way")),
        ("too few images", training(n_query=50), ("n_shot + n_query = 51", "lower n_shot")),
        ("an unknown method", training(method="sgd"), ("method='sgd'", "meta-sgd")),
        (
            "rates drawn for MAML",
            training(method="maml", alpha_init="uniform"),
            ("alpha_init='uniform'", "learns"),
        ),
        ("an absent GPU", training(device="cuda:99"), ("device='cuda:99'", "'cpu'")),
        ("a file for a folder", notebook(TRAIN, in_the_way), ("run: cannot be written to",)),
        ("a folder in use", notebook(TRAIN, held), ("run: in use by another process", "wait")),
        (
            "a run of another configuration",
            notebook(TRAIN, lambda folder: {**trained(folder), "n_filters": 5}),
            ("manifest.json", "n_filters=32, not 5", "choose another folder"),
        ),
        (
            "a manifest of nothing",
            notebook(TRAIN, spoilt("manifest.json")),
            ("manifest.json", "dataset=None, not 'glyphs'"),
        ),
        ("a checkpoint cut short", with_checkpoint(cut), ("checkpoint.safetensors", "delete it")),
        (
            "a checkpoint of another network",
            with_checkpoint(of_another_network),
            ("checkpoint.safetensors", "n_filters=64, not 32"),
        ),
        (
            "a checkpoint of other images",
            with_checkpoint(of_other_images),
            ("checkpoint.safetensors", "other images"),
        ),
        (
            "a model for a checkpoint",
            with_checkpoint(lambda path: files.write_tensors(path, {"params": {}}, {})),
            ("checkpoint.safetensors", "not the checkpoint of a training"),
        ),
        (
            "a history that is gone",
            with_checkpoint(lambda path: path.with_name("history.parquet").unlink()),
            ("history.parquet", "no such table"),
        ),
        (
            "a run that is not finished",
            with_runs(FEATURES, lambda folder: [unfinished(folder)["out_dir"]]),
            ("no finished run there", "begun, but not ended"),
        ),
        (
            "a run that is not there",
            with_runs(ALPHA, lambda folder: [folder / "none"]),
            ("none: no finished run there", "glyphs-meta-sgd-0"),
        ),
        (
            "a run without learned rates",
            with_runs(ALPHA, lambda folder: ["glyphs-maml-0"]),
            ("a run of maml", "name one of meta-sgd"),
        ),
        (
            "a manifest that is not JSON",
            with_runs(ALPHA, spoilt_manifest),
            ("manifest.json: not a whole file",),
        ),
        ("no runs at all", with_runs(ALPHA, lambda folder: []), ("runs=[]", "a list of folders")),
        (
            "one run where a list should be",
            notebook(ALPHA, one_run),
            ("runs='glyphs-maml-0': must be a list of folders",),
        ),
        (
            "runs of two data sets",
            with_runs(FEATURES, of_two_data_sets),
            ("dataset='omniglot', but 'glyphs'", "of one data set"),
        ),
        ("no episodes", with_one(FEATURES, n_episodes=0), ("n_episodes=0: must be at least 1",)),
        ("nothing to explore", with_one(EXPLORE, n_episodes=0), ("n_episodes=0: must be at",)),
        ("steps below none", with_one(EXPLORE, n_steps=-1), ("n_steps=-1: must be at least 0",)),
        ("no runs to explore", with_runs(EXPLORE, lambda folder: []), ("runs=[]", "a list of")),
        ("no repetitions", with_one(THEORY, n_repetitions=0), ("n_repetitions=0: must be at",)),
        ("no learners", with_one(THEORY, n_learners=0), ("n_learners=0: must be at least 1",)),
        ("a seed below 0", with_one(THEORY, seed=-1), ("seed=-1: must be at least 0",)),
        (
            "a correlation that none can have",
            with_one(THEORY, correlation=2.0),
            ("correlation=2.0: must be at least 0 and below 1",),
        ),
        (
            "features without their columns",
            without_columns,
            ("features.parquet: no column 'episode'",),
        ),
    ]
]
ABSENT_KERNEL = Case(
    "an absent kernel",
    "papermill",
    notebook(TRAIN, options=["-k", "absent"]),
    ("No such kernel named absent",),
)
