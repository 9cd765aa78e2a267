"""A study's trainings and evaluation on a machine that one has for minutes at a time and that
keeps nothing: `python -m negmeta_utils.pieces`.

    pack STUDY FOLDER     here: the plan and the images, in archives small enough to send
    run FOLDER            there: as much as fits into --seconds; leaves archives of what it has
    unpack FOLDER         here: their content into the study's folder, for `negmeta study`

FOLDER travels, or what is in it does, in as many goes as it takes: `plan.json`, `data-*.zip` and,
from the second piece on, the `state-*.zip` that the last one left. `run` needs no papermill; it
trains all runs of the plan side by side, then evaluates them, and exits with 0 when everything is
done and with 3 when there is more to do.
"""

import argparse
import sys
import time
import zipfile
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from negmeta_utils import features, guards, runs
from negmeta_utils.config import TrainConfig
from negmeta_utils.evaluation import evaluate_resumably
from negmeta_utils.side_by_side import train_side_by_side

DATA_BYTES = 60 * 2**20  # of an archive that is sent
STATE_BYTES = 15 * 2**20  # of one that comes back
MORE_TO_DO = 3


def pack(name: str, overrides: dict[str, object], data: Path | None, folder: Path) -> None:
    """Write the plan of a study, and archives of all files below `data` if given."""
    from negmeta_utils import study  # needs papermill, which the other machine may lack

    steps = study.read_study(study.find_study(name), overrides)
    study.write_plan(study.plan(steps, folder), folder)
    if data is not None:
        write_archives(
            data, (p for p in data.rglob("*") if p.is_file()), folder, "data", DATA_BYTES
        )


def run(folder: Path, work: Path, out: Path, seconds: float) -> bool:
    """Go on with the plan in `folder` for so many seconds, in `work`; archives of the state go to
    `out`. Returns whether everything is done."""
    deadline = time.monotonic() + seconds
    read_archives(folder, "data", work / "data")
    read_archives(folder, "state", work / "state")
    jobs = runs.read_json(folder / "plan.json")["jobs"]
    state = work / "state"
    data_dir = str(work / "data") if any(folder.glob("data-*.zip")) else None
    trainings = {state / job["name"]: _config(job, data_dir) for job in _jobs_of(jobs, "01_train")}
    try:
        trained = train_side_by_side(trainings, say, deadline)
        done = all(
            [_evaluate(job, trained, state, data_dir, deadline) for job in _jobs_of(jobs, "03_")]
        )
    except SystemExit as stopped:
        say(str(stopped))
        done = False
    left = (p for p in state.rglob("*") if p.is_file() and p.suffix != ".lock")
    write_archives(state, left, out, "state", STATE_BYTES)
    return done


def unpack(folder: Path, out: Path) -> None:
    """The content of the state's archives, for `negmeta study` to take up."""
    read_archives(folder, "state", out)


def write_archives(
    root: Path, files: Iterable[Path], folder: Path, name: str, limit: int
) -> list[Path]:
    """`files` below `root` in `folder` as NAME-0.zip, NAME-1.zip, ... of at most `limit` bytes.

    Raises ValueError for a file that is larger by itself.
    """
    guards.make_folder(folder)
    groups, size = [[]], 0
    for path in sorted(files):
        taken = path.stat().st_size + 2 * len(str(path)) + 200  # with what a zip says of a file
        if taken > limit:
            raise ValueError(f"{path}: larger than an archive may be ({limit} bytes); leave it out")
        if size + taken > limit:
            groups.append([])
            size = 0
        groups[-1].append(path)
        size += taken
    archives = []
    for number, group in enumerate(groups):
        archives.append(folder / f"{name}-{number}.zip")
        with guards.replacing(archives[-1]) as temporary, zipfile.ZipFile(temporary, "w") as file:
            for path in group:
                file.write(path, path.relative_to(root))
    return archives


def read_archives(folder: Path, name: str, to: Path) -> None:
    """Extract NAME-*.zip below `to`. (`zipfile` keeps names from leading elsewhere.)"""
    guards.make_folder(to)
    for archive in sorted(folder.glob(f"{name}-*.zip")):
        with zipfile.ZipFile(archive) as file:
            file.extractall(to)


def say(text: str) -> None:
    print(text, flush=True)


def _jobs_of(jobs: list[dict], notebook: str) -> list[dict]:
    return [job for job in jobs if Path(job["notebook"]).name.startswith(notebook)]


def _config(job: dict, data_dir: str | None) -> TrainConfig:
    names = {field.name for field in fields(TrainConfig)}
    given = {name: value for name, value in job["parameters"].items() if name in names}
    if data_dir:
        given["data_dir"] = data_dir
    return TrainConfig(**given)


def _evaluate(
    job: dict, trained: list[runs.Run], state: Path, data_dir: str | None, deadline: float
) -> bool:
    """Whether all of the job's episodes are evaluated."""
    wanted = {Path(path).name for path in job["parameters"]["runs"]}
    trained = [run for run in trained if run.directory.name in wanted]
    device = runs.resolve_device("auto")
    images = features.test_images(trained, data_dir).to(device)
    n_episodes = job["parameters"]["n_episodes"]
    folder = state / job["name"]
    guards.make_folder(folder)
    done = True
    for run_ in trained:
        seed = job["parameters"].get("eval_seed", 0)
        table = evaluate_resumably(run_, images, n_episodes, seed, folder, deadline=deadline)
        say(f"{run_.directory.name}: {len(table)} of {n_episodes} episodes evaluated")
        done = done and len(table) == n_episodes
    return done


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m negmeta_utils.pieces", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("pack")
    command.add_argument("study")
    command.add_argument("folder", type=Path)
    command.add_argument("--data", type=Path, help="folder whose files to send as archives")
    command.add_argument(
        "--set", dest="overrides", metavar="[STEP.]NAME=VALUE", action="append", default=[]
    )
    command = commands.add_parser("run")
    command.add_argument("folder", type=Path)
    command.add_argument("--work", type=Path, required=True, help="folder to work in, there")
    command.add_argument("--out", type=Path, required=True, help="for the archives that come back")
    command.add_argument("--seconds", type=float, default=540)
    command = commands.add_parser("unpack")
    command.add_argument("folder", type=Path)
    command.add_argument("--out", type=Path, required=True, help="the study's folder")
    options = parser.parse_args(arguments)
    if options.command == "pack":
        from negmeta_utils.cli import parse_override  # needs papermill, as `pack` does

        overrides = dict(parse_override(text) for text in options.overrides)
        pack(options.study, overrides, options.data, options.folder)
    elif options.command == "unpack":
        unpack(options.folder, options.out)
    else:
        done = run(options.folder, options.work, options.out, options.seconds)
        say(
            "all is done" if done else "there is more to do: bring the archives back, and run again"
        )
        return 0 if done else MORE_TO_DO
    return 0


if __name__ == "__main__":
    sys.exit(main())
