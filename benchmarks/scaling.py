"""Times the study `scaling`, 24 short trainings, with several numbers of workers on this machine:
`python -m benchmarks.scaling`."""

import argparse
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from benchmarks import against_peers
from negmeta_utils.plots import style
from negmeta_utils.storage import atomic, paths
from negmeta_utils.studies import planning, scheduling, study_file


def measure(steps: dict[str, dict], workers: list[int], repetitions: int) -> pd.DataFrame:
    """Seconds of a whole study, from no cluster to none: one row a repetition and one column a
    number of workers. Every repetition runs all numbers, in turn and each in an empty folder, so
    that what else the machine does strikes all alike. Raises RuntimeError where a job fails."""
    rows = []
    for repetition in range(repetitions):
        rows.append({})
        for number in workers:
            with tempfile.TemporaryDirectory(prefix="negmeta-") as folder:
                jobs = planning.plan(steps, Path(folder))
                start = time.perf_counter()
                outcome = scheduling.run_study(jobs, Path(folder), number)
                rows[-1][number] = time.perf_counter() - start
            if outcome.errors:
                raise RuntimeError(f"with {number} workers: {outcome.errors}")
            print(f"repetition {repetition + 1}, {number} workers: {rows[-1][number]:.1f} s")
    return pd.DataFrame(rows)


def summary(seconds: pd.DataFrame) -> pd.DataFrame:
    """Medians over repetitions of what `measure` gives, one row a number of workers: `seconds`,
    and `faster`, how many times as fast as the first column, in the same repetition."""
    faster = seconds.rdiv(seconds.iloc[:, 0], axis=0)
    table = pd.DataFrame({"seconds": seconds.median(), "faster": faster.median()})
    return table.rename_axis("workers").reset_index()


def plot(table: pd.DataFrame) -> Figure:
    """Time of a study by workers, beside what dividing the first row's would give.

    table: workers, seconds.
    """
    figure, axis = plt.subplots(figsize=(4.8, 3.2))
    workers, seconds = table["workers"], table["seconds"]
    ideal = seconds.iloc[0] * workers.iloc[0] / workers
    axis.plot(workers, ideal, ":", color="grey", label="divided by workers")
    axis.plot(workers, seconds, "o-", color=style.PALETTE[0], label="measured")
    axis.set(xlabel="workers", ylabel="seconds", xticks=workers, ylim=(0, None))
    axis.legend(frameon=False)
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, default=paths.ROOT / "figures" / "scaling")
    options = parser.parse_args(arguments)
    steps = study_file.read_study(study_file.find_study("scaling"), {})
    seconds = measure(steps, options.workers, options.repetitions)
    table = summary(seconds)
    jobs = len(planning.plan(steps, options.out))
    text = "\n".join(
        [
            table.to_markdown(index=False, floatfmt=(".0f", ".1f", ".2f")),
            "",
            f"{jobs} trainings of `notebooks/studies/scaling.yml` as notebooks, from the start of "
            f"the workers to their end. {against_peers.hardware('cpu')}, divided among the "
            "workers. "
            f"Medians of {options.repetitions} alternating repetitions; `faster` is the median of "
            f"each repetition's ratio to {options.workers[0]} worker.",
        ]
    )
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(options.out / "scaling.md") as temporary:
        temporary.write_text(text + "\n")
    with atomic.replacing(options.out / "seconds.csv") as temporary:
        seconds.round(1).to_csv(temporary, index=False)
    style.set_style()
    style.save(plot(table), options.out, "scaling")


if __name__ == "__main__":
    main()
