"""Mixed linear regression (`linear_theory`) through this package's own inner loop.

Every gradient here, of theta, of a rate or of one rate a parameter, is a nested `torch.func.grad`
through `adaptation.task_loss`, the one that trains Conv4. Randomness is counted, as for episodes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from negmeta_utils.adaptation import task_loss
from negmeta_utils.episodes import counted_generator
from negmeta_utils.model import Params
from negmeta_utils.questions.linear_theory import MixedRegression, rate_pair

NEW_TASKS, NEW_POINTS = 20, 20  # tasks of a test, and points that each is judged on
# What is learned, in the words of the figures.
NEW, META_SGD = "for the loss of new tasks", "by Meta-SGD, mean of all rates"
OWN, SHARED = "of parameters that tasks differ in", "of parameters that all tasks share"
NUMBERS_AT_ONCE = 3_000_000  # of the inputs that a test holds in memory


class Tasks(NamedTuple):
    """Tasks of one or more repetitions, float64; w0 is zero.

    support: [..., n_tasks, n_support, n_params]; support_targets: [..., n_tasks, n_support];
    query and query_targets likewise.
    """

    support: torch.Tensor
    support_targets: torch.Tensor
    query: torch.Tensor
    query_targets: torch.Tensor


def draw_tasks(
    problem: MixedRegression,
    seed: int,
    stream: str,
    indices: range,
    n_tasks: int,
    n_query: int,
    correlation: float = 0.0,
    n_shared: int = 0,
) -> Tasks:
    """Repetitions `indices` of a stream of `episodes`, each of them `n_tasks` tasks.

    correlation: between every two inputs. n_shared: weights, the last ones, that never vary.
    """
    n, p = problem.n_support + n_query, problem.n_params
    inputs, targets = np.empty((len(indices), n_tasks, n, p)), np.empty((len(indices), n_tasks, n))
    for place, index in enumerate(indices):
        generator = counted_generator(seed, stream, index)
        weights = generator.normal(0, problem.spread / np.sqrt(p), (n_tasks, p, 1))
        weights[:, p - n_shared :] = 0
        own = generator.standard_normal((n_tasks, n, p))
        noise = generator.normal(0, problem.noise, (n_tasks, n))
        common = generator.standard_normal((n_tasks, n, 1))
        inputs[place] = np.sqrt(1 - correlation) * own + np.sqrt(correlation) * common
        targets[place] = (inputs[place] @ weights)[..., 0] + noise
    x, y, cut = torch.from_numpy(inputs), torch.from_numpy(targets), problem.n_support
    return Tasks(x[:, :, :cut], y[:, :, :cut], x[:, :, cut:], y[:, :, cut:])


def squared_error(
    params: Params, inputs: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half the mean squared error of the linear model on inputs [n, n_params], and its outputs."""
    outputs = inputs @ params["weight"]
    return (outputs - targets).square().mean() / 2, outputs


def query_loss(params: Params, alpha: Params, tasks: Tasks) -> torch.Tensor:
    """Mean loss after one inner step over the tasks of one repetition, by `adaptation`."""

    def of_task(*task: torch.Tensor) -> torch.Tensor:
        return task_loss(params, alpha, *task, n_steps=1, loss=squared_error)[0]

    return torch.vmap(of_task)(*tasks).mean()


def meta_train(problem: MixedRegression, rate: torch.Tensor, tasks: Tasks) -> Params:
    """The initialisation of least query loss, nearest to the start, by conjugate gradients.

    The meta-gradient is affine in theta, so n_targets steps reach the minimum; all of them lie in
    the span of the meta-gradients, as gradient descent's do. Differentiable in `rate`.
    """
    alpha = {"weight": rate}

    def meta_gradient(theta: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(query_loss)({"weight": theta}, alpha, tasks)["weight"]

    origin = torch.zeros(problem.n_params, dtype=torch.float64, device="cpu")
    theta = origin.clone()
    theta[0] = problem.distance
    offset = meta_gradient(origin)
    residual = direction = -meta_gradient(theta)
    for _ in range(problem.n_targets):
        image = meta_gradient(direction) - offset
        step = residual.dot(residual) / direction.dot(image)
        theta = theta + step * direction
        previous, residual = residual, residual - step * image
        direction = residual + residual.dot(residual) / previous.dot(previous) * direction
    return {"weight": theta}


def losses(
    train_rate: torch.Tensor,
    test_rate: torch.Tensor,
    problem: MixedRegression,
    tasks: Tasks,
    new: Tasks,
) -> tuple[torch.Tensor, torch.Tensor]:
    """After meta-training on `tasks`: the loss of `new` tasks, and that of `tasks` themselves."""
    params = meta_train(problem, train_rate, tasks)
    test_loss = query_loss(params, {"weight": test_rate}, new)
    return test_loss, query_loss(params, {"weight": train_rate}, tasks)


def sweep(
    problem: MixedRegression,
    vary: str,
    rates: np.ndarray,
    other: float,
    n_repetitions: int,
    seed: int,
) -> pd.DataFrame:
    """Test loss by the package's loops: vary, rate, repetition, train_loss, test_loss.

    vary: which rate takes the values `rates`, one of `VARY`; the other one is `other`. A repetition
    has the same tasks at every rate. Raises ValueError for an unknown `vary`.
    """
    at_once = max(1, NUMBERS_AT_ONCE // (NEW_TASKS * problem.n_support * problem.n_params))
    all_losses = torch.vmap(losses, (None, None, None, 0, 0))
    tables = []
    for first in range(0, n_repetitions, at_once):
        indices = range(first, min(first + at_once, n_repetitions))
        tasks = draw_tasks(problem, seed, "train", indices, problem.n_tasks, problem.n_query)
        new = draw_tasks(problem, seed, "test", indices, NEW_TASKS, NEW_POINTS)
        for rate in rates:
            pair = map(_rate, rate_pair(vary, rate, other))
            test_loss, train_loss = all_losses(*pair, problem, tasks, new)
            table = {"vary": vary, "rate": rate, "repetition": list(indices)}
            both = {"train_loss": train_loss.numpy(), "test_loss": test_loss.numpy()}
            tables.append(pd.DataFrame({**table, **both}))
    return pd.concat(tables, ignore_index=True)


def learn_train_rate(
    problem: MixedRegression, start: float, test_rate: float, n_updates: int, seed: int
) -> np.ndarray:
    """Descend on the loss of new tasks with respect to the rate of meta-training.

    The gradient goes through the whole of `meta_train`. An update is the mean over repetitions
    that no other update sees. Gives the rate before every update and at the end: [n_updates + 1].
    """
    slope = torch.vmap(torch.func.grad(losses, has_aux=True), (None, None, None, 0, 0))

    def gradient(values: Params, indices: range) -> Params:
        tasks = draw_tasks(problem, seed, "train", indices, problem.n_tasks, problem.n_query)
        new = draw_tasks(problem, seed, "val", indices, NEW_TASKS, NEW_POINTS)
        slopes, _ = slope(values["alpha"], _rate(test_rate), problem, tasks, new)
        return {"alpha": slopes.mean()}

    return _descend({"alpha": _rate(start)}, gradient, n_updates, n_problems=10)


def learn_meta_sgd(
    problem: MixedRegression,
    start: float,
    n_updates: int,
    seed: int,
    correlation: float = 0.0,
    n_shared: int = 0,
) -> np.ndarray:
    """Meta-SGD: the initialisation and one rate a parameter descend on the query loss.

    Every update has tasks that no other sees, drawn as in `draw_tasks`. Gives the rates before
    every update and at the end: [n_updates + 1, n_params].
    """
    shape = (problem.n_tasks, problem.n_query, correlation, n_shared)

    def gradient(values: Params, indices: range) -> Params:
        tasks = draw_tasks(problem, seed, "other", indices, *shape)
        tasks = Tasks(*(part.flatten(0, 1) for part in tasks))
        theta, alpha = ({"weight": values[name]} for name in ("theta", "alpha"))
        slopes = torch.func.grad(query_loss, argnums=(0, 1))(theta, alpha, tasks)
        return {"theta": slopes[0]["weight"], "alpha": slopes[1]["weight"]}

    theta = torch.zeros(problem.n_params, dtype=torch.float64, device="cpu")
    theta[0] = problem.distance
    values = {"theta": theta, "alpha": torch.full_like(theta, start)}
    return _descend(values, gradient, n_updates, n_problems=50)


def learned_rates(
    problem: MixedRegression, test_rate: float, n_updates: int, seeds: range
) -> pd.DataFrame:
    """The rate learned for the loss of new tasks, and by Meta-SGD, each from where the other should
    end: what, seed, update, rate (the mean of Meta-SGD's), negative (share), closed_form."""
    down, up = problem.best_train_rate(), problem.meta_sgd_rates().mean()
    tables = []
    for seed in seeds:
        path = learn_train_rate(problem, up, test_rate, n_updates, seed)
        tables.append(_path(NEW, seed, path[:, None], down))
        tables.append(_path(META_SGD, seed, learn_meta_sgd(problem, down, n_updates, seed), up))
    return pd.concat(tables, ignore_index=True)


def shared_and_own_rates(
    problem: MixedRegression, correlation: float, n_updates: int, seeds: range
) -> pd.DataFrame:
    """Meta-SGD's rates where inputs are correlated and half of the parameters are the same in all
    tasks, from zero: columns as in `learned_rates`, means over either half."""
    n_own = problem.n_params // 2
    n_shared = problem.n_params - n_own
    best = problem.meta_sgd_rates(correlation, n_shared)
    tables = []
    for seed in seeds:
        path = learn_meta_sgd(problem, 0.0, n_updates, seed, correlation, n_shared)
        tables.append(_path(OWN, seed, path[:, :n_own], float(best[0])))
        tables.append(_path(SHARED, seed, path[:, n_own:], float(best[-1])))
    return pd.concat(tables, ignore_index=True)


def _path(what: str, seed: int, rates: np.ndarray, closed_form: float) -> pd.DataFrame:
    """rates: [n_updates + 1, n]."""
    means = {"rate": rates.mean(1), "negative": (rates < 0).mean(1)}
    return pd.DataFrame(
        {"what": what, "seed": seed, "update": range(len(rates)), **means}
        | {"closed_form": closed_form}
    )


def _rate(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, device="cpu")


def _descend(
    values: Params,
    gradient: Callable[[Params, range], Params],
    n_updates: int,
    n_problems: int,
    outer_lr: float = 0.05,
) -> np.ndarray:
    """Adam from `values`, its rate falling to zero in a line: `alpha` before every update and at
    the end."""
    optimizer = torch.optim.Adam(values.values(), outer_lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_updates)
    path = [values["alpha"].clone()]
    for update in range(n_updates):
        indices = range(update * n_problems, (update + 1) * n_problems)
        for name, slope in gradient(values, indices).items():
            values[name].grad = slope
        optimizer.step()
        schedule.step()
        path.append(values["alpha"].clone())
    return torch.stack(path).numpy()
