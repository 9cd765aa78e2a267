"""Numbers in words: signs, intervals, p-values."""

import numpy as np
import pytest

from negmeta_utils.evidence.words import fixed, p_said, p_text, signed, with_interval


@pytest.mark.parametrize(
    ("p", "cell", "said"),
    [
        (0.73, "0.73", "p = 0.73"),
        (0.00044, "0.00044", "p = 0.00044"),
        (9.896e-100, "< 0.0001", "p < 0.0001"),
        (0.0, "< 0.0001", "p < 0.0001"),
        (np.nan, "–", "p = –"),
    ],
)
def test_a_p_value_is_no_smaller_than_can_be_meant(p, cell, said):
    assert (p_text(p), p_said(p)) == (cell, said)


def test_a_sign_is_that_of_the_value_and_a_zero_in_a_table_has_none():
    assert [signed(x) for x in (0.123, -0.123, -0.001)] == ["+0.12", "−0.12", "−0.00"]
    assert [signed(x) for x in (0.0, -0.0, -1e-8, np.nan)] == ["+0.00"] * 3 + ["–"]
    assert [fixed(x, 3) for x in (0.1234, -0.1234, -0.0001)] == ["0.123", "−0.123", "0.000"]
    assert with_interval(0.04, -0.12, 0.2) == "+0.04 [−0.12, +0.20]"
