"""What the study has to know of a network: parameters from a seed, activations layer by layer, and
which layer a parameter belongs to."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from negmeta_utils.data.names import first_line

Params = dict[str, torch.Tensor]
WEIGHTS = "weights+bias"  # the group of parameters that are no normalisation's


class RefusedNetworkError(ValueError):
    """What this study refuses of a network, in one line that says what to do."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network as functions of a dictionary of parameters.

    name: as manifests have it.
    layers: the rows of table 1, from the image to the classes. The last is the head, a linear
    layer whose parameters are called HEAD.weight and, where it has one, HEAD.bias; the others are
    the body.
    init: takes seed, channels, image_size, n_way, n_filters; gives float32 parameters on the CPU
    or on `device`.
    activations: takes parameters and images [n, channels, height, width]; gives by name what each
    layer of the body makes of them, flat [n, ...]. The last are the embeddings [n, n_features].
    layer_and_group: takes a parameter's name; gives its layer, and "weights+bias" or the kind of
    its normalisation, such as "batchnorm".
    least_size: images of fewer pixels a side leave nothing to embed.
    buffers: what belongs to it besides parameters, the same under every seed.
    still: parameters whose gradient is zero, so that their rates cannot move.
    """

    name: str
    layers: tuple[str, ...]
    init: Callable[..., Params]
    activations: Callable[[Params, torch.Tensor], dict[str, torch.Tensor]]
    layer_and_group: Callable[[str], tuple[str, str]]
    least_size: int = 1
    buffers: Params = field(default_factory=dict)
    still: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Network({self.name}, {len(self.layers)} layers)"

    @property
    def head(self) -> str:
        return self.layers[-1]

    @property
    def body(self) -> tuple[str, ...]:
        return self.layers[:-1]

    def embed(self, params: Params, images: torch.Tensor) -> torch.Tensor:
        """Embeddings [n, n_features] of images [n, channels, height, width]."""
        return list(self.activations(params, images).values())[-1]

    def forward(self, params: Params, images: torch.Tensor) -> torch.Tensor:
        """Logits [n, n_way] of images [n, channels, height, width]."""
        return self.answer(params, self.embed(params, images))

    def answer(self, params: Params, features: torch.Tensor) -> torch.Tensor:
        """Logits [..., n, n_way] of embeddings [..., n, n_features]. params: one set for all
        tasks or, with the same leading dimension, one for each."""
        weight, bias = params[f"{self.head}.weight"], params.get(f"{self.head}.bias")
        if features.dim() == 2:
            return F.linear(features, weight, bias)
        logits = features @ weight.mT
        return logits if bias is None else logits + bias[..., None, :]

    def rows(self, names: list[str]) -> dict[tuple[str, str], list[str]]:
        """Names of parameters by (layer, group): layers in their order, groups by the alphabet."""
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


def check_params(network: Network, params: Params, alpha: Params) -> None:
    """Raise ValueError, naming the argument, for what is no network, no parameters of it, or no
    rates that can be broadcast to each of them."""
    if not isinstance(network, Network):
        raise ValueError(
            f"network: a {type(network).__name__}; make a network of it by negmeta_utils.network"
        )
    for argument, given in (("params", params), ("alpha", alpha)):
        if not isinstance(given, dict) or not all(map(torch.is_tensor, given.values())):
            raise ValueError(f"{argument}: must be tensors by the names of parameters")
        for name in given:
            try:
                layer = network.layer_and_group(name)[0]
            except (KeyError, ValueError):
                layer = None
            if layer not in network.layers:
                raise ValueError(
                    f"{argument}: {name!r} is no parameter of {network.name}; buffers do not count"
                )
    if missing := alpha.keys() - params.keys():
        raise ValueError(f"params: {min(missing)!r} is missing")
    if missing := params.keys() - alpha.keys():
        raise ValueError(f"alpha: no rate for {min(missing)!r}; give 0 where nothing adapts")
    for name, rate in alpha.items():
        wanted = list(params[name].shape)
        try:
            rate.expand(wanted)
        except RuntimeError as error:
            raise ValueError(f"alpha: {name!r} is {list(rate.shape)}, wanted {wanted}") from error
        if rate.dtype != params[name].dtype:
            raise ValueError(
                f"alpha: {name!r} is {rate.dtype}, and its parameter {params[name].dtype}; give "
                "both one precision"
            )


def check_pass(network: Network, params: Params, images: torch.Tensor, n_way: int) -> None:
    """Raise ValueError for a network that does not take these images [n, channels, height, width],
    values 0 to 1, draws random numbers or gives one image two answers, or answers fewer than
    `n_way` classes."""
    shape = "x".join(map(str, images.shape[1:]))
    drawn = torch.get_rng_state()
    try:
        logits, again = (network.forward(params, images) for _ in range(2))
    except RefusedNetworkError:
        raise
    except Exception as error:  # whatever the code of a network of one's own raises
        raise ValueError(
            f"network: {network.name} with these params takes no images of {shape} "
            f"({first_line(error)})"
        ) from error
    if not torch.allclose(logits, again, equal_nan=True):
        raise ValueError(
            f"network: two looks of {network.name} at one image differ; take its dropout out"
        )
    if not torch.equal(drawn, torch.get_rng_state()):
        raise ValueError(
            f"network: {network.name} draws random numbers in its forward pass; take them out"
        )
    if logits.shape[1] < n_way:
        raise ValueError(
            f"n_way={n_way}: the head of {network.name} answers {logits.shape[1]} classes"
        )
