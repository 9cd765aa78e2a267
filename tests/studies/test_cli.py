"""The command line itself; what its commands do is tested where that is."""

import subprocess
import sys

import pytest

import negmeta_utils
from negmeta_utils.studies import cli

HEAVY = {"torch", "pandas", "papermill", "distributed", "matplotlib", "nbconvert"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"], ["--version"], ["study", "--help"], ["study"], ["study", "demmo"],
        ["data", "list"],
    ],
)  # fmt: skip
def test_what_runs_nothing_imports_nothing_heavy(arguments):
    script = (
        "import sys\n"
        "from negmeta_utils.studies import cli\n"
        "try:\n"
        f"    cli.main({arguments})\n"
        "finally:\n"
        "    print('imported', *sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    (listed,) = [line for line in done.stderr.splitlines() if line.startswith("imported")]
    assert "negmeta_utils.studies.cli" in listed.split()
    assert not HEAVY & set(listed.split())


def test_the_package_run_as_a_program_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "negmeta_utils", "--version"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == f"negmeta {negmeta_utils.__version__}\n"


def test_help_says_what_there_is_and_where_files_go(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    for word in ("study", "status", "report", "notebooks", "data", "--version"):
        assert word in shown
    assert "relative to the working directory" in " ".join(shown.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_the_commands(shell, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--print-completion", shell])
    assert stopped.value.code == 0
    script = capsys.readouterr().out
    for word in ("study", "status", "report", "notebooks", "data", "workers", "scheduler"):
        assert word in script


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("stu", ["study"]),
        ("study de", ["decide", "demo", "details.yml"]),
        ("report ques", ["questions"]),
    ],
)
def test_bash_completes_commands_and_studies(words, completed, tmp_path):
    (tmp_path / "details.yml").touch()
    script = (
        f"source <({sys.executable} -m negmeta_utils --print-completion bash)\n"
        f"COMP_WORDS=(negmeta {words}); COMP_CWORD={len(words.split())}; _shtab_negmeta\n"
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == completed
