"""`negmeta verify` and the digits that come with the package."""

import copy

import pytest
import torch

from negmeta_utils.engine.device import arithmetic
from negmeta_utils.storage import atomic
from negmeta_utils.studies import verify
from negmeta_utils.studies.cli import main

PUBLISHED = atomic.read_json(verify.PUBLISHED)
NAME = "adjoint, meta-sgd"


@pytest.mark.parametrize("name", [name for name in verify.TRAININGS if "adjoint" in name])
def test_digits_are_the_published_ones_on_the_processors_that_made_them(name):
    found = verify.digits(name)
    difference = verify.first_difference(found, PUBLISHED["digits"][name])
    here = {name: arithmetic()[name] for name in ("processor", "vectors")}
    known = any(here.items() <= machine.items() for machine in PUBLISHED["machines"])
    if not known or arithmetic()["compiler"] is None:
        pytest.skip(f"{here}: {difference or 'the published digits'}")
    assert difference is None


def test_says_where_digits_begin_to_differ():
    published = PUBLISHED["digits"][NAME]
    other = copy.deepcopy(published)
    assert verify.first_difference(other, published) is None
    other["evaluation"] = "0"
    assert verify.first_difference(other, published) == "the evaluation after meta-update 20"
    other["network"] = "0"
    assert verify.first_difference(other, published) == "the network after meta-update 20"
    other["losses"][6] = other["losses"][19] = "0x0.0p+0"
    assert verify.first_difference(other, published) == "meta-update 7"


def test_the_command_says_whether_the_readmes_tables_are_the_users(monkeypatch, capsys):
    monkeypatch.setattr(verify, "data_digests", lambda: PUBLISHED["data"])
    monkeypatch.setattr(verify, "digits", lambda name: copy.deepcopy(PUBLISHED["digits"][name]))
    assert main(["verify"]) == 0
    said = capsys.readouterr().out
    assert said.count(": the published digits\n") == len(verify.TRAININGS)
    assert said.endswith("the same network here as where the digits were published.\n")

    def others(name):
        return {**PUBLISHED["digits"][name], "network": "0"}

    monkeypatch.setattr(verify, "digits", others)
    assert main(["verify"]) == 0
    said = capsys.readouterr().out
    assert "adjoint, meta-sgd: other digits from the network after meta-update 20 on; here " in said
    assert f", torch {torch.__version__}\n" in said
    assert said.endswith("another network here than where the digits were published.\n")
    monkeypatch.setattr(verify, "data_digests", lambda: {"train": "0"})
    assert main(["verify"]) == 0
    assert "glyphs: other images than the published ones" in capsys.readouterr().out


def test_a_machine_of_the_same_digits_is_added_and_another_begins_anew(monkeypatch, tmp_path):
    path = tmp_path / "digits.json"
    monkeypatch.setattr(verify, "PUBLISHED", path)
    monkeypatch.setattr(verify, "data_digests", lambda: {"train": "0"})
    of = {"a": 1}

    def published(processor, reference=0):
        own = {"reference, maml": reference}
        monkeypatch.setattr(verify, "digits", lambda name: {**of, "own": own.get(name)})
        monkeypatch.setattr(verify, "arithmetic", lambda: {"processor": processor})
        verify.publish()
        found = atomic.read_json(path)
        return found["digits"], [machine["processor"] for machine in found["machines"]]

    first, machines = published("one")
    assert machines == ["one"]
    assert published("two", reference=1) == (first, ["one", "two"])
    assert published("two", reference=1) == (first, ["one", "two"])
    of["a"] = 2
    digits, machines = published("three")
    assert (digits[NAME]["a"], machines) == (2, ["three"])
