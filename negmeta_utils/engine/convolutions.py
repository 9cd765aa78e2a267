"""Convolutions of several tasks by torch's operations.

Notation is that of `engine.passes`, layouts are those of `engine.layers`.
"""

import torch
import torch.nn.functional as F


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    x2: torch.Tensor | None = None,
    weight2: torch.Tensor | None = None,
) -> torch.Tensor:
    """W*x, plus W2*x2 if given, with a border of zeros."""
    if x2 is not None:
        return convolve(x, weight).add_(convolve(x2, weight2))
    if len(weight) == 1:
        return nhwc(F.conv2d(nchw(x), weight[0], padding=1), len(x))
    return torch.cat([convolve(x[t : t + 1], weight[t : t + 1]) for t in range(len(x))])


def input_gradient(
    dz: torch.Tensor,
    weight: torch.Tensor,
    dz2: torch.Tensor | None = None,
    weight2: torch.Tensor | None = None,
) -> torch.Tensor:
    """W^T*dz, plus W2^T*dz2 if given."""
    if dz2 is not None:
        return input_gradient(dz, weight).add_(input_gradient(dz2, weight2))
    if len(weight) == 1:
        return nhwc(F.conv_transpose2d(nchw(dz), weight[0], padding=1), len(dz))
    tasks = range(len(dz))
    return torch.cat([input_gradient(dz[t : t + 1], weight[t : t + 1]) for t in tasks])


def weight_gradient(
    x: torch.Tensor,
    dz: torch.Tensor,
    x2: torch.Tensor | None = None,
    dz2: torch.Tensor | None = None,
) -> torch.Tensor:
    """x (*) dz of each task, plus x2 (*) dz2 if given: [n_tasks, filters, channels, 3, 3]."""
    if x2 is not None:
        return weight_gradient(x, dz).add_(weight_gradient(x2, dz2))
    weight = x.new_empty(dz.shape[-1], x.shape[-1], 3, 3)
    gradients = [
        torch.ops.aten.convolution_backward(
            nchw(dz[t : t + 1]), nchw(x[t : t + 1]), weight, None,
            [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False],
        )[1][None]
        for t in range(len(x))
    ]  # fmt: skip
    return torch.cat(gradients)


def stored(weight: torch.Tensor) -> torch.Tensor:
    """Weights [n_tasks, filters, channels, 3, 3] in the memory order in which convolutions take
    them and return their gradients."""
    filters = weight.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return filters.unflatten(0, weight.shape[:2])


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """[n_tasks, n, channels, height, width] as [n_tasks, n, height, width, channels]."""
    # `contiguous` would leave the strides of a single channel as they are, and torch reads the
    # memory order off them.
    return images.movedim(2, 4).clone(memory_format=torch.contiguous_format)


def nchw(x: torch.Tensor) -> torch.Tensor:
    """[n_tasks, n, h, w, c] as torch's [n_tasks * n, c, h, w], the memory unchanged."""
    return x.flatten(0, 1).permute(0, 3, 1, 2)


def nhwc(x: torch.Tensor, n_tasks: int) -> torch.Tensor:
    return x.permute(0, 2, 3, 1).unflatten(0, (n_tasks, -1))
