"""Interventions on the inner rates of a trained model: what adaptation would do with others.

Each takes rates as learned, at the parameters' shapes, and gives others of the same shapes; the
parameters stay as they are. If negative rates are what makes adaptation improve features for other
tasks, then taking them away must take the improvement away.
"""

from collections.abc import Callable, Iterable

import torch

from negmeta_utils.model import BLOCKS, LAYERS, Params, layer_and_group

AS_LEARNED = "as learned"


def interventions(alpha: Params, seed: int = 0) -> dict[str, Params]:
    """The interventions on Meta-SGD's rates, by name, the rates as learned first.

    seed: of the shuffled signs. A layer is a row of table 1: the weights and biases of one layer,
    or of its batch normalisation.
    """
    return {
        AS_LEARNED: alpha,
        "absolute value": _each(alpha, torch.abs),
        "negative set to zero": _each(alpha, lambda a: a.clamp(min=0)),
        "positive set to zero": _each(alpha, lambda a: a.clamp(max=0)),
        "signs flipped": _each(alpha, torch.neg),
        "signs shuffled": shuffle_signs(alpha, seed),
        "magnitudes averaged": average_magnitudes(alpha),
        "convolutions only": only(alpha, [(f"conv{b}", "weights+bias") for b in BLOCKS]),
        "batch norm only": only(alpha, [(f"conv{b}", "batchnorm") for b in BLOCKS]),
        "linear layer only": only(alpha, [("logits", "weights+bias")]),
    }


def parts(alpha: Params) -> dict[str, Params]:
    """The same rates with the head alone, the body alone and one block at a time adapting."""
    groups = ("weights+bias", "batchnorm")
    rows = {layer: [(layer, group) for group in groups] for layer in LAYERS}
    body = [row for layer in LAYERS[:-1] for row in rows[layer]]
    return {
        AS_LEARNED: alpha,
        "head only": only(alpha, rows["logits"]),
        "body only": only(alpha, body),
        **{f"block {b} only": only(alpha, rows[f"conv{b}"]) for b in BLOCKS},
    }


def only(alpha: Params, rows: Iterable[tuple[str, str]]) -> Params:
    """`alpha` with zeros outside `rows`, pairs (layer, group) as `layer_and_group` gives."""
    rows = set(rows)
    return {
        name: value if layer_and_group(name) in rows else torch.zeros_like(value)
        for name, value in alpha.items()
    }


def shuffle_signs(alpha: Params, seed: int) -> Params:
    """Every layer keeps its magnitudes in place and its number of negative rates."""
    generator = torch.Generator().manual_seed(seed)

    def shuffle(values: torch.Tensor) -> torch.Tensor:
        return values.abs() * values.sign()[torch.randperm(len(values), generator=generator)]

    return _by_layer(alpha, shuffle)


def average_magnitudes(alpha: Params) -> Params:
    """Every rate keeps its sign and takes the mean magnitude of its layer."""
    return _by_layer(alpha, lambda values: values.sign() * values.abs().mean())


def _each(alpha: Params, function: Callable[[torch.Tensor], torch.Tensor]) -> Params:
    return {name: function(value) for name, value in alpha.items()}


def _by_layer(alpha: Params, function: Callable[[torch.Tensor], torch.Tensor]) -> Params:
    """`function` of all rates of a layer, flat."""
    layers: dict[tuple[str, str], list[str]] = {}
    for name in alpha:
        layers.setdefault(layer_and_group(name), []).append(name)
    changed = {}
    for names in layers.values():
        values = function(torch.cat([alpha[name].flatten() for name in names]))
        for name, part in zip(names, values.split([alpha[n].numel() for n in names]), strict=True):
            changed[name] = part.view_as(alpha[name])
    return {name: changed[name] for name in alpha}
