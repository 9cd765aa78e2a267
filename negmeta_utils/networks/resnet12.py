"""ResNet-12, the field's second backbone, as functions of a dictionary of parameters.

Four residual blocks, each of three 3x3 convolutions without bias, with batch normalisation and
leaky ReLU (0.1); a 1x1 convolution with batch normalisation beside them; their sum through the
leaky ReLU once more and 2x2 max-pooling. The mean over all places is the embedding (Mishra et al.
2018; Oreshkin et al. 2018; widths 64, 160, 320 and 640 as in Lee et al. 2019, without their
DropBlock). Batch normalisation uses the statistics of the current batch, as everywhere here.
"""

import math

import torch
import torch.nn.functional as F

from negmeta_utils.model import BATCH_NORM_EPS, Params
from negmeta_utils.networks.network import WEIGHTS, Network

BLOCKS = (1, 2, 3, 4)
CONVOLUTIONS = ("conv1", "conv2", "shortcut", "conv3")  # the last one's output is the block's
LAYERS = (*(f"block{b}.{name}" for b in BLOCKS for name in CONVOLUTIONS), "logits")
WIDTHS = (64, 160, 320, 640)
SLOPE = 0.1


def init_params(
    seed: int, channels: int, image_size: int, n_way: int, n_filters: int = 64, device: str = "cpu"
) -> Params:
    """Fresh parameters, as `model.init_params` has them. n_filters: of the first block; the others
    are wider in proportion, 10/4, 20/4 and 40/4 times.

    Convolutions are normal with variance 2/fan_out (He et al. 2015), batch normalisation starts at
    scale 1 and shift 0, the linear layer within 1/sqrt(n_features). image_size plays no part: the
    embedding is a mean over places.
    """
    generator = torch.Generator().manual_seed(seed)
    kind = {"dtype": torch.float32, "device": device}
    params: Params = {}
    before = channels
    for block, wide in zip(BLOCKS, WIDTHS, strict=True):
        width = n_filters * wide // 64
        for name in CONVOLUTIONS:
            side = 1 if name == "shortcut" else 3
            shape = (width, width if name in ("conv2", "conv3") else before, side, side)
            drawn = torch.randn(shape, generator=generator, **kind)
            layer = f"block{block}.{name}"
            params[f"{layer}.weight"] = drawn * math.sqrt(2 / (width * side * side))
            params[f"{layer}.norm.weight"] = torch.ones(width, **kind)
            params[f"{layer}.norm.bias"] = torch.zeros(width, **kind)
        before = width
    for name, sizes in {"weight": [n_way, before], "bias": [n_way]}.items():
        drawn = torch.rand(sizes, generator=generator, **kind) * 2 - 1
        params[f"logits.{name}"] = drawn / math.sqrt(before)
    return params


def activations(params: Params, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each layer makes of images [n, channels, height, width], flat [n, ...]: conv1 and conv2
    behind their leaky ReLU, the shortcut behind its normalisation, conv3 as what its block gives;
    of the last block the embeddings [n, n_features]."""
    hidden, outputs = images, {}
    for block in BLOCKS:
        first = F.leaky_relu(_normalised(params, f"block{block}.conv1", hidden), SLOPE)
        second = F.leaky_relu(_normalised(params, f"block{block}.conv2", first), SLOPE)
        shortcut = _normalised(params, f"block{block}.shortcut", hidden)
        third = _normalised(params, f"block{block}.conv3", second)
        hidden = F.max_pool2d(F.leaky_relu(third + shortcut, SLOPE), 2)
        made = zip(CONVOLUTIONS, (first, second, shortcut, hidden), strict=True)
        outputs |= {f"block{block}.{name}": value.flatten(1) for name, value in made}
    outputs["block4.conv3"] = hidden.mean((2, 3))
    return outputs


def _normalised(params: Params, layer: str, images: torch.Tensor) -> torch.Tensor:
    weight = params[f"{layer}.weight"]
    hidden = F.conv2d(images, weight, padding=weight.shape[-1] // 2)
    norm = params[f"{layer}.norm.weight"], params[f"{layer}.norm.bias"]
    return F.batch_norm(hidden, None, None, *norm, training=True, eps=BATCH_NORM_EPS)


def layer_and_group(name: str) -> tuple[str, str]:
    """The layer that a parameter belongs to, and "weights+bias" or "batchnorm"."""
    layer, _ = name.rsplit(".", 1)
    if layer.endswith(".norm"):
        return layer.removesuffix(".norm"), "batchnorm"
    return layer, WEIGHTS


RESNET12 = Network("resnet12", LAYERS, init_params, activations, layer_and_group, least_size=16)
