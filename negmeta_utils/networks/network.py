"""What the study has to know of a network: parameters from a seed, activations layer by layer, and
which layer a parameter belongs to."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

Params = dict[str, torch.Tensor]
WEIGHTS = "weights+bias"  # the group of what is no normalisation


class Network(NamedTuple):
    """A network as functions of a dictionary of parameters.

    name: as manifests have it.
    layers: the rows of table 1, from the image to the classes. The last is the head, a linear
    layer whose parameters are called HEAD.weight and, where it has one, HEAD.bias; the others are
    the body.
    init: of seed, channels, image_size, n_way and n_filters; fresh parameters on the CPU, float32.
    activations: of parameters and images [n, channels, height, width]; what each layer of the body
    makes of them by its name, flat [n, ...]. The last are the embeddings [n, n_features].
    layer_and_group: of a parameter's name; its layer, and "weights+bias" or the kind of its
    normalisation, such as "batchnorm".
    least_size: images of fewer pixels a side leave nothing to embed.
    """

    name: str
    layers: tuple[str, ...]
    init: Callable[[int, int, int, int, int], Params]
    activations: Callable[[Params, torch.Tensor], dict[str, torch.Tensor]]
    layer_and_group: Callable[[str], tuple[str, str]]
    least_size: int = 1

    @property
    def head(self) -> str:
        return self.layers[-1]

    @property
    def body(self) -> tuple[str, ...]:
        return self.layers[:-1]

    def embed(self, params: Params, images: torch.Tensor) -> torch.Tensor:
        """Embeddings [n, n_features] of images [n, channels, height, width]."""
        return self.activations(params, images)[self.body[-1]]

    def forward(self, params: Params, images: torch.Tensor) -> torch.Tensor:
        """Logits [n, n_way] of images [n, channels, height, width]."""
        return self.answer(params, self.embed(params, images))

    def answer(self, params: Params, features: torch.Tensor) -> torch.Tensor:
        """Logits [..., n, n_way] of embeddings [..., n, n_features], by parameters that all tasks
        share or, with the same leading dimension, of each task its own."""
        weight, bias = params[f"{self.head}.weight"], params.get(f"{self.head}.bias")
        if features.dim() == 2:
            return F.linear(features, weight, bias)
        logits = features @ weight.mT
        return logits if bias is None else logits + bias[..., None, :]

    def rows(self, names: list[str]) -> dict[tuple[str, str], list[str]]:
        """Parameters by (layer, group), layers in their order and groups by the alphabet."""
        place = {name: self.layer_and_group(name) for name in names}
        ordered = sorted(names, key=lambda n: (self.layers.index(place[n][0]), place[n][1]))
        rows: dict[tuple[str, str], list[str]] = {}
        for name in ordered:
            rows.setdefault(place[name], []).append(name)
        return rows

    def check_image_size(self, image_size: int) -> None:
        """Raise ValueError for images of which the network would leave nothing."""
        if image_size < self.least_size:
            raise ValueError(
                f"image_size={image_size}: {self.name} needs at least {self.least_size}; raise it"
            )
