import numpy as np
import pytest
from scipy import stats

from negmeta_utils.evidence.looks import constant, levels, look
from negmeta_utils.evidence.rules import RULES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_looks", "published"), [(1, 1.960), (2, 1.977), (3, 2.004), (4, 2.024), (5, 2.040)]
)
def test_constants_are_the_published_ones(n_looks, published):
    """Jennison and Turnbull 2000, table 2.3: equal steps, 5 % in all."""
    shares = np.arange(1, n_looks + 1) / n_looks
    assert constant(shares) == pytest.approx(published, abs=0.002)


def test_levels_are_small_at_first_and_nearly_all_at_the_end():
    at = levels([4, 8])
    assert at[4] == pytest.approx(0.0052, abs=2e-4) and at[8] == pytest.approx(0.0480, abs=1e-3)
    at = levels([8, 12])
    assert at[8] < 0.02 < 0.04 < at[12] < 0.05
    assert levels([8]) == {8: pytest.approx(0.05)}


def test_the_rules_say_what_two_looks_allow_together():
    together = sum(levels([8, 12]).values())
    said = f"the sum of their levels, {100 * together:.1f} % after 8 and 12 seeds"
    assert said in " ".join(RULES.split())


def test_a_look_is_that_of_the_seeds_trained():
    planned = levels([8, 12])
    assert look([8, 8], 8, planned) == (planned[8], [])
    level, (note,) = look([8, 8], 7, planned)
    assert level == planned[8] and note.endswith("at 8 seeds trained, by the 7 that are left")
    level, (note,) = look([9], 8, planned)
    assert level is None and "no look is planned at 9 seeds, but at 8 and 12" in note
    assert look([9, 8], 8, None) == (0.05, [])
    level, (note,) = look([10, 8], 8, planned)
    assert level is None and "at 8 seeds of one method and 10 of the other, but at 8" in note


def test_two_looks_keep_one_promise_where_looking_twice_at_5_percent_does_not():
    rng, n = np.random.default_rng(0), 40_000
    values = rng.standard_normal((n, 12))
    p = {k: stats.ttest_1samp(values[:, :k], 0, axis=1).pvalue for k in (8, 12)}
    planned = levels([8, 12])
    wrong = np.any([p[k] <= planned[k] for k in p], axis=0).mean()
    naive = np.any([p[k] <= 0.05 for k in p], axis=0).mean()
    assert wrong <= 0.053 < 0.07 < naive


@pytest.mark.parametrize("looks", [[], [0, 3], [8, 8], [12, 8]])
def test_looks_that_are_no_plan_are_refused(looks):
    with pytest.raises(ValueError, match="increasing numbers of seeds"):
        levels(looks)
