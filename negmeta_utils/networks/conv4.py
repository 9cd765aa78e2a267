"""Conv4 as a `Network`, and the four blocks of other libraries, which differ from it in a detail
each: weights trained with one of them mean nothing in another."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F

from negmeta_utils import model
from negmeta_utils.model import BATCH_NORM_EPS, BLOCKS, LAYERS, Params
from negmeta_utils.networks.network import Network

# Batch normalisation right behind a convolution takes its bias out again, so it has no gradient.
STILL = frozenset(f"conv{block}.bias" for block in BLOCKS)


class Blocks(NamedTuple):
    """Four blocks of a 3x3 convolution; the defaults are Conv4's.

    padding, stride: of the convolutions.
    eps: of batch normalisation. relu_first: ReLU before it, not after. slope: of a leaky ReLU.
    pool: side of the max-pooling's window, 0 for none; last_stride: of the last one's.
    average: embeddings are means over all places, not flat.
    """

    padding: int = 1
    stride: int = 1
    eps: float = BATCH_NORM_EPS
    relu_first: bool = False
    slope: float = 0.0
    pool: int = 2
    last_stride: int = 2
    average: bool = False

    def side(self, image_size: int) -> int:
        """Height and width of what the last block gives."""
        side = image_size
        for block in BLOCKS:
            side = (side + 2 * self.padding - 3) // self.stride + 1
            if self.pool:
                side = (side - self.pool) // (self.last_stride if block == BLOCKS[-1] else 2) + 1
        return side

    def features(self, image_size: int, n_filters: int) -> int:
        """Length of an embedding."""
        return n_filters * (1 if self.average else self.side(image_size) ** 2)


def _activations(kind: Blocks, params: Params, images: torch.Tensor) -> dict[str, torch.Tensor]:
    hidden, outputs = images, {}
    for block in BLOCKS:
        weight, bias = params[f"conv{block}.weight"], params[f"conv{block}.bias"]
        norm = params[f"norm{block}.weight"], params[f"norm{block}.bias"]
        hidden = F.conv2d(hidden, weight, bias, kind.stride, kind.padding)
        if kind.relu_first:
            hidden = F.leaky_relu(hidden, kind.slope)
        hidden = F.batch_norm(hidden, None, None, *norm, training=True, eps=kind.eps)
        if not kind.relu_first:
            hidden = F.leaky_relu(hidden, kind.slope)
        if kind.pool:
            stride = kind.last_stride if block == BLOCKS[-1] else 2
            hidden = F.max_pool2d(hidden, kind.pool, stride)
        outputs[f"conv{block}"] = hidden.flatten(1)
    if kind.average:
        outputs["conv4"] = hidden.mean((2, 3))
    return outputs


def four_blocks(name: str, kind: Blocks) -> Network:
    """The network of these blocks. Its parameters have the names of Conv4's."""
    return Network(
        name,
        LAYERS,
        partial(model.init_params, features=kind.features),
        partial(_activations, kind),
        model.layer_and_group,
        least_size=next(size for size in range(1, 1000) if kind.side(size) > 0),
        still=frozenset() if kind.relu_first else STILL,
    )


def _conv4_activations(params: Params, images: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip(LAYERS, model.activations(params, images), strict=False))


CONV4 = Network(
    "conv4", LAYERS, model.init_params, _conv4_activations, model.layer_and_group, least_size=16,
    still=STILL,
)  # fmt: skip
# Each as its library's own code has it at the version named.
FOREIGN = {
    # dragen1860/MAML-Pytorch, miniimagenet_train.py
    "maml-pytorch": Blocks(padding=0, relu_first=True, last_stride=1),
    # learnables/learn2learn 0.2.1: OmniglotCNN
    "learn2learn-omniglot": Blocks(stride=2, pool=0, average=True),
    # learnables/learn2learn 0.0.4: MiniImagenetCNN and OmniglotCNN
    "learn2learn-0.0": Blocks(eps=1e-3),
    "learn2learn-0.0-omniglot": Blocks(eps=1e-3, stride=2, pool=0, average=True),
    # RL-VIG/LibFewShot: Conv64F with leaky_relu=True
    "conv64f-leaky": Blocks(slope=0.2),
}
