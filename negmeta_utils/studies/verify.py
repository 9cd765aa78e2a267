"""Whether this machine computes the published digits: `negmeta verify`.

A seed names one network wherever the same digits are computed, and another one elsewhere: a
training is chaotic, and a difference in the last digit reaches the third in eleven meta-updates. So
a few meta-updates and evaluations are made here and compared with those that come with the package
in `digits.json`.
"""

import hashlib
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from negmeta_utils.config import TrainConfig
from negmeta_utils.data import scratch
from negmeta_utils.engine.device import arithmetic
from negmeta_utils.evaluation import evaluate_features
from negmeta_utils.storage import atomic
from negmeta_utils.training import load_splits, train

PUBLISHED = Path(__file__).parent / "digits.json"
UPDATES = PAIRS = 20
# Engine, method and size: large planes have convolutions of their own. The reference is torch's own
# operations, whose sums depend on the processor.
TRAININGS = {
    "adjoint, meta-sgd": TrainConfig(method="meta-sgd", engine="adjoint"),
    "adjoint, meta-sgd at 42x42": TrainConfig(method="meta-sgd", image_size=42, n_tasks=1),
    "adjoint, protonet": TrainConfig(method="protonet", engine="adjoint"),
    "reference, maml": TrainConfig(method="maml", engine="reference", n_tasks=1),
}


def verify(report: Callable[[str], None]) -> bool:
    """Report, line by line, whether the digits here are the published ones; True if those of the
    adjoint engine, which the results are made with, are."""
    published = atomic.read_json(PUBLISHED)
    data = data_digests()
    if data != published["data"]:
        report("glyphs: other images than the published ones; install the package again")
        return False
    same = True
    for name in TRAININGS:
        report(f"{name}: {UPDATES} meta-updates, {PAIRS} pairs of test tasks")
        difference = first_difference(digits(name), published["digits"][name])
        if difference is None:
            report(f"{name}: the published digits")
            continue
        here = ", ".join(
            str(value) for value in (*arithmetic().values(), f"torch {torch.__version__}")
        )
        expected = name.startswith("reference")
        what = ", as PyTorch's own operations may have" if expected else ""
        report(f"{name}: other digits from {difference} on{what}; here {here}")
        same = same and expected
    return same


def first_difference(found: dict, published: dict) -> str | None:
    """Where two `digits` begin to differ, in words; None where they do not."""
    pairs = zip(found["losses"], published["losses"], strict=True)
    for update, (ours, theirs) in enumerate(pairs, 1):
        if ours != theirs:
            return f"meta-update {update}"
    for part in ("network", "evaluation"):
        if found[part] != published[part]:
            return f"the {part} after meta-update {UPDATES}"
    return None


def digits(name: str) -> dict:
    """The digits of one of `TRAININGS`: the loss of each meta-update, and digests of the network
    and of the evaluated pairs."""
    short: dict[str, Any] = {"val_every": UPDATES, "checkpoint_every": UPDATES, "val_episodes": 2}
    config = replace(
        TRAININGS[name], dataset="glyphs", device="cpu", n_updates=UPDATES, test_episodes=0, **short
    )
    with scratch.temporary() as folder:
        run = train(config, folder)
        losses = [float(loss).hex() for loss in run.history()["train_loss"]]
        table = evaluate_features(run, load_splits(config)[1]["test"], PAIRS)
    numbers = table.select_dtypes("number")
    return {
        "losses": losses,
        "network": _digest(v.numpy() for v in [*run.params.values(), *run.alpha.values()]),
        "evaluation": _digest(numbers[column].to_numpy() for column in numbers),
    }


def data_digests() -> dict[str, str]:
    """The fingerprints of the glyphs' splits as they are read here."""
    _, splits = load_splits(TrainConfig(dataset="glyphs"))
    return {split: images.fingerprint for split, images in splits.items()}


def publish() -> None:
    """Add this machine to those that are known to compute the published digits; where the
    adjoint's are others here, make all digits those of this machine, and the list begins again."""
    before = atomic.read_json(PUBLISHED) if PUBLISHED.exists() else {}
    made: dict[str, Any] = {
        "data": data_digests(), "digits": {name: digits(name) for name in TRAININGS}
    }  # fmt: skip
    same = bool(before) and _of_adjoint(before) == _of_adjoint(made)
    known = before["machines"] if same else []
    here = {**arithmetic(), "platform": platform.platform()}
    machines = known if here in known else [*known, here]
    atomic.write_json(PUBLISHED, {**(before if same else made), "machines": machines})


def _of_adjoint(published: dict) -> tuple[dict, dict]:
    """Data and digits without the reference's, which are each processor's own."""
    found = published["digits"].items()
    return published["data"], {n: of for n, of in found if not n.startswith("reference")}


def _digest(arrays) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()
