"""The embedded data set: enough classes, different scripts, no two that look alike."""

import unicodedata

import draw_glyphs
import numpy as np
import pytest

from negmeta_utils.data import datasets, glyphs


@pytest.fixture(scope="module")
def splits():
    return {split: datasets.load("glyphs", split) for split in datasets.SPLITS}


def test_there_are_at_least_1000_characters_of_20_images(splits):
    assert sum(images.n_classes for images in splits.values()) >= 1000
    assert all(images.n_classes >= 100 for images in splits.values())
    for images in splits.values():
        assert set(images.class_sizes) == {20}
        assert images.images.shape == (20 * images.n_classes, 1, 28, 28)


def test_no_image_is_blank_and_no_two_of_a_class_are_equal(splits):
    for images in splits.values():
        pixels = images.images.flatten(1).numpy()
        assert (pixels.max(1) > 30).all()
        by_class = pixels.reshape(-1, 20, 784)
        assert all(len(np.unique(of_class, axis=0)) == 20 for of_class in by_class)


def test_splits_share_no_character_and_no_script(splits):
    names = [set(images.class_names) for images in splits.values()]
    assert len(set.union(*names)) == sum(map(len, names))
    letters = [
        {name.split()[0] for name in of_split if " LETTER " in f" {name} "} for of_split in names
    ]
    assert not letters[0] & letters[1]
    assert not letters[0] & letters[2]
    assert not letters[1] & letters[2]


def test_one_shape_is_one_class(splits):
    """A, Alpha and A of three scripts are drawn with the same outlines."""
    names = set().union(*(images.class_names for images in splits.values()))
    assert "GREEK CAPITAL LETTER ALPHA" in names
    triples = [
        ("LATIN CAPITAL LETTER A", "GREEK CAPITAL LETTER ALPHA", "CYRILLIC CAPITAL LETTER A"),
        ("LATIN CAPITAL LETTER O", "GREEK CAPITAL LETTER OMICRON", "CYRILLIC CAPITAL LETTER O"),
        ("LATIN CAPITAL LETTER P", "GREEK CAPITAL LETTER RHO", "CYRILLIC CAPITAL LETTER ER"),
        ("LATIN CAPITAL LETTER S", "CYRILLIC CAPITAL LETTER DZE", "LATIN SMALL LETTER S"),
    ]
    for triple in triples:
        assert all(unicodedata.lookup(name) for name in triple)
        assert len(names & set(triple)) <= 1, triple


def test_no_two_classes_are_near_duplicates(splits):
    """Independently of how classes were chosen: centre and scale the outlines in the regular sans
    face, and ask for a visible difference between every two."""
    from PIL import Image, ImageDraw, ImageFont

    path = draw_glyphs.Path(
        draw_glyphs.matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"
    )
    font = ImageFont.truetype(str(path), 60)
    covered = set(draw_glyphs.TTFont(path).getBestCmap())
    outlines, names = [], []
    for images in splits.values():
        for name in images.class_names:
            character = unicodedata.lookup(name)
            if ord(character) not in covered:
                continue
            page = Image.new("L", (300, 200))
            ImageDraw.Draw(page).text((100, 60), character, fill=255, font=font)
            box = page.getbbox()
            side = max(box[2] - box[0], box[3] - box[1])
            square = Image.new("L", (side, side))
            corner = ((side - box[2] + box[0]) // 2, (side - box[3] + box[1]) // 2)
            square.paste(page.crop(box), corner)
            small = np.asarray(square.resize((24, 24), Image.Resampling.BOX), dtype=float).ravel()
            outlines.append(small / np.linalg.norm(small))
            names.append(name)
    assert len(outlines) > 1000
    similarity = np.array(outlines) @ np.array(outlines).T
    np.fill_diagonal(similarity, 0)
    worst = np.unravel_index(similarity.argmax(), similarity.shape)
    assert similarity.max() < 0.97, [names[i] for i in worst]


def test_images_are_drawn_as_the_shipped_ones_were(splits):
    names = splits["test"].class_names
    for c in (0, len(names) // 2, len(names) - 1):
        for i in (0, 19):
            again = draw_glyphs.draw(unicodedata.lookup(names[c]), i)
            assert (splits["test"].images[20 * c + i, 0].numpy() == again).all()


def test_another_file_than_the_shipped_one_is_refused(tmp_path, monkeypatch):
    for name, content in {"cut": b"\xfd7zXZ\x00", "other": _another_split(), "empty": b""}.items():
        (tmp_path / "val.npy.xz").write_bytes(content)
        monkeypatch.setattr(glyphs, "DRAWN", tmp_path)
        with pytest.raises(ValueError, match="val.npy.xz: not what was shipped; install"):
            pytest.fail(f"{name}: {glyphs.read_split('val')[1][:1]}")


def _another_split() -> bytes:
    return (glyphs.DRAWN / "test.npy.xz").read_bytes()


def test_pixels_alone_do_not_solve_the_task(splits):
    """The task must leave room for learning: 1-nearest-neighbour on pixels is well above chance
    and well below the ceiling."""
    generator = np.random.default_rng(0)
    images = splits["test"].images.flatten(1).numpy().reshape(-1, 20, 784).astype(float)
    images /= np.linalg.norm(images, axis=2, keepdims=True)
    right = []
    for _ in range(300):
        classes = generator.choice(len(images), 5, replace=False)
        one, other = generator.choice(20, 2, replace=False)
        similarity = images[classes, one] @ images[classes, other].T
        right.append((similarity.argmax(0) == np.arange(5)).mean())
    assert 0.3 < np.mean(right) < 0.7
