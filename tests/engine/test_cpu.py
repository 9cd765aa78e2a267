"""The C functions against the reference, on vectors of several widths, and how they are made."""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_meta_gradient import assert_same, random_setting

from benchmarks.peers import Work
from negmeta_utils import adaptation, model, updates
from negmeta_utils.adaptation import METHODS, init_alpha
from negmeta_utils.engine import cpu, library
from negmeta_utils.engine import meta_gradient as adjoint
from negmeta_utils.episodes import ImageSet

if shutil.which("cc") is None:
    pytest.skip("no C compiler", allow_module_level=True)

ON_X86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="not an x86")
WITH_AVX2 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="no AVX2"
)
TARGETS = [
    "-march=native",
    pytest.param("-march=x86-64-v3", marks=WITH_AVX2, id="avx2"),
    pytest.param("-march=x86-64", marks=ON_X86, id="sse2"),
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
    library.library.cache_clear()
    monkeypatch.setenv("NEGMETA_CACHE", str(tmp_path))
    yield tmp_path
    library.library.cache_clear()


@pytest.fixture
def target(request, monkeypatch, fresh):
    if subprocess.run(
        ["cc", request.param, "-E", "-xc", "/dev/null"], capture_output=True
    ).returncode:
        pytest.skip(f"the compiler does not know {request.param}")
    others = [flag for flag in library.FLAGS if not flag.startswith("-march")]
    monkeypatch.setattr(library, "FLAGS", (*others, request.param))


@pytest.mark.parametrize("target", TARGETS, indirect=True)
def test_is_the_reference_gradient_on_vectors_of_each_width(target, calls):
    params, alpha, episodes = random_setting("meta-sgd", 19, channels=3, n_filters=32)
    expected = adaptation.meta_gradient(params, alpha, episodes, 2)
    assert_same(adjoint.meta_gradient(params, alpha, episodes, 2), expected, 1e-10)
    assert set(calls) == {
        "convolve", "weight_gradient", "pooled_convolve", "weight_gradient_at", "centre", "pool",
        "normalise_tangent", "activate", "gate", "combine", "patch_sums",
    }  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "setting",
    [
        dict(image_size=16),
        dict(image_size=28, flat=True),
        dict(image_size=37, channels=3, n_shot=2, n_filters=64),
    ],
    ids=["16", "28-flat", "37-2-shot"],
)
def test_is_the_reference_gradient(method, setting, calls):
    params, alpha, episodes = random_setting(method, **{"n_filters": 32, **setting})
    first_order = METHODS[method].first_order
    expected = adaptation.meta_gradient(params, alpha, episodes, 2, first_order)
    assert_same(adjoint.meta_gradient(params, alpha, episodes, 2, first_order), expected, 1e-10)
    assert calls


def test_many_images_go_in_groups_that_stay_in_a_cache(calls):
    generator = torch.Generator().manual_seed(0)
    x, x2 = torch.randn(2, 1, 40, 11, 9, 32, generator=generator, dtype=torch.float64)
    weight, weight2 = torch.randn(2, 1, 64, 32, 3, 3, generator=generator, dtype=torch.float64)

    def planes(values):
        return values[0].permute(0, 3, 1, 2)

    expected = F.conv2d(planes(x), weight[0], padding=1) + F.conv2d(
        planes(x2), weight2[0], padding=1
    )
    z = cpu.convolve(x, weight, x2, weight2)
    torch.testing.assert_close(planes(z), expected)
    assert torch.equal(cpu.convolve(x[:, :1], weight), cpu.convolve(x, weight)[:, :1])
    dz = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    expected = torch.nn.grad.conv2d_weight(planes(x), (64, 32, 3, 3), planes(dz), padding=1)
    torch.testing.assert_close(cpu.weight_gradient(x, dz)[0], expected)
    expected = F.conv_transpose2d(planes(dz), weight[0], padding=1)
    torch.testing.assert_close(planes(cpu.input_gradient(dz, weight)), expected)
    square = torch.randn(1, 32, 32, 3, 3, generator=generator, dtype=torch.float64)
    expected = cpu.input_gradient(x, square)
    assert torch.equal(cpu.input_gradient(x, square, reuse=True), expected)
    assert torch.equal(x, expected)


@pytest.mark.parametrize("target", TARGETS, indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 3, 28, 28), (5, 3, 17, 9), (2, 1, 8, 30), (1, 1, 1, 2)])
def test_sums_over_patches_are_those_of_unfolded_images(target, shape, dtype):
    images = torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(1)) - 0.3
    patches = F.unfold(images.double(), 3, padding=1).movedim(1, 0).flatten(1)
    total, product = cpu.patch_sums(images[None].movedim(2, 4))
    torch.testing.assert_close(total[0], patches.sum(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(product[0], patches @ patches.T, rtol=1e-12, atol=1e-12)


def test_float32_is_closer_to_float64_than_nested_differentiation_is():
    """At the paper's settings. The median of tasks: in one now and then, rounding decides which of
    two values is the larger, and all later digits differ."""
    work = Work("meta-sgd", 28, n_tasks=1)
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


def test_adapts_and_embeds_as_the_reference_does(calls):
    params, alpha, episodes = random_setting("meta-sgd", 28, channels=3, n_tasks=3, n_filters=32)
    adapted = adjoint.adapt(params, alpha, episodes.support, episodes.support_labels, 3)
    embeddings = adjoint.embed(adapted, episodes.query)
    shared = adjoint.embed(params, episodes.query)
    for task, support in enumerate(episodes.support):
        expected = adaptation.adapt(params, alpha, support, episodes.support_labels, 3)
        for name, value in expected.items():
            torch.testing.assert_close(adapted[name][task], value, rtol=1e-9, atol=1e-11)
        query = episodes.query[task]
        torch.testing.assert_close(embeddings[task], model.embed(expected, query))
        torch.testing.assert_close(shared[task], model.embed(params, query))
    assert "pooled_convolve" in calls


def test_what_is_not_a_number_stays_so(calls):
    params, alpha, episodes = random_setting("maml", 16, n_filters=32)
    params["conv2.weight"][0, 0, 0, 0] = torch.nan
    result = adjoint.meta_gradient(params, alpha, episodes, 1)
    assert result.loss.isnan()
    assert result.params["conv2.weight"].isnan().any()


def test_is_compiled_once(fresh):
    assert library.library() is not None
    (made,) = fresh.iterdir()
    stamp = made.stat().st_mtime_ns
    library.library.cache_clear()
    assert library.library() is not None
    assert [(path, path.stat().st_mtime_ns) for path in fresh.iterdir()] == [(made, stamp)]


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_torch_does_it(compiler, fresh, monkeypatch, calls):
    monkeypatch.setenv("CC", compiler)
    params, alpha, episodes = random_setting("maml", 16, n_filters=32)
    expected = adaptation.meta_gradient(params, alpha, episodes, 1)
    assert_same(adjoint.meta_gradient(params, alpha, episodes, 1), expected, 1e-10)
    assert not calls
    assert not list(fresh.iterdir())


def test_where_nothing_can_be_kept_torch_does_it(fresh, monkeypatch, tmp_path_factory):
    file = tmp_path_factory.mktemp("elsewhere") / "file"
    file.write_text("")
    monkeypatch.setenv("NEGMETA_CACHE", str(file / "below"))
    assert library.library() is None


def test_a_manifest_says_whose_code_it_was(tiny_config):
    images = ImageSet(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), ("a", "b"), np.ones(2, int))
    wide = replace(tiny_config, n_filters=32, engine="adjoint")
    assert updates.kernels(wide, images) == "c"
    assert updates.kernels(replace(wide, n_filters=4), images) == "torch"
    assert updates.kernels(replace(wide, engine="reference"), images) == "torch"
    assert updates.kernels(replace(wide, method="protonet"), images) == "torch"


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
from test_meta_gradient import random_setting
for size, channels in ((19, 3), (30, 1)):
    setting = dict(image_size=size, channels=channels, n_tasks=1, n_filters=32)
    params, alpha, episodes = random_setting("meta-sgd", **setting)
    adjoint.meta_gradient(params, alpha, episodes, 1)
    adjoint.embed(params, episodes.query)
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
            "LD_PRELOAD": " ".join(libraries),
            "ASAN_OPTIONS": "detect_leaks=0",
        },
    )
    assert result.returncode == 0, result.stderr[-2000:]
