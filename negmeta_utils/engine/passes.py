"""The three passes through Conv4 that the meta-gradient is made of: forward, gradient, and its
tangent along V, which is the Hessian-vector product H V.

A dot, `_t` in the code, is the tangent along V. x is a block's input, M the number of values that
a channel's statistics average over.

Forward, a block:
    z = W*x                                  z. = W.*x + W*x.
    c = z - mean z,  r = (var z + eps)^(-1/2),  n = c r
    m2 = mean(n z.),  r. = -r^2 m2           n. = r (z. - mean z. - n m2)
    p = gamma n + beta at the argmax         p. = gamma n. + gamma. n + beta. at the same argmax
    a = relu(p)                              a. = p. [p > 0]
ReLU comes after pooling, which is the same function for a quarter of the work. A convolution's
bias cancels in front of batch statistics: it is left out and its gradient is exactly 0.

Head, for rows of softmax s and one-hot y:
    delta = (s - y) / rows                   delta. = s (o. - sum s o.) / rows
    dW = delta^T a,  da = delta W            dW. = delta.^T a + delta^T a.,  da. likewise

Backward, a block, with u = da [p > 0], nonzero at the pooled places alone:
    dbeta = sum u                            dbeta. = sum u.
    dgamma = sum u n                         dgamma. = sum (u. n + u n.)
    s = r dgamma / M                         s. = r dgamma. / M - s r m2
    q = u - dbeta/M - s c                    q. = u. - dbeta./M - s (z. - mean z.) - s. c
    A = gamma r,  dz = A q                   A. = gamma. r - gamma r^2 m2,  dz. = A q. + A. q
    dW = x (*) dz,  dx = W^T * dz            dW. = x (*) dz. + x. (*) dz,  dx. = W^T*dz. + W.^T*dz

Shapes are those of `engine.meta_gradient`.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from negmeta_utils.engine import convolutions, first_block, layers
from negmeta_utils.model import BLOCKS, Params


class Forward(NamedTuple):
    """A forward pass, with what its gradient reuses."""

    params: Params
    blocks: dict[int, layers.Normalised]
    outputs: dict[int, torch.Tensor]  # a [n_tasks, n, height / 2, width / 2, filters]
    features: torch.Tensor  # [n_tasks, n, n_features]
    logits: torch.Tensor  # [n_tasks, n, n_way]


class Backward(NamedTuple):
    """A gradient, each tensor [n_tasks, ...], and what its tangent reuses."""

    gradient: Params
    delta: torch.Tensor  # [n_tasks, n, n_way]
    spreads: dict[int, layers.Spread]  # empty where no tangent follows


def forward(params: Params, images: first_block.Images) -> Forward:
    a: Any = images
    blocks, outputs = {}, {}
    for block in BLOCKS:
        normalise = first_block.normalise if block == 1 else layers.normalise
        gamma = _gamma(params, block)
        s = blocks[block] = normalise(a, params[f"conv{block}.weight"], gamma)
        a = outputs[block] = layers.activate(s, gamma, _beta(params, block))
    features = a.movedim(4, 2).flatten(2)
    output = features @ params["logits.weight"].mT + params["logits.bias"][:, None]
    return Forward(params, blocks, outputs, features, output)


def gradient(forward: Forward, labels: torch.Tensor, keep: bool) -> Backward:
    """Gradient of each task's mean cross-entropy; `keep` what its tangent reads."""
    params = forward.params
    one_hot = F.one_hot(labels, forward.logits.shape[2])
    delta = (forward.logits.softmax(2) - one_hot).div_(len(labels))
    gradient = {"logits.weight": delta.mT @ forward.features, "logits.bias": delta.sum(1)}
    a = forward.outputs[4]
    da = _planes(delta @ params["logits.weight"], a.shape)
    spreads = {}
    for block in reversed(BLOCKS):
        s = forward.blocks[block]
        u, dbeta, dgamma = layers.gate(s, forward.outputs[block], da)
        scale = _gamma(params, block) * s.r
        if block == 1:
            b = first_block.spread(s, scale, u, dbeta, dgamma)
            weight = first_block.weight_gradient(b)
        else:
            b = layers.spread(s, scale, u, dbeta, dgamma)
            weight = convolutions.weight_gradient(s.x, b.dz)
            da = convolutions.input_gradient(b.dz, s.weight)
        if keep:
            spreads[block] = b
        gradient |= _block_gradient(block, weight, dgamma, dbeta)
    return Backward({name: gradient[name] for name in params}, delta, spreads)


def hessian_product(forward: Forward, backward: Backward, direction: Params) -> Params:
    """H V of each task's mean cross-entropy with V = `direction`, each tensor [n_tasks, ...]."""
    params, delta = forward.params, backward.delta
    tangents: dict[int, layers.Tangent] = {}
    outputs: dict[int, torch.Tensor] = {}  # a.
    for block in BLOCKS:
        s, weight_t = forward.blocks[block], direction[f"conv{block}.weight"]
        if block == 1:
            t = first_block.normalise_tangent(s, weight_t)
        else:
            t = layers.normalise_tangent(s, outputs[block - 1], weight_t)
        tangents[block] = t
        gamma, gamma_t = _gamma(params, block), _gamma(direction, block)
        outputs[block] = layers.activate_tangent(
            s, forward.outputs[block], t, gamma, gamma_t, _beta(direction, block)
        )
    features_t = outputs[4].movedim(4, 2).flatten(2)
    output_t = (
        features_t @ params["logits.weight"].mT
        + forward.features @ direction["logits.weight"].mT
        + direction["logits.bias"][:, None]
    )
    softmax = forward.logits.softmax(2)
    delta_t = softmax * (output_t - (softmax * output_t).sum(2, keepdim=True)) / delta.shape[1]
    product = {
        "logits.weight": delta_t.mT @ forward.features + delta.mT @ features_t,
        "logits.bias": delta_t.sum(1),
    }
    da_t = delta_t @ params["logits.weight"] + delta @ direction["logits.weight"]
    da_t = _planes(da_t, outputs[4].shape)
    for block in reversed(BLOCKS):
        s, t, b = forward.blocks[block], tangents[block], backward.spreads[block]
        u_t, dbeta_t, dgamma_t = layers.gate_tangent(s, forward.outputs[block], da_t, t, b.u)
        scale_t = s.r * (_gamma(direction, block) - b.scale * t.m2)
        if block == 1:
            weight = first_block.spread_tangent(s, t, b, scale_t, u_t, dbeta_t, dgamma_t)
        else:
            dz_t = layers.spread_tangent(s, t, b, scale_t, u_t, dbeta_t, dgamma_t)
            weight = convolutions.weight_gradient(s.x, dz_t, outputs[block - 1], b.dz)
            weight_t = direction[f"conv{block}.weight"]
            da_t = convolutions.input_gradient(dz_t, s.weight, b.dz, weight_t)
        product |= _block_gradient(block, weight, dgamma_t, dbeta_t)
    return {name: product[name] for name in params}


def _block_gradient(block: int, weight, dgamma, dbeta) -> Params:
    dbeta = dbeta.flatten(1)
    filters = weight.shape[1]
    return {
        f"conv{block}.weight": weight.reshape(len(weight), filters, -1, 3, 3),
        f"conv{block}.bias": torch.zeros_like(dbeta),
        f"norm{block}.weight": dgamma.flatten(1),
        f"norm{block}.bias": dbeta,
    }


def _gamma(params: Params, block: int) -> torch.Tensor:
    return params[f"norm{block}.weight"][:, None, None, None]


def _beta(params: Params, block: int) -> torch.Tensor:
    return params[f"norm{block}.bias"][:, None, None, None]


def _planes(features: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Features [n_tasks, n, n_features] in the [n_tasks, n, h, w, filters] they were made of."""
    n_tasks, n, height, width, filters = shape
    return features.view(n_tasks, n, filters, height, width).movedim(2, 4).contiguous()
