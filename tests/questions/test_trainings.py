"""Trainings that collapsed are named and left out of notebooks 5 to 8."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from in_process import execute

from negmeta_utils.evidence.collapsed import collapsed
from negmeta_utils.questions.trainings import without_collapsed
from negmeta_utils.runs import PRETRAINED, load_run, load_runs
from negmeta_utils.storage.atomic import read_json, write_json
from negmeta_utils.storage.files import read_table, write_table

METHODS = "maml", "meta-sgd"


@pytest.fixture
def make_run(tmp_path):
    """A shipped run of glyphs as one of another seed, right in that share of its test tasks; or
    without such a test."""

    def make(method, seed, accuracy, **settings):
        to = tmp_path / f"{method}-{seed}{''.join(map(str, settings.values()))}"
        shutil.copytree(PRETRAINED / f"glyphs-{method}-0", to)
        manifest = read_json(to / "manifest.json")
        manifest["parameters"] |= {"seed": seed, "test_episodes": int(accuracy > 0), **settings}
        del manifest["files"]  # whose digests are those of the shipped one
        write_json(to / "manifest.json", manifest)
        for name, changed in (("accuracy", {"accuracy": accuracy}), ("rates", {"seed": seed})):
            path = to / f"{name}.parquet"
            write_table(path, read_table(path).assign(**changed))
        return str(to)

    return make


def names(trained):
    return [run.name for run in trained]


def test_it_is_the_rule_of_notebook_4(make_run):
    rng = np.random.default_rng(0)
    for _ in range(20):
        accuracies = 0.7 + 0.02 * rng.standard_normal(5)
        accuracies[2] -= rng.choice([0, 0.08, 0.12, 0.3])
        trained = [load_run(make_run("maml", s, a)) for s, a in enumerate(accuracies)]
        rows = pd.DataFrame({"method": "maml", "seed": range(5), "ordinary": accuracies})
        columns = ["same_before", "same_after", "other_before", "other_after"]
        flagged = collapsed(rows.assign(episode=0, **dict.fromkeys(columns, 0.5)))
        left, said = without_collapsed(trained)
        assert [run.parameters["seed"] for run in left] == sorted({*range(5)} - {*flagged["seed"]})
        assert len(said) == len(flagged)
        for run in trained:
            shutil.rmtree(run.directory)


def test_only_trainings_that_differ_in_the_seed_alone_are_siblings(make_run):
    good = [make_run("maml", seed, 0.7 + seed / 100) for seed in range(3)]
    shorter = make_run("maml", 3, 0.3, n_updates=20)
    other_method = make_run("meta-sgd", 0, 0.3)
    trained = load_runs([*good, shorter, other_method])
    assert without_collapsed(trained) == (trained, [])
    elsewhere = make_run("maml", 4, 0.3, data_dir="/elsewhere")
    left, (said,) = without_collapsed([*trained, load_run(elsewhere)])
    assert names(left) == names(trained)
    assert said == (
        "maml-4/elsewhere is left out as collapsed: 30.0 % on its test tasks, where the median of "
        "trainings like it is 70.5 %"
    ).replace("maml-4/elsewhere", load_run(elsewhere).name)


def test_networks_kept_on_the_way_go_with_their_training(make_run):
    good = [make_run("maml", seed, 0.7) for seed in range(3)]
    bad = make_run("maml", 3, 0.3)
    kept = Path(bad) / "kept"
    kept.mkdir()
    shutil.copy(Path(bad) / "model.safetensors", kept / "best.safetensors")
    named = load_runs([*good, bad, f"{bad}@best"], several=True)
    left, said = without_collapsed(named)
    assert (names(left), len(said)) == (names(named[:3]), 1)


def test_a_run_without_a_test_stays(make_run):
    trained = [load_run(make_run("maml", seed, 0)) for seed in range(3)]
    assert without_collapsed(trained) == (trained, [])
    assert without_collapsed([]) == ([], [])


@pytest.mark.parametrize(
    "notebook, table, parameters",
    [
        ("02_alpha_distribution", "rates", {}),
        ("05_mechanism", "interventions", {"n_geometry": 1}),
        ("06_datasets", "features", {}),
        ("07_inner_steps", "steps", {"steps": [0, 1]}),
        ("08_test_time", "uses", {"n_others": [1]}),
    ],
)
def test_notebooks_name_it_and_average_the_others(make_run, tmp_path, notebook, table, parameters):
    good = {method: [make_run(method, seed, 0.7) for seed in range(3)] for method in METHODS}
    named = {"runs": [*good["meta-sgd"], make_run("meta-sgd", 3, 0.3)]}
    key = "maml_runs" if notebook == "05_mechanism" else "runs"
    if notebook != "02_alpha_distribution":
        named[key] = [*named.get(key, []), *good["maml"]]
        parameters["n_episodes"] = 2
    shown = execute(notebook, parameters | named | {"out_dir": str(tmp_path / "out")})
    said = "meta-sgd-3 is left out as collapsed: 30.0 % on its test tasks"
    assert said in shown
    if notebook != "02_alpha_distribution":
        assert said in (tmp_path / "out" / "summary.md").read_text()
    averaged = pd.read_parquet(tmp_path / "out" / f"{table}.parquet")
    of_meta_sgd = averaged["method"] == "meta-sgd" if "method" in averaged else slice(None)
    assert set(averaged.loc[of_meta_sgd, "seed"]) == {0, 1, 2}
