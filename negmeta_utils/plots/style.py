"""The one style of every figure: colours, names, and how a figure is saved."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
import seaborn as sns
from IPython import get_ipython
from matplotlib.figure import Figure

from negmeta_utils.storage.atomic import replacing

PALETTE = sns.color_palette("colorblind")
# At least 20 apart (CAM02-UCS) for any kind of colour blindness; a test measures it.
COLOURS = {
    "maml": "#0173b2",
    "meta-sgd": "#de8f05",
    "fomaml": "#56b4e9",
    "anil": "#949494",
    "boil": "#661100",
    "meta-sgd-positive": "#b14e00",
    "protonet": "#764e62",
    "meta-sgd - maml": "#000000",
}
LABELS = {
    "maml": "MAML",
    "meta-sgd": "Meta-SGD",
    "fomaml": "first-order MAML",
    "anil": "ANIL",
    "boil": "BOIL",
    "meta-sgd-positive": "Meta-SGD, positive rates",
    "protonet": "prototypical network",
    "meta-sgd - maml": "Meta-SGD − MAML",
}
NAMES = {
    "mini-imagenet": "Mini-ImageNet",
    "cifar-fs": "CIFAR-FS",
    "omniglot": "Omniglot",
    "glyphs": "glyphs",
    "conv4": "Conv4",
    "resnet12": "ResNet-12",
}  # of data sets and backbones; others as they are called
NETWORKS = {"end": "end of training", "best": "best validation"}  # others: their meta-update
NEGATIVE, POSITIVE, PAPER = PALETTE[3], PALETTE[7], "black"
THEIRS = "the paper, Mini-ImageNet at 84×84"
ABOVE = "#00543d"  # zero; as far from NEGATIVE and POSITIVE as `COLOURS` are from one another
MARKS = "Ds^vP<>Xph"  # of networks kept along the way
APART = {"episodes": 0.12, "seeds": -0.12}  # of a method's two intervals, from its place


def label(method: str) -> str:
    """The name of a method in figures; of one of its networks, "meta-sgd@best", with which."""
    name, _, network = method.partition("@")
    if not network:
        return LABELS[name]
    return f"{LABELS[name]}, {NETWORKS.get(network) or f'update {int(network):,}'}"


def colour(method: str) -> str:
    """The colour of a method, which its networks ("meta-sgd@best") share."""
    return COLOURS[method.partition("@")[0]]


def markers(methods: Sequence[str]) -> dict[str, str]:
    """The mark of each method of a figure: a circle, or for its networks kept along the way
    ("meta-sgd@best") one for each place."""
    places = {method: method.partition("@")[2] for method in methods}
    kept = dict.fromkeys(place for place in places.values() if place not in ("", "end"))
    marks = dict(zip(kept, cycle(MARKS))) | {"": "o", "end": "o"}
    return {method: marks[place] for method, place in places.items()}


def set_style() -> None:
    """One style for every figure, whatever matplotlibrc and MPLBACKEND say; in a kernel, figures
    appear in the notebook."""
    matplotlib.rcdefaults()
    shell = get_ipython()
    if hasattr(shell, "kernel"):
        shell.run_line_magic("matplotlib", "inline")
    sns.set_theme("notebook", "ticks", font_scale=0.9)
    matplotlib.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "figure.dpi": 100,
            "savefig.dpi": 150,
            "savefig.bbox": "tight",
        }
    )


def legend_below(figure: Figure, handles: list, columns: int = 2, title: str | None = None) -> None:
    """A legend of the handles' labels below everything, where it covers nothing."""
    figure.legend(
        handles=handles, title=title, frameon=False, ncols=columns, loc="upper center",
        bbox_to_anchor=(0.5, 0.02),
    )  # fmt: skip


def save(figure: Figure, out_dir: Path, name: str) -> None:
    """`figure` as PNG and SVG in `out_dir`: the same bytes from the same tables. Both carry what
    the figure shows in words, as their Description."""
    words = describe(figure)
    # Without the time of day, matplotlib's version, and random names inside the SVG.
    with matplotlib.rc_context({"svg.hashsalt": "negmeta"}):
        for suffix, without in (("png", "Software"), ("svg", "Date")):
            metadata = {without: None, "Description": words}
            with replacing(out_dir / f"{name}.{suffix}") as temporary:
                figure.savefig(temporary, format=suffix, metadata=metadata)


def describe(figure: Figure) -> str:
    """What a figure shows, for those who do not see it: its panels, axes and marks."""
    legends = [legend for axis in figure.axes if (legend := axis.get_legend())]
    parts = {
        "Panels": [axis.get_title() for axis in figure.axes],
        "Across": [axis.get_xlabel() for axis in figure.axes],
        "Up": [axis.get_ylabel() for axis in figure.axes],
        "Marked": [
            t.get_text()
            for legend in legends + figure.legends
            for t in (legend.get_title(), *legend.get_texts())
        ],
    }
    sentences = []
    for what, texts in parts.items():
        if said := list(dict.fromkeys(" ".join(text.split()) for text in texts if text)):
            sentences.append(f"{what}: {'; '.join(said)}.")
    return " ".join(sentences)
