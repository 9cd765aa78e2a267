"""`negmeta data list` and `negmeta data check`: what they say of data made here."""

import shutil

import data_makers as make
import pytest
from PIL import Image

from negmeta_utils.data.class_lists import MINI_IMAGENET
from negmeta_utils.studies import cli


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEGMETA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NEGMETA_DATA", raising=False)


def said(capsys, *arguments):
    assert cli.main(["data", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def image(path, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def test_check_reports_layout_counts_sizes_classes_and_use(tiny_data, tmp_path, capsys):
    folder = tiny_data / "mini-imagenet"
    lines = said(capsys, "check", folder).splitlines()
    assert lines[0] == str(folder)
    assert [line.split(maxsplit=1) for line in lines[1:]] == [
        ["layout", "images/*.jpg with train.csv, val.csv and test.csv (filename,label)"],
        ["train", "8 classes, 64 images, 8 a class"],
        ["val", "6 classes, 48 images, 8 a class"],
        ["test", "6 classes, 48 images, 8 a class"],
        ["splits", "share no class"],
        [
            "classes",
            "0 of the 100 of Ravi & Larochelle's split of Mini-ImageNet, in their splits; "
            "20 others",
        ],
        ["images", "160 read, none broken; width x height 16x16 (160)"],
        ["use", f'dataset="mini-imagenet", data_dir="{folder}"'],
    ]
    assert not (tmp_path / "cache").exists(), "a report decodes into no cache"


def test_check_knows_the_published_classes(tmp_path, capsys):
    for split, names in MINI_IMAGENET.items():
        for name in names:
            image(tmp_path / "mine" / split / name / f"{name}_1.JPEG")
    assert "  classes  those of Ravi & Larochelle's" in said(capsys, "check", tmp_path / "mine")
    shutil.move(tmp_path / "mine" / "val" / "n01855672", tmp_path / "mine" / "test" / "n01855672")
    assert "  classes  99 of the 100 of Ravi" in said(capsys, "check", tmp_path / "mine")


def test_check_of_an_archive_names_the_archive_and_leaves_nothing(tiny_data, tmp_path, capsys):
    archive = make.pack(tiny_data / "mini-imagenet", tmp_path / "any name.zip", "top")
    report = said(capsys, "check", archive)
    assert report.startswith(f"{archive}\n")
    assert f'data_dir="{archive}"' in report
    assert not (tmp_path / "cache").exists()


def test_check_of_a_parent_reports_every_data_set_in_it(tiny_data, tmp_path, capsys):
    shutil.copytree(tiny_data / "mini-imagenet", tmp_path / "d" / "mini-imagenet")
    for a in range(6):
        image(tmp_path / "d" / "omniglot" / "images_background" / f"a{a}" / "c" / "1.png")
    image(tmp_path / "d" / "omniglot" / "images_evaluation" / "b" / "c" / "1.png")
    report = said(capsys, "check", tmp_path / "d")
    assert 'dataset="mini-imagenet"' in report and 'dataset="omniglot"' in report


def test_check_of_other_images_says_how_to_use_them(tmp_path, capsys):
    for split in make.SPLITS:
        for i, size in enumerate([(8, 8), (8, 8), (9, 8), (10, 8), (11, 12)]):
            image(tmp_path / "birds" / split / f"{split} wren" / f"{i}.png", size)
        image(tmp_path / "birds" / split / f"{split} robin" / "a.png")
    report = said(capsys, "check", tmp_path / "birds")
    assert "train    2 classes, 6 images, 1 to 5 a class" in report
    assert "18 read, none broken; width x height 8x8 (9)" in report
    assert "and 1 more" in report
    assert f'dataset="folder:{tmp_path / "birds"}"\n' in report


def test_list_says_what_is_known_and_where_it_is(tiny_data, tmp_path, capsys, monkeypatch):
    nothing = said(capsys, "list")
    assert nothing.count("not found: NEGMETA_DATA is not set") == 3
    assert str(tmp_path / "cache") in nothing
    monkeypatch.setenv("NEGMETA_DATA", str(tiny_data))
    there = said(capsys, "list")
    for name in ("glyphs", "mini-imagenet", "cifar-fs", "omniglot", "folder:PATH"):
        assert name in there
    assert f"found: {tiny_data / 'mini-imagenet'} (images/*.jpg" in there
    assert "negmeta data fetch cifar-fs" in there


def test_list_tells_what_is_there_but_not_usable(tiny_data, tmp_path, capsys):
    shutil.copytree(tiny_data / "mini-imagenet", tmp_path / "mini-imagenet")
    (tmp_path / "mini-imagenet" / "test.csv").unlink()
    (tmp_path / "cifar-fs.zip").touch()
    shown = said(capsys, "list", "--data-dir", tmp_path)
    assert "not usable: " in shown and "no test split beside train and val" in shown
    assert f"found: {tmp_path / 'cifar-fs.zip'}" in shown
