"""Conv4 (paper, figure 4) as functions of a dictionary of parameters.

Four blocks of 3x3 convolution, batch normalisation, ReLU and 2x2 max-pooling, then a linear layer
called `logits`. With 64 filters, 84x84 colour images and 5 ways: 1600 features and 121,093
parameters.

Batch normalisation always uses the statistics of the current batch and keeps no running ones, so a
model holds nothing but its parameters. That makes the network transductive: what it answers for
one query image depends on the other query images.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

Params = dict[str, torch.Tensor]

BLOCKS = (1, 2, 3, 4)
LAYERS = ("conv1", "conv2", "conv3", "conv4", "logits")
BATCH_NORM_EPS = 1e-5


def n_features(image_size: int, n_filters: int = 64) -> int:
    """Length of an embedding: each block halves the image, rounding down.

    Raises ValueError for images smaller than 16x16, of which nothing would be left.
    """
    side = image_size // 2 ** len(BLOCKS)
    if side == 0:
        raise ValueError(f"image_size={image_size}: four 2x2 poolings need at least 16; raise it")
    return n_filters * side * side


def init_params(
    seed: int,
    channels: int,
    image_size: int,
    n_way: int,
    n_filters: int = 64,
    device: str = "cpu",
    features: Callable[[int, int], int] = n_features,
) -> Params:
    """Fresh parameters, float32, on the CPU whatever torch's defaults are.

    device: "meta" for shapes alone. features: of image_size and n_filters, the length of the
    embeddings that the linear layer reads.

    Weights and biases are uniform within 1/sqrt(fan_in), which is what torch's own layers start
    from; the paper does not say what it used. Batch normalisation starts at scale 1 and shift 0.
    """
    generator = torch.Generator().manual_seed(seed)
    kind = {"dtype": torch.float32, "device": device}

    def uniform(fan_in: int, *shape: int) -> torch.Tensor:
        values = torch.rand(shape, generator=generator, **kind)
        return (values * 2 - 1) / math.sqrt(fan_in)

    params: Params = {}
    for block in BLOCKS:
        fan_in = (channels if block == 1 else n_filters) * 9
        params[f"conv{block}.weight"] = uniform(fan_in, n_filters, fan_in // 9, 3, 3)
        params[f"conv{block}.bias"] = uniform(fan_in, n_filters)
        params[f"norm{block}.weight"] = torch.ones(n_filters, **kind)
        params[f"norm{block}.bias"] = torch.zeros(n_filters, **kind)
    fan_in = features(image_size, n_filters)
    params["logits.weight"] = uniform(fan_in, n_way, fan_in)
    params["logits.bias"] = uniform(fan_in, n_way)
    return params


def activations(params: Params, images: torch.Tensor) -> list[torch.Tensor]:
    """What each block makes of images [n, channels, height, width], flat: four tensors [n, ...]."""
    hidden, outputs = images, []
    for block in BLOCKS:
        hidden = F.conv2d(
            hidden, params[f"conv{block}.weight"], params[f"conv{block}.bias"], padding=1
        )
        hidden = F.batch_norm(
            hidden,
            None,
            None,
            params[f"norm{block}.weight"],
            params[f"norm{block}.bias"],
            training=True,
            eps=BATCH_NORM_EPS,
        )
        hidden = F.max_pool2d(F.relu(hidden), 2)
        outputs.append(hidden.flatten(1))
    return outputs


def embed(params: Params, images: torch.Tensor) -> torch.Tensor:
    """Embeddings [n, n_features] of images [n, channels, height, width]: all but the last layer."""
    return activations(params, images)[-1]


def forward(params: Params, images: torch.Tensor) -> torch.Tensor:
    """Logits [n, n_way] of images [n, channels, height, width]."""
    return F.linear(embed(params, images), params["logits.weight"], params["logits.bias"])


def layer_and_group(name: str) -> tuple[str, str]:
    """Row of table 1 that a parameter belongs to: its layer, and "weights+bias" or "batchnorm"."""
    module = name.split(".")[0]
    if module.startswith("norm"):
        return module.replace("norm", "conv"), "batchnorm"
    return module, "weights+bias"
