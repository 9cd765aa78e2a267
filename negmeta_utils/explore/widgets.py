"""The widgets of notebook 0: a few controls, and a picture that follows them.

A picture is drawn when the controls first ask for it and kept, so that coming back is immediate.
Where widgets do not work, as in a notebook shown on a web page, the first picture stands in.
"""

import io
from base64 import b64encode
from collections.abc import Callable
from functools import cache

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from negmeta_utils.episodes import ImageSet
from negmeta_utils.explore import measures, pictures
from negmeta_utils.networks.network import WEIGHTS
from negmeta_utils.runs import Run

WIDE = {"flex": "1 1 28em", "width": "auto"}  # a slider takes what its row has left
# As large as a fingertip needs, WCAG 2.2's 24 pixels.
HANDLES = "<style>.negmeta-explore { --jp-widgets-slider-handle-size: 24px; }</style>"


def browse_rates(trained: dict[str, Run]) -> None:
    """Rates by layer with a slider over training, with one layer's histogram and heat map.

    trained: runs by the name to choose them by.
    """
    rates = cache(lambda model, layer: measures.layer_rates(trained[model], layer))
    tables = {name: run.rates() for name, run in trained.items()}
    tables = {name: table[table["group"] == WEIGHTS] for name, table in tables.items()}
    layers = list(dict.fromkeys(pd.concat(tables.values())["layer"]))
    layers = [name for name in layers if all(name in set(t["layer"]) for t in tables.values())]
    if not layers:
        raise ValueError("trained: no layer in common; browse networks of one kind together")
    updates = sorted({int(u) for name in trained for u in rates(name, layers[0]).updates})

    def picture(model: str, layer: str, update: int) -> Figure:
        # A run that kept no rates at this update shows those before it.
        kept = np.searchsorted(rates(model, layer).updates, update, "right") - 1
        return pictures.rates_picture(tables[model], rates(model, layer), layer, int(kept))

    update = widgets.SelectionSlider(
        options=updates, value=updates[-1], description="update", layout=WIDE
    )
    layer = widgets.Dropdown(options=layers, value=layers[-2:][0], description="layer")
    _show(_follow(picture, model=_choice(trained), layer=layer, update=update))


def browse_episodes(
    trained: dict[str, Run], images: ImageSet, n_episodes: int, eval_seed: int = 0
) -> None:
    """Episodes with the answers of a model's prototypes before adaptation, on-task and off-task."""

    def picture(model: str, episode: int) -> Figure:
        answers = measures.episode_answers(trained[model], images, episode, eval_seed)
        return pictures.answers_picture({model: answers})

    episode = _slider("episode", n_episodes - 1)
    _show(_follow(picture, model=_choice(trained), episode=episode))


def browse_two(
    trained: dict[str, Run], images: ImageSet, n_episodes: int, eval_seed: int = 0
) -> None:
    """The answers of two models' prototypes to the same episode, one above the other."""
    answers = cache(
        lambda model, episode: measures.episode_answers(trained[model], images, episode, eval_seed)
    )

    def picture(a: str, b: str, episode: int) -> Figure:
        return pictures.answers_picture({name: answers(name, episode) for name in (a, b)})

    a, b = _choice(trained, "A"), _choice(trained, "B")
    b.index = min(1, len(trained) - 1)
    _show(_follow(picture, a=a, b=b, episode=_slider("episode", n_episodes - 1)))


def browse_steps(
    trained: dict[str, Run], images: ImageSet, n_episodes: int, n_steps: int, eval_seed: int = 0
) -> None:
    """One task's adaptation, step by step."""
    steps = cache(
        lambda model, episode: measures.adaptation_steps(
            trained[model], images, episode, n_steps, eval_seed
        )
    )

    def picture(model: str, episode: int, step: int) -> Figure:
        trained_steps = trained[model].parameters["inner_steps"]
        return pictures.steps_picture(steps(model, episode), step, trained_steps)

    episode, step = _slider("episode", n_episodes - 1), _slider("step", n_steps, n_steps)
    _show(_follow(picture, model=_choice(trained), episode=episode, step=step))


def _follow(picture: Callable[..., Figure], **controls: widgets.ValueWidget) -> widgets.VBox:
    """`controls` above the image of `picture(name=value, ...)`, drawn anew whenever one moves."""
    image = widgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})
    drawn = cache(lambda *values: _png(picture(**dict(zip(controls, values, strict=True)))))

    def draw(change: dict | None = None) -> None:
        image.value = drawn(*(control.value for control in controls.values()))

    draw()
    for control in controls.values():
        control.observe(draw, "value")
    row = widgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
    box = widgets.VBox([widgets.HTML(HANDLES), row, image])
    box.add_class("negmeta-explore")
    return box


def _show(box: widgets.VBox) -> None:
    """Display what `_follow` made, its image as it stands beside it for where no widgets are."""
    still = {"image/png": b64encode(box.children[-1].value).decode()}
    display({**box._repr_mimebundle_(), **still}, raw=True)


def _png(figure: Figure) -> bytes:
    """`figure` as it stands: `savefig` would draw it twice, to trim it."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _choice(trained: dict[str, Run], name: str = "model") -> widgets.Dropdown:
    return widgets.Dropdown(options=list(trained), description=name)


def _slider(name: str, last: int, value: int = 0) -> widgets.IntSlider:
    return widgets.IntSlider(value, 0, last, description=name, layout=WIDE)
