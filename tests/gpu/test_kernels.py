"""The Triton kernels, run by Triton's interpreter on the CPU, against nested automatic
differentiation in float64."""

import os
import subprocess
import sys

import pytest

CHECK = """
import torch
from negmeta_utils import adaptation, model
from negmeta_utils.episodes import Episodes
from negmeta_utils.gpu import meta_gradient, passes
from negmeta_utils.gpu.passes import Batch
from negmeta_utils.gpu.vectors import Layout
from negmeta_utils.model import init_params

passes.TILE = passes.SUM_TILE = passes.SMALL_TILE = 256  # few programs: each is slow here
passes.PRECISION = passes.SUM_PRECISION = "ieee"  # which the interpreter computes in any case
torch.manual_seed(0)
channels, size, ways, filters = 3, 24, 3, 16  # the last block's windows do not fill its plane
layout = Layout(channels, size, ways, filters)
images = torch.randint(0, 256, (40, size, size, channels), dtype=torch.uint8)
params = init_params(0, channels, size, ways, filters)
for name, value in params.items():
    if name.startswith("norm"):
        value += 0.3 * torch.randn(value.shape)
params["norm2.weight"][:5] *= -1  # there pooling takes the smallest
alpha = {n: 0.02 + 0.1 * torch.randn(v.shape) for n, v in params.items()}
support = torch.randint(0, 40, (1, ways), dtype=torch.int32)
query = torch.randint(0, 40, (1, 2 * ways), dtype=torch.int32)
labels = torch.arange(ways), torch.arange(ways).repeat_interleave(2)


def drawn(rows, dtype):
    return images[rows.long()].movedim(-1, 2).to(dtype) / 255


def check(got, expected, what):
    apart = (got.double() - expected).norm() / expected.norm()
    assert apart < 1e-4, (what, apart)


inputs = drawn(support, torch.float64), drawn(query, torch.float64)
episodes = Episodes(inputs[0], labels[0], inputs[1], labels[1])
exact = [{n: v.double() for n, v in tensors.items()} for tensors in (params, alpha)]
expected = adaptation.meta_gradient(*exact, episodes, 2)
got = meta_gradient.meta_gradients(
    layout, layout.pack(params)[None], layout.pack(alpha)[None],
    Batch(images, support, labels[0]), Batch(images, query, labels[1]), 2,
)
check(got.loss[0], expected.loss, "loss")
zeros = {n: torch.zeros_like(v) for n, v in params.items()}
for which in ("params", "alpha"):
    found = layout.unpack(getattr(got, which)[0], zeros)
    for name, value in getattr(expected, which).items():
        if not (name.startswith("conv") and name.endswith("bias")):  # exactly zero
            check(found[name], value, (which, name))

logits = meta_gradient.adapted_logits(
    layout, layout.pack(params)[None], layout.pack(alpha)[None],
    Batch(images, support, labels[0]), Batch(images, query, labels[1]), 2,
)
own = adaptation.adapt(*exact, episodes.support[0], labels[0], 2)
check(logits[0], model.forward(own, episodes.query[0]), "logits")
print("as the reference")
"""


@pytest.mark.slow
def test_kernels_are_the_reference():
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "as the reference\n", done.stderr[-2000:]
