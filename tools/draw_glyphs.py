"""For maintainers: draws the images of the embedded glyphs (`negmeta_utils/data/glyphs.py`) anew.

    python tools/draw_glyphs.py

Every image is one character in one of the twelve DejaVu text faces that matplotlib carries,
deformed at random. Left out are characters found in fewer than three faces, letters that are
another letter with an accent (those with a canonical decomposition), modifier letters and combining
marks, spaces, box drawing, block elements and Braille patterns, and every character that looks like
an earlier one (`characters`).

Everything is a function of the fonts, of Pillow's rasteriser and of `SEED`: another release of
matplotlib or Pillow may draw other images, which is why the drawn ones are shipped. Run again, it
writes what other releases draw: new data, and new numbers wherever glyphs are used.
"""

import json
import lzma
import unicodedata
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from negmeta_utils.data.glyphs import CLASSES, DRAWN, IMAGE_SIZE, digest_of

SEED = 0
IMAGES_PER_CLASS = 20
SCRIPTS = {
    "train": ("LATIN", "CYRILLIC", "LISU", "SYMBOL"),
    "val": ("CANADIAN",),
    "test": ("GREEK", "COPTIC", "GEORGIAN", "ARMENIAN", "HEBREW", "ARABIC", "LAO", "OLD"),
}
# The first word of a letter's Unicode name is its script; "OLD" is Old Italic, the only one here.

FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold"),
    *("DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
)
# The faces by which two characters are compared: upright, heavy and slanted of each family.
COMPARED = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif",
            "DejaVuSerif-Italic")  # fmt: skip
MIN_FACES = 3
MAX_SIMILARITY = 0.95  # cosine of two blurred 16 x 16 renderings; above it, one shape

CANVAS = 64  # a character is drawn once on this canvas, its ink scaled to INK, then deformed
INK = 48


def draw_split(split: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """All images of `split`: uint8 [n_classes, 20, 28, 28], and the characters' Unicode names."""
    chosen = characters()[split]
    images = np.stack([[draw(c, i) for i in range(IMAGES_PER_CLASS)] for c in chosen])
    return images, tuple(unicodedata.name(character) for character in chosen)


def draw(character: str, index: int) -> np.ndarray:
    """Image `index` of a character: uint8 [28, 28], a function of its two arguments alone.

    Drawn at random: the face, the stroke (thinned or thickened by up to about a third), the ink's
    width and height (each 45 to 80 % of the image), a rotation (up to 20 degrees), a shear (up to
    0.3) and a shift (up to 4 pixels). The ranges were chosen so that a few hundred to a few
    thousand meta-updates end well between chance and ceiling.
    """
    key = np.array([SEED, ord(character)], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)  # highest word: streams never meet
    random = np.random.Generator(np.random.Philox(key=key, counter=counter))
    having = [face for face in FACES if ord(character) in _coverage(face)]
    ink = _render(character, having[random.integers(len(having))])
    ink = _restroke(ink, random.uniform(-0.8, 1.0))
    width, height = IMAGE_SIZE * random.uniform(0.45, 0.8, size=2)
    angle = np.deg2rad(random.uniform(-20, 20))
    shear = random.uniform(-0.3, 0.3)
    shift = random.uniform(-4, 4, size=2)

    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = rotation @ np.array([[1, shear], [0, 1]]) @ np.diag([width, height]) / INK
    # Pillow wants the map from the result's pixels to the source's; drawn at twice the size, then
    # averaged, so that the edges stay smooth.
    backward = np.linalg.inv(2 * forward)
    offset = CANVAS / 2 - backward @ (IMAGE_SIZE + 2 * shift)
    matrix = np.column_stack([backward, offset]).ravel().tolist()
    size = (2 * IMAGE_SIZE, 2 * IMAGE_SIZE)
    large = ink.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(large.reduce(2))


@cache
def characters() -> dict[str, tuple[str, ...]]:
    """The characters of each split, no two of which look alike.

    Characters are taken in the order test, val, train, by script and code point. One is left out
    if it resembles one taken before, whatever the split: if the cosine similarity of any rendering
    of the one with any of the other, over `COMPARED` and over rotations of -15, 0 and 15 degrees
    of the one, is above `MAX_SIMILARITY`. Renderings are scaled to one size and centred, as the
    images are, so a character that differs from another by size or place alone (o and O, comma
    and apostrophe) counts as the same.
    """
    candidates = _candidates()
    taken: dict[str, list[str]] = {split: [] for split in SCRIPTS}
    shapes = np.zeros((len(COMPARED) * sum(map(len, candidates.values())), 256), dtype=np.float32)
    norms = np.ones(len(shapes))
    filled = 0
    for split in ("test", "val", "train"):
        for character in candidates[split]:
            upright, turned = _shapes(character)
            own_norms = np.linalg.norm(turned.astype(np.float64), axis=1)
            similarity = (turned @ shapes[:filled].T) / np.outer(own_norms, norms[:filled])
            if not len(upright) or similarity.max(initial=0) > MAX_SIMILARITY:
                continue
            taken[split].append(character)
            rows = slice(filled, filled + len(upright))
            shapes[rows], norms[rows] = upright, own_norms[: len(upright)]
            filled = rows.stop
    return {split: tuple(taken[split]) for split in SCRIPTS}


def _candidates() -> dict[str, list[str]]:
    """The characters of each split before comparison, by script and code point."""
    by_script: dict[str, list[str]] = {}
    coverage = [_coverage(face) for face in FACES]
    for code in sorted(set().union(*coverage)):
        if sum(code in covered for covered in coverage) >= MIN_FACES:
            by_script.setdefault(_script(chr(code)), []).append(chr(code))
    return {
        split: [character for script in scripts for character in by_script.get(script, [])]
        for split, scripts in SCRIPTS.items()
    }


def _script(character: str) -> str:
    """The script by which a character is put into a split; "" for one that is left out."""
    category, code = unicodedata.category(character), ord(character)
    decomposition = unicodedata.decomposition(character)
    if decomposition and not decomposition.startswith("<"):
        return ""
    if category in ("Lu", "Ll", "Lo"):
        return unicodedata.name(character).split()[0]
    lines_or_dots = 0x2500 <= code < 0x25A0 or 0x2800 <= code < 0x2900
    if category[0] in "NPS" and category != "Sk" and code < 0x2C00 and not lines_or_dots:
        return "SYMBOL"
    return ""


def _shapes(character: str) -> tuple[np.ndarray, np.ndarray]:
    """Renderings to compare: float32 [n, 256] upright, and [3n, 256] rotated by 0, -15, 15 degrees.

    Their values are whole numbers up to 255, so that a dot product of two (below 2**24) is exact
    in float32 and the choice of classes is the same on every machine.
    """
    drawn = [_render(character, f) for f in COMPARED if ord(character) in _coverage(f)]
    halves = [ink.reduce(2) for ink in drawn if ink is not None]
    turned = [
        half.rotate(angle, Image.Resampling.BILINEAR) if angle else half
        for angle in (0, -15, 15)
        for half in halves
    ]
    blurred = [image.filter(ImageFilter.GaussianBlur(1)).reduce(2) for image in turned]
    rows = np.array([np.asarray(image).ravel() for image in blurred], dtype=np.float32)
    rows = rows.reshape(-1, 256)
    return rows[: len(halves)], rows


def _render(character: str, face: str) -> Image.Image | None:
    """A character, its ink scaled to INK pixels and centred on the canvas; None if it is blank."""
    page = Image.new("L", (4 * CANVAS, 3 * CANVAS))
    ImageDraw.Draw(page).text((CANVAS, CANVAS // 2), character, fill=255, font=_font(face))
    box = page.getbbox()
    if box is None:
        return None
    width, height = box[2] - box[0], box[3] - box[1]
    scale = INK / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.new("L", (CANVAS, CANVAS))
    ink = page.resize(size, Image.Resampling.BILINEAR, box=box)
    canvas.paste(ink, ((CANVAS - size[0]) // 2, (CANVAS - size[1]) // 2))
    return canvas


def _restroke(ink: Image.Image, amount: float) -> Image.Image:
    """Thin (amount -1 to 0) or thicken (0 to 1) the strokes by up to one or two pixels a side."""
    # A blend with the filtered image is a part of a pixel once it is scaled down, and it leaves a
    # hairline faint where erosion alone would wipe it out.
    target = ImageFilter.MinFilter(3) if amount < 0 else ImageFilter.MaxFilter(5)
    return Image.blend(ink, ink.filter(target), abs(amount))


def _path(face: str) -> Path:
    return Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")


@cache
def _font(face: str) -> ImageFont.FreeTypeFont:
    # The basic layout engine: the other depends on a library that is not everywhere.
    return ImageFont.truetype(str(_path(face)), 72, layout_engine=ImageFont.Layout.BASIC)


@cache
def _coverage(face: str) -> frozenset[int]:
    """The code points a face has a glyph for."""
    with TTFont(_path(face), lazy=True) as font:
        return frozenset(font.getBestCmap())


def main() -> None:
    DRAWN.mkdir(exist_ok=True)
    classes = {}
    for split in SCRIPTS:
        images, names = draw_split(split)
        classes[split] = {"sha256": digest_of(images), "names": names}
        with lzma.open(DRAWN / f"{split}.npy.xz", "wb", preset=9) as file:
            np.save(file, images)
    CLASSES.write_text(json.dumps(classes, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
