"""Times this project against every peer that imports, on the same work, by turns, each in a process
of its own: `python -m benchmarks.against_peers`.

A meta-update is everything between two optimiser steps: drawing the episodes, adapting to each
task, the second-order gradient, Adam. An evaluation is one iteration of notebook 3: both tasks of
a pair embedded, adaptation to the first, both embedded again. Images are random: times do not
depend on what is in them.
"""

import argparse
import gc
import importlib
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import torch

from benchmarks.peers import ENGINES, EVALUATIONS, OURS, Work
from negmeta_utils.storage import atomic

METHODS = ("maml", "meta-sgd")
KINDS = {"meta-update": ENGINES, "evaluation": EVALUATIONS}


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


@contextmanager
def processes(names: list[str]) -> Iterator[dict[str, Connection]]:
    """A process for each engine, because what one asks of the memory allocator (ours does), and
    leaves behind in it, would change the times of the others."""
    context = multiprocessing.get_context("spawn")
    ends = {name: context.Pipe() for name in names}
    engines = [
        context.Process(target=_serve, args=(theirs, name, torch.get_num_threads()), daemon=True)
        for name, (_, theirs) in ends.items()
    ]
    for engine in engines:
        engine.start()
    for _, theirs in ends.values():
        theirs.close()  # so that the end of its process is seen here
    try:
        yield {name: ours for name, (ours, _) in ends.items()}
    finally:
        for engine in engines:
            engine.terminate()
            engine.join()


def _serve(asked: Connection, name: str, n_threads: int) -> None:
    """Send back the seconds of each piece of work that is asked for: its kind, the `Work`, and the
    argument of what the kind's engine makes of it."""
    torch.set_num_threads(n_threads)
    call, what = None, None
    while True:
        kind, work, argument = asked.recv()
        if (kind, work) != what:
            call, what = KINDS[kind][name](work), (kind, work)
        asked.send(_seconds(call, argument, work.device))


def _seconds(call: Callable[[int], None], argument: int, device: str) -> float:
    gc.collect()
    start = time.perf_counter()
    call(argument)
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def time_alternating(
    engines: dict[str, Connection], kind: str, work: Work, arguments: list[int]
) -> pd.DataFrame:
    """Seconds of each engine, one row an argument and one column a name. Every row runs all of
    them, one after the other, so that what else the machine does strikes all alike; the first row
    is not counted. Raises RuntimeError where an engine's process ends."""

    def seconds(name: str, engine: Connection, argument: int) -> float:
        engine.send((kind, work, argument))
        try:
            return engine.recv()
        except EOFError:
            raise RuntimeError(f"{name}: its process ended; it may have said why above") from None

    rows = [
        {name: seconds(name, engine, argument) for name, engine in engines.items()}
        for argument in arguments
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
        "from benchmarks import against_peers; from benchmarks.peers import Work; "
        f"print(against_peers._peak_of({engine!r}, {work!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def _peak_of(engine: str, work: Work) -> float:
    tiny = replace(work, image_size=16, n_filters=32)
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
    **settings,
) -> str:
    """The table as Markdown. settings: fields of `Work` other than the paper's.

    evaluations: iterations of notebook 3 that one repetition times.
    """
    names = importable(list(ENGINES))
    rows = []
    with processes(names) as engines:
        for size in sizes:
            for method in METHODS:
                work = Work(method, size, device=device, **settings)
                rows += _rows(work, engines, repetitions, evaluations)
    table = pd.DataFrame(rows).fillna("")
    lines = [" | ".join(table.columns), " | ".join("---" for _ in table.columns)]
    lines += [" | ".join(row) for row in table.itertuples(index=False)]
    return "\n".join(
        [*(f"| {line} |" for line in lines), "", _conditions(names, repetitions, device)]
    )


def _rows(
    work: Work, engines: dict[str, Connection], repetitions: int, evaluations: int
) -> list[dict[str, str]]:
    title = f"{work.method}, {work.image_size}×{work.image_size}×{work.channels}"
    seconds = time_alternating(engines, "meta-update", work, list(range(repetitions + 1)))
    peaks = pd.DataFrame([{name: peak_memory(name, work) / 2**20 for name in engines}])
    evaluating = {name: engine for name, engine in engines.items() if name in EVALUATIONS}
    counts = [evaluations] * (repetitions + 1)
    each = time_alternating(evaluating, "evaluation", work, counts) / evaluations
    return [
        _row(f"meta-update, {title}", seconds, "s"),
        _row(f"its memory, {title}", peaks, "MiB"),
        _row(f"evaluation, {title}", each, "s"),
    ]


def _row(title: str, values: pd.DataFrame, unit: str) -> dict[str, str]:
    ratio, peer = ratio_to_best_peer(values)
    row = {"": title, "peer / adjoint": f"**{ratio:.2f}×** ({peer})"}
    # Three digits, none of them an exponent's.
    return row | {n: f"{float(f'{value:.3g}'):g} {unit}" for n, value in values.median().items()}


def hardware(device: str) -> str:
    """The processor that times hold for, in words."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    cpus = Path("/proc/cpuinfo")
    models = cpus.read_text().split("model name") if cpus.exists() else []
    model = models[1].split("\n")[0].strip("\t: ") if len(models) > 1 else platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def _conditions(names: list[str], repetitions: int, device: str) -> str:
    threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    versions = [f"{name} {version(name)}" for name in ("torch", *names) if name not in OURS]
    return (
        f"{hardware(device)}{threads}; Python {platform.python_version()}, {', '.join(versions)}. "
        f"Medians of {repetitions} alternating repetitions, each engine in a process of its own; "
        "ratios are medians of each repetition's ratio to the fastest (for memory the leanest) "
        "peer. float32; an evaluation is one iteration."
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against_peers", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[28, 84], help="image sizes")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--evaluations", type=int, default=16, help="iterations of notebook 3")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    options = parser.parse_args(arguments)
    table = bench(options.sizes, options.repetitions, options.evaluations, options.device)
    print(table)
    if options.out:
        with atomic.replacing(options.out) as temporary:
            temporary.write_text(table + "\n")


if __name__ == "__main__":
    main()
