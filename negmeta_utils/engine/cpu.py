"""Meta-gradients, adaptation and features of tasks on a CPU, each by one call of `native/*.c`; the
formulas are those of `engine.passes`.

There every sum has a fixed order: the same inputs give the same bits on every processor with fused
multiply-add, whatever its vectors' width, the compiler, the number of threads and torch's settings.

Parameters, rates and gradients go there as one vector each, whose order `pack` and
`native/passes.h` describe.
"""

import ctypes
from typing import NamedTuple

import torch

from negmeta_utils.engine import library
from negmeta_utils.model import BLOCKS, Params

FILTERS = 32  # of a tile of the C functions; numbers of filters are multiples of it
CHANNELS = (1, 3)  # of images
BITS = {torch.float32: 32, torch.float64: 64}


class Network(NamedTuple):
    """The shape of a Conv4, in the order of the struct in `native/passes.h`."""

    channels: int
    height: int
    width: int
    filters: int
    n_way: int

    @property
    def last(self) -> tuple[int, int, int]:
        """The last block's output: height, width, filters."""
        return self.height >> len(BLOCKS), self.width >> len(BLOCKS), self.filters


class Judged(NamedTuple):
    """One task's loss and accuracy, and gradients as `pack` orders them; rates is None where there
    is no inner loop."""

    loss: float
    accuracy: float
    params: torch.Tensor
    rates: torch.Tensor | None


def network_of(params: Params, images: torch.Tensor, alpha: Params | None = None) -> Network | None:
    """The network of `params`, shared or a set a task, for `images` [..., channels, height, width].
    None where C does not do it: on a GPU, without a compiler, for numbers of filters that vectors
    do not divide, for rates `alpha` of another precision. Raises ValueError for images of other
    channels than the network's."""
    n_way, filters = params["logits.bias"].shape[-1], params["norm1.bias"].shape[-1]
    network = Network(*images.shape[-3:], filters, n_way)
    if (channels := params["conv1.weight"].shape[-3]) != network.channels:
        raise ValueError(
            f"images of {network.channels} channel(s) for a network of {channels}; give it others"
        )
    values = [images, *params.values(), *(alpha or {}).values()]
    suits = (
        filters % FILTERS == 0
        and network.channels in CHANNELS
        and all(value.device.type == "cpu" and value.dtype == images.dtype for value in values)
        and compiled(images.dtype)
    )
    return network if suits else None


def compiled(dtype: torch.dtype) -> bool:
    return dtype in BITS and library.library(BITS[dtype]) is not None


def pack(network: Network, values: Params) -> torch.Tensor:
    """Parameters, or rates of which some may be one number for all of a tensor, as a vector: the
    weights of convolutions as [3, 3, channels, filters] block by block, batch normalisation's
    scale and shift block by block, the linear layer's weights for the last block's output as it
    lies in memory, its bias, and zeros up to a multiple of 32."""
    filters, n_way = network.filters, network.n_way
    height, width, _ = network.last
    parts = []
    for block in BLOCKS:
        channels = network.channels if block == 1 else filters
        weight = values[f"conv{block}.weight"].expand(filters, channels, 3, 3)
        parts.append(weight.permute(2, 3, 1, 0))
    for block in BLOCKS:
        parts += [values[f"norm{block}.{name}"].expand(filters) for name in ("weight", "bias")]
    weight = values["logits.weight"].expand(n_way, filters * height * width)
    parts.append(weight.unflatten(1, (filters, height, width)).movedim(1, 3))
    parts.append(values["logits.bias"].expand(n_way))
    vector = torch.cat([part.detach().reshape(-1) for part in parts])
    return torch.cat([vector, vector.new_zeros(-len(vector) % 32)])


def unpack(network: Network, vectors: torch.Tensor, conv_bias: Params) -> Params:
    """The inverse of `pack` of vectors [..., size], each tensor [..., *its shape], with the
    convolutions' biases, which no vector has, as they are in `conv_bias`."""
    filters, n_way, leading = network.filters, network.n_way, vectors.shape[:-1]
    channels = [network.channels] + [filters] * (len(BLOCKS) - 1)
    head = n_way * filters * network.last[0] * network.last[1]
    sizes = [9 * n * filters for n in channels] + [filters] * 2 * len(BLOCKS) + [head, n_way]
    *convolutions, weight, bias, _ = vectors.split([*sizes, vectors.shape[-1] - sum(sizes)], -1)
    norms = convolutions[len(BLOCKS) :]
    values = {}
    for block in BLOCKS:
        taps = convolutions[block - 1].unflatten(-1, (3, 3, channels[block - 1], filters))
        values[f"conv{block}.weight"] = taps.movedim((-1, -2), (-4, -3))
        values[f"conv{block}.bias"] = conv_bias[f"conv{block}.bias"].expand(*leading, filters)
        values[f"norm{block}.weight"], values[f"norm{block}.bias"] = norms[2 * block - 2 :][:2]
    weight = weight.unflatten(-1, (n_way, *network.last)).movedim(-1, -3)
    values["logits.weight"], values["logits.bias"] = weight.flatten(-3), bias
    return {name: value.contiguous() for name, value in values.items()}


def task_gradient(
    network: Network, params, rates, support, support_labels, query, query_labels, n_steps: int,
    first_order: bool,
) -> Judged:  # fmt: skip
    """The meta-gradient of one task, as `adaptation.task_loss` defines it.

    params, rates: as `pack` gives them. support, query: images [n, channels, height, width];
    labels: int64 [n].
    """
    support, query = _channels_last(support), _channels_last(query)
    gradient, of_rates, judged = torch.empty_like(params), torch.empty_like(params), _numbers(2)
    _call(
        "task_gradient", params.dtype, network, params, rates,
        support, _labels(support_labels, network.n_way, len(support)), len(support),
        query, _labels(query_labels, network.n_way, len(query)), len(query),
        n_steps, int(first_order), gradient, of_rates, judged[:1], judged[1:],
    )  # fmt: skip
    return Judged(*judged.tolist(), gradient, of_rates)


def prototype_gradient(
    network: Network, params, support, support_labels, query, query_labels
) -> Judged:
    """The gradient of a prototypical network's loss on one task; arguments as for
    `task_gradient`."""
    support, query = _channels_last(support), _channels_last(query)
    gradient, judged = torch.empty_like(params), _numbers(2)
    _call(
        "prototype_gradient", params.dtype, network, params,
        support, _labels(support_labels, network.n_way, len(support)), len(support),
        query, _labels(query_labels, network.n_way, len(query)), len(query),
        gradient, judged[:1], judged[1:],
    )  # fmt: skip
    return Judged(*judged.tolist(), gradient, None)


def adapt(network: Network, params, rates, support, labels, n_steps: int) -> torch.Tensor:
    """A vector as `params` after `n_steps` inner steps on one task's support images."""
    support, adapted = _channels_last(support), torch.empty_like(params)
    _call(
        "adapt", params.dtype, network, params, rates,
        support, _labels(labels, network.n_way, len(support)), len(support), n_steps, adapted,
    )  # fmt: skip
    return adapted


def predict(network: Network, sets, images) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [n_sets, n, n_features] and logits [n_sets, n, n_way] of images [n, channels,
    height, width], by each of several parameters [n_sets, size]."""
    images, n_sets = _channels_last(images), len(sets)
    features = images.new_empty(n_sets, len(images), *network.last)
    logits = images.new_empty(n_sets, len(images), network.n_way)
    _call(
        "predict", sets.dtype, network, sets.contiguous(), n_sets, images, len(images),
        features, logits,
    )  # fmt: skip
    return features.movedim(4, 2).flatten(2), logits


def judge(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of logits [n, n_way]; labels: int64 [n]."""
    n, n_way = logits.shape
    judged = _numbers(2)
    _call(
        "judge", logits.dtype,
        logits.contiguous(), _labels(labels, n_way, n), n, n_way, judged[:1], judged[1:],
    )  # fmt: skip
    return tuple(judged.tolist())


def adam(
    param, gradient, exp_avg, exp_avg_sq, lr: float, betas: tuple[float, float], eps: float,
    step: int,
) -> None:  # fmt: skip
    """Step number `step` of Adam, in place; the tensors of one shape, and contiguous but for
    `gradient`."""
    _call(
        "adam", param.dtype, param, gradient.contiguous(), exp_avg, exp_avg_sq,
        param.numel(), float(lr), *betas, eps, step,
    )  # fmt: skip


def _call(name: str, dtype: torch.dtype, *arguments: torch.Tensor | Network | int | float) -> None:
    """A function of `native/*.c`. Raises MemoryError where it has too little to work with."""
    values = [_c_value(argument) for argument in arguments]
    if getattr(library.library(BITS[dtype]), name)(*values):
        raise MemoryError(f"{name}: not enough memory; lower n_query, n_shot, n_way or image_size")


def _c_value(argument: torch.Tensor | Network | int | float):
    if isinstance(argument, Network):
        return (ctypes.c_long * len(argument))(*argument)
    if isinstance(argument, torch.Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_long(argument)


def _numbers(n: int) -> torch.Tensor:
    return torch.empty(n, dtype=torch.float64, device="cpu")


def _labels(labels: torch.Tensor, n_way: int, n: int) -> torch.Tensor:
    """Raises ValueError unless they are the numbers of the classes of `n` images: C would read
    beside its arrays."""
    if labels.shape != (n,):
        raise ValueError(f"labels must be one for each of {n} images, not {list(labels.shape)}")
    if labels.dtype != torch.int64 or labels.min() < 0 or labels.max() >= n_way:
        raise ValueError(f"labels must be int64 in 0..{n_way - 1}")
    return labels.contiguous()


def _channels_last(images: torch.Tensor) -> torch.Tensor:
    return images.detach().movedim(1, 3).contiguous()
