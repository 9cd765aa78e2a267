"""The GPU kernels computed by Triton's interpreter, against torch's operations.

`test_adjoint_kernels.py` runs this in a process of its own with TRITON_INTERPRET=1, which must be
set before Triton is imported.
"""

import pytest
import torch

from negmeta_utils import adjoint, adjoint_kernels, adjoint_passes, capture
from negmeta_utils import adjoint_convolutions as convolutions
from negmeta_utils import adjoint_layers as layers
from tests.test_adjoint import assert_same, random_setting


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("n_tasks, size, channels, filters", [(3, 7, 4, 24), (1, 9, 17, 16)])
def test_convolution_and_its_weight_gradient(n_tasks, size, channels, filters):
    x, x2 = normal(2, n_tasks, 2, size, size + 1, channels)
    weight, shared = normal(n_tasks, filters, channels, 3, 3), normal(1, filters, channels, 3, 3)
    dz, dz2 = normal(2, n_tasks, 2, size, size + 1, filters)
    once = adjoint_kernels.convolve(x, weight, None, None)
    torch.testing.assert_close(once, convolutions.convolve(x, weight), rtol=0, atol=1e-4)
    twice = adjoint_kernels.convolve(x, weight, x2, shared)
    expected = convolutions.convolve(x, weight, x2, shared)
    torch.testing.assert_close(twice, expected, rtol=0, atol=1e-4)
    once = adjoint_kernels.weight_gradient(x, dz, None, None)
    torch.testing.assert_close(once, convolutions.weight_gradient(x, dz), rtol=0, atol=1e-4)
    twice = adjoint_kernels.weight_gradient(x, dz, x2, dz2)
    expected = convolutions.weight_gradient(x, dz, x2, dz2)
    torch.testing.assert_close(twice, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_transposed_convolution(channels):
    dz, weight = normal(2, 2, 6, 5, 8), normal(2, 8, channels, 3, 3)
    ours = adjoint_kernels.input_gradient(dz, weight, None, None, False)
    torch.testing.assert_close(ours, convolutions.input_gradient(dz, weight), rtol=0, atol=1e-4)


@pytest.mark.parametrize("n_tasks, size, channels", [(2, 9, 3), (1, 6, 1)])
def test_block_one_with_its_pooling(n_tasks, size, channels):
    x, weight = normal(n_tasks, 3, size, size + 1, channels), normal(n_tasks, 8, channels, 3, 3)
    weight_t = normal(1, 8, channels, 3, 3)
    pooled, index = layers.pool(convolutions.convolve(x, weight))
    ours, place = adjoint_kernels.pooled_convolve(x, weight)
    torch.testing.assert_close(ours, pooled, rtol=0, atol=1e-5)
    tangent = layers.at(convolutions.convolve(x, weight_t), index)
    ours = adjoint_kernels.convolve_at(x, weight_t, place)
    torch.testing.assert_close(ours, tangent, rtol=0, atol=1e-5)
    u = normal(*pooled.shape)
    planes = layers.add_unpooled(x.new_zeros(*x.shape[:4], 8), u, index)
    ours = adjoint_kernels.weight_gradient_at(x, u, place)
    torch.testing.assert_close(ours, convolutions.weight_gradient(x, planes), rtol=0, atol=1e-4)


def test_of_equal_values_the_first_counts_as_in_torchs_pooling():
    flat = torch.ones(1, 1, 8, 8, 1)
    _, place = adjoint_kernels.pooled_convolve(flat, torch.ones(1, 4, 1, 3, 3))
    assert (place[:, :, 1:-1, 1:-1] == 0).all()


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """All tasks at once through the kernels, and the passes traced whole as for compilation."""
    passes = (
        torch.compile(function, dynamic=False, fullgraph=True, backend="eager")
        for function in adjoint_passes.PLAIN
    )
    program = adjoint_passes.Program(*passes)
    monkeypatch.setattr(convolutions, "compiles", lambda x: True)
    monkeypatch.setattr(adjoint_passes, "_fused", lambda: program)
    monkeypatch.setattr(adjoint, "_each_task", lambda function, *tensors: [function(*tensors)])


def test_all_passes_as_on_a_gpu(request):
    params, alpha, episodes = random_setting("meta-sgd", 17)
    params, alpha = ({n: v.float() for n, v in group.items()} for group in (params, alpha))
    episodes = episodes._replace(support=episodes.support.float(), query=episodes.query.float())
    expected = adjoint.meta_gradient(params, alpha, episodes, 1)
    adapted = adjoint.adapt(params, alpha, episodes.support, episodes.support_labels, 1)
    features = adjoint.embed(adapted, episodes.query)
    request.getfixturevalue("as_on_a_gpu")
    assert_same(adjoint.meta_gradient(params, alpha, episodes, 1), expected, 1e-3)
    ours = adjoint.adapt(params, alpha, episodes.support, episodes.support_labels, 1)
    for name, value in adapted.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-4)
    ours = adjoint.embed(adapted, episodes.query)
    torch.testing.assert_close(ours, features, rtol=1e-3, atol=1e-3)


def test_precision_decides_the_arithmetic_and_is_put_back():
    outside = torch.get_float32_matmul_precision()
    with capture.arithmetic("tf32"):
        assert adjoint_kernels._precision() == "tf32"
    with capture.arithmetic("float32"):
        assert adjoint_kernels._precision() == "tf32x3"
    assert torch.get_float32_matmul_precision() == outside
