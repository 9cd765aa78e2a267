import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from random_settings import random_setting

import negmeta_utils
from negmeta_utils import adaptation, evaluation, training
from negmeta_utils.engine import meta_gradient
from negmeta_utils.engine.device import PRODUCTS, exact_products, resolve_device

EXACT = ["ieee"] * len(PRODUCTS)


def precisions():
    return [product.fp32_precision for product in PRODUCTS]


@pytest.fixture
def switches():
    """Torch's, as they were before the test afterwards."""
    above, before = torch.backends.fp32_precision, precisions()
    torch.backends.fp32_precision = "none"
    yield
    torch.backends.fp32_precision = above
    for product, precision in zip(PRODUCTS, before, strict=True):
        product.fp32_precision = precision


def turn_the_old_one():
    torch.set_float32_matmul_precision("medium")


def turn_the_new_one():
    torch.backends.fp32_precision = "tf32"


def turn_two():
    turn_the_new_one()
    torch.backends.mkldnn.conv.fp32_precision = "bf16"


@pytest.mark.parametrize("turn", [turn_the_old_one, turn_the_new_one, turn_two])
def test_products_are_exact_inside_and_as_they_were_outside(turn, switches):
    turn()
    before = precisions()
    assert before != EXACT
    with exact_products():
        assert precisions() == EXACT
    assert precisions() == before


def test_one_inside_another_leaves_the_switches_to_it(switches):
    turn_two()
    before = precisions()
    with exact_products():
        with exact_products():
            pass
        assert precisions() == EXACT
    assert precisions() == before


def test_the_last_thread_to_leave_puts_the_switches_back(switches):
    turn_two()
    before = precisions()
    entered, leave = threading.Event(), threading.Event()

    def first():
        with exact_products():
            entered.set()
            assert leave.wait(60)

    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(first)
        assert entered.wait(60)
        with exact_products():
            leave.set()
            thread.result()  # the other has left
            assert precisions() == EXACT
    assert precisions() == before


def test_a_switch_above_them_still_turns_them(switches):
    for product in PRODUCTS:
        product.fp32_precision = "none"
    turn_the_new_one()
    with exact_products():
        pass
    torch.backends.fp32_precision = "ieee"
    assert precisions() == EXACT


def test_the_public_meta_gradient_is_exact(switches, monkeypatch):
    seen, convolve = [], meta_gradient.passes.forward

    def noted(*arguments, **named):
        seen.append(precisions())
        return convolve(*arguments, **named)

    monkeypatch.setattr(meta_gradient.passes, "forward", noted)
    turn_the_new_one()
    params, alpha, episodes = random_setting("maml", 16)  # of 4 filters, which C does not take
    negmeta_utils.meta_gradient(params, alpha, episodes, 1)
    assert seen
    assert all(found == EXACT for found in seen)


@pytest.mark.slow
def test_a_training_is_exact(tiny_config, tmp_path, monkeypatch):
    seen, gradient = [], meta_gradient.meta_gradient

    def noted(*arguments):
        seen.append(tuple(precisions()))
        return gradient(*arguments)

    monkeypatch.setattr(meta_gradient, "meta_gradient", noted)
    training.train(tiny_config, tmp_path / "run")
    assert set(seen) == {tuple(EXACT)}


@pytest.mark.slow
def test_so_is_an_evaluation_of_any_network(run, images, monkeypatch):
    seen, adapt = [], adaptation.adapt

    def noted(*arguments, **named):
        seen.append(tuple(precisions()))
        return adapt(*arguments, **named)

    monkeypatch.setattr(adaptation, "adapt", noted)
    evaluation.evaluate_features(run, images, 2, engine="reference")
    assert set(seen) == {tuple(EXACT)}


def test_cuda_asked_for_and_absent_is_refused():
    assert resolve_device("cpu").type == "cpu"
    if torch.cuda.is_available():
        assert resolve_device("auto").type == "cuda"
    else:
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(ValueError, match="no such CUDA device here"):
            resolve_device("cuda")
