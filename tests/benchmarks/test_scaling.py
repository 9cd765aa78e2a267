"""The measurement of studies by workers: its arithmetic, and what it leaves."""

import pandas as pd
import pytest

from benchmarks import scaling
from negmeta_utils.studies import scheduling


def test_ratios_are_taken_within_a_repetition():
    """A machine that is twice as slow in the second repetition changes no ratio."""
    seconds = pd.DataFrame({1: [100.0, 200.0, 104.0], 2: [50.0, 100.0, 40.0]})
    table = scaling.summary(seconds)
    assert table["workers"].tolist() == [1, 2]
    assert table["seconds"].tolist() == [104, 50]
    assert table["faster"].tolist() == [1, 2]


def test_every_number_of_workers_does_all_jobs_in_every_repetition(tmp_path, monkeypatch, capsys):
    calls = []

    def pretend(jobs, out_dir, workers):
        assert not list(out_dir.iterdir())
        calls.append((workers, len(jobs)))
        return scheduling.Outcome()

    monkeypatch.setattr(scheduling, "run_study", pretend)
    scaling.main(["--workers", "1", "2", "--repetitions", "2", "--out", str(tmp_path)])
    assert calls == [(1, 24), (2, 24), (1, 24), (2, 24)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "scaling.md", "scaling.png", "scaling.svg", "seconds.csv"
    ]  # fmt: skip
    text = (tmp_path / "scaling.md").read_text()
    assert "Medians of 2 alternating repetitions" in text
    assert text in capsys.readouterr().out


def test_a_failure_is_no_time(monkeypatch):
    outcome = scheduling.Outcome(errors={"train-0": "ValueError: no"})
    monkeypatch.setattr(scheduling, "run_study", lambda jobs, out_dir, workers: outcome)
    with pytest.raises(RuntimeError, match="with 1 workers: .*ValueError: no"):
        scaling.measure({}, [1], 1)
