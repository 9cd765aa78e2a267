"""Reproduces and tests *Negative Inner-Loop Learning Rates Learn Universal Features*.

To begin:

    import negmeta_utils as nm

    nm.list_pretrained()                                  # networks that come with the package
    run = nm.load_pretrained("meta-sgd", "glyphs")        # one of them
    images = nm.load_data("glyphs", "test")               # classes that no training saw
    nm.evaluate_features(run, images, n_episodes=60)      # what adaptation does to its features
    nm.train(nm.TrainConfig(dataset="glyphs", n_updates=60), "runs/mine")

Everything else is imported from its module. Begin reading with `model` (the network), `episodes`
(the tasks) and `adaptation` (the inner loop, and the meta-gradient through it). Then `training`
(the outer loop, and the last files of a run), `checkpoints` (how a run is written until then),
`runs` (how it is read), `evaluation` (on-task and off-task) and `prototypes` (how features
classify). `objective` chooses between `adaptation` and `engine`. Every other subject has a folder:

    networks   other networks than the paper's, and your own
    imports    weights of other libraries
    engine     the meta-gradient of `adaptation`, faster: on a CPU in C (`engine/native`)
    gpu        many networks at once on one GPU
    data       data sets
    storage    files: whole or not there, each with a digest
    evidence   tables in, verdicts out (`claims` makes the table, `rules` decides); no torch
    plots      every figure
    questions  what notebooks 5 to 10 compute
    explore    notebook 0
    studies    grids of notebooks, and the command line

Imports go one way: no module and no folder imports itself by way of others; `evidence` imports from
nothing but itself, and neither it nor `plots` imports torch; within the
package only the command line and the public name `interventions` use `questions`, `explore` and
`studies`. `tests/test_imports.py` holds this.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors, which do not run what is below
    from negmeta_utils.adaptation import METHODS, adapt
    from negmeta_utils.config import TrainConfig
    from negmeta_utils.data.datasets import DATASETS
    from negmeta_utils.data.datasets import load as load_data
    from negmeta_utils.engine.meta_gradient import meta_gradient
    from negmeta_utils.episodes import draw_episodes
    from negmeta_utils.evaluation import evaluate, evaluate_features
    from negmeta_utils.evidence.claims import claims
    from negmeta_utils.networks.catalogue import NETWORKS
    from negmeta_utils.networks.modules import network
    from negmeta_utils.notebook import begin
    from negmeta_utils.questions.interventions import interventions
    from negmeta_utils.runs import load_run, load_runs, network_of
    from negmeta_utils.shipped import list_pretrained, load_pretrained
    from negmeta_utils.training import train

__version__ = "0.1.0"

# The same names, each with its module and its name there; imported when first used.
_PUBLIC = {
    "DATASETS": ("data.datasets", "DATASETS"),
    "METHODS": ("adaptation", "METHODS"),
    "NETWORKS": ("networks.catalogue", "NETWORKS"),
    "TrainConfig": ("config", "TrainConfig"),
    "adapt": ("adaptation", "adapt"),
    "begin": ("notebook", "begin"),
    "claims": ("evidence.claims", "claims"),
    "draw_episodes": ("episodes", "draw_episodes"),
    "evaluate": ("evaluation", "evaluate"),
    "evaluate_features": ("evaluation", "evaluate_features"),
    "interventions": ("questions.interventions", "interventions"),
    "list_pretrained": ("shipped", "list_pretrained"),
    "load_data": ("data.datasets", "load"),
    "load_pretrained": ("shipped", "load_pretrained"),
    "load_run": ("runs", "load_run"),
    "load_runs": ("runs", "load_runs"),
    "meta_gradient": ("engine.meta_gradient", "meta_gradient"),
    "network": ("networks.modules", "network"),
    "network_of": ("runs", "network_of"),
    "train": ("training", "train"),
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, name_there = _PUBLIC[name]
    return getattr(import_module(f"{__name__}.{module}"), name_there)


def __dir__() -> list[str]:
    return __all__
