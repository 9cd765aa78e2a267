"""The command line: `negmeta study NAME`."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

import yaml

from negmeta_utils import guards, runs, study


class Parser(argparse.ArgumentParser):
    """One line for a wrong command line, where argparse prints its usage as well."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help says more\n")


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if all went well, 1 if a notebook failed, 2 if nothing could start."""
    parser = Parser(prog="negmeta", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("study", help="execute a study's notebooks through papermill")
    command.add_argument("name", help="demo, mini-imagenet, paper, or a path to a YAML file")
    command.add_argument("--out", help="folder for the results (runs/NAME in the clone)")
    command.add_argument("--workers", type=int, default=1, help="notebooks side by side (1)")
    command.add_argument(
        "--set",
        dest="overrides",
        metavar="[STEP.]NAME=VALUE",
        action="append",
        default=[],
        help="override a parameter; VALUE is YAML; may be given several times",
    )
    options = parser.parse_args(arguments)
    try:
        return _study(options)
    except (ValueError, OSError) as error:
        print(f"negmeta: {error}", file=sys.stderr)
        return 2


def _study(options: argparse.Namespace) -> int:
    if options.workers < 1:
        raise ValueError(f"--workers {options.workers}: must be at least 1")
    path = study.find_study(options.name)
    steps = study.read_study(path, dict(parse_override(text) for text in options.overrides))
    out_dir = Path(options.out).resolve() if options.out else runs.ROOT / "runs" / path.stem
    jobs = study.plan(steps, out_dir)
    guards.make_folder(out_dir)
    outcome = study.run_study(jobs, out_dir, options.workers, lambda text: print(text, flush=True))
    for summary in sorted(out_dir.glob("*/summary.md")):
        if summary.parent.name in outcome.done + outcome.skipped:
            print(f"\n{summary.read_text()}")
    print(f"Look at the executed notebooks and figures in {out_dir}")
    notebooks = {job.name: job.notebook.name for job in jobs}
    for job, error in outcome.errors.items():
        copy = out_dir / job / notebooks[job]
        print(f"negmeta: {job} failed: {error}\n  its executed copy: {copy}", file=sys.stderr)
    return 1 if outcome.failed else 0


def parse_override(text: str) -> tuple[str, object]:
    """Target and value of a `--set TARGET=VALUE`. Raises ValueError where there is no `=`, and
    where VALUE is not YAML."""
    target, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text}: write NAME=VALUE or STEP.NAME=VALUE")
    try:
        return target, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(
            f"--set {text}: {value!r} is not YAML; close its brackets and quotes"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
