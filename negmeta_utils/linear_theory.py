"""Mixed linear regression: the best inner rate in closed form, and found by this package's loops.

The problem is that of A. Bernacchia, "Meta-learning with negative learning rates" (ICLR 2021). A
task has weights w ~ N(w0, spread^2 / n_params I); its inputs are x ~ N(0, I), its targets
x.w + N(0, noise^2). The loss is half the mean squared error. One inner step with rate a turns an
initialisation theta into theta - a X'(X theta - y) / n_support. Meta-training finds the theta of
least query loss over n_tasks tasks, with a = `train_rate`; where there are fewer query targets
than parameters, the one nearest to where it starts. New tasks adapt with a = `test_rate`.

What is exact and what is not: `test_loss` is exact in the test rate and in E|theta - w0|^2;
`start_error` is exact in the distance of the start and at train_rate = 0, and elsewhere right to
first order in n_tasks * n_query / n_params (n_support growing with n_params). To that order it is
Bernacchia's theorem for more parameters than query targets.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline

from negmeta_utils.adaptation import task_loss
from negmeta_utils.episodes import counted_generator
from negmeta_utils.model import Params

AT_ONCE = 50  # repetitions side by side: their tasks fit a cache


@dataclass(frozen=True)
class MixedRegression:
    """The problem, its expected test loss, and the rates of least test loss.

    n_params, n_tasks (of meta-training), n_support and n_query (points in a task). noise: standard
    deviation of the targets about x.w. spread: root of E|w - w0|^2. distance: |start - w0|.
    Raises ValueError where the formulas do not hold.
    """

    n_params: int = 60
    n_tasks: int = 3
    n_support: int = 30
    n_query: int = 2
    noise: float = 1.0
    spread: float = 0.5
    distance: float = 0.0

    def __post_init__(self) -> None:
        if self.n_params < self.n_targets + 2:
            raise ValueError(
                f"n_params={self.n_params}: the closed form needs at least n_tasks * n_query + 2 = "
                f"{self.n_targets + 2}"
            )
        for name in ("n_tasks", "n_support", "n_query", "noise", "spread"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive")

    @property
    def n_targets(self) -> int:
        """Query targets of all tasks of meta-training: what theta is fitted to."""
        return self.n_tasks * self.n_query

    def contraction(self, rate: ArrayLike) -> np.ndarray:
        """E|(I - rate X'X / n_support) v|^2 / |v|^2, exactly: what a step leaves of an error."""
        rate = np.asarray(rate, dtype=float)
        return (1 - rate) ** 2 + rate**2 * (self.n_params + 1) / self.n_support

    def amplification(self, rate: ArrayLike) -> np.ndarray:
        """Variance of a query error from noise alone after a step, in units of noise^2."""
        rate = np.asarray(rate, dtype=float)
        return 1 + rate**2 * self.n_params / self.n_support

    def start_error(self, train_rate: ArrayLike) -> np.ndarray:
        """E|theta - w0|^2 after meta-training: distance kept, tasks and noise taken in."""
        p, n = self.n_params, self.n_targets
        inverse = n / (p - n - 1)  # E tr (X X')^-1 of n Gaussian rows; n / p to first order
        kept = (1 - n / p) * self.distance**2
        tasks = self.spread**2 * (n + inverse * (n - self.n_query)) / p
        noise = self.noise**2 * inverse
        return kept + tasks + noise * self.amplification(train_rate) / self.contraction(train_rate)

    def test_loss(self, train_rate: ArrayLike, test_rate: ArrayLike) -> np.ndarray:
        """Expected loss of a new task on new points, after adaptation to n_support points."""
        error = self.spread**2 + self.start_error(train_rate)
        noise = self.noise**2 * self.amplification(test_rate)
        return (noise + self.contraction(test_rate) * error) / 2

    def best_train_rate(self) -> float:
        """The train rate of least test loss, whatever the test rate: always negative.

        The train rate enters `test_loss` through amplification / contraction alone. With
        c = n_params / n_support, that ratio's slope has the sign of
        1 - (1 + 1 / n_support) a - c a^2; the minimum is the negative root.
        """
        c, b = self.n_params / self.n_support, 1 + 1 / self.n_support
        return -(b + np.sqrt(b**2 + 4 * c)) / (2 * c)

    def best_test_rate(self, train_rate: float) -> float:
        """The test rate of least test loss after meta-training with `train_rate`: positive."""
        return self._best_step(self.spread**2 + self.start_error(train_rate), self.noise**2)

    def best_shared_rate(self) -> float:
        """The rate of least test loss when meta-training and test use the same: positive.

        Contraction cancels between meta-training and test, so that meta-training's noise counts
        like noise of the targets.
        """
        n, p = self.n_targets, self.n_params
        noise = self.noise**2 * n / (p - n - 1)
        error = self.spread**2 + self.start_error(0.0) - noise
        return self._best_step(error, self.noise**2 + noise)

    def learned_rate(self) -> float:
        """Where Meta-SGD's rates end, all of them, given ever new tasks: positive.

        With theta = w0 the meta-training loss is a sum over parameters, of which each is a
        parabola in its own rate.
        """
        return self._best_step(self.spread**2, self.noise**2)

    def _best_step(self, error: float, noise: float) -> float:
        """The minimum over a of contraction(a) * error + amplification(a) * noise."""
        p, n = self.n_params, self.n_support
        return float(error / (error * (1 + (p + 1) / n) + noise * p / n))


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
    problem: MixedRegression, seed: int, stream: str, indices: range, n_tasks: int, n_query: int
) -> Tasks:
    """Repetitions `indices` of a stream of `episodes`, each of them `n_tasks` tasks."""
    n, p = problem.n_support + n_query, problem.n_params
    inputs, targets = np.empty((len(indices), n_tasks, n, p)), np.empty((len(indices), n_tasks, n))
    for place, index in enumerate(indices):
        generator = counted_generator(seed, stream, index)
        weights = generator.normal(0, problem.spread / np.sqrt(p), (n_tasks, p, 1))
        inputs[place] = generator.standard_normal((n_tasks, n, p))
        noise = generator.normal(0, problem.noise, (n_tasks, n))
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

    origin = torch.zeros(problem.n_params, dtype=torch.float64)
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


def measure(
    problem: MixedRegression,
    pairs: Iterable[tuple[float, float]],
    n_repetitions: int,
    seed: int,
    n_test_tasks: int = 20,
    n_test_points: int = 20,
) -> pd.DataFrame:
    """Test loss by the package's loops: train_rate, test_rate, repetition, train_loss, test_loss.

    pairs: of a rate in meta-training and one in the test. A repetition has the same tasks for
    every pair, so that their losses are paired.
    """

    def losses(rates: torch.Tensor, tasks: Tasks, new: Tasks) -> torch.Tensor:
        params = meta_train(problem, rates[0], tasks)
        by_rate = zip(rates, (tasks, new), strict=True)
        return torch.stack([query_loss(params, {"weight": r}, which) for r, which in by_rate])

    tables = []
    for first in range(0, n_repetitions, AT_ONCE):
        indices = range(first, min(first + AT_ONCE, n_repetitions))
        tasks = draw_tasks(problem, seed, "train", indices, problem.n_tasks, problem.n_query)
        new = draw_tasks(problem, seed, "test", indices, n_test_tasks, n_test_points)
        for pair in pairs:
            rates = torch.tensor(pair, dtype=torch.float64)
            train_loss, test_loss = torch.vmap(losses, (None, 0, 0))(rates, tasks, new).numpy().T
            columns = {"train_rate": pair[0], "test_rate": pair[1], "repetition": list(indices)}
            tables.append(
                pd.DataFrame({**columns, "train_loss": train_loss, "test_loss": test_loss})
            )
    return pd.concat(tables, ignore_index=True)


class BestRate(NamedTuple):
    """The rate of least mean loss, and its 95 % interval over repetitions."""

    rate: float
    low: float
    high: float


def best_measured_rate(
    losses: pd.DataFrame, column: str, seed: int, n_resamples: int = 2000
) -> BestRate:
    """Where the mean test loss is least along `column`, by a spline through the means.

    losses: of `measure`, along one rate. The interval is a percentile bootstrap of repetitions,
    each drawn with all its rates.
    """
    grid = losses.pivot(index="repetition", columns=column, values="test_loss")
    rates, values = grid.columns.to_numpy(), grid.to_numpy()
    n = len(values)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), n_resamples)
    means = np.vstack([values.mean(0), counts @ values / n])
    fine = np.linspace(rates[0], rates[-1], 2001)
    best = fine[CubicSpline(rates, means, axis=1)(fine).argmin(1)]
    return BestRate(best[0], *np.quantile(best[1:], [0.025, 0.975]))


def learn_train_rate(
    problem: MixedRegression,
    start: float,
    test_rate: float,
    n_updates: int,
    seed: int,
    outer_lr: float = 0.05,
    n_problems: int = 20,
) -> pd.DataFrame:
    """Descend on the loss of new tasks with respect to the rate of meta-training: update, rate.

    The gradient goes through the whole of `meta_train`. An update is the mean over `n_problems`
    repetitions that no other update sees.
    """

    def new_loss(rate: torch.Tensor, tasks: Tasks, new: Tasks) -> torch.Tensor:
        params = meta_train(problem, rate, tasks)
        alpha = {"weight": torch.tensor(test_rate, dtype=torch.float64)}
        return query_loss(params, alpha, new)

    slope = torch.vmap(torch.func.grad(new_loss), (None, 0, 0))

    def gradient(values: Params, indices: range) -> Params:
        tasks = draw_tasks(problem, seed, "train", indices, problem.n_tasks, problem.n_query)
        new = draw_tasks(problem, seed, "val", indices, 20, 20)
        return {"alpha": slope(values["alpha"], tasks, new).mean()}

    values = {"alpha": torch.tensor(start, dtype=torch.float64)}
    return _descend(values, gradient, n_updates, n_problems, outer_lr)


def learn_meta_sgd(
    problem: MixedRegression,
    start: float,
    n_updates: int,
    seed: int,
    outer_lr: float = 0.05,
    n_problems: int = 20,
) -> pd.DataFrame:
    """Meta-SGD: initialisation and one rate a parameter descend together on the query loss of new
    tasks: update, rate (the mean of all rates)."""

    def gradient(values: Params, indices: range) -> Params:
        tasks = draw_tasks(problem, seed, "other", indices, problem.n_tasks, problem.n_query)
        tasks = Tasks(*(part.flatten(0, 1) for part in tasks))
        theta, alpha = ({"weight": values[name]} for name in ("theta", "alpha"))
        slopes = torch.func.grad(query_loss, argnums=(0, 1))(theta, alpha, tasks)
        return {"theta": slopes[0]["weight"], "alpha": slopes[1]["weight"]}

    theta = torch.zeros(problem.n_params, dtype=torch.float64)
    theta[0] = problem.distance
    values = {"theta": theta, "alpha": torch.full_like(theta, start)}
    return _descend(values, gradient, n_updates, n_problems, outer_lr)


def _descend(
    values: Params,
    gradient: Callable[[Params, range], Params],
    n_updates: int,
    n_problems: int,
    outer_lr: float,
) -> pd.DataFrame:
    """Adam from `values`; what became of `alpha`'s mean."""
    optimizer = torch.optim.Adam(values.values(), outer_lr)
    rates = [values["alpha"].mean().item()]
    for update in range(n_updates):
        indices = range(update * n_problems, (update + 1) * n_problems)
        for name, slope in gradient(values, indices).items():
            values[name].grad = slope
        optimizer.step()
        rates.append(values["alpha"].mean().item())
    return pd.DataFrame({"update": range(n_updates + 1), "rate": rates})
