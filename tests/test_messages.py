"""Files of runs and studies that are not what they should be: one line that says what and where."""

import json
import os
import shutil
from urllib.error import HTTPError

import pytest
import small_studies

from negmeta_utils import runs
from negmeta_utils.data.layouts import UnknownLayout
from negmeta_utils.data.names import one_line
from negmeta_utils.storage import atomic
from negmeta_utils.studies import cli, planning, study_file

SHIPPED = runs.PRETRAINED / "glyphs-meta-sgd-0"
USED = ("manifest.json", "model.safetensors", "history.parquet", "rates.parquet")


def a_folder(path):
    path.unlink()
    path.mkdir()


def a_circle(path):
    path.unlink()
    path.symlink_to(path.name)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def metadata_of_another(path):
    path.write_bytes(path.read_bytes().replace(b"pandas", b"qandas") + b" ")


DAMAGES = {
    "gone": os.remove,
    "empty": lambda path: path.write_bytes(b""),
    "a folder": a_folder,
    "a link to itself": a_circle,
    "something else": lambda path: path.write_bytes(b"\xff\n\0" * 50),
    "cut": cut,
    "one bit": one_bit,
    "metadata": metadata_of_another,
}


def use(folder):
    run = runs.load_run(folder)
    assert run.parameters["dataset"] and len(run.history()) and len(run.rates())


@pytest.mark.parametrize("name", USED)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_runs_file_that_is_damaged_is_named(name, damage, tmp_path):
    folder = shutil.copytree(SHIPPED, tmp_path / "run")
    use(folder)
    DAMAGES[damage](folder / name)
    with pytest.raises((ValueError, OSError)) as raised:
        use(folder)
    said = str(raised.value)
    assert str(folder) in said and "; " in said and "\n" not in said
    missing = damage in ("gone", "a folder", "a link to itself")
    assert name in said
    assert missing == isinstance(raised.value, FileNotFoundError)


@pytest.mark.parametrize("value", [None, [], {}, "text", 3])
@pytest.mark.parametrize("key", ["parameters", "files", "status"])
def test_a_manifest_that_is_none_though_whole_is_named(key, value, tmp_path):
    folder = shutil.copytree(SHIPPED, tmp_path / "run")
    manifest = atomic.read_json(folder / "manifest.json")
    atomic.write_json(folder / "manifest.json", manifest | {key: value})
    if (key, value) == ("files", {}):  # of the time when no digests were listed
        use(folder)
        return
    with pytest.raises((ValueError, OSError), match=str(folder)) as raised:
        use(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["n" * 300, "a\nb", "x\0y", ""])
def test_a_run_that_cannot_be_there_is_named(name, tmp_path):
    with pytest.raises(OSError) as raised:
        runs.load_run(f"{tmp_path}/{name}")
    said = str(raised.value)
    assert said.startswith(str(tmp_path)) and "\n" not in said and "\0" not in said


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UnknownLayout("a\nb"), UnknownLayout),
        (json.JSONDecodeError("a\nb", "{", 0), ValueError),
        (HTTPError("http://x", 416, "a\nb", {}, None), OSError),
        (OSError(36, "File name too long", "n" * 300), OSError),
        (MemoryError(), OSError),
        (RecursionError("a\nb"), ValueError),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a"), ValueError),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_whatever_is_raised_is_of_one_line_and_of_a_kind_that_commands_catch(error, kind):
    with pytest.raises((ValueError, OSError)) as raised, one_line("here"):
        raise error
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value) and str(raised.value)


@pytest.mark.parametrize("command", ["status", "report"])
@pytest.mark.parametrize("name", ["plan.json", "train/job.json", "train/attempt.json"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_studys_file_that_is_no_such_file_is_named(name, whole, command, tmp_path, capsys):
    steps = {"train": {"notebook": "01_train", "parameters": {"dataset": "glyphs"}}}
    study, out = small_studies.write_study(tmp_path / "s.yml", steps), tmp_path / "out"
    (out / "train").mkdir(parents=True)
    planning.write_plan(planning.plan(study_file.read_study(study, {}), out), out)
    (out / name).write_text(json.dumps({}))
    if whole:
        atomic.write_json(out / name, {"of": "something else"})
    status = cli.main([command, str(study), "--out", str(out)])
    if (command, name) != ("report", "train/attempt.json"):  # which a report does not read
        said = capsys.readouterr().err
        assert status == 2 and said.startswith("negmeta: ")
        assert str(out) in said and said.count("\n") == 1
