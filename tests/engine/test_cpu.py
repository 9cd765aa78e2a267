"""The C functions against the reference, on vectors of several widths, and how they are made."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_settings import assert_same, random_setting

from benchmarks.peers import Work
from negmeta_utils import adaptation, model, objective
from negmeta_utils.adaptation import METHODS, init_alpha
from negmeta_utils.engine import cpu, library
from negmeta_utils.engine import meta_gradient as adjoint
from negmeta_utils.engine.adam import Adam
from negmeta_utils.episodes import Episodes, ImageSet
from negmeta_utils.evaluation import evaluate_features
from negmeta_utils.model import init_params
from negmeta_utils.networks.catalogue import NETWORKS
from negmeta_utils.training import train

if library.compiler_version() is None:  # of CC, or cc
    pytest.skip("no C compiler", allow_module_level=True)

WITH_FMA = pytest.mark.skipif(library.vectors() not in library.VECTORS, reason="no AVX2")
WITH_CLANG = pytest.mark.skipif(shutil.which("clang") is None, reason="no clang")
QUICK = "-O1"  # compiles in half the time, and must not change a digit either
TARGETS = [
    pytest.param("cc", ("-DBYTES=16", QUICK), id="narrow"),
    pytest.param("cc", ("-DBYTES=32", QUICK), id="avx2"),
    pytest.param("cc", ("-DBYTES=64", "-Wno-psabi", QUICK), id="wide"),
    pytest.param("clang", (), marks=WITH_CLANG, id="clang"),
    pytest.param("clang", ("-DBYTES=64", QUICK), marks=WITH_CLANG, id="clang-wide"),
]


@pytest.fixture
def calls(monkeypatch):
    """Names of the C functions that are called."""
    called, plain = [], cpu._call

    def call(name, *arguments):
        called.append(name)
        plain(name, *arguments)

    monkeypatch.setattr(cpu, "_call", call)
    return called


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing compiled yet, and nothing known of what was."""
    library._library.cache_clear()
    monkeypatch.setenv("NEGMETA_CACHE", str(tmp_path))
    yield tmp_path
    library._library.cache_clear()


def results(seed):
    """What every function of the library makes of the same float32 numbers."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for size, channels, filters, n_shot in ((43, 3, 64, 2), (16, 1, 32, 5)):
        params = init_params(seed, channels, size, 5, filters)
        alpha = init_alpha("meta-sgd", params, 0.1)
        shape = (2, 1, 5 * n_shot, channels, size, size)
        images = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")
        labels = torch.arange(5, device="cpu").repeat_interleave(n_shot)
        tasks = Episodes(images[0], labels, images[1], labels)
        for gradient in (
            adjoint.meta_gradient(params, alpha, tasks, 1),
            adjoint.prototype_gradient(params, tasks),
        ):
            found += [gradient.loss, gradient.accuracy, *gradient.params.values()]
            found += gradient.alpha.values()
        adapted = adjoint.adapt(params, alpha, tasks.support, labels, 1)
        logits = adjoint.logits(adapted, tasks.query)
        found += [*adjoint.embed([adapted, params], tasks.query), logits]
        found += adjoint.loss_and_accuracy(logits, labels)
        optimizer = Adam([{"params": list(params.values())}], 0.001)
        for _ in range(3):
            for name, value in params.items():
                value.grad = gradient.params[name]
            optimizer.step()
        found += params.values()
    for network in NETWORKS.values():
        found += network.init(seed, 3, 16, 5, 8).values()
    return found


@pytest.fixture(scope="module")
def usual():
    """Results of the library that everybody has, of the cache that there is."""
    return results(3)


@WITH_FMA
@pytest.mark.parametrize(("compiler", "flags"), TARGETS)
@pytest.mark.slow
def test_digits_do_not_depend_on_vectors_and_compiler(compiler, flags, usual, fresh, monkeypatch):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(library, "VECTORS", {library.vectors(): (*library.AVX2, *flags)})
    found = results(3)
    assert len(list(fresh.rglob("*.so"))) == 1
    assert all(torch.equal(a, b) for a, b in zip(found, usual, strict=True))


@pytest.fixture
def every_switch():
    """All of torch's global switches that change arithmetic or where it happens, turned from where
    they are."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    precision = torch.get_float32_matmul_precision()
    torch.set_num_threads(3)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    torch.set_flush_denormal(True)
    with (
        torch.set_grad_enabled(False),
        torch.backends.mkldnn.flags(enabled=False),
        torch.autocast("cpu"),
    ):
        yield
    torch.set_flush_denormal(False)
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision(precision)
    torch.set_default_device(None)
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.fixture
def expected():
    return results(4)


@pytest.mark.slow
def test_digits_do_not_depend_on_torchs_switches(expected, every_switch):
    found = results(4)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.fixture
def features(run, images):
    return evaluate_features(run, images, 3)


@pytest.mark.slow
def test_nor_do_those_of_a_training_and_an_evaluation(
    run, images, tiny_config, tmp_path, features, every_switch
):
    again = train(tiny_config, tmp_path / "run")
    assert all(torch.equal(again.params[name], value) for name, value in run.params.items())
    assert again.history().equals(run.history())
    assert again.final_accuracy().equals(run.final_accuracy())
    assert evaluate_features(again, images, 3).equals(features)


@pytest.mark.slow
def test_wide_vectors_compile(tmp_path):
    """Of AVX-512, whether or not there is a processor here that has them."""
    command = ["cc", *library.FLAGS, *library.VECTORS["AVX512"], QUICK, "-DBITS=32"]
    if subprocess.run([*command, "-E", "-xc", "/dev/null"], capture_output=True).returncode:
        pytest.skip("the compiler does not know AVX-512")
    library._compile(
        [*command, "-Werror"], sorted(library.SOURCES.glob("*.c")), tmp_path / "made.so"
    )


@pytest.mark.slow
def test_without_fused_multiply_add_it_is_the_reference_gradient(fresh, monkeypatch, calls):
    monkeypatch.setattr(library, "VECTORS", {library.vectors(): (QUICK,)})
    params, alpha, episodes = random_setting("meta-sgd", 19, channels=3, n_filters=32)
    expected = adaptation.meta_gradient(params, alpha, episodes, 2)
    assert_same(adjoint.meta_gradient(params, alpha, episodes, 2), expected, 1e-10)
    assert set(calls) == {"task_gradient"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(dict(image_size=16), id="16"),
        pytest.param(dict(image_size=28, flat=True), id="28-flat"),
        pytest.param(dict(image_size=28, n_shot=8), id="28-8-shot", marks=pytest.mark.slow),
        pytest.param(
            dict(image_size=43, channels=3, n_shot=2, n_filters=64),
            id="43-2-shot",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_is_the_reference_gradient(method, setting, calls):
    params, alpha, episodes = random_setting(method, **{"n_filters": 32, **setting})
    first_order = METHODS[method].first_order
    expected = adaptation.meta_gradient(params, alpha, episodes, 2, first_order)
    assert_same(adjoint.meta_gradient(params, alpha, episodes, 2, first_order), expected, 1e-10)
    assert calls


@pytest.mark.parametrize(
    "setting", [dict(image_size=16), dict(image_size=43, channels=3, n_shot=2, n_filters=64)]
)
def test_is_the_reference_gradient_of_a_prototypical_network(setting, calls):
    params, _, episodes = random_setting("protonet", **{"n_filters": 32, **setting})
    expected = adaptation.prototype_gradient(params, episodes)
    assert_same(adjoint.prototype_gradient(params, episodes), expected, 1e-10)
    assert calls


def test_adam_is_torchs_adam():
    def groups(values):
        return [{"params": values[:2]}, {"params": values[2:], "lr": 0.01}]

    generator = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.ones(5, 7), torch.full((3,), 2.0), torch.ones(())] for _ in range(2))
    both = (
        (Adam(groups(ours), 0.001), ours),
        (
            torch.optim.Adam([{"params": theirs[:2]}, {"params": theirs[2:], "lr": 0.01}], 0.001),
            theirs,
        ),
    )
    for _ in range(20):
        gradients = [torch.randn(value.shape, generator=generator) for value in ours]
        for optimizer, values in both:
            for value, gradient in zip(values, gradients, strict=True):
                value.grad = gradient.clone()
            optimizer.step()
    for value, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)
    (saved, _), (expected, _) = (optimizer.state_dict().values() for optimizer, _ in both)
    for index, state in expected.items():
        for name, value in state.items():
            torch.testing.assert_close(saved[index][name], value, rtol=1e-5, atol=1e-7)


def test_loss_and_accuracy_are_torchs():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 40, 5, generator=generator, dtype=torch.float64)
    logits[0] *= 300  # losses of 0 and of hundreds
    labels = torch.arange(5).repeat(8)
    loss, accuracy = adjoint.loss_and_accuracy(logits, labels)
    for task in range(3):
        expected = F.cross_entropy(logits[task], labels)
        torch.testing.assert_close(loss[task], expected, rtol=1e-13, atol=1e-15)
        assert accuracy[task] == (logits[task].argmax(1) == labels).double().mean()


def test_refuses_labels_of_no_class():
    with pytest.raises(ValueError, match=r"labels must be int64 in 0\.\.4"):
        adjoint.loss_and_accuracy(torch.zeros(1, 2, 5), torch.tensor([0, 5]))


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [28, 43])
def test_float32_is_closer_to_float64_than_nested_differentiation_is(image_size):
    """At the paper's settings. The median of tasks: in one now and then, rounding decides which of
    two values is the larger, and all later digits differ."""
    work = Work("meta-sgd", image_size, n_tasks=1)
    images, params = work.images(), work.params()
    alpha = init_alpha("meta-sgd", params, 0.01)
    exactly = [{n: v.double() for n, v in group.items()} for group in (params, alpha)]

    def distances(index):
        episodes = work.episodes(images, index)
        images64 = {"support": episodes.support.double(), "query": episodes.query.double()}
        exact = adaptation.meta_gradient(*exactly, episodes._replace(**images64), 5).params
        for gradient in (adjoint.meta_gradient, adaptation.meta_gradient):
            found = gradient(params, alpha, episodes, 5).params
            yield max(
                float((found[name] - value).norm() / value.norm())
                for name, value in exact.items()
                if not (name.startswith("conv") and name.endswith("bias"))  # those are 0
            )

    ours, nested = np.median([list(distances(index)) for index in range(3)], axis=0)
    assert ours < nested


@pytest.mark.parametrize("image_size", [28, 43])
def test_adapts_and_embeds_as_the_reference_does(image_size, calls):
    shape = {"channels": 3, "n_tasks": 3, "n_filters": 32}
    params, alpha, episodes = random_setting("meta-sgd", image_size, **shape)
    adapted = adjoint.adapt(params, alpha, episodes.support, episodes.support_labels, 3)
    embeddings, shared = adjoint.embed([adapted, params], episodes.query)
    for task, support in enumerate(episodes.support):
        expected = adaptation.adapt(params, alpha, support, episodes.support_labels, 3)
        for name, value in expected.items():
            torch.testing.assert_close(adapted[name][task], value, rtol=1e-9, atol=1e-11)
        query = episodes.query[task]
        torch.testing.assert_close(embeddings[task], model.embed(expected, query))
        torch.testing.assert_close(shared[task], model.embed(params, query))
    assert set(calls) == {"adapt", "predict"}


def test_features_of_large_planes_in_float32_are_near_those_in_float64():
    work = Work("meta-sgd", 43, n_tasks=1)
    params, query = work.params(), work.episodes(work.images(), 0).query
    doubles = {name: value.double() for name, value in params.items()}
    exact = model.embed(doubles, query[0].double())
    for found in (adjoint.embed([params], query)[0][0], model.embed(params, query[0])):
        assert (found - exact).norm() / exact.norm() < 2e-6


def test_what_is_not_a_number_stays_so(calls):
    params, alpha, episodes = random_setting("maml", 16, n_filters=32)
    params["conv2.weight"][0, 0, 0, 0] = torch.nan
    result = adjoint.meta_gradient(params, alpha, episodes, 1)
    assert result.loss.isnan()
    assert result.params["conv2.weight"].isnan().any()


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_torch_does_it(compiler, fresh, monkeypatch, calls):
    monkeypatch.setenv("CC", compiler)
    params, alpha, episodes = random_setting("maml", 16, n_filters=32)
    expected = adaptation.meta_gradient(params, alpha, episodes, 1)
    with pytest.warns(UserWarning, match="the C sources of the engine are not used"):
        found = adjoint.meta_gradient(params, alpha, episodes, 1)
    assert_same(found, expected, 1e-10)
    assert not calls
    assert not list(fresh.rglob("*.so"))


def test_a_manifest_says_whose_code_it_was(tiny_config):
    images = ImageSet(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), ("a", "b"), np.ones(2, int))
    wide = replace(tiny_config, n_filters=32, engine="adjoint")
    assert objective.kernels(wide, images) == "c"
    assert objective.kernels(replace(wide, n_filters=4), images) == "torch"
    assert objective.kernels(replace(wide, engine="reference"), images) == "torch"
    assert objective.kernels(replace(wide, method="protonet"), images) == "c"


@pytest.mark.slow
def test_no_memory_is_touched_but_its_own(tmp_path):
    """Under the compiler's sanitizers, on sizes that tiles and windows do not divide."""
    libraries = [
        subprocess.run(
            ["cc", f"-print-file-name={name}"], capture_output=True, text=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(os.path.isabs(path) for path in libraries):
        pytest.skip("the compiler has no sanitizers")
    compiler = tmp_path / "cc"
    checks = "-fsanitize=address,undefined -fno-sanitize=alignment -fno-sanitize-recover=all"
    compiler.write_text(f'#!/bin/sh\nexec cc {checks} "$@" -O1\n')
    compiler.chmod(0o755)
    program = """
from negmeta_utils.engine import library, meta_gradient as adjoint
from random_settings import random_setting
for size, channels in ((19, 3), (30, 1)):
    setting = dict(image_size=size, channels=channels, n_tasks=1, n_filters=32)
    params, alpha, episodes = random_setting("meta-sgd", **setting)
    adjoint.meta_gradient(params, alpha, episodes, 1)
    adjoint.prototype_gradient(params, episodes)
    adjoint.adapt(params, alpha, episodes.support, episodes.support_labels, 1)
    adjoint.embed([params], episodes.query)
assert library.library(64) is not None
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "CC": str(compiler),
            "NEGMETA_CACHE": str(tmp_path),
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "LD_PRELOAD": " ".join(libraries),
            "ASAN_OPTIONS": "detect_leaks=0",
        },
    )
    assert result.returncode == 0, result.stderr[-2000:]


ALLOCATES = """
import ctypes, sys
from random_settings import random_setting
from negmeta_utils.engine import meta_gradient

class Blocks(ctypes.Structure):  # mallinfo2 of glibc; hblks are blocks of the system's own
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
if not hasattr(libc, "mallinfo2"):
    sys.exit("another C library than glibc of 2021")
libc.mallinfo2.restype, libc.malloc.restype = Blocks, ctypes.c_void_p
params, alpha, episodes = random_setting("meta-sgd", 16, n_filters=32)
meta_gradient.meta_gradient(params, alpha, episodes, 1)
before = libc.mallinfo2().hblks
libc.malloc(ctypes.c_size_t(24 << 20))
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.slow
def test_other_peoples_memory_is_the_systems():
    """No setting of the allocator, which is all of the process's, is changed (`mallopt`): a large
    block is still one of its own, which goes back when it is freed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATES], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if "glibc" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout == "1\n"


def test_rates_of_another_precision_are_not_read_as_of_this_one(calls):
    params, alpha, episodes = random_setting("meta-sgd", 19, channels=3, n_filters=32)
    assert params["logits.bias"].dtype == torch.float64
    rates = {name: value.float() for name, value in alpha.items()}
    expected = adaptation.meta_gradient(params, rates, episodes, 2)
    found = adjoint.meta_gradient(params, rates, episodes, 2)
    assert float(found.loss) == pytest.approx(float(expected.loss), rel=1e-9)
    adjoint.adapt(params, rates, episodes.support, episodes.support_labels, 1)
    assert not set(calls) & {"task_gradient", "adapt"}


def test_parameters_of_two_precisions_are_not_read_as_of_one(calls):
    params, _, episodes = random_setting("meta-sgd", 19, channels=3, n_filters=32)
    sets = params, {name: value.float() for name, value in params.items()}
    with pytest.raises(RuntimeError, match="type"):  # of torch
        adjoint.embed(sets, episodes.query)
    assert "predict" not in calls


@pytest.mark.parametrize("n_filters", [32, 20], ids=["in C", "in torch"])
def test_a_rate_that_stands_for_several_has_the_sum_of_their_gradients(n_filters):
    params, alpha, episodes = random_setting("meta-sgd", 19, channels=3, n_filters=n_filters)
    few = {
        name: rate.mean(tuple(range(1, rate.dim())), keepdim=True) for name, rate in alpha.items()
    }
    expected = adaptation.meta_gradient(params, few, episodes, 2)
    assert_same(adjoint.meta_gradient(params, few, episodes, 2), expected, 1e-10)


def test_images_of_other_channels_than_the_networks_are_refused():
    params, alpha, episodes = random_setting("meta-sgd", 19, channels=1, n_filters=32)
    colour = episodes._replace(
        support=episodes.support.expand(-1, -1, 3, -1, -1),
        query=episodes.query.expand(-1, -1, 3, -1, -1),
    )
    with pytest.raises(ValueError, match=r"images of 3 channel\(s\) for a network of 1"):
        adjoint.meta_gradient(params, alpha, colour, 1)
    with pytest.raises(ValueError, match=r"images of 3 channel\(s\) for a network of 1"):
        adjoint.adapt(params, alpha, colour.support, episodes.support_labels, 1)


def test_there_is_one_label_for_each_image():
    params, alpha, episodes = random_setting("meta-sgd", 19, channels=3, n_filters=32)
    for labels in ("support_labels", "query_labels"):
        short = episodes._replace(**{labels: getattr(episodes, labels)[:-1]})
        none = episodes._replace(**{labels: getattr(episodes, labels)[:0]})
        for few in (short, none):
            with pytest.raises(ValueError, match="labels must be one for each of"):
                adjoint.meta_gradient(params, alpha, few, 1)


def test_adam_moves_parameters_however_they_lie_in_memory():
    def stepped(kind):
        torch.manual_seed(0)
        shape, layout = (8, 8, 3, 3), torch.channels_last
        param = torch.rand(shape, device="cpu").contiguous(memory_format=layout)
        param.requires_grad_()
        optimizer = kind([param], 0.01)
        for _ in range(3):
            param.grad = torch.rand(shape, device="cpu")
            optimizer.step()
        return param.detach()

    torch.testing.assert_close(stepped(Adam), stepped(torch.optim.Adam))
