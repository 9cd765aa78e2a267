"""Every script in `examples/`, as a reader would run it."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from negmeta_utils.storage.paths import ROOT

EXAMPLES = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}
ARGUMENTS = {"train_and_evaluate": ["3"], "own_method": ["3"], "own_images": ["{images}"]}
SAYS = {
    "classify_an_episode": "adapted: ",
    "own_images": "a task of class",
    "own_method": "logits",
    "own_network": "other_after",
    "train_and_evaluate": "other_after",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images by class, as `own_images` takes it."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(5):
            place = folder / split / f"class-{split}-{number}"
            place.mkdir(parents=True)
            for image in range(3):
                pixels = generator.integers(0, 255, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{image}.png")
    return folder


def test_there_are_five_and_each_is_short():
    assert set(EXAMPLES) == set(SAYS)
    assert all(len(path.read_text().splitlines()) <= 25 for path in EXAMPLES.values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name, images):
    arguments = [word.format(images=images) for word in ARGUMENTS.get(name, [])]
    command = [sys.executable, str(EXAMPLES[name]), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=images)
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout
