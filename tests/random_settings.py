"""Random parameters, rates and episodes, and meta-gradients that must be the same."""

import torch

from negmeta_utils import model
from negmeta_utils.adaptation import METHODS, init_alpha
from negmeta_utils.episodes import Episodes
from negmeta_utils.model import init_params

N_WAY = 3


def random_setting(method, image_size, channels=1, n_shot=1, n_tasks=2, n_filters=4, flat=False):
    """Parameters, rates of both signs and episodes in float64, all from one fixed seed.

    flat: black, white and half-black images like scanned glyphs, full of ties in max-pooling.
    """
    generator = torch.Generator().manual_seed(7)
    params = {
        name: value.double()
        for name, value in init_params(1, channels, image_size, N_WAY, n_filters).items()
    }
    for block in model.BLOCKS:  # scales of both signs, and shifts off zero
        noise = torch.randn(2, n_filters, generator=generator, dtype=torch.float64)
        params[f"norm{block}.weight"] += noise[0]
        params[f"norm{block}.bias"] += 0.1 * noise[1]
    alpha = {
        name: value.double() + METHODS[method].learns_alpha * 0.05 * normal(value, generator)
        for name, value in init_alpha(method, params, inner_lr=0.1).items()
    }

    def images(n):
        values = torch.rand(
            n_tasks, n, channels, image_size, image_size, generator=generator, dtype=torch.float64
        )
        if flat:
            values = (values > 0.7).double()
            values[..., : image_size // 2, :] = 0
            values[..., -image_size // 4 :] = 1
        return values

    labels = torch.arange(N_WAY)
    episodes = Episodes(
        images(N_WAY * n_shot), labels.repeat_interleave(n_shot),
        images(N_WAY * 2), labels.repeat_interleave(2),
    )  # fmt: skip
    return params, alpha, episodes


def normal(like, generator):
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)


def assert_same(result, expected, tolerance):
    """Every entry within `tolerance` of the largest of its tensor; of 1 for a bias that cancels."""
    torch.testing.assert_close(result.loss, expected.loss, rtol=tolerance, atol=0)
    # A mean of all, or of each task's mean: they may differ in the last bit.
    torch.testing.assert_close(result.accuracy, expected.accuracy, rtol=1e-15, atol=0)
    for ours, theirs in ((result.params, expected.params), (result.alpha, expected.alpha)):
        assert list(ours) == list(theirs)
        for name, value in theirs.items():
            vanishes = name.startswith("conv") and name.endswith("bias")
            scale = 1 if vanishes else float(value.abs().max())
            assert ours[name].shape == value.shape, name
            assert float((ours[name] - value).abs().max()) <= tolerance * scale, name
