"""Which classes are trained on, validated on and tested on."""

import hashlib

import numpy as np
import torch

from negmeta_utils.data import bounds, datasets
from negmeta_utils.episodes import ImageSet, counted_generator

CLASSES = ("64/16/20", "80/20")  # named by how they divide Mini-ImageNet's hundred
SHARE_TRAINED = 0.8


def load_split(
    dataset: str, split: str, image_size: int | None, data_dir: str | None, classes: str
) -> ImageSet:
    """One split of a data set, on the CPU; the other arguments and errors as for `datasets.load`.

    classes: "64/16/20" is the data set's own split. "80/20" draws four fifths of all its classes
    to train on, the same for every seed; the last fifth is both "val" and "test", as in
    oscarknagg/few-shot: what is chosen by validation has then seen the test classes, and accuracy
    on them flatters. Its images are a copy in memory.
    """
    if classes == CLASSES[0]:
        return datasets.load(dataset, split, image_size, data_dir)
    parts = [datasets.load(dataset, part, image_size, data_dir) for part in datasets.SPLITS]
    n_classes = sum(part.n_classes for part in parts)
    order = counted_generator(0, "classes", 0).permutation(n_classes)
    n_trained = round(SHARE_TRAINED * n_classes)
    return of_classes(parts, np.sort(order[:n_trained] if split == "train" else order[n_trained:]))


def of_classes(parts: list[ImageSet], chosen: np.ndarray) -> ImageSet:
    """One set of the classes with the numbers `chosen` [n], counted through all of `parts`. Raises
    ValueError where it does not fit in memory."""
    images, names, sizes, first = [], [], [], 0
    for part in parts:
        starts = np.concatenate([[0], np.cumsum(part.class_sizes)])
        for c in chosen[(first <= chosen) & (chosen < first + part.n_classes)] - first:
            images.append(part.images[starts[c] : starts[c + 1]])
            names.append(part.class_names[c])
            sizes.append(part.class_sizes[c])
        first += part.n_classes
    n_bytes = sum(image.nbytes for image in images)
    bounds.refuse_beyond_memory(n_bytes, "images of drawn classes", "choose a smaller image_size")
    made_from = repr(([part.fingerprint for part in parts], names))
    fingerprint = hashlib.sha256(made_from.encode()).hexdigest()[:16]
    class_sizes = np.array(sizes, dtype=np.int64)
    return ImageSet(torch.cat(images), tuple(names), class_sizes, fingerprint)
