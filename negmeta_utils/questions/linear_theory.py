"""Mixed linear regression: the test loss of MAML and its best inner rates in closed form.

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

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline

from negmeta_utils.evidence.quantities import mean_interval
from negmeta_utils.evidence.words import signed

# Which rate a sweep varies: that of meta-training, that of adaptation to new tasks, or one for both
VARY = ("meta-training", "adaptation", "both")


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

    def meta_sgd_rates(self, correlation: float = 0.0, n_shared: int = 0) -> np.ndarray:
        """The rates of least meta-training loss over all tasks, one a parameter: [n_params].

        correlation: between every two inputs. n_shared: the last parameters, which are the same
        in all tasks. Exact for theta = w0. Without correlation no rate is negative; with it the
        rates of shared parameters can be.
        """
        return np.linalg.solve(*self._parabola(correlation, n_shared))

    def changes(
        self, rates: np.ndarray, correlation: float = 0.0, n_shared: int = 0
    ) -> tuple[float, float]:
        """What a step from w0 with `rates` [n_params] adds to the loss of the task itself, and to
        that of another task: never negative, since the step is independent of it."""
        moved, signal = self._parabola(correlation, n_shared)
        off_task = rates @ moved @ rates / 2
        return float(off_task - rates @ signal), float(off_task)

    def _parabola(self, correlation: float, n_shared: int) -> tuple[np.ndarray, np.ndarray]:
        """A and b of the task's own loss after a step with rates a: a'Aa / 2 - a'b + constant.

        With covariance S of the inputs, V of the weights and Q of the support gradient, A is S * Q
        (elementwise) and b the diagonal of SVS.
        """
        check_correlation(correlation)
        p, n = self.n_params, self.n_support
        inputs = (1 - correlation) * np.eye(p) + correlation
        weights = np.where(np.arange(p) < p - n_shared, self.spread**2 / p, 0.0)
        signal = inputs * weights @ inputs
        gradient = (1 + 1 / n) * signal + (weights.sum() + self.noise**2) / n * inputs
        return inputs * gradient, np.diag(signal)

    def _best_step(self, error: float, noise: float) -> float:
        """The minimum over a of contraction(a) * error + amplification(a) * noise."""
        p, n = self.n_params, self.n_support
        return float(error / (error * (1 + (p + 1) / n) + noise * p / n))


def check_correlation(value: float) -> None:
    """Raise ValueError for one that no two of the inputs can have, or that makes them all equal."""
    if not 0 <= value < 1:
        raise ValueError(f"correlation={value}: must be at least 0 and below 1")


def rate_pair(vary: str, rate: ArrayLike, other: float) -> tuple[ArrayLike, ArrayLike]:
    """Rates of meta-training and of the test where `vary` names the one that is `rate`.

    Raises ValueError for what is not in `VARY`.
    """
    if vary not in VARY:
        raise ValueError(f"vary={vary!r}: not one of {', '.join(VARY)}")
    pairs = ((rate, other), (other, rate), (rate, rate))
    return pairs[VARY.index(vary)]


def closed_form(problem: MixedRegression, vary: str, other: float) -> float:
    """The rate of least test loss along `vary`, the other rate being `other`."""
    if vary == "meta-training":
        return problem.best_train_rate()
    return problem.best_test_rate(other) if vary == "adaptation" else problem.best_shared_rate()


class BestRate(NamedTuple):
    """The rate of least mean loss, and its 95 % interval over repetitions."""

    rate: float
    low: float
    high: float


def best_measured_rate(losses: pd.DataFrame, seed: int, n_resamples: int = 2000) -> BestRate:
    """Where the mean test loss is least, by a cubic spline through the means.

    losses: one sweep: repetition, rate, test_loss. The interval is a percentile bootstrap of
    repetitions, each drawn with all its rates.
    """
    grid = losses.pivot(index="repetition", columns="rate", values="test_loss")
    rates, values = grid.columns.to_numpy(), grid.to_numpy()
    n = len(values)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), n_resamples)
    means = np.vstack([values.mean(0), counts @ values / n])
    fine = np.linspace(rates[0], rates[-1], 2001)
    best = fine[CubicSpline(rates, means, axis=1)(fine).argmin(1)]
    return BestRate(float(best[0]), *map(float, np.quantile(best[1:], [0.025, 0.975])))


def sweep_rates(problem: MixedRegression, vary: str, other: float, n_rates: int) -> np.ndarray:
    """Rates to sweep, ascending: from -1 to 2.5 times the closed form."""
    return np.sort(closed_form(problem, vary, other) * np.linspace(-1, 2.5, n_rates))


def curves(problem: MixedRegression, other: float) -> pd.DataFrame:
    """The closed form along every sweep: vary, rate, test_loss."""
    tables = []
    for vary in VARY:
        rates = sweep_rates(problem, vary, other, 201)
        loss = problem.test_loss(*rate_pair(vary, rates, other))
        tables.append(pd.DataFrame({"vary": vary, "rate": rates, "test_loss": loss}))
    return pd.concat(tables, ignore_index=True)


def points(problem: MixedRegression, sweeps: pd.DataFrame, other: float) -> pd.DataFrame:
    """Mean test loss by rate and its 95 % interval over repetitions, beside the closed form.

    sweeps: vary, rate, repetition, test_loss.
    """
    rows = []
    for (vary, rate), group in sweeps.groupby(["vary", "rate"], sort=False):
        measured = mean_interval(group["test_loss"])._asdict()
        expected = problem.test_loss(*rate_pair(vary, rate, other))
        rows.append({"vary": vary, "rate": rate, **measured, "closed_form": float(expected)})
    return pd.DataFrame(rows)


def best_rates(
    problem: MixedRegression, sweeps: pd.DataFrame, other: float, seed: int
) -> pd.DataFrame:
    """Best rates in closed form and as measured: vary, closed_form, rate, low, high."""
    rows = []
    for vary, losses in sweeps.groupby("vary", sort=False):
        best = best_measured_rate(losses, seed)._asdict()
        rows.append({"vary": vary, "closed_form": closed_form(problem, vary, other), **best})
    return pd.DataFrame(rows)


def summary(
    problem: MixedRegression, best: pd.DataFrame, learned: pd.DataFrame, n_repetitions: int
) -> str:
    """The answer in Markdown, from the tables of `best_rates` and of learned rates."""
    lines = [
        f"**{problem.n_params} parameters, {problem.n_tasks} tasks of {problem.n_support} support "
        f"and {problem.n_query} query points, {n_repetitions} repetitions.** Best rate as "
        "measured, with its 95 % interval, and in closed form:\n"
    ]
    names = ("of meta-training", "of adaptation to new tasks", "one rate for both")
    for name, row in zip(names, best.itertuples(), strict=True):
        interval = f"[{signed(row.low, 3)}, {signed(row.high, 3)}]"
        known = f"closed form {signed(row.closed_form, 3)}"
        lines.append(f"- {name}: {signed(row.rate, 3)} {interval}, {known}")
    ends = learned[learned["update"] == learned["update"].max()]
    for what, rows in ends.groupby("what", sort=False):
        end = mean_interval(rows["rate"])
        interval = f" [{signed(end.low, 3)}, {signed(end.high, 3)}]" if len(rows) > 1 else ""
        lines.append(
            f"- learned {what}: {signed(end.mean, 3)}{interval}, closed form "
            f"{signed(rows['closed_form'].iloc[0], 3)}; {100 * rows['negative'].mean():.0f} % of "
            "the rates negative"
        )
    return "\n".join(lines) + "\n"


def changes_table(problem: MixedRegression, correlation: float, n_shared: int) -> pd.DataFrame:
    """`changes` in closed form by Meta-SGD's rates, and without their negative ones: rates, own,
    shared, on_task, off_task."""
    best = problem.meta_sgd_rates(correlation, n_shared)
    rows = []
    for name, rates in (("as learned", best), ("negative set to zero", best.clip(0))):
        on_task, off_task = problem.changes(rates, correlation, n_shared)
        changes = {"on_task": on_task, "off_task": off_task}
        rows.append({"rates": name, "own": rates[0], "shared": rates[-1], **changes})
    return pd.DataFrame(rows)
