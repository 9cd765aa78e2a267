"""The meta-gradient of `adaptation`, exact to second order, without automatic differentiation.

For K inner steps on one task, theta_{k+1} = theta_k - alpha * g_k with g_k the gradient of the
support loss at theta_k, the gradient of the query loss L_Q(theta_K) is a recursion downwards:

    lam = grad L_Q(theta_K)
    for k = K-1 .. 0:   d_alpha -= g_k * lam                                         (1)
                        lam     -= H(theta_k) (alpha * lam)                          (2)
    d_theta = lam

H V, a Hessian-vector product, is the tangent of one gradient evaluation along V (Pearlmutter 1994,
"Fast exact multiplication by the Hessian"). For Conv4 gradient and tangent are written out below;
a dot, `_t` in the code, is the tangent along V. x is a block's input, M the number of values that
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

Every tensor has a leading task dimension: parameters are [n_tasks, ...], or [1, ...] where all
tasks share them, and images [n_tasks, n, channels, height, width].
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
import torch.nn.functional as F

from negmeta_utils import adjoint_layers as layers
from negmeta_utils.adaptation import MetaGradient
from negmeta_utils.episodes import Episodes
from negmeta_utils.model import BLOCKS, Params

SIDE_BY_SIDE = 2**16  # pixels of a task up to which tasks run side by side on a CPU


class Forward(NamedTuple):
    """A forward pass: what its gradient reads again."""

    params: Params
    blocks: dict[int, layers.Normalised]
    outputs: dict[int, torch.Tensor]  # a [n_tasks, n, height / 2, width / 2, filters]
    features: torch.Tensor  # [n_tasks, n, n_features]
    logits: torch.Tensor  # [n_tasks, n, n_way]


class Backward(NamedTuple):
    """A gradient, each tensor [n_tasks, ...], and what its tangent reads again."""

    gradient: Params
    delta: torch.Tensor  # [n_tasks, n, n_way]
    spreads: dict[int, layers.Spread]  # empty where no tangent follows


def meta_gradient(
    params: Params, alpha: Params, episodes: Episodes, n_steps: int, first_order: bool = False
) -> MetaGradient:
    """What `adaptation.meta_gradient` returns for the same arguments (paper, eqs. 2 and 4)."""
    params, rates = _with_task_dimension(params), _with_task_dimension(alpha)

    def of_tasks(support: torch.Tensor, query: torch.Tensor) -> MetaGradient:
        tasks = episodes._replace(support=support, query=query)
        return _task_gradients(params, rates, tasks, n_steps, first_order)

    pixels = _pixels(episodes.support) + _pixels(episodes.query)
    parts = _each_task(of_tasks, pixels, episodes.support, episodes.query)
    return MetaGradient(
        torch.cat([part.loss for part in parts]).mean(),
        torch.cat([part.accuracy for part in parts]).mean(),
        _mean_over_tasks([part.params for part in parts]),
        {
            name: value if alpha[name].dim() else value.sum()
            for name, value in _mean_over_tasks([part.alpha for part in parts]).items()
        },
    )


def adapt(
    params: Params, alpha: Params, support: torch.Tensor, support_labels: torch.Tensor, n_steps: int
) -> Params:
    """Parameters of every task after `n_steps` inner steps: each tensor [n_tasks, ...].

    params: shared by all tasks, or one set a task with a leading dimension as this returns.
    support: [n_tasks, n, channels, height, width]; support_labels: int64 [n], of every task.
    """
    alpha = _with_task_dimension(alpha)

    def of_tasks(params: Params, support: torch.Tensor) -> Params:
        adapted, images = params, layers.prepare(support)
        for _ in range(n_steps):
            forward = _forward(adapted, images)
            gradient = _gradient(forward, support_labels, keep=False).gradient
            adapted = _step(adapted, alpha, gradient)
        return {
            name: value.expand(len(support), *value.shape[1:]) for name, value in adapted.items()
        }

    parts = _each_task_of(of_tasks, params, support)
    return {name: torch.cat([part[name] for part in parts]) for name in params}


def embed(params: Params, images: torch.Tensor) -> torch.Tensor:
    """Embeddings [n_tasks, n, n_features] of images [n_tasks, n, channels, height, width].

    params: as for `adapt`. Each task is normalised by its own statistics.
    """

    def of_tasks(params: Params, images: torch.Tensor) -> torch.Tensor:
        of_each = [value.expand(len(images), *value.shape[1:]) for value in params.values()]
        return torch.stack(
            [
                _embed_task(dict(zip(params, values, strict=True)), x)
                for x, *values in zip(images, *of_each, strict=True)
            ]
        )

    return torch.cat(_each_task_of(of_tasks, params, images))


def logits(params: Params, images: torch.Tensor) -> torch.Tensor:
    """Logits [n_tasks, n, n_way]; arguments as for `embed`."""
    return head(params, embed(params, images))


def head(params: Params, features: torch.Tensor) -> torch.Tensor:
    """Logits [n_tasks, n, n_way] of embeddings [n_tasks, n, n_features], by parameters as for
    `adapt`."""
    return features @ params["logits.weight"].mT + params["logits.bias"][..., None, :]


def _embed_task(params: Params, images: torch.Tensor) -> torch.Tensor:
    a = layers.channels_last(images[None])[0].permute(0, 3, 1, 2)
    for block in BLOCKS:
        norm = params[f"norm{block}.weight"], params[f"norm{block}.bias"]
        a = layers.output(a, params[f"conv{block}.weight"], *norm)
    return a.flatten(1)


def _each_task_of(function: Callable, params: Params, images: torch.Tensor) -> list:
    """`_each_task` of a function of parameters, shared or a set a task, and images."""
    params = _with_task_dimension(params)
    if len(params["norm1.bias"]) == 1:
        return _each_task(lambda images: function(params, images), _pixels(images), images)

    def of_own(images: torch.Tensor, *own: torch.Tensor) -> torch.Tensor | Params:
        return function(dict(zip(params, own, strict=True)), images)

    return _each_task(of_own, _pixels(images), images, *params.values())


def _each_task(function: Callable, pixels: int, *tensors: torch.Tensor) -> list:
    """`function` of the tensors of each task [1, ...], or on a GPU once of all tasks together.
    `pixels` is how many a task's images have.

    On a CPU tasks on small images run side by side, a thread each, because their operations are
    too small to be shared out between cores; tasks on large images run one after another, because
    their memory adds up.
    """
    if tensors[0].is_cuda:
        return [function(*tensors)]
    n_tasks, n_threads = len(tensors[0]), torch.get_num_threads()
    tasks = zip(*(tensor.split(1) for tensor in tensors), strict=True)
    if n_tasks == 1 or n_threads == 1 or pixels > SIDE_BY_SIDE:
        return [function(*task) for task in tasks]
    # More threads than cores, because three tasks on two cores end together only if they share.
    workers = min(n_tasks, 2 * n_threads)
    try:
        with ThreadPoolExecutor(workers, "task", torch.set_num_threads, (1,)) as pool:
            return list(pool.map(lambda task: function(*task), tasks))
    finally:
        torch.set_num_threads(n_threads)  # a part of this setting belongs to the whole process


def _pixels(images: torch.Tensor) -> int:
    return images[0, :, 0].numel()


def _task_gradients(
    params: Params, alpha: Params, episodes: Episodes, n_steps: int, first_order: bool
) -> MetaGradient:
    """The meta-gradient of each task: every tensor [n_tasks, ...]."""
    images, labels = layers.prepare(episodes.support), episodes.support_labels
    steps = []
    for _ in range(n_steps):
        forward = _forward(params, images)
        backward = _gradient(forward, labels, keep=not first_order)
        params = _step(params, alpha, backward.gradient)
        steps.append((None if first_order else forward, backward))
        del forward
    query = _forward(params, layers.prepare(episodes.query))
    loss, accuracy = loss_and_accuracy(query.logits, episodes.query_labels)
    lam = _gradient(query, episodes.query_labels, keep=False).gradient
    del query
    alpha_gradient = {name: torch.zeros_like(value) for name, value in lam.items()}
    while steps:
        forward, backward = steps.pop()
        for name, total in alpha_gradient.items():
            total.addcmul_(backward.gradient[name], lam[name], value=-1)  # (1)
        if not first_order:
            direction = {name: alpha[name] * lam[name] for name in lam}
            product = _hessian_product(forward, backward, direction)
            lam = {name: lam[name] - product[name] for name in lam}  # (2)
    return MetaGradient(loss, accuracy, lam, alpha_gradient)


def _forward(params: Params, images: layers.Images) -> Forward:
    a, blocks, outputs = images, {}, {}
    for block in BLOCKS:
        normalise = layers.normalise_images if block == 1 else layers.normalise
        gamma = _gamma(params, block)
        s = blocks[block] = normalise(a, params[f"conv{block}.weight"], gamma)
        p = torch.addcmul(_beta(params, block), gamma, s.pooled)
        a = outputs[block] = p.relu_()
    features = a.movedim(4, 2).flatten(2)
    output = features @ params["logits.weight"].mT + params["logits.bias"][:, None]
    return Forward(params, blocks, outputs, features, output)


def _gradient(forward: Forward, labels: torch.Tensor, keep: bool) -> Backward:
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
        u = _where_positive(forward.outputs[block], da)
        dbeta = u.sum(layers.SPACE, keepdim=True)
        dgamma = (u * s.pooled).sum(layers.SPACE, keepdim=True)
        scale = _gamma(params, block) * s.r
        if block == 1:
            b = layers.spread_images(s, scale, u, dbeta, dgamma)
            weight = layers.images_weight_gradient(b)
        else:
            b = layers.spread(s, scale, u, dbeta, dgamma)
            weight = layers.weight_gradient(s.x, b.dz)
            da = layers.input_gradient(b.dz, s.weight)
        if keep:
            spreads[block] = b
        gradient |= _block_gradient(block, weight, dgamma, dbeta)
    return Backward({name: gradient[name] for name in params}, delta, spreads)


def _hessian_product(forward: Forward, backward: Backward, direction: Params) -> Params:
    """H V of each task's mean cross-entropy with V = `direction`, each tensor [n_tasks, ...]."""
    params, delta = forward.params, backward.delta
    inputs, tangents, a_t = {}, {}, None
    for block in BLOCKS:
        s, weight_t = forward.blocks[block], direction[f"conv{block}.weight"]
        if block == 1:
            t = layers.normalise_images_tangent(s, weight_t)
        else:
            t = layers.normalise_tangent(s, a_t, weight_t)
        inputs[block], tangents[block] = a_t, t
        a_t = torch.addcmul(_beta(direction, block), _gamma(direction, block), s.pooled)
        a_t = a_t.addcmul_(_gamma(params, block), t.pooled)
        a_t = _where_positive(forward.outputs[block], a_t)
    features_t = a_t.movedim(4, 2).flatten(2)
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
    da_t = _planes(da_t, a_t.shape)
    for block in reversed(BLOCKS):
        s, t, b = forward.blocks[block], tangents[block], backward.spreads[block]
        u_t = _where_positive(forward.outputs[block], da_t)
        dbeta_t = u_t.sum(layers.SPACE, keepdim=True)
        dgamma_t = (u_t * s.pooled).addcmul_(b.u, t.pooled).sum(layers.SPACE, keepdim=True)
        scale_t = s.r * (_gamma(direction, block) - b.scale * t.m2)
        if block == 1:
            weight = layers.spread_images_tangent(s, t, b, scale_t, u_t, dbeta_t, dgamma_t)
        else:
            dz_t = layers.spread_tangent(s, t, b, scale_t, u_t, dbeta_t, dgamma_t)
            weight = layers.weight_gradient(s.x, dz_t)
            weight += layers.weight_gradient(inputs[block], b.dz)
            weight_t = direction[f"conv{block}.weight"]
            da_t = layers.input_gradient_tangent(b.dz, dz_t, s.weight, weight_t)
        product |= _block_gradient(block, weight, dgamma_t, dbeta_t)
    return {name: product[name] for name in params}


def loss_and_accuracy(
    logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy and accuracy of each task, both [n_tasks].

    logits: [n_tasks, n, n_way]; labels: int64 [n], of every task.
    """
    losses = F.cross_entropy(logits.mT, labels.expand(len(logits), -1), reduction="none")
    return losses.mean(1), (logits.argmax(2) == labels).to(losses.dtype).mean(1)


def _with_task_dimension(params: Params) -> Params:
    """Parameters with a leading dimension, of length 1 where all tasks share them, and filters in
    the memory order in which convolutions take them and return their gradients. Detached, because
    a thread does not inherit `torch.no_grad`."""
    params = {name: value.detach() for name, value in params.items()}
    if params["norm1.bias"].dim() < 2:
        params = {name: value[None] for name, value in params.items()}
    return {name: _channels_last(value) for name, value in params.items()}


def _channels_last(value: torch.Tensor) -> torch.Tensor:
    if value.dim() < 5:
        return value
    filters = value.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return filters.unflatten(0, value.shape[:2])


def _step(params: Params, alpha: Params, gradient: Params) -> Params:
    """One inner step (paper, eqs. 1 and 3)."""
    return {name: params[name] - alpha[name] * gradient[name] for name in params}


def _block_gradient(block: int, weight, dgamma, dbeta) -> Params:
    dbeta = dbeta.flatten(1)
    filters = weight.shape[1]
    return {
        f"conv{block}.weight": weight.reshape(len(weight), filters, -1, 3, 3),
        f"conv{block}.bias": torch.zeros_like(dbeta),
        f"norm{block}.weight": dgamma.flatten(1),
        f"norm{block}.bias": dbeta,
    }


def _where_positive(a: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`values` where a > 0, else 0."""
    return torch.ops.aten.threshold_backward(values, a, 0)


def _gamma(params: Params, block: int) -> torch.Tensor:
    return params[f"norm{block}.weight"][:, None, None, None]


def _beta(params: Params, block: int) -> torch.Tensor:
    return params[f"norm{block}.bias"][:, None, None, None]


def _planes(features: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Features [n_tasks, n, n_features] in the [n_tasks, n, h, w, filters] they were made of."""
    n_tasks, n, height, width, filters = shape
    return features.view(n_tasks, n, filters, height, width).movedim(2, 4).contiguous()


def _mean_over_tasks(parts: list[Params]) -> Params:
    n_tasks = sum(len(part["norm1.bias"]) for part in parts)
    return {
        name: (sum(part[name].sum(0) for part in parts) / n_tasks).contiguous() for name in parts[0]
    }
