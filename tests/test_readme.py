"""Every command of the README and of `docs/` is run here, as written or with the change that `RUN`
states."""

import re
import shlex
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
import torch
import yaml
from answers import of_claims, of_single_mechanisms, verdict
from clones import copy_clone, make_says, run
from pandas import read_parquet

from negmeta_utils.evidence.contrasts import change_grids
from negmeta_utils.model import init_params
from negmeta_utils.plots.tables import in_print
from negmeta_utils.storage import paths
from negmeta_utils.studies import cli, planning, study_file

PAGES = {
    path: path.read_text()
    for path in (paths.ROOT / "README.md", *sorted((paths.ROOT / "docs").glob("*.md")))
}
README = PAGES[paths.ROOT / "README.md"]
COMMANDS = [
    line
    for page in PAGES.values()
    for block in re.findall(r"```bash\n(.*?)```", page, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return copy_clone(tmp_path_factory.mktemp("clone"))


def test_conda_installs_what_pip_does(clone):
    assert "conda env create -f environment.yml" in README
    environment = yaml.safe_load((clone / "environment.yml").read_text())
    (pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-c constraints.txt", "-e ."], "what `make` installs"


def check_make_study(command, clone, data):
    """`tests/studies/test_running.py` runs what it says first, cut down to seconds."""
    *_, verify = make_says("study", clone).splitlines()
    assert shlex.split(verify)[1:] == ["verify"]


def check_report(command, clone, data):
    """Which that file runs too."""
    assert command == make_says("study", clone).splitlines()[1]


def check_make_test(command, clone, data):
    assert " -m pytest " in make_says("test", clone).splitlines()[-1]


def check_make_lab(command, clone, data):
    said = make_says("lab", clone).strip()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*shlex.split(said), "--no-browser", "--allow-root", f"--port={port}",
         "--IdentityProvider.token=", "--ServerApp.port_retries=0"],
        cwd=clone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(240):
            try:
                address = f"http://127.0.0.1:{port}/api/contents"
                listed = urllib.request.urlopen(address, timeout=5).read().decode()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        assert "01_train.ipynb" in listed
    finally:
        server.terminate()
        server.wait(30)


def check_as_written(command, clone, data):
    result = run(command, clone)
    assert result.returncode == 0, result.stderr


def check_training(command, clone, data):
    check_as_written(f"{command} -p n_updates 4 -p n_filters 32 -p test_episodes 6", clone, data)


def check_planned(command, clone, data):
    """Too long to run: read, override and plan it, which refuses what cannot be. (`make study`
    runs one.)"""
    words = shlex.split(command)
    overrides = [word for flag, word in zip(words, words[1:], strict=False) if flag == "--set"]
    path = study_file.find_study(words[2])
    steps = study_file.read_study(path, dict(cli.parse_override(text) for text in overrides))
    assert planning.plan(steps, clone / "runs" / words[2])


def check_together(command, clone, data):
    """Where no GPU is to be seen, it says so before anything is trained."""
    result = run(command, clone, NEGMETA_DATA=str(data), CUDA_VISIBLE_DEVICES="")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert "no such CUDA device here" in result.stderr


def check_verify(command, clone, data):
    """A minute; `tests/studies/test_verify.py` runs it short."""
    assert run(f"{command} --help", clone).returncode == 0


def check_data(command, clone, data):
    result = run(command.replace("/path/to/datasets", str(data)), clone, NEGMETA_DATA=str(data))
    assert result.returncode == 0, result.stderr
    assert f"{data}/mini-imagenet" in result.stdout


def check_fetch(command, clone, data):
    """Without the network: omniglot is there already, as far as its folders tell."""
    for part, n_alphabets in (("images_background", 6), ("images_evaluation", 1)):
        for a in range(n_alphabets):
            (clone / "datasets" / "omniglot" / part / f"alphabet{a}").mkdir(parents=True)
    result = run(command.replace("/path/to/datasets", str(clone / "datasets")), clone)
    assert result.returncode == 0, result.stderr
    assert "omniglot is in" in result.stdout


def check_status(command, clone, data):
    out = clone / "runs" / "demo"
    if not (out / planning.PLAN).exists():  # where `make study` was not run before
        planning.write_plan(
            planning.plan(study_file.read_study(study_file.find_study("demo"), {}), out), out
        )
    result = run(command, clone)
    assert result.returncode == 0, result.stderr
    assert "statistics" in result.stdout


def check_benchmark(command, clone, data):
    """Too long to run; `tests/benchmarks` runs them short."""
    python, option, module = shlex.split(make_says(command.removeprefix("make "), clone))
    assert (python, option) == (".venv/bin/python", "-m")
    assert (clone / f"{module.replace('.', '/')}.py").is_file()


def check_dask(command, clone, data):
    """Runs until it is stopped (test_scheduling does that); its options are known to dask."""
    program, subcommand, *words = shlex.split(command)
    known = run(f"{program} {subcommand} --help", clone).stdout
    for option in (word for word in words if word.startswith("--")):
        assert f"{option} " in known, option


def check_import(command, clone, data):
    """Of weights as few-shot calls them."""
    params = init_params(0, 3, 32, 5, 4)
    state = {re.sub(r"^conv(\d)", r"conv\1.0", name): value for name, value in params.items()}
    state = {re.sub(r"^norm(\d)", r"conv\1.1", name): value for name, value in state.items()}
    torch.save(state, clone / "theirs.pt")
    result = run(command, clone)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("few-shot: network conv4")
    assert (clone / "runs" / "theirs" / "manifest.json").is_file()


def check_export(command, clone, data):
    assert re.fullmatch(r"export NEGMETA_DATA=\S+", command)


# beginning of a command -> how it is run
RUN = {
    "make study": check_make_study,
    "make test": check_make_test,
    "make lab": check_make_lab,
    "export NEGMETA_DATA": check_export,
    "make scaling": check_benchmark,
    "make bench": check_benchmark,
    ".venv/bin/negmeta status": check_status,
    ".venv/bin/dask": check_dask,
    "mkdir -p": check_as_written,
    ".venv/bin/papermill": check_as_written,
    ".venv/bin/papermill notebooks/01_train.ipynb": check_training,
    ".venv/bin/negmeta data list": check_data,
    ".venv/bin/negmeta data check": check_data,
    ".venv/bin/negmeta data fetch": check_fetch,
    ".venv/bin/negmeta import": check_import,
    ".venv/bin/negmeta verify": check_verify,
    ".venv/bin/negmeta study demo": check_planned,
    ".venv/bin/negmeta report demo": check_report,
    ".venv/bin/negmeta study mini-imagenet": check_planned,
    ".venv/bin/negmeta study paper": check_planned,
    ".venv/bin/negmeta study recipes": check_together,
}


def test_the_readme_has_commands():
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_works(command, clone, tiny_data):
    begins = [beginning for beginning in RUN if command.startswith(beginning)]
    assert begins, "no test runs this command; add how to RUN"
    RUN[max(begins, key=len)](command, clone, tiny_data)


@pytest.mark.parametrize(
    ("page", "table"),
    [("speed", "speed/avx2.md"), ("speed", "speed/avx512.md"), ("studies", "scaling/scaling.md")],
)
def test_a_page_shows_the_table_that_was_measured(page, table):
    measured = (paths.ROOT / "figures" / table).read_text().strip()
    assert measured in PAGES[paths.ROOT / "docs" / f"{page}.md"]


def test_the_readme_shows_the_claims_that_were_judged():
    rows = re.findall(r"^\| (\((\w)\) .*) \|$", README, re.M)
    shown = {claim: row.split(" | ") for row, claim in rows}
    over = re.compile(r" over (8 seeds|40,000 pairs of tasks)|; all signs in 0 of \d networks")
    tables = [
        of_claims(study).itertuples() for study in ("decide/statistics", "paper-84/statistics")
    ]
    for many, two in zip(*tables, strict=True):
        said, of_many, methods, of_two, networks = shown[many.claim]
        assert said == f"({many.claim}) {many.statement}: *{in_print(many.paper)}*"
        for row, measured in ((many, of_many), (two, of_two)):
            assert over.sub("", in_print(row.measured)) == measured
        assert (methods, networks) == (verdict(many, "methods"), verdict(two, "networks"))
        assert two.methods == "undecided"


def test_a_number_of_the_answer_is_one_of_the_claims_or_of_the_mechanism():
    answer = README[README.index("## The answer") : README.index("## Two commands")]
    answer = "\n".join(line for line in answer.splitlines() if not line.startswith("|"))
    studies = ("decide/statistics", "decide/statistics-best", "paper-84/statistics", "paper-28")
    measured = " ".join(text for study in studies for text in of_claims(study)["measured"])
    for contrasts in of_single_mechanisms():
        measured += " ".join(f"{n:+.2f}" for n in contrasts[["points", "low", "high"]].stack())
    measured += of_claims("decide/statistics").set_index("claim").loc["e", "paper"]
    results = PAGES[paths.ROOT / "docs" / "results.md"]  # where another test compares these
    (apart,) = re.findall(r"Where they share none .*? worse, (.*?), as in the paper", results)
    without, _ = re.findall(r"^- \*\*Without the negative rates.*$", results, re.M)  # and these
    (longest,) = re.findall(r"^## One more network of.*?^## ", results, re.M | re.S)
    (length,) = re.findall(r"^## At the paper's length over five.*?^## ", results, re.M | re.S)
    (still,) = re.findall(r"Without these 64 of 1,792 rates .*? of the eight", results)
    (margin,) = re.findall(r"level of the verdict its interval ends .*?, and", results)
    (paper,) = re.findall(r"The paper's \+0.2 % is .*? its accuracy", results)
    (best,) = re.findall(r"^- \*\*At the best validation, too.*$", results, re.M)
    variants = read_parquet(
        paths.ROOT / "figures" / "paper-84" / "mechanism" / "interventions.parquet"
    )
    grids = change_grids(variants, "variant", "off-task change").values()
    measured += " ".join(f"{grid.to_numpy().mean():+.2f}" for grid in grids)
    measured += (apart + without + longest + margin + paper + best + length + still).replace(
        "−", "-"
    )
    numbers = re.findall(r"[+−-]\d+\.\d+", answer)
    assert len(numbers) >= 25
    known = set(re.findall(r"[+-]\d+\.\d+", measured))  # whole ones: +0.1 is no part of +0.12
    for number in numbers:
        assert number.replace("−", "-") in known, number


def test_the_python_of_the_readme_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(code.splitlines()) <= 15
    exec(code, {})
    assert "glyphs-meta-sgd-0" in capsys.readouterr().out


def test_files_that_a_page_links_to_are_there():
    for page, text in PAGES.items():
        links = re.findall(r"\]\((?!https?://)([^)#]+)\)", text)
        for link in links + re.findall(r'<img src="([^"]+)"', text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
