"""Times this project against every peer that imports, on the same work in one process:
`python -m negmeta_utils.bench`.

A meta-update is everything between two optimiser steps: drawing the episodes, adapting to each
task, the second-order gradient, Adam. An evaluation is one iteration of notebook 3: both tasks of
a pair embedded, adaptation to the first, both embedded again. Images are random: times do not
depend on what is in them.
"""

import argparse
import gc
import importlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from negmeta_utils import guards
from negmeta_utils.bench_peers import ENGINES, EVALUATIONS, OURS, Work
from negmeta_utils.capture import PRECISIONS, arithmetic

METHODS = ("maml", "meta-sgd")


def importable(names: list[str]) -> list[str]:
    """Those of `names` that are ours or import here."""
    found = []
    for name in names:
        try:
            if name not in OURS:
                importlib.import_module(name)
            found.append(name)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return found


def time_alternating(
    calls: dict[str, Callable[[int], None]], repetitions: int, device: str
) -> pd.DataFrame:
    """Seconds of each call, one row a repetition and one column a name. Every repetition runs all
    of them, in turn, so that what else the machine does strikes all alike; the first run of each
    is not counted."""

    def seconds(call: Callable[[int], None], argument: int) -> float:
        gc.collect()
        start = time.perf_counter()
        call(argument)
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    rows = [
        {name: seconds(call, index) for name, call in calls.items()}
        for index in range(repetitions + 1)
    ]
    return pd.DataFrame(rows[1:])


def ratio_to_best_peer(values: pd.DataFrame) -> tuple[float, str]:
    """Median over repetitions of the best peer's value over the adjoint's, and which it is."""
    peers = values.drop(columns=[name for name in OURS if name in values])
    if peers.empty:
        return float("nan"), "no peer"
    best = peers.median().idxmin()
    return float((peers[best] / values["adjoint"]).median()), best


def peak_memory(engine: str, work: Work) -> float:
    """Bytes that two meta-updates take beyond what was held before the first, measured in a
    process of their own. NaN where the system does not tell (/proc on Linux, or CUDA)."""
    program = (
        "from negmeta_utils import bench; from negmeta_utils.bench_peers import Work; "
        f"print(bench._peak_of({engine!r}, {work!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def _peak_of(engine: str, work: Work) -> float:
    tiny = replace(work, image_size=16, n_filters=2)
    with arithmetic(work.precision):  # this process is not the one that times
        ENGINES[engine](tiny)(0)  # so that what imports take is not counted
        update = ENGINES[engine](work)
        on_gpu = work.device != "cpu"
        before = torch.cuda.memory_allocated() if on_gpu else _resident("VmRSS")
        for index in range(2):
            update(index)
    return (torch.cuda.max_memory_allocated() if on_gpu else _resident("VmHWM")) - before


def _resident(field: str) -> float:
    """A field of this process's status, in bytes."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    return next(float(line.split()[1]) * 1024 for line in text.splitlines() if field in line)


def bench(
    sizes: list[int],
    repetitions: int,
    evaluations: int,
    device: str,
    precision: str = "float32",
    **settings,
) -> str:
    """The table as Markdown. settings: fields of `Work` other than the paper's.

    evaluations: iterations of notebook 3 that one repetition times.
    """
    names = importable(list(ENGINES))
    rows = []
    for size in sizes:
        for method in METHODS:
            work = Work(method, size, device=device, precision=precision, **settings)
            title = f"{method}, {size}×{size}×{work.channels}"
            updates = {name: ENGINES[name](work) for name in names}
            seconds = time_alternating(updates, repetitions, device)
            rows.append(_row(f"meta-update, {title}", seconds, "s"))
            peaks = pd.DataFrame([{name: peak_memory(name, work) / 2**20 for name in names}])
            rows.append(_row(f"its memory, {title}", peaks, "MiB"))
            loops = {name: EVALUATIONS[name](work) for name in names if name in EVALUATIONS}
            calls = {name: lambda _, loop=loop: loop(evaluations) for name, loop in loops.items()}
            seconds = time_alternating(calls, repetitions, device) / evaluations
            rows.append(_row(f"evaluation, {title}", seconds, "s"))
    table = pd.DataFrame(rows).fillna("")
    lines = [" | ".join(table.columns), " | ".join("---" for _ in table.columns)]
    lines += [" | ".join(row) for row in table.itertuples(index=False)]
    return "\n".join(
        [*(f"| {line} |" for line in lines), "", _conditions(names, repetitions, device, precision)]
    )


def _row(title: str, values: pd.DataFrame, unit: str) -> dict[str, str]:
    ratio, peer = ratio_to_best_peer(values)
    row = {"": title, "peer / adjoint": f"**{ratio:.2f}×** ({peer})"}
    return row | {name: f"{value:.3g} {unit}" for name, value in values.median().items()}


def hardware(device: str) -> str:
    """The processor that times hold for, in words."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    cpus = Path("/proc/cpuinfo")
    models = cpus.read_text().split("model name") if cpus.exists() else []
    model = models[1].split("\n")[0].strip("\t: ") if len(models) > 1 else platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def _conditions(names: list[str], repetitions: int, device: str, precision: str) -> str:
    threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    versions = [f"{name} {version(name)}" for name in ("torch", *names) if name not in OURS]
    return (
        f"{hardware(device)}{threads}; Python {platform.python_version()}, {', '.join(versions)}. "
        f"Medians of {repetitions} alternating repetitions; ratios are medians of each "
        f"repetition's ratio to the fastest (for memory the leanest) peer. {precision}; an "
        "evaluation is one iteration."
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m negmeta_utils.bench", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[28, 84], help="image sizes")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--evaluations", type=int, default=16, help="iterations of notebook 3")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    options = parser.parse_args(arguments)
    with arithmetic(options.precision):
        table = bench(
            options.sizes,
            options.repetitions,
            options.evaluations,
            options.device,
            options.precision,
        )
    print(table)
    if options.out:
        with guards.replacing(options.out) as temporary:
            temporary.write_text(table + "\n")


if __name__ == "__main__":
    main()
