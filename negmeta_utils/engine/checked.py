"""Comparison of engine and reference on devices where the tests have not run."""

import math
from collections.abc import Callable

import torch

from negmeta_utils.adaptation import MetaGradient
from negmeta_utils.data.names import kind_and_line
from negmeta_utils.networks.conv4 import CONV4

# In float32 the two are 1e-5 of a tensor's length apart, until rounding decides otherwise which of
# two equal values max-pooling takes. Of the tensor furthest apart, on a CPU, in batches of three
# tasks: with Mini-ImageNet at 84x84, fresh networks, 0.002 to 0.2, the median 0.03, and beyond 0.1
# in one of 14 batches; at 28x28 half below 0.001, and beyond 0.1 (0.14 and 0.4) in 2 of 24 of
# fresh networks, in none of 24 of trained ones. What is wrong is so in every batch: the gradient of
# a tensor that is missing is 1 apart. So one batch within the bound is enough.
MOST_APART = 0.1
BATCHES = 5


def tested_on(device: torch.device) -> bool:
    """Whether the tests compare engine and reference on this kind of device."""
    return device.type == "cpu"


def fault(
    fast: Callable[[int], MetaGradient], reference: Callable[[int], MetaGradient]
) -> str | None:
    """Why `fast` cannot be used in the place of `reference`, in a few words; None where it can.
    Both are of the number of a batch of tasks."""
    for batch in range(BATCHES):
        expected = reference(batch)
        try:
            apart, what = furthest(fast(batch), expected)
        except Exception as error:  # whatever a driver, a compiler or an unknown operation raises
            return f"it fails with {kind_and_line(error)}"
        if apart <= MOST_APART:
            return None
    return f"its {what} is {apart:.2g} times the reference's length away from it"


def furthest(got: MetaGradient, expected: MetaGradient) -> tuple[float, str]:
    """The largest relative difference, of the loss or of one tensor's gradient, and what has it;
    NaN where one is not finite. Of what vanishes it is relative to all tensors together."""
    found = [(_apart(got.loss, expected.loss, _length(expected.loss)), "loss")]
    groups = ("", got.params, expected.params), ("the rates of ", got.alpha, expected.alpha)
    for of, ours, theirs in groups:
        lengths = {name: _length(value) for name, value in theirs.items()}
        lengths |= dict.fromkeys(CONV4.still & lengths.keys(), math.hypot(*lengths.values()))
        for name, value in theirs.items():
            found.append((_apart(ours[name], value, lengths[name]), f"gradient of {of}{name}"))
    return max(found, key=lambda one: (one[0] != one[0], one[0]))


def _apart(got: torch.Tensor, expected: torch.Tensor, length: float) -> float:
    return _length(got.double() - expected) / max(length, 1e-300)  # 0 where there is nothing


def _length(value: torch.Tensor) -> float:
    return value.double().norm().item()
