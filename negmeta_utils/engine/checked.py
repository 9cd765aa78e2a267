"""Comparison of engine and reference on devices where the tests have not run."""

from collections.abc import Callable

import torch

from negmeta_utils.adaptation import MetaGradient
from negmeta_utils.model import Params

# Far above what float32 explains (1e-5 or so, and 1e-3 with TensorFloat-32), far below an error.
MOST_APART = 0.01


def tested_on(device: torch.device) -> bool:
    """Whether the tests compare engine and reference on this kind of device."""
    return device.type == "cpu"


def fault(fast: Callable[[], MetaGradient], reference: Callable[[], MetaGradient]) -> str | None:
    """Why `fast` cannot be used in the place of `reference`, in a few words; None where it can."""
    expected = reference()
    try:
        apart = difference(fast(), expected)
    except Exception as error:  # whatever a driver, a compiler or an unknown operation raises
        return f"it fails with {type(error).__name__}: {str(error).splitlines()[0][:200]}"
    if not apart <= MOST_APART:
        return f"its meta-gradient is {apart:.2g} times the reference's length away from it"
    return None


def difference(got: MetaGradient, expected: MetaGradient) -> float:
    """The largest relative difference of the losses, of the gradients of all parameters, and of
    those of all rates; NaN where one is not finite."""
    pairs = [
        ({"loss": got.loss}, {"loss": expected.loss}),
        (got.params, expected.params),
        (got.alpha, expected.alpha),
    ]
    return max((_relative(a, b) for a, b in pairs), key=lambda apart: (apart != apart, apart))


def _relative(got: Params, expected: Params) -> float:
    def length(tensors: Params) -> float:
        return sum(value.double().square().sum().item() for value in tensors.values()) ** 0.5

    of_difference = length({name: got[name].double() - expected[name] for name in expected})
    return of_difference / length(expected) if of_difference else 0.0
