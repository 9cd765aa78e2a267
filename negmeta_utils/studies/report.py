"""A study as one HTML page: verdicts, answers, figures, tables and where they come from.

The page knows no notebook by name. It takes what a complete job left in its folder:

    claims.csv      verdicts, one row a claim: claim, statement, networks, methods, ...
    summary.md      the answer in words, where there are no claims
    *.png, *.svg    figures; their captions are the text above the cell that saves them
    *.csv           tables; those in *.parquet are named with their size
    manifest.json   the provenance of a training
    NAME.ipynb      the executed notebook, exported beside the page
"""

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
import pyarrow.parquet
from jinja2 import Environment
from markupsafe import Markup

from negmeta_utils import runs
from negmeta_utils.plots import paper, style
from negmeta_utils.storage import atomic, files
from negmeta_utils.studies import harmless_html, planning
from negmeta_utils.studies.report_figures import drawn, from_markdown, plots
from negmeta_utils.studies.report_scope import scope
from negmeta_utils.studies.report_tables import SPECIAL, readable, title_of
from negmeta_utils.studies.report_verdicts import verdicts

TEMPLATE = Path(__file__).with_name("report.html.j2")
NOTEBOOK_PAGES = "report-notebooks"
FIRST = ("feature_changes", "figure6")  # the two figures that the page begins with


@dataclass(frozen=True)
class Job:
    """A complete job: its folder, its `job.json`, its manifest if it trained, its notebook."""

    folder: Path
    record: dict
    manifest: dict
    notebook: nbformat.NotebookNode

    @property
    def name(self) -> str:
        return self.folder.name


def write_report(study_file: Path, folder: Path) -> tuple[Path, list[str]]:
    """Write `folder`/report.html and the notebooks' pages beside it; the page's path, and the
    names of jobs and steps that are not in it because they are not complete.

    Raises FileNotFoundError where no study was started or nothing is complete yet.
    """
    name = study_file.stem
    jobs, missing = complete_jobs(folder)
    if not jobs:
        raise FileNotFoundError(f"{folder}: nothing complete yet; run `negmeta study {name}` first")
    pages = folder / NOTEBOOK_PAGES
    pages.mkdir(exist_ok=True)
    for job in jobs:
        write_text(pages / f"{job.name}.html", notebook_page(job))
    notebooks = [notebook_section(group, jobs) for group in by_notebook(jobs)]
    page = render(
        study=name,
        scope=scope([job.manifest for job in jobs if job.manifest]),
        verdicts=verdicts([job.folder for job in jobs]),
        answers=answers(jobs),
        first=first(notebooks),
        notebooks=notebooks,
        jobs=jobs,
        environment=environments_of(jobs),
        data=data_sets(jobs),
        times=times(jobs),
        seconds=sum(job.record["seconds"] for job in jobs),
        missing=missing,
        pages=NOTEBOOK_PAGES,
    )
    write_text(folder / "report.html", page)
    return folder / "report.html", missing


def complete_jobs(folder: Path) -> tuple[list[Job], list[str]]:
    """The jobs of the study's plan that ran to their end, in the order of their notebooks, and the
    names of the others; a step of which no job is complete is named in place of its jobs."""
    jobs, missing, begun = [], [], set()
    planned = planning.read_plan(folder)
    for job in planned:
        path = folder / job.name
        if not planning.is_complete(job, path):
            missing.append(job)
            continue
        begun.add(job.step)
        manifest = path / "manifest.json"
        known = atomic.read_json(manifest) if manifest.is_file() else {}
        notebook = nbformat.read(path / job.notebook.name, 4)
        jobs.append(Job(path, atomic.read_json(path / planning.SUCCESS), known, notebook))
    jobs.sort(key=lambda job: (job.record["notebook"], job.name))
    return jobs, sorted({job.name if job.step in begun else job.step for job in missing})


def by_notebook(jobs: list[Job]) -> list[list[Job]]:
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.record["notebook"], []).append(job)
    return list(groups.values())


def first(notebooks: list[dict]) -> list[dict]:
    """The figures that the page begins with, in the order of `FIRST`."""
    named = {plot["name"]: plot for notebook in notebooks for plot in notebook["plots"]}
    return [named[name] for name in FIRST if name in named]


def answers(jobs: list[Job]) -> list[tuple[str, Markup]]:
    """Title and text of every summary.md that is not the verdicts again."""
    return [
        (notebook_title(job), from_markdown((job.folder / "summary.md").read_text("utf-8")))
        for job in jobs
        if (job.folder / "summary.md").is_file() and not (job.folder / "claims.csv").is_file()
    ]


def notebook_section(group: list[Job], jobs: list[Job]) -> dict:
    """What the jobs of one notebook have to show: settings, figures and tables."""
    of_jobs = {job.name: settings(job, jobs) for job in group}
    first = of_jobs[group[0].name]
    shared = {k: v for k, v in first.items() if all(s.get(k) == v for s in of_jobs.values())}
    own = {
        name: ", ".join(f"{k} {v}" for k, v in s.items() if k not in shared)
        for name, s in of_jobs.items()
    }
    saved = plots([(job.folder, job.notebook, own[job.name]) for job in group])
    return {
        "key": group[0].record["notebook"],
        "title": notebook_title(group[0]),
        "settings": shared,
        "plots": together(saved, group),
        "tables": [table for job in group for table in small_tables(job)],
        "files": large_tables(group),
    }


def settings(job: Job, jobs: list[Job]) -> dict[str, str]:
    """Parameters of a job and of all it rests on; several values where those differ. Of folders
    that it reads, which network of theirs, where that is not always the last: "at best, end"."""
    known = {other.name: other for other in jobs}
    chain, waiting = [], [job.name]
    while waiting:
        name = waiting.pop(0)
        if name in known and known[name] not in chain:
            chain.append(known[name])
            waiting += known[name].record["needs"]
    values: dict[str, list[str]] = {}
    for link in chain:
        parameters = link.manifest.get("parameters", link.record["parameters"])
        for name, value in parameters.items():
            listed = [str(v) for v in value] if isinstance(value, list) else [str(value)]
            named = [runs.split_name(text) for text in listed]
            if {Path(place).name for place, _ in named} <= set(link.record["needs"]):
                networks = dict.fromkeys(network for _, network in named)
                of_runs = name.endswith("runs")  # a folder of tables says nothing of its networks
                listed = [network for network in networks if of_runs or network != runs.END]
                name = "at"
            if listed and name not in (*runs.PLACE, "out_dir"):
                values.setdefault(name, []).append(", ".join(listed))
    if set(values.get("at", ())) == {runs.END}:
        del values["at"]
    return {name: ", ".join(dict.fromkeys(found)) for name, found in values.items()}


def together(found: list[dict], group: list[Job]) -> list[dict]:
    """`found`, with the curves of several trainings in one figure in place of a figure each, where
    method and seed tell them apart."""
    paths = [job.folder / "history.parquet" for job in group]
    if len(group) == 1 or not all(path.is_file() for path in paths):
        return found
    names = [tuple(job.manifest["parameters"][key] for key in ("method", "seed")) for job in group]
    if len(set(names)) < len(names):
        return found
    style.set_style()
    histories = [files.read_table(path) for path in paths]
    figure = paper.training_curves_of_several(
        (*name, history) for name, history in zip(names, histories, strict=True)
    )
    for plot in found:
        if plot["name"] == "figure5":
            plot["pictures"] = [drawn(figure, plot["title"])]
    return found


def small_tables(job: Job) -> list[dict]:
    """Every CSV file but the claims."""
    paths = [path for path in sorted(job.folder.glob("*.csv")) if path.name != "claims.csv"]
    return [
        readable(
            title_of(path),
            pd.read_csv(path),
            f"{job.name}/{path.name}",
            SPECIAL.get((job.record["notebook"], path.stem), {}),
        )
        for path in paths
    ]


def large_tables(group: list[Job]) -> list[str]:
    """Every Parquet file that the jobs of one notebook left: its name, and rows in how many."""
    rows: dict[str, list[int]] = {}
    for job in group:
        for path in sorted(job.folder.glob("*.parquet")):
            rows.setdefault(path.name, []).append(pyarrow.parquet.read_metadata(path).num_rows)
    return [f"{name} ({sum(n):,} rows in {len(n)} folder(s))" for name, n in rows.items()]


def environments_of(jobs: list[Job]) -> dict[str, str]:
    """Hardware, versions and commit of the trainings; several values where they differ."""
    values: dict[str, list[str]] = {}
    for job in jobs:
        known = dict(job.manifest.get("environment", {}))
        for name, value in {**known, **known.pop("packages", {})}.items():
            if name != "packages":
                values.setdefault(name.replace("_", " "), []).append(str(value))
    return {name: ", ".join(dict.fromkeys(found)) for name, found in values.items()}


def data_sets(jobs: list[Job]) -> dict:
    """A row a data set and split: classes, images, fingerprint."""
    rows = [
        {"data set": job.manifest["parameters"]["dataset"], "split": split, **content}
        for job in jobs
        for split, content in job.manifest.get("data", {}).items()
    ]
    return readable("Data sets", pd.DataFrame(rows).drop_duplicates())


def times(jobs: list[Job]) -> dict:
    """A row a job: when its training began, and how long it and its notebook took."""
    rows = [
        {
            "job": job.name,
            "notebook": job.record["notebook"],
            "training began": job.manifest.get("started"),
            "training, s": job.manifest.get("results", {}).get("seconds_training"),
            "notebook, s": job.record["seconds"],
        }
        for job in jobs
    ]
    return readable("Times", pd.DataFrame(rows))


def notebook_title(job: Job) -> str:
    """The first heading of a job's notebook."""
    texts = [cell.source for cell in job.notebook.cells if cell.cell_type == "markdown"]
    heading = re.search(r"^# +(.*)$", "\n".join(texts), re.M)
    return heading[1] if heading else job.record["notebook"]


def notebook_page(job: Job) -> str:
    name = f"{job.name}: {notebook_title(job)}"
    page, _ = harmless_html.exporter().from_notebook_node(
        job.notebook, resources={"metadata": {"name": name}}
    )
    return page


def write_text(path: Path, text: str) -> None:
    with atomic.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(**content: object) -> str:
    template = TEMPLATE.read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(template).render(content)
