import warnings

import numpy as np
import pandas as pd
import pytest
from random_tables import crossed, table
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM

from negmeta_utils.evidence.intervals import over_episodes
from negmeta_utils.evidence.mixed_model import fit, mixed_model
from negmeta_utils.evidence.quantities import DIFFERENCE, grids


def by_statsmodels(grid):
    """Mean, its standard error, and variances of seeds, episodes and residual."""
    long = grid.stack().rename_axis(["seed", "episode"]).rename("y").reset_index().assign(one=1)
    parts = {"episode": "0 + C(episode)", "seed": "0 + C(seed)"}  # in the order of `vcomp`
    model = MixedLM.from_formula("y ~ 1", groups="one", vc_formula=parts, data=long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one group, as is usual for crossed effects
        found = model.fit(reml=True)
    episodes, seeds = found.vcomp
    return found.fe_params.iloc[0], found.bse_fe.iloc[0], seeds, episodes, found.scale


def restricted_likelihood(grid, seeds, episodes, residual):
    """Twice its logarithm, by the definition, with the whole matrix of covariances."""
    n_seeds, n_episodes = grid.shape
    y, ones = grid.to_numpy().ravel(), np.ones(grid.size)
    covariance = (
        residual * np.eye(grid.size)
        + seeds * np.kron(np.eye(n_seeds), np.ones((n_episodes, n_episodes)))
        + episodes * np.kron(np.ones((n_seeds, n_seeds)), np.eye(n_episodes))
    )
    inverse = np.linalg.inv(covariance)
    weight = ones @ inverse @ ones
    rest = y - ones @ inverse @ y / weight
    return -np.linalg.slogdet(covariance)[1] - np.log(weight) - rest @ inverse @ rest


@pytest.mark.parametrize("shape", [(3, 12), (6, 8)])
def test_fit_equals_statsmodels(shape):
    grid = crossed(np.random.default_rng(0), *shape, 1, 1) + 0.7
    found = fit(grid)
    assert found.outcome == "regular"
    error = found.mean.errors[0].error
    ours = (found.mean.mean, error, *found.components)
    np.testing.assert_allclose(ours, by_statsmodels(grid), rtol=2e-3)


@pytest.mark.parametrize(
    ("seed", "between", "outcome"),
    [
        (0, (0, 1), "singular: no variance between seeds"),
        (4, (1, 0), "singular: no variance between episodes"),
        (1, (0, 0), "singular: no variance between seeds or episodes"),
    ],
)
def test_a_singular_fit_says_so_and_is_the_maximum(seed, between, outcome):
    rng = np.random.default_rng(seed)
    drawn = (crossed(rng, 4, 9, *between) for _ in range(100))
    grid = next(g for g in drawn if fit(g).outcome == outcome)
    best = fit(grid).components
    assert min(best) >= 0
    reached = restricted_likelihood(grid, *best)
    for _ in range(200):
        other = np.abs(np.array(best) + 0.1 * rng.standard_normal(3))
        assert restricted_likelihood(grid, *other) <= reached + 1e-9


def test_without_variance_between_seeds_the_interval_is_the_one_over_episodes():
    rng = np.random.default_rng(2)
    grid = next(
        g
        for g in (crossed(rng, 3, 20, 0, 1) for _ in range(50))
        if fit(g).outcome == "singular: no variance between seeds"
    )
    np.testing.assert_allclose(fit(grid).mean.interval(), over_episodes(grid).interval())


def test_seeds_alone_leave_a_t_test_over_seeds():
    means = np.array([1.0, 2.0, 4.0, 4.5])
    found = fit(pd.DataFrame(np.repeat(means[:, None], 30, axis=1)))
    np.testing.assert_allclose(
        found.mean.interval()[1:], stats.ttest_1samp(means, 0).confidence_interval()
    )
    assert found.components.seeds == pytest.approx(means.var(ddof=1))


def test_known_components_are_found():
    rng = np.random.default_rng(3)
    found = np.array([fit(crossed(rng, 10, 60, 0.5, 2)).components for _ in range(100)])
    for values, truth in zip(found.T, (0.25, 4, 1), strict=True):
        assert abs(values.mean() - truth) < 4 * values.std(ddof=1) / 10


def test_a_grid_as_large_as_the_papers_is_fitted():
    grid = crossed(np.random.default_rng(4), 10, 40_000, 0.5, 2)
    assert fit(grid).components.episodes == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(("shape", "outcome"), [((1, 9), "one seed"), ((4, 1), "one episode")])
def test_what_cannot_be_fitted_says_so(shape, outcome):
    grid = crossed(np.random.default_rng(5), *shape, 1, 1)
    found = fit(grid)
    assert found.outcome == f"none: {outcome}"
    assert found.mean.mean == pytest.approx(grid.to_numpy().mean())
    assert np.isnan(found.mean.interval().low) and np.isnan(found.components).all()


def test_a_grid_without_any_variance():
    found = fit(pd.DataFrame(np.full((3, 5), 2.0)))
    assert found.components == (0, 0, 0) and found.mean.interval() == (2, 2, 2)


def test_the_table_has_a_row_for_every_quantity():
    features = table()
    result = mixed_model(features).set_index(["method", "quantity"])
    assert list(result.index) == list(grids(features))
    row = result.loc[DIFFERENCE, "off-task change"]
    found = fit(grids(features)[DIFFERENCE, "off-task change"])
    assert tuple(row[["mean", "low", "high"]]) == pytest.approx(tuple(found.mean.interval()))
    deviations = row[["sd_seeds", "sd_episodes", "sd_residual"]].tolist()
    assert np.square(deviations) == pytest.approx(np.array(found.components))
    assert (row.n_seeds, row.n_episodes, row.fit) == (3, 60, found.outcome)
    assert (row.p_value <= 0.05) == (row.low > 0 or row.high < 0)
    shuffled = features.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(mixed_model(features), mixed_model(shuffled))
