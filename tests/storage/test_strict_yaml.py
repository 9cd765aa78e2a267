"""Study files that say something else than they seem to, or never end."""

import os
from pathlib import Path

import pytest
import small_studies

from negmeta_utils.storage import strict_yaml
from negmeta_utils.studies import cli, planning, study_file

TRAIN = "steps:\n  t: {notebook: 01_train}\n"
ALPHA = TRAIN + "  a: {notebook: 02_alpha_distribution, parameters: {runs: %s}}\n"
BOMB = "\n".join(
    ["      - &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"      - &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TRAIN + "  t: {notebook: 01_train}\n", ["'t' stands twice (line 3)"]),
        (TRAIN + "steps: {}\n", ["'steps' stands twice"]),
        ("steps: {t: {notebook: 01_train, parameters: {seed: 1, seed: 2}}}", ["'seed' stands"]),
        ("steps: {t: {notebook: 01_train, grid: {seed: [1], seed: [2]}}}", ["'seed' stands"]),
        ("steps: {t: {notebook: 01_train, parameters: {out_dir: /x}}}", ["out_dir", "--out"]),
        ("steps: {t: {notebook: 01_train, grid: {out_dir: [/x]}}}", ["out_dir", "--out"]),
        ("steps: {../../x: {notebook: 01_train}}", ["'../../x'", "letters"]),
        ("steps: {/tmp/x: {notebook: 01_train}}", ["'/tmp/x'", "letters"]),
        ("steps: {'': {notebook: 01_train}}", ["step ''", "letters"]),
        ("steps: {.hidden: {notebook: 01_train}}", ["'.hidden'", "letters"]),
        ("steps: {plan.json: {notebook: 01_train}}", ["'plan.json'", "letters"]),
        ("steps: {1: {notebook: 01_train}}", ["step 1", "letters"]),
        (f"steps: {{t: {{notebook: {study_file.NOTEBOOKS}/01_train}}}}", ["no notebook"]),
        ("steps: {t: {notebook: ../notebooks/01_train}}", ["no notebook"]),
        (ALPHA % "[[{from: t}]]", ["'a'", "list within a list"]),
        (ALPHA % "{from: [t]}", ["no step ['t']"]),
        (ALPHA % "[{from: {from: t}}]", ["no step {'from': 't'}"]),
        (TRAIN + "  a: {notebook: 02_alpha_distribution, grid: {runs: [{from: t}]}}", ["'a'"]),
        (ALPHA % "{from: t, sead: null}", ["'a'", "no parameter 'sead'"]),
        (TRAIN + f"# {'x' * 10**6}", ["more than 1000000 bytes"]),
        (f"steps: {'[' * 3000}{']' * 3000}", ["nested too deeply"]),
        ("steps: {t: {notebook: 01_train, parameters: {seed: &a [*a]}}}", ["holds itself"]),
        ("steps: {t: {notebook: 01_train, parameters: {seed: 010}}}", ["010 means 8", "line 1"]),
        ("steps: {t: {notebook: 01_train, grid: {n_updates: [1:30]}}}", ["1:30 means 90"]),
        (f"steps: {{t: {{notebook: 01_train, parameters: {{seed: {'9' * 5000}}}}}}}", ["digits"]),
        (f"steps:\n  t:\n    notebook: 01_train\n    parameters:\n     seed:\n{BOMB}\n", ["10000"]),
        (
            f"steps: {{t: {{notebook: 01_train, grid: {{seed: {list(range(2000))}, n_way: "
            f"{list(range(2000))}}}}}}}",
            ["more than 10000 jobs"],
        ),
    ],
)
def test_it_is_refused_in_one_line_and_nothing_is_written(text, words, tmp_path, capsys):
    path = tmp_path / "s.yml"
    path.write_text(text)
    assert cli.main(["study", str(path), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in [str(path), *words])
    assert [p.name for p in tmp_path.iterdir()] == ["s.yml"]


def test_set_twice_is_refused(tmp_path, capsys):
    arguments = ["--set", "seed=1", "--set", "seed=2", "--out", str(tmp_path / "out")]
    assert cli.main(["study", "demo", *arguments]) == 2
    assert "--set seed: given twice" in capsys.readouterr().err


@pytest.mark.parametrize("runs", ["[{from: t}, {from: t, seed: 0}]", "[{from: t}, /other, /other]"])
def test_what_is_taken_twice_is_refused(runs, tmp_path):
    """It would count as two networks."""
    path = tmp_path / "s.yml"
    text = ALPHA % runs
    path.write_text(text.replace("{notebook: 01_train}", "{notebook: 01_train, grid: {seed: [0]}}"))
    with pytest.raises(ValueError, match="runs: .* is taken twice"):
        planning.plan(study_file.read_study(path, {}), tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match="neither a file"):
            strict_yaml.read(Path(path))


def test_a_list_takes_the_folders_of_steps_and_others(tmp_path):
    path = tmp_path / "s.yml"
    path.write_text(ALPHA % "[{from: t}, /other/run]")
    *_, job = planning.plan(study_file.read_study(path, {}), tmp_path / "out")
    assert job.parameters["runs"] == [str(tmp_path / "out" / "t"), "/other/run"]
    assert job.needs == ("t",)


def test_an_override_reaches_one_step_where_an_alias_gives_two_their_parameters(tmp_path):
    path = tmp_path / "s.yml"
    path.write_text(
        "steps:\n  a: {notebook: 01_train, parameters: &p {seed: 1}}\n"
        "  b: {notebook: 01_train, parameters: *p}\n"
    )
    jobs = planning.plan(study_file.read_study(path, {"a.seed": 2}), tmp_path)
    assert {job.name: job.parameters["seed"] for job in jobs} == {"a": 2, "b": 1}


def test_merged_keys_may_be_given_anew():
    text = "base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}"
    assert strict_yaml.load(text)["own"] == {"x": 1, "y": 3}


def test_studies_that_the_tests_write_are_read(tmp_path):
    steps = {"t": {"notebook": "01_train", "grid": {"seed": [0, 1]}, "parameters": {}}}
    path = small_studies.write_study(tmp_path / "s.yml", steps)
    assert list(study_file.read_study(path, {})) == ["t"]
