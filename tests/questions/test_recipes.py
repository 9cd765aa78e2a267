"""Recipes beside the paper's table 1, on tables whose distance is known."""

import math

import pandas as pd
import pytest

from negmeta_utils.evidence.learned_rates import PAPER_TABLE_1, WEIGHTS
from negmeta_utils.questions.recipes import (
    CHOICES,
    WRITTEN,
    distances,
    in_words,
    nearest,
    one_choice_apart,
    read_recipes,
    told,
)
from negmeta_utils.storage import atomic, files


def training(folder, factors, signs, method="meta-sgd", **given):
    """A folder with the rates of a training, a factor of the paper's standard deviations and a
    sign of its means each 400 meta-updates, and only as much of a manifest as is read."""
    folder.mkdir()
    parameters = {"method": method, "seed": 0, "outer_lr": 0.001, "inner_lr": 0.01, **given}
    atomic.write_json(folder / "manifest.json", {"status": "running", "parameters": parameters})
    tables = []
    for check, (factor, sign) in enumerate(zip(factors, signs, strict=True), 1):
        rows = PAPER_TABLE_1.rename(columns={"paper mean": "mean", "paper std": "std"})
        rows = rows.assign(group=WEIGHTS, seed=0, update=400 * check, n=100, share_negative=0.5)
        rows["std"] *= factor
        rows["mean"] *= sign
        tables.append(rows)
    files.write_table(folder / "rates.parquet", pd.concat(tables))
    return str(folder)


@pytest.fixture
def four(tmp_path):
    """One that comes to the paper's table and goes beyond it, two that differ from it in one
    choice each, and a folder where nothing is known yet."""
    (tmp_path / "begun").mkdir()
    return [
        training(tmp_path / "a", [0.5, 1, 4], [-1, 1, 1], lr_schedule="plateau", alpha_lr=None),
        training(tmp_path / "b", [8, 8], [-1, -1], lr_schedule="constant"),
        training(tmp_path / "c", [2, 2, 2], [1, 1, 1], lr_schedule="plateau", alpha_lr=1e-4),
        str(tmp_path / "begun"),
    ]


def test_recipes_are_told_apart_by_what_they_were_trained_with(four):
    rates = read_recipes(four)
    assert list(dict.fromkeys(rates["recipe"])) == [
        "plateau, from 0.01, outer rate 0.001",
        "constant, from 0.01, outer rate 0.001",
        "plateau, from 0.01, outer rate 0.0001",
    ]
    assert in_words({"alpha_init": "uniform"}) == "constant, from U[0.005, 0.1], outer rate 0.001"


def test_the_nearest_recipe_comes_first_as_far_as_it_has_come_and_along_the_way(four):
    table = nearest(distances(read_recipes(four)))
    table = table[table["group"] == WEIGHTS]
    assert table["distance"].tolist() == pytest.approx([math.log(2), math.log(4), math.log(8)])
    passed = table.iloc[1]
    assert (passed["update"], passed["nearest_update"]) == (1200, 800)
    assert passed["nearest_distance"] == pytest.approx(0, abs=1e-12)
    assert table["signs"].tolist() == [5, 5, 0]


def test_pairs_differ_in_one_choice_and_meet_where_both_have_been(four):
    apart = one_choice_apart(distances(read_recipes(four)))
    assert apart["choice"].tolist() == [CHOICES["lr_schedule"], CHOICES["alpha_lr"]]
    schedule = apart.iloc[0]
    assert (schedule["of"], schedule["to"], schedule["update"]) == ("plateau", "constant", 800)
    assert [schedule["distance_of"], schedule["distance_to"]] == pytest.approx([0, math.log(8)])
    assert (schedule["signs_of"], schedule["signs_to"]) == (5, 0)


def test_two_starts_are_two_recipes_and_one_choice(tmp_path):
    starts = [0.01, 0.05]
    far = [training(tmp_path / str(a), [1], [1], inner_lr=a, alpha_lr=1e-3) for a in starts]
    other = training(tmp_path / "other", [1], [1], inner_lr=0.05, alpha_lr=1e-4)
    apart = one_choice_apart(distances(read_recipes([*far, other])))
    assert apart[["choice", "of", "to"]].to_numpy().tolist() == [
        [CHOICES["alpha_init"], "0.01", "0.05"],
        [CHOICES["alpha_lr"], "0.001", "0.0001"],
    ]


def test_trainings_that_differ_in_something_else_are_not_compared(tmp_path):
    """With alpha_lr=None the outer rate of the weights would differ, too, unseen."""
    rates = (1e-3, 1e-4)
    two = [training(tmp_path / f"{lr:g}", [1], [1], outer_lr=lr, alpha_lr=None) for lr in rates]
    with pytest.raises(ValueError, match="0.0001: outer_lr=0.0001, and 0.001 before; compare"):
        read_recipes(two)


def test_a_table_of_notebook_10_is_held_to_the_same(four, tmp_path):
    (tmp_path / "ten").mkdir()
    files.write_table(tmp_path / "ten" / WRITTEN, read_recipes(four))
    more = training(tmp_path / "more", [1], [1], alpha_lr=1e-5)
    assert read_recipes([str(tmp_path / "ten"), more])["recipe"].nunique() == 4
    other = training(tmp_path / "other", [1], [1], n_filters=32, alpha_lr=1e-5)
    with pytest.raises(ValueError, match="other: n_filters=32, and 64 before; compare trainings"):
        read_recipes([str(tmp_path / "ten"), other])
    with pytest.raises(ValueError, match="b: constant, from 0.01, .*seed 0, as in .*ten; name one"):
        read_recipes([str(tmp_path / "ten"), four[1]])
    old = read_recipes(four).drop(columns="val_every")
    files.write_table(tmp_path / "ten" / WRITTEN, old)
    with pytest.raises(ValueError, match="does not say val_every of its trainings; execute"):
        read_recipes([str(tmp_path / "ten")])
    files.write_table(
        tmp_path / "ten" / WRITTEN, read_recipes(four)[:2].assign(val_every=[400.0, float("nan")])
    )
    with pytest.raises(ValueError, match="ten: no one val_every of its trainings; name folders"):
        read_recipes([str(tmp_path / "ten")])
    nothing = read_recipes(four).assign(image_size=float("nan"))
    files.write_table(tmp_path / "ten" / WRITTEN, nothing)
    assert len(read_recipes([str(tmp_path / "ten"), more])) == len(nothing) + 5
    files.write_table(tmp_path / "ten" / WRITTEN, read_recipes(four)[:0])
    with pytest.raises(ValueError, match="ten: no one dataset of its trainings; name folders"):
        read_recipes([str(tmp_path / "ten")])


def test_the_recipe_of_an_imported_network_is_not_known(tmp_path):
    other = training(tmp_path / "theirs", [1], [1])
    manifest = atomic.read_json(tmp_path / "theirs" / "manifest.json") | {"imported": {}}
    atomic.write_json(tmp_path / "theirs" / "manifest.json", manifest)
    with pytest.raises(ValueError, match="theirs: imported, so that its recipe is not known"):
        read_recipes([other])


def test_a_network_of_other_layers_is_refused(tmp_path):
    other = training(tmp_path / "other", [1], [1])
    table = files.read_table(tmp_path / "other" / "rates.parquet")
    renamed = table.assign(layer="body." + table["layer"])
    files.write_table(tmp_path / "other" / "rates.parquet", renamed)
    with pytest.raises(ValueError, match="other: its layers are not conv1, conv2, .*leave it out"):
        read_recipes([other])


def test_what_is_said_follows_the_tables(four):
    rates = read_recipes(four)
    said = told(rates, one_choice_apart(distances(rates)), ["constant, from U"])
    assert "at some validation in 2 of 3 trainings" in said[0]
    assert said[0].endswith("and at the last validation in 2.")
    assert said[1] == (
        "Schedule of the outer rate, plateau to constant: the distance changes by +2.08 to +2.08, "
        "and how many signs are right in 1 of 1 pairs of trainings."
    )
    assert said[2].startswith("Start of the learned rates: no two of these trainings differ in it")
    assert said[3].startswith("Outer rate of the learned rates, 0.001 to 0.0001: the distance")
    assert said[4].endswith(
        "the paper's sign of the mean is found for every layer in some training."
    )
    assert said[5].endswith("is found in no training for conv1, conv2, conv3, conv4, logits.")
    assert said[6] == "Planned, and not there yet: constant, from U."


def test_a_method_without_learned_rates_and_no_training_at_all_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a run of maml, which learns no rates"):
        read_recipes([training(tmp_path / "maml", [1], [1], method="maml")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no rates.parquet in any; train with notebook 1"):
        read_recipes([str(tmp_path / "empty")])
