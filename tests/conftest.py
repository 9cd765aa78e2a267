"""What several test files use: a data set of random images on disk, small enough for any test."""

import os
import signal
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from negmeta_utils.config import TrainConfig
from negmeta_utils.data import datasets
from negmeta_utils.episodes import ImageSet
from negmeta_utils.training import train

# A minute and more each: begun last, one of them would keep the other cores waiting.
LONG = ("test_running", "test_crash", "test_readme", "test_notebooks", "test_scheduling",
        "test_wheel", "test_contributing")  # fmt: skip

TINY_CLASSES = {"train": 8, "val": 6, "test": 6}
TINY_IMAGES = 8


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One more than cores: a fifth of the time tests wait, for time limits and other processes."""
    return os.cpu_count() + 1


def pytest_collection_modifyitems(items):
    """The files that take longest first, for workers that are told to keep this order."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tests run side by side on the cores there are."""
    torch.set_num_threads(1)


@pytest.fixture
def set_threads():
    """torch.set_num_threads, for this test alone."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def heeds_interrupts():
    """A shell lets what it starts in the background ignore SIGINT, and so do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def closed_port():
    """A TCP port of this machine at which nobody listens, nor can while it is bound."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A folder with a `mini-imagenet` in Ravi & Larochelle's layout: noise around one colour a
    class, 16x16."""
    folder = tmp_path_factory.mktemp("data")
    root = folder / "mini-imagenet"
    (root / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number, (split, n_classes) in enumerate(TINY_CLASSES.items()):
        lines = ["filename,label"]
        for c in range(n_classes):
            label = f"n{number}{c:07d}"
            colour = generator.integers(60, 200, 3)
            for i in range(TINY_IMAGES):
                pixels = colour + generator.normal(0, 25, (16, 16, 3))
                name = f"{label}{i:08d}.jpg"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / name)
                # One time of change for ever, so that the cache knows the file again.
                os.utime(root / "images" / name, (10**9, 10**9))
                lines.append(f"{name},{label}")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def tiny_config(tiny_data):
    """A training of a second on `tiny_data`."""
    return TrainConfig(
        dataset="mini-imagenet", image_size=16, n_way=2, n_shot=1, n_query=3, n_filters=32,
        inner_steps=2, n_updates=12, val_every=4, val_episodes=5, test_episodes=10,
        checkpoint_every=4, data_dir=str(tiny_data), device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="session")
def run(tiny_config, tmp_path_factory):
    """`tiny_config`, trained. For reading: all tests share it."""
    return train(tiny_config, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="session")
def images(tiny_data):
    """The test split of `tiny_data`, as `run` takes it."""
    return datasets.load("mini-imagenet", "test", 16, str(tiny_data))


@pytest.fixture(scope="session")
def random_images():
    """12 classes of 6 to 8 images, 1x16x16, whose pixels tell the row: pixel [0, 0] is it."""
    sizes = np.array([6, 7, 8] * 4)
    images = torch.randint(
        0, 256, (int(sizes.sum()), 1, 16, 16), generator=torch.Generator().manual_seed(0)
    ).to(torch.uint8)
    images[:, 0, 0, 0] = torch.arange(len(images))
    return ImageSet(images, tuple(f"class {c}" for c in range(12)), sizes)
