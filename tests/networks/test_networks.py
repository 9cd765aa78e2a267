"""Every network of the catalogue: against torch's own layers, and by the rules of `Network`."""

import pytest
import torch
from torch import nn

from negmeta_utils import model
from negmeta_utils.networks.catalogue import NETWORKS
from negmeta_utils.networks.network import Network

SIZE = {"maml-pytorch": 48}


def jittered(network: Network, channels: int, size: int, n_filters: int = 8) -> dict:
    """Fresh parameters away from ones and zeros, so that scale and shift count."""
    generator = torch.Generator().manual_seed(0)
    params = network.init(1, channels, size, 5, n_filters)
    return {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in params.items()}


class Residual(nn.Module):
    """A block of ResNet-12 from torch's own layers, as Lee et al. 2019 draw it."""

    def __init__(self, before, width):
        super().__init__()

        def convolution(inputs, side):
            layer = nn.Conv2d(inputs, width, side, padding=side // 2, bias=False)
            return nn.Sequential(layer, nn.BatchNorm2d(width))

        self.conv1, self.conv2 = convolution(before, 3), convolution(width, 3)
        self.shortcut, self.conv3 = convolution(before, 1), convolution(width, 3)
        self.relu, self.pool = nn.LeakyReLU(0.1), nn.MaxPool2d(2)

    def forward(self, x):
        out = self.conv3(self.relu(self.conv2(self.relu(self.conv1(x)))))
        return self.pool(self.relu(out + self.shortcut(x)))


def torch_resnet12(channels, n_filters, n_way):
    widths = [n_filters * w // 64 for w in (64, 160, 320, 640)]
    blocks = [Residual(b, w) for b, w in zip([channels, *widths], widths, strict=False)]
    head = nn.Linear(widths[-1], n_way)
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).train()


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 37)])
def test_resnet12_equals_torchs_own_layers(channels, size):
    network = NETWORKS["resnet12"]
    params = jittered(network, channels, size)
    oracle = torch_resnet12(channels, 8, 5)
    for target, value in zip(oracle.parameters(), params.values(), strict=True):
        target.data.copy_(value)
    images = torch.rand(7, channels, size, size)
    torch.testing.assert_close(network.forward(params, images), oracle(images))
    found = network.activations(params, images)["block2.conv3"]
    torch.testing.assert_close(found, oracle[:2](images).flatten(1))


def test_resnet12_has_the_size_of_its_papers():
    params = NETWORKS["resnet12"].init(0, 3, 84, 5, 64)
    body = sum(value.numel() for name, value in params.items() if "logits" not in name)
    assert body == 12_424_320, "TADAM's and MetaOptNet's 12.4 million"


def test_conv4_is_the_model():
    network = NETWORKS["conv4"]
    params, images = jittered(network, 3, 28), torch.rand(6, 3, 28, 28)
    torch.testing.assert_close(
        network.forward(params, images), model.forward(params, images), rtol=0, atol=0
    )
    assert len(network.rows(list(params))) == 9


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_keeps_the_rules(name):
    network = NETWORKS[name]
    size = SIZE.get(name, 28)
    params = jittered(network, 1, size)
    images = torch.rand(4, 1, size, size)
    activations = network.activations(params, images)
    assert tuple(activations) == network.body
    assert all(value.dim() == 2 and len(value) == 4 for value in activations.values())
    features = network.embed(params, images)
    assert features.shape[1] == params[f"{network.head}.weight"].shape[1]
    logits = network.forward(params, images)
    assert logits.shape == (4, 5)
    of_tasks = {key: value[None].expand(2, *value.shape) for key, value in params.items()}
    both = network.answer(of_tasks, features[None].expand(2, *features.shape))
    torch.testing.assert_close(both[1], logits)
    rows = network.rows(list(params))
    assert [layer for layer, group in rows if group == "weights+bias"] == list(network.layers)
    assert sorted(n for names in rows.values() for n in names) == sorted(params)
    again = network.init(1, 1, size, 5, 8)
    assert all(torch.equal(again[n], network.init(1, 1, size, 5, 8)[n]) for n in again)
    assert not torch.equal(again["logits.weight"], network.init(2, 1, size, 5, 8)["logits.weight"])


@pytest.mark.parametrize("name", NETWORKS)
def test_no_two_tensors_start_from_the_same_numbers(name):
    params = NETWORKS[name].init(0, 1, SIZE.get(name, 28), 5, 8)
    drawn = [value.flatten() for value in params.values() if len(value.unique()) >= 12]
    assert len({tuple(value[:12].argsort().tolist()) for value in drawn}) == len(drawn) > 4


@pytest.mark.parametrize("name", NETWORKS)
def test_images_of_which_nothing_is_left_are_refused(name):
    network = NETWORKS[name]
    least = network.least_size
    network.check_image_size(least)
    params = network.init(0, 1, least, 2, 4)
    assert network.embed(params, torch.rand(4, 1, least, least)).shape[1] > 0
    with pytest.raises(ValueError, match=f"image_size={least - 1}: {name} needs at least {least}"):
        network.check_image_size(least - 1)
    with pytest.raises((RuntimeError, ValueError)):
        network.embed(params, torch.rand(4, 1, least - 1, least - 1)).view(4, -1)[:, 0]
