"""Work side by side."""

import threading

import pytest
import torch

from negmeta_utils.engine.threads import side_by_side


@pytest.fixture(autouse=True)
def three_threads(set_threads):
    set_threads(3)


def test_two_run_together_in_the_order_of_the_items_with_one_of_torchs_threads_each():
    together = threading.Barrier(2, timeout=60)

    def double(item):
        together.wait()
        return 2 * item, torch.get_num_threads()

    assert list(side_by_side(double, range(6), 2)) == [(2 * item, 1) for item in range(6)]
    assert torch.get_num_threads() == 3


def test_those_that_wait_are_not_begun_behind_an_error():
    begun = []

    def fail(item):
        begun.append(item)
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(side_by_side(fail, range(1000), 2))
    assert len(begun) < 1000
    assert torch.get_num_threads() == 3


def test_who_asks_for_no_more_waits_for_no_more():
    done = threading.Event()
    results = side_by_side(lambda item: item == 0 or done.wait(60), range(3), 1)
    assert next(results)
    threading.Timer(0.1, done.set).start()
    results.close()
    assert torch.get_num_threads() == 3
