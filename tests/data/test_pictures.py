"""Pictures as viewers show them. PNGs are put together chunk by chunk here, so that what is
expected follows from the format's definition and not from the library that reads them."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from negmeta_utils.data import datasets, pictures

SIDE = 4
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}


def chunk(kind, content):
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(samples, bits, colour, *chunks, size=None):
    """A PNG of these samples [height, width, channels], and of further chunks before them."""
    height, width = size or samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    if bits == 16:
        rows = samples.astype(">u2").reshape(len(samples), -1).view(np.uint8)
    else:
        flat = samples.astype(np.uint8).reshape(len(samples), -1)
        each = np.unpackbits(flat[..., None], axis=-1)[..., 8 - bits :]
        rows = np.packbits(each.reshape(len(samples), -1), axis=1)
    raw = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    body = chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", raw) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def read(content, mode="RGB"):
    with pictures.opened(content) as image:
        return np.asarray(pictures.as_shown(image, mode))


def drawn(bits, channels):
    return np.random.default_rng(0).integers(0, 2**bits, (SIDE, SIDE, channels))


def eight(samples, bits):
    """Samples of any depth as eight bits: the upper ones, or spread over 0..255."""
    return samples >> 8 if bits == 16 else samples * (255 // (2**bits - 1))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("keyed", [False, True])
def test_grey_of_every_depth_with_and_without_a_transparent_shade(bits, keyed):
    samples = drawn(bits, 1)
    key = int(samples[0, 0, 0])
    chunks = [chunk(b"tRNS", struct.pack(">H", key))] if keyed else []
    expected = eight(samples[..., 0], bits)
    if keyed:
        expected = np.where(samples[..., 0] == key, 255, expected)
    content = png(samples, bits, GREY, *chunks)
    assert (read(content, "L") == expected).all()
    assert (read(content) == expected[..., None]).all()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [RGB, RGBA, GREY_ALPHA])
def test_colour_lies_on_white_where_it_is_transparent(bits, colour):
    samples = drawn(bits, CHANNELS[colour])
    if colour != RGB:
        samples[..., -1] = np.random.default_rng(1).choice([0, 2**bits - 1], (SIDE, SIDE))
    values = eight(samples, bits)
    ink = values[..., :1] if colour == GREY_ALPHA else values[..., :3]
    visible = np.ones((SIDE, SIDE, 1)) if colour == RGB else samples[..., -1:] > 0
    assert (read(png(samples, bits, colour)) == np.where(visible, ink, 255)).all()


def test_half_transparent_ink_is_half_white():
    samples = np.array([[[0, 0, 0, 128], [200, 100, 0, 51]]])
    expected = np.round(255 + (samples[..., :3] - 255.0) * samples[..., 3:] / 255)
    assert np.abs(read(png(samples, 8, RGBA)) - expected).max() <= 1


def test_one_colour_of_true_colour_may_be_transparent():
    samples = np.array([[[1, 2, 3], [9, 9, 9]]])
    key = chunk(b"tRNS", struct.pack(">HHH", 9, 9, 9))
    assert read(png(samples, 8, RGB, key)).tolist() == [[[1, 2, 3], [255, 255, 255]]]
    with pytest.raises(ValueError, match="a transparent colour of 16 bits"):
        read(png(samples, 16, RGB, key))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("alphas", [None, b"\0\xff", b"\0", b"\x80\xff"])
def test_palettes_with_and_without_transparent_entries(bits, alphas):
    colours = np.array([[10, 20, 30], [200, 100, 50]])
    samples = np.arange(SIDE * SIDE).reshape(SIDE, SIDE, 1) % 2
    chunks = [chunk(b"PLTE", colours.astype(np.uint8).tobytes())]
    weights = np.ones(2)
    if alphas:
        chunks.append(chunk(b"tRNS", alphas))
        weights[: len(alphas)] = np.array(list(alphas)) / 255
    shown = np.round(255 + (colours - 255.0) * weights[:, None])
    assert np.abs(read(png(samples, bits, PALETTE, *chunks)) - shown[samples[..., 0]]).max() <= 1


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def smooth():
    """[32, 48, 3], every corner another colour."""
    rows, columns = np.mgrid[0:32, 0:48]
    return np.stack([8 * rows, 5 * columns, 100 + 0 * rows], axis=-1).astype(np.uint8)


# What a viewer does to the stored picture, by EXIF's definition of where row 0 and column 0 are.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: x.transpose(1, 0, 2)[:, ::-1],
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: x.transpose(1, 0, 2)[::-1],
    9: lambda x: x,  # no such orientation
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_photograph_is_turned_as_its_exif_says(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind == "JPEG" else {}
    shown = read(saved(Image.fromarray(smooth()), kind, exif=exif, **options)).astype(int)
    expected = UPRIGHT[orientation](smooth())
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).max() < 12


def test_broken_exif_does_not_hide_a_picture():
    content = saved(Image.fromarray(smooth()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff\0\1")
    assert read(content).shape == (32, 48, 3)


def test_ink_of_printing_is_read_as_colour():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(read(saved(red, "JPEG")).astype(int) - (255, 0, 0)).max() < 6


def test_of_a_telephones_several_pictures_the_first_counts():
    first, second = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8))
    content = saved(first, "MPO", save_all=True, append_images=[second])
    assert read(content).min() > 250


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (saved(Image.new("L", (8, 8)), "GIF"), "not PNG or JPEG but GIF"),
        (saved(Image.new("L", (8, 8)), "TIFF"), "but TIFF"),
        (saved(Image.new("F", (8, 8)), "TIFF"), "but TIFF"),
        (saved(Image.new("L", (8, 8)), "BMP"), "but BMP"),
        (saved(Image.new("RGB", (8, 8)), "WEBP"), "but WebP"),
        (saved(Image.new("L", (8, 8)), "PPM"), "but PNM"),
        (saved(Image.new("L", (8, 8)), "EPS"), "but PostScript"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "but HEIC"),
        (b"", "not PNG or JPEG"),
        (b"nothing of the kind", "not PNG or JPEG"),
        (
            saved(
                Image.new("L", (8, 8)), "PNG", save_all=True,
                append_images=[Image.new("L", (8, 8), 9)],
            ),
            "an animation of 2 pictures",
        ),
        (png(np.zeros((1, 1, 1)), 1, GREY, size=(10_000, 10_000)), "10000 x 10000 pixels are more"),
    ],
)  # fmt: skip
def test_what_is_not_one_picture_is_refused_by_name(content, words):
    with pytest.raises(ValueError, match=words):
        read(content)


def test_a_png_with_any_bit_turned_over_in_its_pixels_is_refused():
    content = saved(Image.fromarray(smooth()), "PNG")
    start = content.index(b"IDAT")
    for place in range(start + 4, len(content) - 16, 41):
        broken = bytearray(content)
        broken[place] ^= 4
        with pytest.raises((OSError, SyntaxError)):
            read(bytes(broken))


def test_a_photograph_that_breaks_off_is_refused_though_its_length_is_right():
    """As a download leaves one that reserved the room first; Pillow makes grey of the zeros."""
    content = saved(Image.fromarray(smooth()), "JPEG", exif=thumbnail())
    assert read(content).shape == (32, 48, 3)
    half = len(content) - 200
    with pytest.raises(ValueError, match="broken off"):
        read(content[:half] + bytes(len(content) - half))


def thumbnail():
    """EXIF with a whole picture in it, as cameras write."""
    exif = Image.Exif()
    exif[0x927C] = saved(Image.new("RGB", (8, 8)), "JPEG")
    return exif


def folder_with(path, write):
    """A data set whose first training image is written by `write(path of it)`."""
    for split in datasets.SPLITS:
        (path / split / f"{split} a").mkdir(parents=True)
        Image.new("L", (8, 8), 100).save(path / split / f"{split} a" / "0.png")
    (path / "train" / "train a" / "0.png").unlink()
    write(path / "train" / "train a" / "0.png")
    return f"folder:{path}"


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda p: p.write_bytes(saved(Image.new("L", (8, 8)), "EPS")), "but PostScript"),
        (os.mkfifo, "neither a file"),
        (lambda p: p.mkdir(), "neither a file"),
        (lambda p: p.symlink_to("nowhere"), "listed, but not there"),
        (lambda p: p.symlink_to("0.png"), "symbolic links"),
        (lambda p: p.symlink_to("/dev/zero"), "neither a file"),
    ],
)
def test_what_is_called_an_image_and_is_none_is_named_and_starts_nothing(
    write, words, tmp_path, monkeypatch
):
    """A `.png` that is PostScript would start an interpreter; a pipe would be waited for."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    name = folder_with(tmp_path / "set", write)
    with pytest.raises((ValueError, OSError), match=words) as raised:
        datasets.load(name, "train", 8, None, tmp_path / "cache")
    assert "0.png" in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "started").exists()


def test_training_sees_what_a_viewer_sees(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    name = folder_with(tmp_path / "set", lambda p: Image.fromarray(ramp).save(p))
    images = datasets.load(name, "train", 8, None, tmp_path / "cache").images
    assert (images[0].numpy() == ramp >> 8).all()
