"""The outer rate's fall on loss curves whose cuts are known by counting."""

import pytest
import torch

from negmeta_utils.checkpoints import plateau

EVERY = 400  # meta-updates between checks
CHECKS = 150  # 60,000 meta-updates


def rates_along(losses, *outer_lrs):
    """The outer rate of every group after each check."""
    groups = [{"params": [torch.zeros(1)], "lr": outer_lr} for outer_lr in outer_lrs]
    optimizer = torch.optim.Adam(groups)
    scheduler, along = plateau(optimizer), []
    for loss in losses:
        scheduler.step(loss)
        along.append([group["lr"] for group in optimizer.param_groups])
    return along


def cuts(losses):
    """Meta-updates at which a rate of 1e-3 falls, and what it falls to."""
    along = [1e-3, *(outer_lr for (outer_lr,) in rates_along(losses, 1e-3))]
    return {
        EVERY * i: b for i, (a, b) in enumerate(zip(along, along[1:], strict=False), 1) if a != b
    }


def test_a_loss_that_never_falls_again_cuts_every_ten_checks_down_to_the_floor():
    assert cuts([1.5] * CHECKS) == {4_400: 5e-4, 8_400: 2.5e-4, 12_400: 1.25e-4}


def test_the_count_begins_again_at_a_better_check():
    bad_then_better = [1.5] * 10 + [1.4]  # the first one sets the best, nine are bad
    assert cuts(bad_then_better + [1.45] * 20) == {21 * EVERY: 5e-4, 31 * EVERY: 2.5e-4}


@pytest.mark.parametrize("start", [0.1, 1.5, 30.0])
def test_a_gain_is_one_from_an_absolute_1e_4_on(start):
    """torch's default would be a share of the best loss."""
    assert cuts([start] + [start - 0.9e-4] * 11) == {11 * EVERY: 5e-4}
    assert cuts([start] + [start - 1.1e-4] * 11) == {12 * EVERY: 5e-4}


def test_small_gains_add_up():
    assert cuts([1.5 - 0.6e-4 * check for check in range(CHECKS)]) == {}, "every second is one"


def test_every_group_goes_by_the_same_rule_and_small_rates_never_fall():
    along = rates_along([1.5] * CHECKS, 1e-3, 1e-4, 2e-4, 2.1e-4)
    assert along[-1] == [1.25e-4, 1e-4, 2e-4, 1.05e-4]
