"""What a run leaves on disk, and how it is read; `checkpoints` and `training` write it.

A run directory holds

    manifest.json           parameters as resolved, versions, device, data, commit, timings, results
    history.parquet         one row a meta-update
    rates.parquet           the learned rates by layer, along training
    every_rate.parquet      every single rate, at some of those points
    checkpoint.safetensors  everything that training needs to go on
    model.safetensors       parameters and rates at the end
    kept/*.safetensors      the same at the best validation and at chosen meta-updates
    accuracy.parquet        loss and accuracy on the test classes, one row an episode
    01_train.ipynb          the notebook as executed, where a study ran it

Every file is written to the side, synced and renamed, so a reader sees a whole file or none.
"""

import atexit
import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import pandas as pd
import torch

from negmeta_utils.data import scratch
from negmeta_utils.data.names import nearest, one_line
from negmeta_utils.networks.catalogue import NETWORKS, find, fingerprint
from negmeta_utils.networks.network import Network
from negmeta_utils.parameters import BEST, check_folders, check_value
from negmeta_utils.storage import digests
from negmeta_utils.storage.atomic import make_folder, read_json
from negmeta_utils.storage.files import read_table, read_tensors
from negmeta_utils.storage.paths import resolve

PACKAGE = Path(__file__).resolve().parent
PRETRAINED = PACKAGE / "pretrained"
SHIPPED = "figures/"  # how names of published tables begin, wherever the working directory is
# Parameters that say where a run is computed, not what: a continuation may change them.
PLACE = ("data_dir", "device", "checkpoint_every")
KEPT, END = "kept", "end"  # networks of a run besides the last, and that one
COLUMNS = {  # that the tables of notebooks 2 and 3 must have
    "features.parquet": (
        "method", "seed", "episode", "same_before", "same_after", "other_before", "other_after",
        "ordinary", "shared_classes",
    ),
    "rates.parquet": ("seed", "update", "layer", "group", "mean", "std", "share_negative", "n"),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A network of a training: the run's manifest, and parameters and rates on the CPU.

    network: "end"; or, of one kept along the way, "best" or the meta-update in digits.
    update: how many meta-updates it has seen; its tables go as far.
    """

    directory: Path
    manifest: dict
    params: dict[str, torch.Tensor]
    alpha: dict[str, torch.Tensor]
    network: str
    update: int

    def __repr__(self) -> str:
        settings = self.parameters
        return (
            f"Run({self.name}: {settings['method']} on {settings['dataset']}, seed "
            f"{settings['seed']}, after {self.update} meta-updates)"
        )

    @property
    def name(self) -> str:
        """The folder's name, with the network's behind an @ where it is not the last."""
        return self.directory.name + ("" if self.network == END else f"@{self.network}")

    @property
    def file(self) -> Path:
        """The file of parameters and rates."""
        return _model_file(self.directory, self.network)

    @property
    def parameters(self) -> dict:
        return self.manifest["parameters"]

    def history(self) -> pd.DataFrame:
        return self._until_here("history.parquet")

    def rates(self) -> pd.DataFrame:
        return self._until_here("rates.parquet").assign(network=self.network)

    def every_rate(self) -> pd.DataFrame:
        return self._until_here("every_rate.parquet")

    def final_accuracy(self) -> pd.Series:
        """One value a test episode; none without a test: of `test_episodes` 0, of an imported run,
        of a network kept along the way."""
        if not self.parameters["test_episodes"] or self.network != END:
            return pd.Series(dtype=float, name="accuracy")
        return read_table(self.file_named("accuracy.parquet"))["accuracy"]

    def file_named(self, name: str) -> Path:
        """Raises ValueError where it is not the one that the manifest lists."""
        return _listed(self.directory / name, name, self.manifest)

    def _until_here(self, name: str) -> pd.DataFrame:
        if self.manifest["status"] != "complete":
            known = update_of(self.directory)  # the checkpoint is written after the tables
            if known < self.update:
                raise ValueError(
                    f"{self.directory / name}: ends at meta-update {known}, before the network "
                    f"{self.network!r}; train on to the next checkpoint"
                )
        table = read_table(self.file_named(name))
        return table[table["update"] <= self.update]


def output_folder(path: str | None, training: bool = False) -> Path:
    """The folder a notebook writes to, made where missing; for None a temporary
    one, deleted when Python ends, or where it was killed, by the next one. training: it is to be
    that of a run.

    Raises ValueError for a path that is no text and for the folder of a run, whose tables others
    of the same names would replace; OSError for one that cannot be written to.
    """
    check_value("out_dir", path, Optional[str])
    if path is None:
        until_the_end = ExitStack()
        atexit.register(until_the_end.close)
        return until_the_end.enter_context(scratch.temporary())
    folder = resolve(path)
    if not training and (folder / "manifest.json").exists():
        raise ValueError(f"out_dir={path!r}: the folder of a run; choose another folder")
    make_folder(folder)
    return folder


def read_tables(folders: list[str], name: str) -> pd.DataFrame:
    """The tables `name` of several folders or shipped runs, one below the other.

    Raises FileNotFoundError, and ValueError for a file that is no table, lacks `COLUMNS` or holds
    several networks of one training, and for two folders with trainings of one method and seed.
    """
    check_folders(Path(name).stem, folders)
    tables: list[pd.DataFrame] = []
    trainings = []
    for path in (directory_of(folder) / name for folder in folders):
        tables.append(read_table(path))
        missing = set(COLUMNS.get(name, ())) - set(tables[-1])
        if missing:
            raise ValueError(
                f"{path}: no column {sorted(missing)[0]!r}; name a folder that notebook 2 or 3 "
                "wrote"
            )
        training = [key for key in ("method", "seed") if key in tables[-1]]
        if "network" in tables[-1] and tables[-1].groupby(training)["network"].nunique().max() > 1:
            raise ValueError(
                f"{path}: of several networks of one training; name a folder where notebook 2 or 3 "
                "was given one of each"
            )
        if training:
            of_each = tables[-1][training].drop_duplicates().to_dict("records")
            trainings += [(" ".join(f"{k} {v}" for k, v in of.items()), path) for of in of_each]
    check_in_one_place(trainings)
    return pd.concat(tables, ignore_index=True)


def check_in_one_place(found: Iterable[tuple[str, Path]]) -> None:
    """Raise ValueError for a training, in words, that is in two places."""
    seen: dict[str, Path] = {}
    for what, place in found:
        if seen.setdefault(what, place) != place:
            raise ValueError(f"{place}: {what}, as in {seen[what]}; name one of them")


def directory_of(name: str | Path) -> Path:
    """The folder of the shipped run of that name; of published tables and networks, as in
    "figures/demo", where there is no such folder here; else what `resolve` makes of it."""
    if str(name) in shipped_runs():
        return PRETRAINED / name
    folder, published = resolve(name), PACKAGE / name
    known = str(name).startswith(SHIPPED) and published.is_dir()
    return published if known and not folder.exists() else folder


def load_runs(names: list[str], several: bool = False, parameter: str = "runs") -> list[Run]:
    """Finished runs, as `load_run`. Raises ValueError, naming the `parameter`, for what is no list
    and for an empty one, and unless `several` for several networks of one training."""
    check_folders(parameter, names)
    trained = [load_run(name) for name in names]
    if not several:
        check_one_network_each(trained)
    return trained


def network_of(run: Run) -> Network:
    """The network of a finished run.

    Raises ValueError as `catalogue.find`, for a file that has changed since, and for weights that
    were imported for a network that this version calls otherwise.
    """
    name = run.parameters.get("network", "conv4")
    own = run.manifest.get("network")
    if own is None and "imported" in run.manifest and name not in NETWORKS:
        raise ValueError(
            f"{run.directory}: imported as {name}, which this version has not; import "
            f"{run.manifest['imported']['file']} again, into another folder"
        )
    if own is None:
        return find(name)
    if fingerprint(name) != own["sha256"]:
        raise ValueError(
            f"{run.directory}: trained with another {name} than is there now; restore that file"
        )
    sizes = {size: run.parameters[size] for size in ("image_size", "n_way", "n_filters")}
    return find(name, channels=own["channels"], **sizes)


def settings(trained: list[Run], *names: str) -> pd.DataFrame:
    """Parameters of runs by name, and `network` and `update` as of `Run`; one row a run."""
    rows = [run.parameters | {"network": run.network, "update": run.update} for run in trained]
    return pd.DataFrame(rows)[list(names)]


def check_one_network_each(trained: list[Run]) -> None:
    """Raise ValueError for several networks of one training, which would count as several seeds."""
    named = {}
    for run in trained:
        if (other := named.setdefault(run.directory, run)) is not run:
            raise ValueError(
                f"runs: {other.name} and {run.name} are of one training; name one network of each "
                "training, and the other ones in another execution"
            )


def load_run(name: str | Path) -> Run:
    """A finished run, by directory or by the name of one that comes with the package; with
    @best or @20000 behind it, the network at its best validation or after so many meta-updates;
    the latter also of an unfinished run.

    Raises FileNotFoundError for a directory without a finished run and for a network that was not
    kept, ValueError for files that do not hold one.
    """
    place, network = split_name(str(name))
    directory = directory_of(place)
    with one_line(directory / "manifest.json"):
        return _load(directory, network)


def _load(directory: Path, network: str) -> Run:
    path = directory / "manifest.json"
    manifest = read_json(path) if path.is_file() else {}
    if manifest.get("status") != "complete" and not (manifest and network.isdigit()):
        why = "it has begun, but not ended" if manifest else "no manifest.json"
        beside = [found.parent.name for found in directory.parent.glob("*/manifest.json")]
        raise FileNotFoundError(
            f"{directory}: no finished run there ({why}){nearest(directory.name, beside)}; train "
            f"one with 01_train.ipynb, or name a shipped one: {', '.join(shipped_runs())}"
        )
    path = _model_file(directory, network)
    if not path.is_file():
        if network == END:
            raise FileNotFoundError(
                f"{path}: not there; restore it from a copy, or train again in another folder"
            )
        raise FileNotFoundError(
            f"{directory}: no network {network!r} there; it has {', '.join(kept(directory))}"
        )
    tensors, metadata = read_tensors(_listed(path, str(path.relative_to(directory)), manifest))
    update = metadata.get("update", manifest["parameters"]["n_updates"])
    return Run(directory, manifest, tensors["params"], tensors["alpha"], network, update)


def split_name(name: str) -> tuple[str, str]:
    """A run's name without its network, and the network: "end" where none is named."""
    found = re.fullmatch(rf"(.+)@({BEST}|\d+)", name)
    return (found[1], found[2]) if found else (name, END)


def update_of(directory: Path) -> int:
    """The meta-update of the checkpoint in `directory`; 0 where there is none."""
    path = directory / "checkpoint.safetensors"
    return read_tensors(path)[1].get("update", 0) if path.exists() else 0


def check_no_network(directory: Path) -> None:
    """Raise ValueError for a folder that is called as a network of a run is: none could load it."""
    if split_name(str(directory))[1] != END:
        raise ValueError(f"{directory}: what follows an @ names a network of a run; choose another")


def kept(directory: Path) -> list[str]:
    """The networks of a run: those kept along the way in their order, "best" and "end" last."""
    names = [path.stem for path in (directory / KEPT).glob("[!.]*.safetensors")]
    return [*sorted(names, key=lambda n: (n == BEST, n.zfill(20))), END]


def content_of(name: str) -> list[str]:
    """What tells a run, or a folder of tables, wherever it lies: the network that is named, and the
    digest of the manifest, which lists those of the files, or of each table where there is none.
    Nothing where nothing is there."""
    place, network = split_name(name)
    folder = directory_of(place)
    files = list(folder.glob("manifest.json")) or sorted(folder.glob("[!.]*.parquet"))
    return [network, *map(digests.check, files)] if files else []


def file_digests(directory: Path) -> dict[str, str]:
    """Of the tables and networks of a run that has ended, by path: its manifest lists them."""
    networks = [_model_file(directory, network) for network in kept(directory)]
    files = sorted([*directory.glob("[!.]*.parquet"), *networks])
    return {str(path.relative_to(directory)): digests.check(path) for path in files}


def _listed(path: Path, name: str, manifest: dict) -> Path:
    """`path`. Raises ValueError where the run's manifest lists another file of that name."""
    digest = manifest.get("files", {}).get(name)
    if digest and path.is_file() and digests.check(path) != digest:
        raise ValueError(
            f"{path}: not the file that manifest.json beside it lists; restore it from a copy, or "
            "train again in another folder"
        )
    return path


def _model_file(directory: Path, network: str) -> Path:
    return directory / ("model.safetensors" if network == END else f"{KEPT}/{network}.safetensors")


def shipped_runs() -> list[str]:
    """Names of the runs that come with the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/manifest.json"))
