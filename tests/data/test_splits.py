"""Which classes are trained on, and which are held out."""

from dataclasses import replace

import numpy as np
import torch

from negmeta_utils.data import datasets
from negmeta_utils.data.splits import load_split
from negmeta_utils.training import train


def splits(classes, folder):
    return {
        split: load_split("mini-imagenet", split, 16, str(folder), classes)
        for split in datasets.SPLITS
    }


def images_by_class(images):
    starts = np.cumsum([0, *images.class_sizes])
    return {
        name: images.images[starts[c] : starts[c + 1]] for c, name in enumerate(images.class_names)
    }


def test_the_usual_classes_are_the_data_sets_own(tiny_data):
    for split, images in splits("64/16/20", tiny_data).items():
        own = datasets.load("mini-imagenet", split, 16, str(tiny_data))
        assert images.fingerprint == own.fingerprint


def test_four_fifths_of_all_classes_are_trained_on_and_the_rest_serves_twice(tiny_data):
    own = {}
    for split in datasets.SPLITS:
        own |= images_by_class(datasets.load("mini-imagenet", split, 16, str(tiny_data)))
    drawn = splits("80/20", tiny_data)
    train_classes, held_out = (set(drawn[split].class_names) for split in ("train", "test"))
    assert len(own) == 20
    assert len(train_classes) == 16
    assert train_classes | held_out == set(own)
    assert not train_classes & held_out
    assert not held_out <= set(list(own)[-6:]), "drawn from all, not the test split's own"
    assert drawn["val"].fingerprint == drawn["test"].fingerprint != drawn["train"].fingerprint
    for split in ("train", "test"):
        assert drawn[split].class_sizes.dtype == np.int64
        for name, images in images_by_class(drawn[split]).items():
            assert torch.equal(images, own[name])


def test_the_draw_is_the_same_for_every_seed(tiny_config, tiny_data, tmp_path):
    short = replace(tiny_config, classes="80/20", n_updates=1, test_episodes=2)
    fingerprints = [
        train(replace(short, seed=seed), tmp_path / str(seed)).manifest["data"] for seed in (0, 1)
    ]
    assert fingerprints[0] == fingerprints[1]
    assert fingerprints[0]["train"]["classes"] == 16
