"""Notebook 4 on tables that are not as they should be: methods without a shared seed, and a
training that collapsed."""

import numpy as np
import pandas as pd
import pytest
from in_process import execute
from random_tables import NONE, RATE_SIGNS, SIGNS, rates_table, synthetic

from negmeta_utils.evidence import interval_methods
from negmeta_utils.evidence.intervals import over_unshared_seeds
from negmeta_utils.evidence.quantities import ACCURACIES, DIFFERENCE, MAML, META_SGD, grids
from negmeta_utils.storage.files import write_table

N_SEEDS = 6
NONE_FLAGGED = "None: no training is flagged as collapsed."


@pytest.fixture
def few_simulations(monkeypatch):
    monkeypatch.setattr(interval_methods.compared, "__defaults__", (2, 0))


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    features = synthetic(rng, NONE, n_seeds=N_SEEDS).assign(shared_classes=0)
    rates = rates_table(SIGNS + 0.1 * rng.standard_normal((N_SEEDS, len(RATE_SIGNS))))
    return features, rates.assign(std=0.1, share_negative=0.5, n=10)


def run(folder, features, rates, **parameters):
    """What the notebook says, and the tables that it leaves."""
    (folder / "in").mkdir(parents=True)
    write_table(folder / "in" / "features.parquet", features)
    write_table(folder / "in" / "rates.parquet", rates)
    given = {"features": [str(folder / "in")], "rates": [str(folder / "in")], **parameters}
    text = execute("04_statistics", {**given, "out_dir": str(folder / "out")})
    return text, {path.stem: pd.read_csv(path) for path in (folder / "out").glob("*.csv")}


@pytest.mark.slow
def test_methods_without_a_shared_seed_are_compared_by_welch(few_simulations, tables, tmp_path):
    features, rates = tables
    features.loc[features.method == MAML, "seed"] += 10
    text, left = run(tmp_path, features, rates)
    (line,) = (line for line in text.splitlines() if "share no seed" in line)
    assert "Welch" in line and "What needs pairs cannot be computed" in line
    of = grids(features)
    effects = left["effects"].set_index(["method", "quantity", "over"])
    for quantity in ("pre-adaptation", "on-task change", "off-task change"):
        row = effects.loc[DIFFERENCE, quantity, "seeds"]
        welch = over_unshared_seeds(of[META_SGD, quantity], of[MAML, quantity], skewed=True)
        assert list(row[["points", "low", "high"]]) == pytest.approx(list(welch.interval()))
    assert left["intervals"].empty and set(left["power"].method) == {META_SGD}
    assert (tmp_path / "out" / "differences.png").stat().st_size > 0
    assert "compared by Welch" in left["claims"].set_index("claim").note["f"]


@pytest.mark.slow
def test_a_collapsed_training_is_left_out_of_every_table(few_simulations, tables, tmp_path):
    features, rates = tables
    lost = (features.method == META_SGD) & (features.seed == 2)
    fallen = features.assign(
        **{name: features[name].where(~lost, 0.2 + features[name] / 100) for name in ACCURACIES}
    )
    text, left = run(tmp_path / "with", fallen, rates, looks=[N_SEEDS, 12])
    assert "accuracy</th>" in text and NONE_FLAGGED not in text
    assert "share 5" in text and f"seeds trained: {N_SEEDS} of MAML, {N_SEEDS} of Meta-SGD" in text
    note = f"the look at {N_SEEDS} seeds trained, by the 5 that are left"
    assert left["claims"].note.str.contains("left out as collapsed: meta-sgd 2").all()
    assert left["claims"].note.str.contains(note).all()
    text, without = run(tmp_path / "without", fallen[~lost], rates[rates.seed != 2])
    assert "accuracy</th>" not in text and NONE_FLAGGED in text
    for name in set(left) - {"claims", "p_values"}:
        pd.testing.assert_frame_equal(left[name], without[name], obj=name)
