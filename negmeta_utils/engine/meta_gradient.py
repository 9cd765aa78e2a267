"""The meta-gradient of `adaptation` for Conv4, exact to second order, without automatic
differentiation: by `cpu`, in C, where that can be, or else here.

For K inner steps on one task, theta_{k+1} = theta_k - alpha * g_k with g_k the gradient of the
support loss at theta_k, the gradient of the query loss L_Q(theta_K) is a recursion downwards:

    lam = grad L_Q(theta_K)
    for k = K-1 .. 0:   d_alpha -= g_k * lam                                         (1)
                        lam     -= H(theta_k) (alpha * lam)                          (2)
    d_theta = lam

H V, a Hessian-vector product, is the tangent of one gradient evaluation along V (Pearlmutter 1994,
"Fast exact multiplication by the Hessian"). `engine.passes` has the gradient and the tangent, and
so has the C that `engine.cpu` calls where there is a compiler.

Every tensor has a leading task dimension: parameters are [n_tasks, ...], or [1, ...] where all
tasks share them, and images [n_tasks, n, channels, height, width].
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from negmeta_utils import adaptation
from negmeta_utils.adaptation import MetaGradient
from negmeta_utils.engine import convolutions, cpu, first_block, layers, passes
from negmeta_utils.engine.device import cores, exact_products
from negmeta_utils.engine.threads import side_by_side
from negmeta_utils.episodes import Episodes
from negmeta_utils.model import BLOCKS, Params

MODULES = {"logits"} | {f"{kind}{block}" for kind in ("conv", "norm") for block in BLOCKS}


@exact_products()  # it is public; the others are called by way of `engines.engine_of`
def meta_gradient(
    params: Params, alpha: Params, episodes: Episodes, n_steps: int, first_order: bool = False
) -> MetaGradient:
    """What `adaptation.meta_gradient` returns for the same arguments (paper, eqs. 2 and 4), of the
    network of `model`, Conv4, alone. Raises ValueError for another's parameters."""
    if {name.partition(".")[0] for name in params} != MODULES:
        raise ValueError(
            "meta_gradient: these are not the parameters of Conv4 (model.init_params); for another "
            "network call adaptation.meta_gradient with its loss"
        )
    if network := cpu.network_of(params, episodes.support, alpha):
        vectors = cpu.pack(network, params), cpu.pack(network, alpha)

        def in_c(support: torch.Tensor, query: torch.Tensor) -> cpu.Judged:
            images = support[0], episodes.support_labels, query[0], episodes.query_labels
            return cpu.task_gradient(network, *vectors, *images, n_steps, first_order)

        parts = _each_task(in_c, episodes.support, episodes.query)
        return _mean_of_judged(network, parts, params, alpha)
    params, rates = _with_task_dimension(params), _with_task_dimension(alpha)

    def of_tasks(support: torch.Tensor, query: torch.Tensor) -> MetaGradient:
        tasks = episodes._replace(support=support, query=query)
        return _task_gradients(params, rates, tasks, n_steps, first_order)

    parts = _each_task(of_tasks, episodes.support, episodes.query)
    return MetaGradient(
        torch.cat([part.loss for part in parts]).mean(),
        torch.cat([part.accuracy for part in parts]).mean(),
        _mean_over_tasks([part.params for part in parts]),
        {
            name: _as_given(value, alpha[name])
            for name, value in _mean_over_tasks([part.alpha for part in parts]).items()
        },
    )


def prototype_gradient(params: Params, episodes: Episodes) -> MetaGradient:
    """What `adaptation.prototype_gradient` returns for the same arguments."""
    network = cpu.network_of(params, episodes.support)
    if network is None:
        return adaptation.prototype_gradient(params, episodes)
    vector = cpu.pack(network, params)

    def in_c(support: torch.Tensor, query: torch.Tensor) -> cpu.Judged:
        images = support[0], episodes.support_labels, query[0], episodes.query_labels
        return cpu.prototype_gradient(network, vector, *images)

    parts = _each_task(in_c, episodes.support, episodes.query)
    return _mean_of_judged(network, parts, params, {})


def _mean_of_judged(
    network: cpu.Network, parts: list[cpu.Judged], params: Params, alpha: Params
) -> MetaGradient:
    """Means over tasks; of rates that stand for several, the sum over these."""
    zeros = {name: torch.zeros_like(value) for name, value in params.items()}
    rates = {name: value.new_zeros(()) for name, value in params.items()}
    if alpha:
        mean = sum(part.rates for part in parts) / len(parts)
        for name, value in cpu.unpack(network, mean, zeros).items():
            rates[name] = _as_given(value, alpha[name])
    number = parts[0].params.new_tensor
    return MetaGradient(
        number(sum(part.loss for part in parts) / len(parts)),
        number(sum(part.accuracy for part in parts) / len(parts)),
        cpu.unpack(network, sum(part.params for part in parts) / len(parts), zeros),
        rates,
    )


def _as_given(value: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
    """The gradient of every single rate as that of `rate`, which may stand for several."""
    if value.shape == rate.shape:
        return value
    return value.double().sum_to_size(rate.shape).to(value.dtype)


def adapt(
    params: Params, alpha: Params, support: torch.Tensor, support_labels: torch.Tensor, n_steps: int
) -> Params:
    """Parameters of every task after `n_steps` inner steps: each tensor [n_tasks, ...].

    params: shared by all tasks, or one set a task with a leading dimension as this returns.
    support: [n_tasks, n, channels, height, width]; support_labels: int64 [n], of every task.
    """
    if network := cpu.network_of(params, support, alpha):
        rates = cpu.pack(network, alpha)

        def in_c(vectors: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
            return cpu.adapt(network, vectors[0], rates, support[0], support_labels, n_steps)

        vectors = _vectors(network, params, len(support))
        return cpu.unpack(network, torch.stack(_each_task(in_c, vectors, support)), params)
    alpha = _with_task_dimension(alpha)

    def of_tasks(params: Params, support: torch.Tensor) -> Params:
        images = first_block.prepare(support)
        adapted, rates = params, alpha
        for _ in range(n_steps):
            forward = passes.forward(adapted, images)
            gradient = passes.gradient(forward, support_labels, keep=False).gradient
            adapted = _step(adapted, rates, gradient)
        return {
            name: value.expand(len(support), *value.shape[1:]) for name, value in adapted.items()
        }

    parts = _each_task_of(of_tasks, params, support)
    return {name: torch.cat([part[name] for part in parts]) for name in params}


def embed(sets: list[Params], images: torch.Tensor) -> list[torch.Tensor]:
    """Embeddings [n_tasks, n, n_features] of images [n_tasks, n, channels, height, width], by each
    of several parameters, which share what depends on the images alone.

    sets: each as `params` for `adapt`. Each task is normalised by its own statistics.
    """
    network, *others = (cpu.network_of(params, images) for params in sets)
    if network and all(other == network for other in others):
        return list(_predict_in_c(network, sets, images)[0].unbind(1))
    return [_embed(params, images) for params in sets]


def logits(params: Params, images: torch.Tensor) -> torch.Tensor:
    """Logits [n_tasks, n, n_way] of images as for `embed`, by parameters as for `adapt`."""
    if network := cpu.network_of(params, images):
        return _predict_in_c(network, [params], images)[1][:, 0]
    return head(params, _embed(params, images))


def _predict_in_c(
    network: cpu.Network, sets: list[Params], images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [n_tasks, n_sets, n, n_features] and logits [n_tasks, n_sets, n, n_way]."""
    vectors = torch.stack([_vectors(network, params, len(images)) for params in sets], 1)

    def in_c(vectors: torch.Tensor, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return cpu.predict(network, vectors[0], images[0])

    features, logits = zip(*_each_task(in_c, vectors, images), strict=True)
    return torch.stack(features), torch.stack(logits)


def _vectors(network: cpu.Network, params: Params, n_tasks: int) -> torch.Tensor:
    """Parameters, shared or a set a task, as `cpu.pack` gives them: [n_tasks, size]."""
    params = _with_task_dimension(params)
    tasks = range(len(params["norm1.bias"]))
    packed = [cpu.pack(network, {n: value[task] for n, value in params.items()}) for task in tasks]
    return torch.stack(packed).expand(n_tasks, -1)


def _embed(params: Params, images: torch.Tensor) -> torch.Tensor:
    """By torch's operations."""

    def of_tasks(params: Params, images: torch.Tensor) -> torch.Tensor:
        of_each = [value.expand(len(images), *value.shape[1:]) for value in params.values()]
        return torch.stack(
            [
                _embed_task(dict(zip(params, values, strict=True)), x)
                for x, *values in zip(images, *of_each, strict=True)
            ]
        )

    return torch.cat(_each_task_of(of_tasks, params, images))


def head(params: Params, features: torch.Tensor) -> torch.Tensor:
    """Logits [n_tasks, n, n_way] of embeddings [n_tasks, n, n_features], by parameters as for
    `adapt`."""
    # In float64, in which no two BLAS libraries differ by enough to show in the result.
    weight, bias = params["logits.weight"].double(), params["logits.bias"].double()
    return (features.double() @ weight.mT + bias[..., None, :]).to(features.dtype)


def _embed_task(params: Params, images: torch.Tensor) -> torch.Tensor:
    a = convolutions.channels_last(images[None])[0].permute(0, 3, 1, 2)
    for block in BLOCKS:
        norm = params[f"norm{block}.weight"], params[f"norm{block}.bias"]
        a = layers.output(a, params[f"conv{block}.weight"], *norm)
    return a.flatten(1)


def _each_task_of(function: Callable, params: Params, images: torch.Tensor) -> list:
    """`_each_task` of a function of parameters, shared or a set a task, and images."""
    params = _with_task_dimension(params)
    if len(params["norm1.bias"]) == 1:
        return _each_task(lambda images: function(params, images), images)

    def of_own(images: torch.Tensor, *own: torch.Tensor) -> torch.Tensor | Params:
        return function(dict(zip(params, own, strict=True)), images)

    return _each_task(of_own, images, *params.values())


def _each_task(function: Callable, *tensors: torch.Tensor) -> list:
    """`function` of the tensors of each task [1, ...], or on a GPU once of all tasks together.

    On a CPU tasks run side by side, because an operation is too small to be shared out.
    """
    if tensors[0].is_cuda:
        return [function(*tensors)]
    n_tasks, n_threads = len(tensors[0]), torch.get_num_threads()
    tasks = zip(*(tensor.split(1) for tensor in tensors), strict=True)
    if n_tasks == 1 or n_threads == 1:
        return [function(*task) for task in tasks]
    return list(side_by_side(lambda task: function(*task), tasks, _at_once(n_tasks, n_threads)))


def _at_once(n_tasks: int, n_threads: int) -> int:
    """How many tasks run side by side: one a thread. Where that would leave threads idle in a
    second round and there are no more cores than threads, all tasks share the cores and end
    together: three on two cores take 0.8 to 0.9 of the time, and half as much memory again."""
    shared = n_tasks < 2 * n_threads and cores() <= n_threads
    return n_tasks if shared else min(n_tasks, n_threads)


def _task_gradients(
    params: Params, alpha: Params, episodes: Episodes, n_steps: int, first_order: bool
) -> MetaGradient:
    """The meta-gradient of each task: every tensor [n_tasks, ...]."""
    images, labels = first_block.prepare(episodes.support), episodes.support_labels
    steps: list[tuple[passes.Forward | None, passes.Backward]] = []
    for _ in range(n_steps):
        forward = passes.forward(params, images)
        backward = passes.gradient(forward, labels, keep=not first_order)
        params = _step(params, alpha, backward.gradient)
        steps.append((None if first_order else forward, backward))
        del forward
    query = passes.forward(params, first_block.prepare(episodes.query))
    loss, accuracy = loss_and_accuracy(query.logits, episodes.query_labels)
    lam = passes.gradient(query, episodes.query_labels, keep=False).gradient
    del query
    alpha_gradient = {name: torch.zeros_like(value) for name, value in lam.items()}
    while steps:
        kept, backward = steps.pop()
        alpha_gradient = _minus_product(alpha_gradient, backward.gradient, lam)  # (1)
        if kept is not None:
            direction = _each(torch._foreach_mul, alpha, lam)
            product = passes.hessian_product(kept, backward, direction)
            lam = _each(torch._foreach_sub, lam, product)  # (2)
    return MetaGradient(loss, accuracy, lam, alpha_gradient)


def loss_and_accuracy(
    logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy and accuracy of each task, both [n_tasks].

    logits: [n_tasks, n, n_way]; labels: int64 [n], of every task.
    """
    if logits.device.type == "cpu" and cpu.compiled(logits.dtype):
        judged = [cpu.judge(of_task, labels) for of_task in logits]
        return tuple(logits.new_tensor(values) for values in zip(*judged, strict=True))
    losses = F.cross_entropy(logits.mT, labels.expand(len(logits), -1), reduction="none")
    return losses.mean(1), (logits.argmax(2) == labels).to(losses.dtype).mean(1)


def _with_task_dimension(params: Params) -> Params:
    """Parameters with a leading dimension, of length 1 where all tasks share them, and filters in
    the memory order in which convolutions take them and return their gradients. Detached, because
    a thread does not inherit `torch.no_grad`."""
    params = {name: value.detach() for name, value in params.items()}
    if params["norm1.bias"].dim() < 2:
        params = {name: value[None] for name, value in params.items()}
    return {name: _stored(value) for name, value in params.items()}


def _stored(value: torch.Tensor) -> torch.Tensor:
    return convolutions.stored(value) if value.dim() == 5 else value


def _step(params: Params, alpha: Params, gradient: Params) -> Params:
    """One inner step (paper, eqs. 1 and 3)."""
    return _minus_product(params, alpha, gradient)


def _minus_product(a: Params, b: Params, c: Params) -> Params:
    """a - b c, of all parameters in few launches."""
    return _each(functools.partial(torch._foreach_addcmul, value=-1), a, b, c)


def _each(function: Callable, *operands: Params) -> Params:
    """A function of lists of tensors, such as `torch._foreach_mul`, of dictionaries."""
    names = list(operands[0])
    return dict(zip(names, function(*([o[n] for n in names] for o in operands)), strict=True))


def _mean_over_tasks(parts: list[Params]) -> Params:
    n_tasks = sum(len(part["norm1.bias"]) for part in parts)
    return {
        name: (sum(part[name].sum(0) for part in parts) / n_tasks).contiguous() for name in parts[0]
    }
