"""Mixed linear regression: the closed form against brute force, the loops against linear algebra.

The oracles are NumPy and SciPy: they share no line with what they check.
"""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from answers import answer
from scipy.optimize import minimize_scalar

from negmeta_utils.plots import style, theory
from negmeta_utils.questions import linear_experiment
from negmeta_utils.questions.linear_theory import (
    VARY,
    MixedRegression,
    best_measured_rate,
    best_rates,
    curves,
    points,
    sweep_rates,
)

PROBLEM = MixedRegression()
SMALL = MixedRegression(n_params=20, n_tasks=2, n_support=10, n_query=2, distance=0.7)
RATES = (-2.0, -1.0, 0.0, 0.3, 1.0)


def start_errors(problem, rates, n, seed=0):
    """|theta - w0|^2 of the solution nearest to the start, by linear algebra on `n` random designs.

    The tasks' weights and the noise are averaged over exactly, given a design. [n, rates]
    """
    generator = np.random.default_rng(seed)
    m, p, cut = problem.n_tasks, problem.n_params, problem.n_support
    result = np.zeros((n, len(rates)))
    for row in range(n):
        x = generator.standard_normal((m, cut, p))
        v = generator.standard_normal((m, problem.n_query, p))
        for column, rate in enumerate(rates):
            through = rate / cut * v @ x.transpose(0, 2, 1)
            design = v - through @ x
            inverse = np.linalg.pinv(np.vstack(design))
            by_task = inverse.reshape(p, m, -1).transpose(1, 0, 2)
            tasks = problem.spread**2 / p * np.sum((by_task @ design) ** 2)
            noise = problem.noise**2 * (np.sum(inverse**2) + np.sum((by_task @ through) ** 2))
            kept = np.eye(p)[0] - inverse @ np.vstack(design)[:, 0]
            result[row, column] = tasks + noise + problem.distance**2 * kept @ kept
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "rates", "n", "tolerance"),
    [
        (PROBLEM, RATES, 300, 0.05),
        (replace(PROBLEM, n_tasks=15, distance=1.0), RATES[:3], 60, 0.03),
        (
            MixedRegression(n_params=100, n_support=25, n_query=3, noise=0.4, spread=1.0),
            RATES, 150, 0.05,
        ),
    ],
)  # fmt: skip
def test_the_error_of_the_start_is_that_of_linear_algebra(problem, rates, n, tolerance):
    errors = start_errors(problem, rates, n).mean(0)
    assert problem.start_error(rates) == pytest.approx(errors, rel=tolerance)


@pytest.mark.slow
def test_at_bernacchias_size_the_minimum_lies_a_twentieth_below_the_closed_form():
    """What the notebook says of the terms that the closed form leaves out."""
    rates = np.linspace(-1.5, -0.6, 10)
    errors = pd.DataFrame(start_errors(PROBLEM, rates, 800), columns=pd.Index(rates, name="rate"))
    losses = errors.melt(ignore_index=False, value_name="test_loss")
    best = best_measured_rate(losses.reset_index(names="repetition"), seed=0)
    assert best.rate == pytest.approx(-1.059, abs=0.015)
    assert "the minimum for the default problem is at −1.06, a twentieth below it" in answer("09")
    assert best.high < PROBLEM.best_train_rate() < -1


@pytest.mark.slow
def test_without_an_inner_step_the_error_of_the_start_is_exact():
    """A tiny problem, where terms of the next order would be half of it."""
    tiny = MixedRegression(n_params=12, n_tasks=2, n_support=3, n_query=3, spread=1, distance=2)
    errors = start_errors(tiny, [0.0], 8000)
    standard_error = errors.std() / np.sqrt(len(errors))
    assert abs(tiny.start_error(0.0) - errors.mean()) < 4 * standard_error
    assert standard_error < 0.01 * errors.mean()


def test_the_test_loss_is_exact_given_the_error_of_the_start():
    generator = np.random.default_rng(0)
    p, n, tasks, rate = SMALL.n_params, SMALL.n_support, 40_000, 0.25
    start = np.sqrt(SMALL.start_error(-1.0)) * np.eye(p)[0]
    w = generator.normal(0, SMALL.spread / np.sqrt(p), (tasks, p))
    x = generator.standard_normal((tasks, n, p))
    y = np.einsum("tnp,tp->tn", x, w) + generator.normal(0, SMALL.noise, (tasks, n))
    slope = np.einsum("tnp,tn->tp", x, x @ start - y) / n
    loss = (SMALL.noise**2 + np.sum((start - rate * slope - w) ** 2, axis=1)) / 2
    standard_error = loss.std() / np.sqrt(tasks)
    assert abs(SMALL.test_loss(-1.0, rate) - loss.mean()) < 4 * standard_error
    assert standard_error < 0.005 * loss.mean()


@pytest.mark.parametrize("seed", range(6))
def test_best_rates_are_the_minima_of_the_test_loss(seed):
    generator = np.random.default_rng(seed)
    problem = MixedRegression(
        n_params=int(generator.integers(30, 200)), n_tasks=int(generator.integers(1, 6)),
        n_support=int(generator.integers(1, 300)), n_query=int(generator.integers(1, 5)),
        noise=generator.uniform(0.01, 3), spread=generator.uniform(0.01, 3),
        distance=generator.uniform(0, 2),
    )  # fmt: skip
    best = problem.best_train_rate()
    grid = best * np.linspace(-20, 20, 4001)
    for test_rate in (-0.3, 0.0, problem.best_test_rate(best)):
        loss = problem.test_loss(grid, test_rate)
        assert grid[loss.argmin()] == pytest.approx(best, rel=0.01)
    for rate, loss in (
        (problem.best_test_rate(0.2), lambda a: problem.test_loss(0.2, a)),
        (problem.best_shared_rate(), lambda a: problem.test_loss(a, a)),
    ):
        assert rate == pytest.approx(minimize_scalar(loss).x, rel=1e-4)
        assert rate > 0
    assert best < 0


def random_tasks(problem, n_tasks=3, seed=0):
    drawn = linear_experiment.draw_tasks(problem, seed, "train", range(1), n_tasks, problem.n_query)
    return linear_experiment.Tasks(*(part[0] for part in drawn))


@pytest.mark.parametrize("n_rates", [1, 20])
def test_meta_gradients_are_the_analytic_ones(n_rates):
    """Of the initialisation, and of one rate for all or one rate a parameter."""
    tasks = random_tasks(SMALL)
    generator = torch.Generator().manual_seed(0)
    theta, alpha = (torch.randn(20, generator=generator, dtype=torch.float64) for _ in range(2))
    alpha = alpha if n_rates == 20 else alpha[0]
    got = torch.func.grad(linear_experiment.query_loss, argnums=(0, 1))(
        {"weight": theta}, {"weight": alpha}, tasks
    )
    start, rate, by_theta, by_rate = theta.numpy(), alpha.numpy(), 0, 0
    for x, y, v, u in zip(*(part.numpy() for part in tasks), strict=True):
        inner = x.T @ (x @ start - y) / len(y)
        outer = v.T @ (v @ (start - rate * inner) - u) / len(u)
        by_theta = by_theta + (outer - x.T @ (x @ (rate * outer)) / len(y)) / 3
        by_rate = by_rate - inner * outer / 3
    assert got[0]["weight"].numpy() == pytest.approx(by_theta)
    assert got[1]["weight"].numpy() == pytest.approx(by_rate if n_rates == 20 else by_rate.sum())


@pytest.mark.slow
@pytest.mark.parametrize("rate", [-1.5, 0.0, 0.4])
def test_meta_training_ends_at_the_solution_nearest_to_the_start(rate):
    problem = replace(PROBLEM, distance=0.7)
    tasks = random_tasks(problem)
    x, y, v, u = (part.numpy() for part in tasks)
    through = rate / problem.n_support * v @ x.transpose(0, 2, 1)
    design = np.vstack(v - through @ x)
    targets = np.concatenate(u - np.einsum("tqn,tn->tq", through, y))
    start = 0.7 * np.eye(problem.n_params)[0]
    expected = start + np.linalg.pinv(design) @ (targets - design @ start)
    rate = torch.tensor(rate, dtype=torch.float64)
    got = linear_experiment.meta_train(problem, rate, tasks)["weight"]
    assert got.numpy() == pytest.approx(expected, abs=1e-9)

    # Gradient descent, the way networks are meta-trained, ends there as well.
    slope = torch.func.grad(linear_experiment.query_loss)
    theta, size = {"weight": torch.from_numpy(start)}, np.linalg.norm(design, 2) ** 2 / len(targets)
    for _ in range(400):
        step = slope(theta, {"weight": rate}, tasks)["weight"] / size
        theta = {"weight": theta["weight"] - step}
    assert theta["weight"].numpy() == pytest.approx(expected, abs=1e-5)


def test_the_gradient_through_meta_training_agrees_with_finite_differences():
    tasks, new = random_tasks(SMALL, 2), random_tasks(SMALL, 5, seed=1)
    rate, test_rate, step = (torch.tensor(v, dtype=torch.float64) for v in (-0.7, 0.2, 1e-5))
    slope, _ = torch.func.grad(linear_experiment.losses, has_aux=True)(
        rate, test_rate, SMALL, tasks, new
    )
    high, low = (
        linear_experiment.losses(r, test_rate, SMALL, tasks, new)[0]
        for r in (rate + step, rate - step)
    )
    assert slope.item() == pytest.approx(((high - low) / (2 * step)).item(), rel=1e-6)


@pytest.mark.slow
def test_the_measured_loss_and_its_best_rates_are_the_closed_forms():
    sweeps = pd.concat(
        linear_experiment.sweep(PROBLEM, vary, sweep_rates(PROBLEM, vary, 0.1, 8), 0.1, 100, seed=0)
        for vary in VARY
    )
    table = points(PROBLEM, sweeps, 0.1)
    standard_error = (table["high"] - table["low"]) / 4
    assert (abs(table["mean"] - table["closed_form"]) < 3.5 * standard_error).all()
    best = best_rates(PROBLEM, sweeps, 0.1, seed=0).set_index("vary")
    assert best.loc["meta-training", "high"] < 0
    assert (best.loc[["adaptation", "both"], "low"] > 0).all()
    # The spline through eight points is itself off by a seventh.
    assert best["rate"].to_numpy() == pytest.approx(best["closed_form"].to_numpy(), rel=0.3)
    # Whatever the rate, the training tasks are fitted exactly: their loss cannot choose one.
    assert sweeps["train_loss"].max() < 1e-12


@pytest.mark.slow
def test_a_repetition_is_the_same_however_many_there_are(monkeypatch):
    few, many = (
        linear_experiment.sweep(SMALL, "both", [0.1, -0.2], 0.0, n, seed=3) for n in (4, 9)
    )
    monkeypatch.setattr(linear_experiment, "NUMBERS_AT_ONCE", 1)
    again = linear_experiment.sweep(SMALL, "both", [0.1, -0.2], 0.0, 4, seed=3)
    by = ["rate", "repetition"]
    shared = many[many["repetition"] < 4].sort_values(by, ignore_index=True)
    for other in (few, again):
        other = other.sort_values(by, ignore_index=True)
        assert other["test_loss"].to_numpy() == pytest.approx(shared["test_loss"].to_numpy())
    elsewhere = linear_experiment.sweep(SMALL, "both", [0.1, -0.2], 0.0, 4, seed=4)
    assert not np.isclose(elsewhere["test_loss"], few["test_loss"]).any()


@pytest.mark.slow
def test_the_interval_of_the_best_rate_misses_it_as_often_as_it_says():
    generator = np.random.default_rng(0)
    rates, n, missed = np.linspace(-2, 1, 7), 60, 0
    for data in range(100):
        # A parabola a repetition, its minimum scattered about -0.5, on top of a shared level.
        minima = generator.normal(-0.5, 1, (n, 1))
        values = (rates - minima) ** 2 + generator.normal(0, 20, (n, 1))
        losses = pd.DataFrame(values, columns=pd.Index(rates, name="rate")).melt(
            ignore_index=False, value_name="test_loss"
        )
        best = best_measured_rate(
            losses.reset_index(names="repetition"), seed=data, n_resamples=300
        )
        missed += not best.low <= -0.5 <= best.high
    assert 1 <= missed <= 12


@pytest.mark.slow
def test_learned_rates_end_where_their_closed_forms_say():
    learned = linear_experiment.learned_rates(PROBLEM, 0.1, 90, range(1))
    ends = learned.groupby("what").last()
    starts = learned.groupby("what").first()
    assert (
        starts.loc[linear_experiment.NEW, "rate"]
        > 0
        > starts.loc[linear_experiment.META_SGD, "rate"]
    )
    assert ends.loc[linear_experiment.NEW, "rate"] == pytest.approx(
        PROBLEM.best_train_rate(), rel=0.25
    )
    meta_sgd = ends.loc[linear_experiment.META_SGD]
    assert meta_sgd["rate"] == pytest.approx(PROBLEM.meta_sgd_rates()[0], rel=0.4)


@pytest.mark.parametrize("rates", ["best", "clipped"])
def test_changes_on_and_off_task_are_those_of_random_tasks(rates):
    problem, correlation, n_shared = MixedRegression(n_params=8, n_support=6), 0.3, 5
    alpha = problem.meta_sgd_rates(correlation, n_shared)
    assert (alpha[-n_shared:] < 0).all()
    alpha = alpha.clip(0) if rates == "clipped" else alpha
    drawn = linear_experiment.draw_tasks(
        problem, 0, "test", range(1), 60_000, 1, correlation, n_shared
    )
    x, y, v, u = (part[0].numpy() for part in drawn)
    step = -alpha * np.einsum("tnp,tn->tp", x, -y) / problem.n_support
    for number, (seen, target) in enumerate(((v, u), (np.roll(v, 1, 0), np.roll(u, 1, 0)))):
        error = np.einsum("tqp,tp->tq", seen, step) - target
        change = (error**2 - target**2).mean(1) / 2
        standard_error = change.std() / np.sqrt(len(change))
        expected = problem.changes(alpha, correlation, n_shared)[number]
        assert abs(change.mean() - expected) < 4 * standard_error
        assert standard_error < 0.1 * abs(expected)


@pytest.mark.parametrize("correlation", [-0.1, 1, 2, float("nan")])
def test_a_correlation_that_none_can_have_is_refused(correlation):
    with pytest.raises(ValueError, match="correlation=.*: must be at least 0 and below 1"):
        PROBLEM.meta_sgd_rates(correlation)


def test_without_correlation_meta_sgd_has_one_positive_rate_for_all():
    problem = replace(PROBLEM, distance=0.0)
    rates = problem.meta_sgd_rates()

    # With theta = w0 the test loss of a shared rate is that of the tasks themselves.
    def loss(rate):
        noise = problem.noise**2 * problem.amplification(rate)
        return noise + problem.contraction(rate) * problem.spread**2

    assert rates == pytest.approx(np.full(60, minimize_scalar(loss).x), rel=1e-4)
    assert (rates > 0).all()


@pytest.mark.slow
def test_meta_sgd_learns_negative_rates_for_what_correlated_tasks_share():
    problem = MixedRegression(n_params=12, spread=1.0)
    learned = linear_experiment.shared_and_own_rates(problem, 0.2, 80, range(1))
    ends = learned.groupby("what").last()
    for what, negative in ((linear_experiment.OWN, 0), (linear_experiment.SHARED, 1)):
        assert ends.loc[what, "rate"] == pytest.approx(ends.loc[what, "closed_form"], abs=0.03)
        assert ends.loc[what, "negative"] == negative


def test_the_figure_shows_what_is_in_its_tables():
    style.set_style()
    line = curves(SMALL, 0.1)
    dots = pd.DataFrame({"vary": VARY, "rate": 0.1, "mean": 2.0, "low": 1.5, "high": 3.0})
    best = pd.DataFrame({"vary": VARY, "closed_form": 0.2, "rate": 0.3, "low": 0.1, "high": 0.5})
    learned = pd.DataFrame(
        [{"what": o, "seed": s, "update": u, "rate": s + u, "closed_form": 7}
         for o in ("one", "two") for s in range(2) for u in range(3)]
    )  # fmt: skip
    axes = theory.rate_sweeps(line, dots, best, learned).axes
    for axis, vary in zip(axes, VARY, strict=False):
        (shown,) = (drawn for drawn in axis.lines if len(drawn.get_xdata()) == 201)
        expected = line[line["vary"] == vary]
        assert list(shown.get_ydata()) == list(expected["test_loss"])
        (segment,) = axis.containers[0].lines[2][0].get_segments()
        assert segment.tolist() == [[0.1, 1.5], [0.1, 3.0]]
    heights = sorted(tuple(drawn.get_ydata()) for drawn in axes[3].lines)
    assert heights == [(0, 0), (0, 1, 2), (0, 1, 2), (1, 2, 3), (1, 2, 3), (7, 7), (7, 7)]
    plt.close("all")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_params": 7}, "n_params=7: the closed form needs at least .* = 8"),
        ({"noise": 0.0}, "noise=0.0: must be positive"),
        ({"n_query": 0}, "n_query=0: must be positive"),
    ],
)
def test_problems_without_a_closed_form_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        MixedRegression(**values)


def test_an_unknown_sweep_is_refused():
    with pytest.raises(ValueError, match="vary='neither': not one of meta-training"):
        linear_experiment.sweep(SMALL, "neither", [0.1], 0.1, 1, seed=0)
