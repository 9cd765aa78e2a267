"""For maintainers, after `negmeta study` of each: what of their results the repository keeps.

A study without results in `runs/` is left as it is.
"""

import shutil
from pathlib import Path

from matplotlib.figure import Figure

from negmeta_utils.explore.measures import layer_rates
from negmeta_utils.explore.pictures import rates_picture
from negmeta_utils.plots.paper import training_curves, training_curves_of_several
from negmeta_utils.plots.style import save, set_style
from negmeta_utils.runs import PRETRAINED, file_digests, load_run
from negmeta_utils.storage.atomic import read_json, write_json
from negmeta_utils.storage.files import read_table, write_table

RUNS, FIGURES = Path("runs"), Path("figures")
STUDIES = ("demo", "mini-imagenet", "paper-28")
SHIPPED = {  # of a study, what its run of a method is called, and the folder of the network
    "demo": ("train-{}-0", PRETRAINED, "glyphs-{}-0"),
    "paper-28": ("{}-0", FIGURES / "paper-28" / "networks", "{}-0"),
    "paper-84": ("{}-0", PRETRAINED, "mini-imagenet-{}-0"),
}
JOBS = {
    "backbones": ("alpha_conv4", "alpha_resnet12", "backbones"),
    "decide": (
        "alpha", "alpha-best", "features", "features-best", "features-positive", "statistics",
        "statistics-best", "mechanism",
    ),
    "length": ("alpha", "features", "features-20000", "statistics", "mechanism"),
    "start": ("alpha", "features"),
    "linear-theory": ("few-tasks", "more-tasks"),
    "paper-84": ("alpha", "features", "statistics"),
    "questions": (
        "mechanism", "datasets", "inner_steps", "test_time", "alpha", "features", "statistics",
        "alpha_uniform", "features_uniform", "statistics_uniform",
    ),
}  # fmt: skip
KEPT = (".png", ".csv", ".md", ".parquet")


def copy(job: Path, to: Path, suffixes: tuple[str, ...] = KEPT) -> None:
    """The results in the folder of a job that has succeeded."""
    if (job / "job.json").is_file():
        to.mkdir(parents=True, exist_ok=True)
        for file in sorted(job.iterdir()):
            if file.suffix in suffixes and not file.name.startswith("."):
                shutil.copy(file, to)


def publish_study(study: str) -> None:
    tables = study != "paper-28"  # its tables come with its networks
    for job in ("alpha", "features", "statistics"):
        copy(RUNS / study / job, FIGURES / study, KEPT if tables else KEPT[:-1])
    for run in sorted((RUNS / study).glob("train-*")):
        shutil.copy(run / "manifest.json", FIGURES / study / f"{run.name}.json")
        shutil.copy(run / "figure5.png", FIGURES / study / f"figure5-{run.name}.png")


def ship(study: str) -> None:
    """Seed 0 of each method with all that its run found out, and of a long one its features."""
    name, folder, shipped = SHIPPED[study]
    for method in ("maml", "meta-sgd"):
        run, to = RUNS / study / name.format(method), folder / shipped.format(method)
        to.mkdir(parents=True, exist_ok=True)
        for file in (run / "model.safetensors", *run.glob("*.parquet")):
            shutil.copy(file, to)
        if study != "demo":
            table = read_table(RUNS / study / "features" / "features.parquet")
            own = table[(table["method"] == method) & (table["seed"] == 0)]
            write_table(to / "features.parquet", own)
            rates = read_table(run / "every_rate.parquet")  # megabytes: every other point
            few = rates[rates["update"].isin(rates["update"].unique()[::2])]
            write_table(to / "every_rate.parquet", few)
        manifest = read_json(run / "manifest.json")
        write_json(to / "manifest.json", {**manifest, "files": file_digests(to)})


def picture_of_rates() -> None:
    """The figure that notebook 0 opens on, of the paper's size and length."""
    run, layer = load_run("mini-imagenet-meta-sgd-0"), "conv3"
    set_style()
    figure = rates_picture(run.rates(), layer_rates(run, layer), layer, -1)
    save_png(figure, FIGURES / "paper-84", f"rates_of_{layer}")


def pictures_of_training() -> None:
    """Figure 5 of the networks in `figures/`: of both at 84×84, and of all that decide."""
    set_style()
    for method in ("maml", "meta-sgd"):
        run = load_run(f"mini-imagenet-{method}-0")
        figure = training_curves(run.history(), 1 / run.parameters["n_way"], method)
        save_png(figure, FIGURES / "paper-84", f"figure5-{method}")
    trained = [load_run(str(path)) for path in sorted((FIGURES / "decide" / "networks").iterdir())]
    figure = training_curves_of_several(
        (run.parameters["method"], run.parameters["seed"], run.history()) for run in trained
    )
    save_png(figure, FIGURES / "decide", "training")


def save_png(figure: Figure, folder: Path, name: str) -> None:
    save(figure, folder, name)
    (folder / f"{name}.svg").unlink()


if __name__ == "__main__":
    for study in STUDIES:
        if (RUNS / study / "statistics" / "job.json").is_file():
            publish_study(study)
    for study in SHIPPED:
        if (RUNS / study / "features" / "job.json").is_file():
            ship(study)
    for study, jobs in JOBS.items():
        for job in jobs:
            copy(RUNS / study / job, FIGURES / study / job)
    picture_of_rates()
    pictures_of_training()
