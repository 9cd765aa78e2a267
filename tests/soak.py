"""`make soak`: what the tests do once, many times over. Trainings are killed at random moments and
must end as one that is never killed; then nbval goes through all the notebooks, again and again,
while every core is busy with something else."""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from checking_notebooks import NOTEBOOKS, nbval
from killing import kill_at_random

from negmeta_utils.config import TrainConfig

CONFIG = TrainConfig(
    dataset="glyphs", image_size=16, n_way=2, n_query=2, n_filters=32, n_tasks=1, inner_steps=2,
    outer_lr=0.1, lr_schedule="plateau", n_updates=60, val_every=3, val_episodes=4,
    test_episodes=20, checkpoint_every=1, device="cpu",
)  # fmt: skip


def be_busy():
    while True:
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=20, help="of nbval")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in those that are killed: the last digits depend on it
    if options.kills:
        with tempfile.TemporaryDirectory() as folder:
            trainings = kill_at_random(CONFIG, Path(folder), options.kills, seed=int(time.time()))
        print(f"{options.kills} kills: {trainings} trainings ended as one never killed", flush=True)
    for _ in range(os.cpu_count()):
        multiprocessing.Process(target=be_busy, daemon=True).start()
    failed = 0
    for number in range(1, options.rounds + 1):
        started = time.monotonic()
        result = nbval(*NOTEBOOKS)
        failed += result.returncode != 0
        print(f"nbval, round {number}: {result.stdout.strip().splitlines()[-1]}", flush=True)
        if result.returncode != 0:
            print(result.stdout, flush=True)
        print(f"  {time.monotonic() - started:.0f} s, {failed} rounds failed so far", flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
