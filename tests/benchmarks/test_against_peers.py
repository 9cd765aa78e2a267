"""The benchmark: its engines do the same work, and its table says what was measured."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import against_peers
from benchmarks.peers import ENGINES, EVALUATIONS, Work

TINY = dict(n_filters=4, n_tasks=2, inner_steps=2, n_way=3, n_query=2)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", against_peers.METHODS)
@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "adjoint"])
def test_engines_do_the_same_updates(engine, method, monkeypatch):
    """The gradients that each hands to Adam, over two updates."""
    if engine != "reference":
        pytest.importorskip(engine)
    handed = {}

    class Recorder(torch.optim.Adam):
        def step(self):
            gradients = [value.grad for group in self.param_groups for value in group["params"]]
            handed.setdefault(current, []).append([g.clone() for g in gradients])
            super().step()

    monkeypatch.setattr(torch.optim, "Adam", Recorder)
    for current in ("adjoint", engine):
        update = ENGINES[current](Work(method, 16, **TINY))
        for index in range(2):
            update(index)
    for ours, theirs in zip(handed["adjoint"], handed[engine], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluations_run(name, monkeypatch):
    """Ours and the peer's count the same accuracies: of both tasks, before and after."""
    pytest.importorskip("higher")
    from negmeta_utils import evaluation, prototypes

    seen = {"adjoint": [], "higher": []}
    plain = prototypes.prototype_accuracy

    def record(*arguments):
        result = plain(*arguments)
        seen[current] += result.tolist()
        return result

    monkeypatch.setattr(evaluation, "prototype_accuracy", record)  # ours
    monkeypatch.setattr(prototypes, "prototype_accuracy", record)  # the peer's
    for current in seen:
        EVALUATIONS[current](Work("maml", 16, **TINY))(3)
    assert len(seen[name]) == 12
    assert sorted(seen["adjoint"]) == pytest.approx(sorted(seen["higher"]))


def test_ratio_is_of_the_best_peer():
    seconds = pd.DataFrame(
        {"adjoint": [1.0, 2, 1], "reference": [0.5, 0.5, 0.5], "a": [9.0, 9, 9], "b": [3, 4, 5.0]}
    )
    assert against_peers.ratio_to_best_peer(seconds) == (3.0, "b")
    assert against_peers.ratio_to_best_peer(seconds[["adjoint", "reference"]])[1] == "no peer"


@pytest.mark.filterwarnings("ignore")
def test_table(one_thread, monkeypatch):
    monkeypatch.setattr(against_peers, "peak_memory", lambda name, work: 2.0**20 * len(name))
    pytest.importorskip("higher")
    monkeypatch.setattr(against_peers, "importable", lambda names: ["adjoint", "higher"])
    table = against_peers.bench([16], 1, 2, "cpu", **TINY)
    lines = table.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:8]] == [
        f"{what}, {method}, 16×16×1"
        for method in against_peers.METHODS
        for what in ("meta-update", "its memory", "evaluation")
    ]
    assert all(line.count("|") == lines[0].count("|") for line in lines[1:8])
    assert torch.__version__.split("+")[0] in lines[-1]


def test_an_engine_whose_process_ends_is_named():
    with (
        against_peers.processes(["reference"]) as engines,
        pytest.raises(RuntimeError, match="^reference: its process ended"),
    ):
        against_peers.time_alternating(engines, "evaluation", Work("maml", 16, **TINY), [1, 1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_peak_memory_is_of_the_update_alone():
    """Between the largest array of the update, block 1's pooled query, and what imports take."""
    work = Work("maml", 32, n_tasks=1, inner_steps=1, n_query=8)
    assert 16 * 16 * 64 * 40 * 4 < against_peers.peak_memory("adjoint", work) < 150e6


def test_out_is_written_whole(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(against_peers, "bench", lambda *_: "| a |")
    against_peers.main(["--sizes", "16", "--out", str(tmp_path / "bench.md")])
    assert (tmp_path / "bench.md").read_text() == "| a |\n" == capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["bench.md"]
