"""Conv4's parameters as one flat vector a network or task, in the order that the kernels read.

Convolutions' biases are not in it: in front of batch statistics they change nothing, and their
gradient is exactly 0.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from negmeta_utils.model import BLOCKS, Params, n_features

ALIGNED = 16  # numbers: the vectors of a batch begin at multiples of 64 bytes


@dataclass(frozen=True)
class Layout:
    """Where each parameter lies in the vector of a network of these sizes."""

    channels: int
    image_size: int
    n_way: int
    n_filters: int

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """In the vector: weights are (tap, channel, filter) in block 1 and (tap, filter, channel)
        in the others, those of the linear layer (way, place, filter)."""
        filters = self.n_filters
        shapes: dict = {f"conv{block}.weight": (9, filters, filters) for block in BLOCKS[1:]}
        shapes["conv1.weight"] = (9, self.channels, filters)
        for block in BLOCKS:
            shapes[f"norm{block}.weight"] = shapes[f"norm{block}.bias"] = (filters,)
        places = n_features(self.image_size, filters) // filters
        return shapes | {
            "logits.weight": (self.n_way, places, filters),
            "logits.bias": (self.n_way,),
        }

    @cached_property
    def slices(self) -> dict[str, slice]:
        slices, end = {}, 0
        for name, shape in self.shapes.items():
            slices[name] = slice(end, end := end + torch.Size(shape).numel())
        return slices

    @property
    def length(self) -> int:
        return -(-self.slices["logits.bias"].stop // ALIGNED) * ALIGNED

    def view(self, vectors: torch.Tensor, name: str) -> torch.Tensor:
        """One parameter of vectors [n, length]: [n, *shape], the same memory."""
        return vectors[:, self.slices[name]].unflatten(1, self.shapes[name])

    def turned_back(self, vectors: torch.Tensor) -> torch.Tensor:
        """The weights of blocks 2 to 4 as their transposed convolutions read them: [n, 27, F, F],
        nine taps a block, as (tap, channel, filter)."""
        weights = vectors[:, : 27 * self.n_filters**2]
        return weights.unflatten(1, (27, self.n_filters, self.n_filters)).mT.contiguous()

    def pack(self, params: Params) -> torch.Tensor:
        """The vector [length] of parameters, or of rates by the same names and shapes."""
        vectors = params["logits.bias"].new_zeros(1, self.length)
        for name, shape in self.shapes.items():
            self.view(vectors, name)[0] = _turned(name, params[name], shape)
        return vectors[0]

    def unpack(self, vector: torch.Tensor, like: Params) -> Params:
        """The dictionary of a vector; what is not in it is as in `like`."""
        params = dict(like)
        for name in self.shapes:
            params[name] = _turned_back(name, self.view(vector[None], name)[0], like[name].shape)
        return params


def _turned(name: str, value: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if name == "logits.weight":
        n_way, places, filters = shape
        return value.view(n_way, filters, places).mT
    if value.dim() == 4:
        order = (2, 3, 1, 0) if name == "conv1.weight" else (2, 3, 0, 1)
        return value.permute(order).reshape(shape)
    return value


def _turned_back(name: str, value: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    if name == "logits.weight":
        value = value.mT.reshape(shape)
    elif len(shape) == 4:
        order = (3, 2, 0, 1) if name == "conv1.weight" else (2, 3, 0, 1)
        value = value.unflatten(0, (3, 3)).permute(order)
    return value.clone(memory_format=torch.contiguous_format)
