"""The command line: `negmeta study NAME`, `negmeta status NAME`, `negmeta report NAME`,
`negmeta verify`, `negmeta notebooks FOLDER`, `negmeta data` and `negmeta import FILE`.

Each command imports what it needs when it runs, so that `--help` takes no time.
"""

import argparse
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import NoReturn

import shtab

import negmeta_utils
from negmeta_utils.data.names import in_one_line, one_line
from negmeta_utils.storage import paths, strict_yaml
from negmeta_utils.studies import interruption, study_file

interruption.ignore_in_workers()  # which import this first; the rest takes them seconds

STUDY = "a study of this project, such as demo, or a path to a YAML file"
STUDY_OR_FILE = "_negmeta_study_or_file"  # a shell's function that completes these
OUT = "folder for the results (runs/NAME)"
# What may be known of an imported training; the names are those of notebook 1.
KNOWN = {
    **dict.fromkeys(("dataset", "classes", "method", "network"), str),
    **dict.fromkeys(("n_way", "n_shot", "n_query", "image_size", "n_filters"), int),
    **dict.fromkeys(("inner_steps", "n_updates", "seed"), int),
    "inner_lr": float,
}


class Parser(argparse.ArgumentParser):
    """One line for a wrong command line, where argparse prints its usage as well."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help says more\n")


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if all went well, 1 if a notebook failed, 2 if nothing could start, 130 or 141
    if interrupted or its output was closed."""
    options = _parser().parse_args(arguments)
    try:
        status = options.run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (KeyboardInterrupt, SystemExit):  # the latter of a training, by SIGTERM
        print(interruption.SAID, end="", file=sys.stderr)
        return interruption.STATUS
    except (ValueError, OSError) as error:
        of_system = isinstance(error, OSError) and error.errno is not None
        said = in_one_line(error, options.command) if of_system else error
        print(f"negmeta: {said}", file=sys.stderr)
        return 2


def _parser() -> Parser:
    summary = "Execute studies, see how far they are, report their results, and look after data."
    ending = "Relative paths are relative to the working directory."
    parser = Parser(prog="negmeta", description=summary, epilog=ending)
    parser.add_argument(
        "--version", action="version", version=f"negmeta {negmeta_utils.__version__}"
    )
    names = " ".join(sorted(p.stem for p in study_file.NOTEBOOKS.glob("studies/*.yml")))
    shtab.add_argument_to(
        parser,
        "--print-completion",
        help="print a script that completes commands in that shell",
        preamble={
            "bash": STUDY_OR_FILE + f"() {{ compgen -W '{names}' -- $1; compgen -f -- $1; }}",
            "zsh": STUDY_OR_FILE + f"() {{ compadd {names}; _files; }}",
        },
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_study(commands)
    _add_status(commands)
    _add_report(commands)
    _add_verify(commands)
    _add_notebooks(commands)
    _add_data(commands)
    _add_import(commands)
    return parser


def _add_study(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("study", help="execute a study's notebooks through papermill")
    _add_name_and_out(command)
    where = command.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, default=1, help="notebooks side by side (1)")
    where.add_argument("--scheduler", metavar="ADDRESS", help="a dask scheduler, to run them there")
    command.add_argument(
        "--set",
        dest="overrides",
        metavar="[STEP.]NAME=VALUE",
        action="append",
        default=[],
        help="override a parameter; VALUE is YAML; may be given several times",
    )
    command.add_argument(
        "--together",
        action="store_true",
        help="first train the networks side by side on one NVIDIA GPU (docs/speed.md)",
    )
    command.set_defaults(run=_study)


def _add_status(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("status", help="what of a study is done, running and to come")
    _add_name_and_out(command)
    command.set_defaults(run=_status)


def _add_report(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("report", help="write a study's results as one HTML page")
    _add_name_and_out(command)
    command.set_defaults(run=_report)


def _add_notebooks(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("notebooks", help="copy the notebooks and studies to a folder")
    folder = command.add_argument("folder", help="they go to FOLDER/notebooks")
    folder.complete = shtab.DIRECTORY
    command.set_defaults(run=_notebooks)


def _add_data(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("data", help="list, check or fetch data sets")
    actions = command.add_subparsers(dest="action", required=True)
    shown = actions.add_parser("list", help="what is known, and where it is")
    check = actions.add_parser("check", help="a report of your own data, every image read")
    path = check.add_argument("path", help="a folder, an archive, or a file of the data set")
    path.complete = shtab.FILE
    fetched = actions.add_parser("fetch", help="download a public data set")
    fetched.add_argument("name", help="mini-imagenet, cifar-fs or omniglot")
    for parser in (shown, fetched):
        place = parser.add_argument("--data-dir", help="the folder of data sets (NEGMETA_DATA)")
        place.complete = shtab.DIRECTORY
    command.set_defaults(run=_data)


def _add_import(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("import", help="make a run of another library's weights")
    command.add_argument("file", help="a .pt, .pth or .safetensors").complete = shtab.FILE
    out = command.add_argument("--out", required=True, help="folder of the run")
    out.complete = shtab.DIRECTORY
    mapping = command.add_argument(
        "--mapping", help="a YAML file that says where the file has what"
    )
    mapping.complete = shtab.FILE
    for name, kind in KNOWN.items():
        flag = f"--{name.replace('_', '-')}"
        command.add_argument(flag, type=kind, help=f"where known: {name}, as in notebook 1")
    command.set_defaults(run=_import)


def _add_name_and_out(command: argparse.ArgumentParser) -> None:
    name = command.add_argument("name", help=STUDY)
    name.complete = shtab.FILE | dict.fromkeys(("bash", "zsh"), STUDY_OR_FILE)
    command.add_argument("--out", help=OUT).complete = shtab.DIRECTORY


def _add_verify(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("verify", help="whether this machine computes the same digits")
    command.add_argument(
        "--publish", action="store_true", help="for maintainers: make those computed here the ones"
    )
    command.set_defaults(run=_verify)


def _study(options: argparse.Namespace) -> int:
    with interruption.ending_this_process():
        return _execute_study(options)


def _execute_study(options: argparse.Namespace) -> int:
    if options.workers < 1:
        raise ValueError(f"--workers {options.workers}: must be at least 1")
    path = study_file.find_study(options.name)
    overrides = [parse_override(text) for text in options.overrides]
    if twice := [t for t, n in Counter(target for target, _ in overrides).items() if n > 1]:
        raise ValueError(f"--set {twice[0]}: given twice; delete one")
    steps = study_file.read_study(path, dict(overrides))
    from negmeta_utils.studies import live, planning, scheduling, values  # torch takes seconds

    values.check_values(steps)
    out_dir = _out_dir(options, path)
    jobs = planning.plan(steps, out_dir)
    if options.scheduler is None:  # workers elsewhere may have other data
        values.check_data(job for job in jobs if not planning.is_complete(job, out_dir / job.name))
    if options.together:
        from negmeta_utils.studies import together

        together.train_jobs(jobs, out_dir, print)
    with live.shown(out_dir, [job.name for job in jobs]) as say:
        outcome = scheduling.run_study(
            jobs, out_dir, options.workers, options.scheduler, say, interruption.end
        )
    for folder in (out_dir / name for name in sorted(outcome.done + outcome.skipped)):
        if text := _found(folder):
            print(f"\n{text}\n")
    print(f"Look at the executed notebooks and figures in {out_dir}")
    notebooks = {job.name: job.notebook.name for job in jobs}
    for job, error in outcome.errors.items():
        copy = out_dir / job / notebooks[job]
        print(f"negmeta: {job} failed: {error}\n  its executed copy: {copy}", file=sys.stderr)
    return 1 if outcome.failed else 0


def _import(options: argparse.Namespace) -> int:
    from negmeta_utils.imports.importing import describe_import, import_run

    given = {name: value for name in KNOWN if (value := getattr(options, name)) is not None}
    print(describe_import(import_run(options.file, options.out, options.mapping, **given)))
    return 0


def _found(folder: Path) -> str:
    """What a job found, for a terminal: a line a claim, or its summary as it stands."""
    from negmeta_utils.studies.report_verdicts import claims_in_lines, verdicts

    if rows := verdicts([folder]):
        return "\n".join(claims_in_lines(rows))
    summary = folder / "summary.md"
    return summary.read_text(encoding="utf-8") if summary.is_file() else ""


def _status(options: argparse.Namespace) -> int:
    from negmeta_utils.studies import status

    out_dir = _out_dir(options, study_file.find_study(options.name))
    with one_line(out_dir):
        said = status.report(out_dir)
    print(said)
    return 0


def _report(options: argparse.Namespace) -> int:
    from negmeta_utils.studies import report

    path = study_file.find_study(options.name)
    out_dir = _out_dir(options, path)
    with one_line(out_dir):
        page, missing = report.write_report(path, out_dir)
    if missing:
        print(f"negmeta: not in the report, since not complete: {', '.join(missing)}")
    print(f"The report is {page}")
    return 0


def _notebooks(options: argparse.Namespace) -> int:
    print(f"Notebooks and studies are in {study_file.lay_out(Path(options.folder).absolute())}")
    return 0


def _data(options: argparse.Namespace) -> int:
    from negmeta_utils.data import cli

    return cli.run(options)


def _verify(options: argparse.Namespace) -> int:
    from negmeta_utils.studies import verify

    if options.publish:
        verify.publish()
    same = verify.verify(lambda text: print(text, flush=True))
    print(
        "A seed names the same network here as where the digits were published."
        if same
        else "A seed names another network here than where the digits were published."
    )
    return 0


def _out_dir(options: argparse.Namespace, study: Path) -> Path:
    return paths.resolve(options.out or Path("runs", study.stem)).resolve()


def parse_override(text: str) -> tuple[str, object]:
    """Target and value of a `--set TARGET=VALUE`. Raises ValueError where there is no `=`, and
    where VALUE is not YAML."""
    target, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text}: write NAME=VALUE or STEP.NAME=VALUE")
    try:
        return target, strict_yaml.load(value)
    except ValueError as error:
        raise ValueError(
            f"--set {text}: {value!r} is not YAML ({error}); close its brackets and quotes"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
