"""`negmeta data list` and `negmeta data check`: what they say of data made here."""

import os
import shutil

import data_makers as make
import pytest
from PIL import Image

from negmeta_utils.data import datasets
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
        [
            "unlike",
            "train 8 of 64 classes, 64 of 38400 images; val 6 of 16 classes, 48 of 9600 images; "
            "test 6 of 20 classes, 48 of 12000 images",
        ],
        ["splits", "share no class"],
        [
            "classes",
            "0 of the 100 of Ravi & Larochelle's split of Mini-ImageNet, in their splits; "
            "20 others",
        ],
        ["images", "160 read, none broken; width x height 16x16 (160)"],
        ["files", "none left out"],
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


def own_set(folder, n_classes=1):
    for split in make.SPLITS:
        for c in range(n_classes):
            image(folder / split / f"{split} {c}" / "0.png")
    return folder


def test_check_accounts_for_every_file(tmp_path, capsys):
    folder = own_set(tmp_path / "my")
    one = folder / "train" / "train 0"
    for name in ("a.webp", "b.webp", "c.tif", "d"):
        (one / name).touch()
    image(one / "deeper" / "1.png")
    image(folder / "train" / "2.png")
    (folder / "README.txt").touch()
    (folder / ".DS_Store").touch()
    (folder / "gone").symlink_to("nowhere")
    (folder / "around").symlink_to(".")
    os.mkfifo(folder / "pipe")
    lines = said(capsys, "check", folder).splitlines()
    (line,) = [line for line in lines if line.startswith("  files")]
    assert line.startswith("  files    10 left out: 2 .webp files (as a.webp), ")
    assert "2 images in no class (as " in line
    for one_of in (".tif files (as c.tif)", ".txt files (as README.txt)", "pipes, sockets or"):
        assert f", 1 {one_of}" in line
    for one_of in ("links that lead nowhere (as gone)", "files without a suffix (as d)"):
        assert f", 1 {one_of}" in line
    assert line.endswith("images are read from .jpg, .jpeg, .png")


def test_training_says_which_images_it_leaves_out(tmp_path, capsys):
    folder = own_set(tmp_path / "my")
    (folder / "notes.txt").touch()
    datasets.load(f"folder:{folder}", "train", 8)
    assert "left out" not in capsys.readouterr().err
    (folder / "train" / "train 0" / "1.webp").touch()
    image(folder / "train" / "train 0" / "2.png")
    datasets.load(f"folder:{folder}", "train", 8)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{folder}: 1 left out: 1 .webp files (as 1.webp)")


def test_what_a_named_set_lacks_of_what_was_published_is_said(tmp_path, capsys):
    folder = tmp_path / "omniglot"
    for a in range(6):
        image(folder / "images_background" / f"a{a}" / "c" / "1.png")
    image(folder / "images_evaluation" / "b" / "c" / "1.png")
    datasets.load("omniglot", "train", 8, str(folder))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{folder}: not as published: train 5 of 806 classes, 5 of 16120")
    assert f"  unlike   {line.partition('published: ')[2]}" in said(capsys, "check", folder)


def test_a_csv_that_does_not_list_an_image_leaves_it_out_in_words(tiny_data, tmp_path, capsys):
    shutil.copytree(tiny_data / "mini-imagenet", tmp_path / "mini-imagenet")
    image(tmp_path / "mini-imagenet" / "images" / "x.jpg")
    assert "1 left out: 1 images in no class (as x.jpg)" in said(capsys, "check", tmp_path)


@pytest.mark.parametrize("end", [".tar.xz", ".tar.bz2", ".7z", ".rar", ".iso", ".png"])
def test_a_file_does_not_stand_for_what_lies_beside_it(end, tmp_path, capsys):
    own_set(tmp_path / "older")
    newer = tmp_path / f"newer{end}"
    newer.write_bytes(b"\xfd7zXZ\0" + bytes(50))
    assert cli.main(["data", "check", str(newer)]) == 2
    assert f"{newer}: neither a folder, nor an archive" in capsys.readouterr().err
    with pytest.raises(ValueError, match="nor an archive that is read"):
        datasets.load(f"folder:{newer}", "train", 8)


@pytest.mark.parametrize("end", [".tar.xz", ".7z", ".rar", ".tar.zst", ""])
def test_an_archive_that_is_not_read_is_not_passed_over(end, tiny_data, tmp_path):
    shutil.copytree(tiny_data / "mini-imagenet", tmp_path / "sets" / "older")
    path = tmp_path / "sets" / f"mini-imagenet{end}"
    path.symlink_to("nowhere") if not end else path.touch()
    with pytest.raises(ValueError, match="neither a folder nor an archive that is read"):
        datasets.load("mini-imagenet", "train", 16, str(tmp_path / "sets"))


def test_a_relative_variable_means_the_same_to_list_and_to_training(
    tiny_data, tmp_path, capsys, monkeypatch
):
    shutil.copytree(tiny_data / "mini-imagenet", tmp_path / "sets" / "mini-imagenet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEGMETA_DATA", "sets")
    assert f"found: {tmp_path / 'sets' / 'mini-imagenet'}" in said(capsys, "list")
    assert datasets.load("mini-imagenet", "val", 16).n_classes == 6
    monkeypatch.setenv("NEGMETA_DATA", "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/elsewhere does not .*NEGMETA_DATA"):
        datasets.load("mini-imagenet", "val", 16)


def test_names_of_folders_are_data(tmp_path, capsys):
    """Bytes that are no UTF-8, line breaks and control characters of a terminal."""
    folder = own_set(tmp_path / "my\x1b[31m\nset")
    os.rename(folder / "train" / "train 0", os.fsencode(folder / "train") + b"/\xff<b>")
    os.rename(
        folder / "val" / "val 0" / "0.png", os.fsencode(folder / "val" / "val 0") + b"/\xfe.png"
    )
    report = said(capsys, "check", folder)
    assert "3 read, none broken" in report
    assert report.startswith(f"{tmp_path}/my\\x1b[31m set\n")
    assert datasets.load(f"folder:{folder}", "train", 8).class_names == ("\\udcff<b>",)
    assert datasets.load(f"folder:{folder}", "val", 8).n_classes == 1


@pytest.mark.parametrize("names", [("cat", "cat "), ("é", "e\u0301"), ("cat", "ca\u200bt")])
def test_two_classes_that_look_alike_are_refused(names, tmp_path, capsys):
    folder = own_set(tmp_path / "my")
    for name in names:
        image(folder / "val" / name / "0.png")
    assert cli.main(["data", "check", str(folder)]) == 2
    assert "two classes are called" in capsys.readouterr().err
    shutil.rmtree(folder / "val" / names[1])
    image(folder / "train" / names[1] / "0.png")
    assert cli.main(["data", "check", str(folder)]) == 2
    assert "is in train and in val" in capsys.readouterr().err


def test_own_classes_in_every_split_are_told_what_few_shot_splits_are(tmp_path, capsys):
    for split in make.SPLITS:
        for c in range(3):
            image(tmp_path / "own" / split / f"class{c}" / "0.png")
    assert cli.main(["data", "check", str(tmp_path / "own")]) == 2
    error = capsys.readouterr().err
    assert "hold the same 3 classes" in error and "put each class whole into train, val or" in error
    assert "Ravi" not in error and "50,000" not in error


def test_a_link_to_a_class_that_leads_nowhere_is_named(tmp_path, capsys):
    folder = own_set(tmp_path / "my")
    (folder / "train" / "moved").symlink_to("/nowhere/moved")
    assert cli.main(["data", "check", str(folder)]) == 2
    assert "train/moved: a link that leads nowhere" in capsys.readouterr().err


def test_a_split_by_two_names_is_refused(tmp_path, capsys):
    image(own_set(tmp_path / "my") / "validation" / "other" / "0.png")
    assert cli.main(["data", "check", str(tmp_path / "my")]) == 2
    assert "val and validation are both there" in capsys.readouterr().err
