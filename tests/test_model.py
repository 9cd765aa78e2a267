import pytest
import torch
from torch import nn

from negmeta_utils.model import embed, forward, init_params, layer_and_group, n_features


def torch_conv4(channels, n_filters, features, n_way):
    """The same network from torch's own layers: batch statistics are what train mode uses."""
    blocks = []
    for block in range(4):
        blocks += [
            nn.Conv2d(channels if block == 0 else n_filters, n_filters, 3, padding=1),
            nn.BatchNorm2d(n_filters),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(features, n_way)).train()


def test_the_papers_network_has_1600_features_and_121093_parameters():
    params = init_params(0, channels=3, image_size=84, n_way=5, n_filters=64)
    assert sum(value.numel() for value in params.values()) == 121_093
    assert n_features(84) == 1600
    assert params["conv1.weight"].shape == (64, 3, 3, 3)
    assert params["conv4.weight"].shape == (64, 64, 3, 3)
    assert params["logits.weight"].shape == (5, 1600)
    images = torch.rand(2, 3, 84, 84)
    assert embed(params, images).shape == (2, 1600)
    assert forward(params, images).shape == (2, 5)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 37)])
def test_forward_equals_torchs_own_layers(channels, size):
    params = init_params(1, channels, size, n_way=3, n_filters=6)
    network = torch_conv4(channels, 6, n_features(size, 6), 3)
    generator = torch.Generator().manual_seed(0)
    # Away from the initial ones and zeros, so that scale and shift count.
    params = {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in params.items()}
    for target, value in zip(network.parameters(), params.values(), strict=True):
        target.data.copy_(value)
    images = torch.rand(7, channels, size, size, generator=generator)
    torch.testing.assert_close(forward(params, images), network(images))


def test_initial_values_depend_on_the_seed_alone():
    first, again, other = (init_params(seed, 1, 28, 5, 4) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    bound = 1 / 3  # 1 / sqrt(fan_in), one channel of 3x3
    assert first["conv1.weight"].abs().max() <= bound
    assert first["conv1.weight"].abs().max() > 0.8 * bound


def test_images_too_small_for_four_poolings_are_refused():
    with pytest.raises(ValueError, match="image_size=15: four 2x2 poolings need at least 16"):
        init_params(0, 1, 15, 5)


def test_every_parameter_belongs_to_a_row_of_table_1():
    rows = {name: layer_and_group(name) for name in init_params(0, 1, 28, 5, 4)}
    assert rows["conv3.bias"] == ("conv3", "weights+bias")
    assert rows["norm3.weight"] == ("conv3", "batchnorm")
    assert rows["logits.weight"] == ("logits", "weights+bias")
    assert len(set(rows.values())) == 9
