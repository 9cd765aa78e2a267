"""One picture as a viewer shows it: 8 bits a channel, upright, on white; or refused by name.

Read are PNG and JPEG, told by content and not by suffix. Everything else that Pillow could open is
refused: EPS would start a PostScript interpreter, and animations, layers, pages and floats have no
one picture to show. Profiles of colour are not applied.
"""

import io
import os
import stat

import numpy as np
from PIL import Image

FORMATS = ("PNG", "JPEG")  # JPEG includes the several pictures of a phone's file; the first counts
MAX_PIXELS = 89_478_485  # where Pillow begins to warn: a quarter of a GiB of RGB
END_OF_JPEG = b"\xff\xd9"
ORIENTATION = 0x0112  # of EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# How files of other kinds begin, for the message.
OTHERS = {
    b"GIF8": "GIF", b"RIFF": "WebP", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF",
    b"%!PS": "PostScript", b"\xc5\xd0\xd3\xc6": "PostScript", b"%PDF": "PDF", b"<svg": "SVG",
    b"<?xml": "SVG or other XML", b"8BPS": "Photoshop", b"<!": "a web page", b"<html": "a web page",
    b"P4": "PNM", b"P5": "PNM", b"P6": "PNM", b"\0\0\1\0": "ICO", b"v/1\1": "OpenEXR",
}  # fmt: skip


def opened(given: str | bytes | np.ndarray) -> Image.Image:
    """The picture in a file, in a file's content, or of pixels; only its header is read.

    Raises ValueError for what is no PNG or JPEG, and for a picture of too many pixels.
    """
    if isinstance(given, np.ndarray):
        return Image.fromarray(given)
    if isinstance(given, str) and not stat.S_ISREG(os.stat(given).st_mode):
        raise ValueError("neither a file nor a link to one")  # opening a pipe would wait for ever
    try:
        image = Image.open(
            io.BytesIO(given) if isinstance(given, bytes) else given, formats=FORMATS
        )
    except Image.UnidentifiedImageError:
        raise ValueError(f"not PNG or JPEG{_kind(_beginning(given))}") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
    return image


def _beginning(given: str | bytes) -> bytes:
    if isinstance(given, bytes):
        return given[:16]
    with open(given, "rb") as file:
        return file.read(16)


def _kind(beginning: bytes) -> str:
    if beginning[4:8] == b"ftyp":
        return f" but {'AVIF' if beginning[8:11] == b'avi' else 'HEIC or a film'}"
    found = [kind for magic, kind in OTHERS.items() if beginning.startswith(magic)]
    return f" but {found[0]}" if found else ""


def as_shown(image: Image.Image, mode: str) -> Image.Image:
    """`image` in Pillow's mode "RGB" or "L". Raises ValueError for an animation, and what Pillow
    raises for content that is not whole."""
    if image.format == "PNG" and getattr(image, "is_animated", False):
        raise ValueError(f"an animation of {image.n_frames} pictures")
    rawmode = str(image.tile[0].args) if image.format == "PNG" and image.tile else ""
    if image.format == "JPEG" and END_OF_JPEG not in _rest(image):
        raise ValueError("broken off, for it has no end")  # Pillow makes grey of zeros there
    image.load()
    how = UPRIGHT.get(_orientation(image))
    shown = _on_white(image, rawmode).convert(mode)
    return shown if how is None else shown.transpose(how)


def _rest(image: Image.Image) -> bytes:
    """What follows the headers in the file of an image that is not loaded yet."""
    assert image.fp is not None
    at = image.fp.tell()
    rest = image.fp.read()
    image.fp.seek(at)
    return rest


def _orientation(image: Image.Image) -> int:
    """As EXIF has it; 1 (upright) where there is none, or none that can be read."""
    if "exif" not in image.info and "Raw profile type exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # viewers show a picture with broken EXIF too
        return 1


def _on_white(image: Image.Image, rawmode: str) -> Image.Image:
    """Without transparency, and 8 bits deep as Pillow makes 16-bit colour: the upper eight."""
    transparent = image.info.get("transparency")
    if image.mode[0] == "I":  # grey of 16 bits
        grey = np.asarray(image)
        visible = grey != transparent if transparent is not None else np.True_
        return Image.fromarray(np.where(visible, grey >> 8, 255).astype(np.uint8))
    if transparent is not None and rawmode == "RGB;16B":
        raise ValueError("a transparent colour of 16 bits")
    if transparent is not None and rawmode in ("L;2", "L;4"):  # Pillow leaves it in the file's bits
        image.info["transparency"] = transparent * (85 if rawmode == "L;2" else 17)
    if transparent is None and image.mode not in ("RGBA", "LA", "PA"):
        return image
    inked = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", inked.size, "white"), inked).convert("RGB")
