"""The GPU kernels without a GPU: computed by Triton's interpreter, and compiled for the cards that
they are meant for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton comes with torch on Linux only")

ROOT = Path(__file__).parents[1]
SHARED_MEMORY = {80: 166_912, 90: 232_448}  # bytes a block may have, by compute capability

COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from negmeta_utils import adjoint_kernels as kernels
from negmeta_utils import triton_kernels

SIZES = {"channels": 64, "filters": 64, "C": 64, "F": 64}
IMAGES = {"channels": 3, "filters": 64, "K": 32, "F": 64, "ROWS": kernels.ROWS}
SUMS = {**SIZES, "ROWS": kernels.SUM_ROWS}
for capability in (80, 90):
    for precision, rows in (("tf32", 128), ("tf32x3", 64)):
        for kernel, constants, stages in (
            (triton_kernels.convolve, {**SIZES, "ROWS": rows, "two": True}, 3),
            (triton_kernels.weight_gradient, {**SUMS, "two": True}, 3),
            (triton_kernels.pooled_convolve, {**IMAGES, "at_given": False}, 2),
            (triton_kernels.pooled_weight_gradient, IMAGES, 2),
        ):
            constants = {**constants, "precision": precision}
            types = {"given": "*i8", "place_out": "*i8"} | dict.fromkeys(
                ("x", "x2", "w", "w2", "dz", "dz2", "u", "out"), "*fp32"
            )
            signature = {
                name: "constexpr" if name in constants else types.get(name, "i32")
                for name in kernel.arg_names
            }
            pointers = [i for i, name in enumerate(signature) if signature[name][0] == "*"]
            aligned = {(i,): [["tt.divisibility", 16]] for i in pointers}
            source = ASTSource(kernel, signature, constants, aligned)
            options = {"num_warps": 4, "num_stages": stages}
            compiled = triton.compile(source, GPUTarget("cuda", capability, 32), options)
            print(capability, kernel.__name__, precision, compiled.metadata.shared)
"""


def run_python(*arguments, **environment):
    command = [sys.executable, "-W", "ignore", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_kernels_give_what_torchs_operations_give():
    run_python("-m", "pytest", "-q", "tests/interpreted_kernels.py", TRITON_INTERPRET="1")


def test_kernels_compile_and_fit_into_shared_memory(tmp_path):
    printed = run_python("-c", COMPILE, TRITON_CACHE_DIR=str(tmp_path))
    lines = [line.split() for line in printed.splitlines()]
    assert len(lines) == 16
    for capability, kernel, precision, shared in lines:
        assert int(shared) <= SHARED_MEMORY[int(capability)], (kernel, precision)
