"""What a study can show, in a sentence that stands before its verdicts, from its manifests."""

from typing import Any

PAPER: dict[str, Any] = {
    "dataset": "mini-imagenet",
    "image_size": 84,
    "n_filters": 64,
    "n_updates": 60_000,
}
SHORT = 0.1  # below this share of the paper's updates, a training is a check and no test
IN_WORDS = {"mini-imagenet": "Mini-ImageNet", "glyphs": "drawn characters", "omniglot": "Omniglot"}


def scope(manifests: list[dict]) -> str:
    """What was trained, by the trainings' manifests, and how far it tests the paper; or nothing."""
    parameters = [manifest["parameters"] for manifest in manifests]
    if not parameters:
        return ""
    updates = min(p["n_updates"] for p in parameters)
    seeds = {}
    for p in parameters:
        seeds.setdefault(p["method"], set()).add(p["seed"])
    counts = {len(found) for found in seeds.values()}
    least, most = min(counts), max(counts)
    number = f"{least} to {most}" if least < most else str(most)
    networks = "one network" if most == 1 else f"{number} networks"
    return (
        f"{_listed(f'{p:,}' for p in _values(parameters, 'n_updates'))} meta-updates on "
        f"{_listed(IN_WORDS.get(d, d) for d in _values(parameters, 'dataset'))} at "
        f"{_listed(f'{s}×{s}' for s in _values(parameters, 'image_size'))}, "
        f"{networks} by each method{_share(updates)}: {_verdict(parameters, updates, least)}."
    )


def _share(updates: int) -> str:
    """How much of the paper's training that is, where it is less than half of it."""
    times = PAPER["n_updates"] / updates
    return f", 1/{round(times)} of the paper's training" if times >= 2 else ""


def _verdict(parameters: list[dict], updates: int, least: int) -> str:
    if updates < SHORT * PAPER["n_updates"]:
        return "a check that everything works, not a test of the paper"
    differs = [
        name
        for name in ("dataset", "image_size", "n_filters")
        if any(p[name] != PAPER[name] for p in parameters)
    ]
    other = f", though with another {_listed(differs).replace('_', ' ')}" if differs else ""
    if least == 1:
        return f"a test of these networks, not of the methods{other}"
    return f"a test of the paper's claims{other}"


def _values(parameters: list[dict], name: str) -> list:
    return sorted({p[name] for p in parameters})


def _listed(words) -> str:
    *some, last = words
    return f"{', '.join(some)} and {last}" if some else last
