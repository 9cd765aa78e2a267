"""Images by class, held in memory, and the N-way K-shot episodes drawn from them.

Randomness is counted: episode `index` of a stream under a seed is the same whatever the batch
size, the device, the number of workers or the point of resumption, because it is drawn from a
generator keyed by (seed, stream, index) and by nothing else.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

# One independent stream of random numbers for each use, so that no use can disturb another.
STREAMS = {"train": 0, "val": 1, "test": 2, "other": 3, "final": 4, "classes": 5, "alpha": 6}


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set.

    images: uint8 [n_images, channels, height, width]; the rows of one class are contiguous.
    class_names: one name a class, in row order.
    class_sizes: int64 [n_classes]; class c owns the next `class_sizes[c]` rows.
    fingerprint: short digest of pixels and class names, by which a run knows its data.
    """

    images: torch.Tensor
    class_names: tuple[str, ...]
    class_sizes: np.ndarray
    fingerprint: str = ""

    def __repr__(self) -> str:
        shape = list(self.images.shape)
        return f"ImageSet({self.n_classes} classes, {self.images.dtype} {shape})"

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def image_size(self) -> int:
        return self.images.shape[-1]

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same images on `device`, still uint8: they move once, not once an episode."""
        return replace(self, images=self.images.to(device))


class Episodes(NamedTuple):
    """A batch of episodes (tasks), classes in the same order in support and query.

    support: float [n_tasks, n_way * n_shot, channels, height, width], values in 0..1.
    support_labels: int64 [n_way * n_shot], the same for every task.
    query: float [n_tasks, n_way * n_query, channels, height, width].
    query_labels: int64 [n_way * n_query].
    """

    support: torch.Tensor
    support_labels: torch.Tensor
    query: torch.Tensor
    query_labels: torch.Tensor

    def __repr__(self) -> str:
        return f"Episodes(support {list(self.support.shape)}, query {list(self.query.shape)})"


def check_episode_fits(
    images: ImageSet, n_way: int, n_per_class: int, split: str = "this split"
) -> None:
    """Raise ValueError, which calls them `split`, where `images` cannot fill an episode of
    n_way x n_per_class images."""
    if n_way > images.n_classes:
        raise ValueError(f"n_way={n_way}: {split} has {images.n_classes} classes; lower n_way")
    smallest = int(images.class_sizes.min())
    if n_per_class > smallest:
        name = images.class_names[int(images.class_sizes.argmin())]
        raise ValueError(
            f"n_shot + n_query = {n_per_class}: class {name!r} of {split} has {smallest} images; "
            "lower n_shot or n_query"
        )


def draw_rows(
    class_sizes: np.ndarray,
    seed: int,
    stream: str,
    index: int,
    n_way: int,
    n_per_class: int,
    apart_from: str | None = None,
) -> np.ndarray:
    """Rows of the images of episode `index`: int64 [n_way, n_per_class].

    Classes are drawn without replacement, and so are the images within a class. apart_from: a
    stream whose episode of the same number must share no class with this one; there must be
    classes enough for both. Which classes an episode holds, `draw_classes` tells.
    """
    generator = counted_generator(seed, stream, index)
    classes = _draw_classes(generator, class_sizes, seed, index, n_way, apart_from)
    starts = np.concatenate([[0], np.cumsum(class_sizes)])
    return np.stack(
        [starts[c] + generator.choice(class_sizes[c], n_per_class, replace=False) for c in classes]
    )


def draw_classes(
    class_sizes: np.ndarray,
    seed: int,
    stream: str,
    index: int,
    n_way: int,
    apart_from: str | None = None,
) -> np.ndarray:
    """The classes of the episode that `draw_rows` gives for the same arguments: int64 [n_way]."""
    generator = counted_generator(seed, stream, index)
    return _draw_classes(generator, class_sizes, seed, index, n_way, apart_from)


def _draw_classes(
    generator: np.random.Generator,
    class_sizes: np.ndarray,
    seed: int,
    index: int,
    n_way: int,
    apart_from: str | None,
) -> np.ndarray:
    among = np.arange(len(class_sizes))
    if apart_from is not None:
        among = np.setdiff1d(among, draw_classes(class_sizes, seed, apart_from, index, n_way))
    return among[generator.choice(len(among), n_way, replace=False)]


def draw_episodes(
    images: ImageSet,
    seed: int,
    stream: str,
    indices: range,
    n_way: int,
    n_shot: int,
    n_query: int,
    dtype: torch.dtype = torch.float32,
    apart_from: str | None = None,
) -> Episodes:
    """Episodes `indices` of a stream, on the device of `images`. apart_from: as for `draw_rows`."""
    rows = rows_of_episodes(
        images.class_sizes, seed, stream, indices, n_way, n_shot + n_query, apart_from
    )
    return episodes_of_rows(images, rows.to(images.images.device, non_blocking=True), n_shot, dtype)


def draw_pairs(
    images: ImageSet, settings: dict, seed: int, indices: range, disjoint: bool = False
) -> tuple[Episodes, Episodes]:
    """The tasks A and B of an evaluation's episodes `indices`, each with the n_way, n_shot and
    n_query of `settings`: A to adapt to, and B another, without a common class where `disjoint`."""
    shape = [settings[name] for name in ("n_way", "n_shot", "n_query")]
    task, other = (
        draw_episodes(images, seed, stream, indices, *shape, apart_from=apart_from)
        for stream, apart_from in (("test", None), ("other", "test" if disjoint else None))
    )
    return task, other


def shared_classes(
    images: ImageSet, seed: int, indices: range, n_way: int, disjoint: bool = False
) -> list[int]:
    """How many classes the tasks A and B of `draw_pairs` have in common, of each episode."""

    def classes(stream: str, index: int, apart_from: str | None = None) -> np.ndarray:
        return draw_classes(images.class_sizes, seed, stream, index, n_way, apart_from)

    apart_from = "test" if disjoint else None
    return [
        len(np.intersect1d(classes("test", i), classes("other", i, apart_from))) for i in indices
    ]


def rows_of_episodes(
    class_sizes: np.ndarray,
    seed: int,
    stream: str,
    indices: range,
    n_way: int,
    n_per_class: int,
    apart_from: str | None = None,
) -> torch.Tensor:
    """`draw_rows` of several episodes, on the CPU: int64 [n_tasks, n_way, n_per_class]."""
    rows = [
        draw_rows(class_sizes, seed, stream, i, n_way, n_per_class, apart_from) for i in indices
    ]
    return torch.from_numpy(np.stack(rows))


def episodes_of_rows(
    images: ImageSet, rows: torch.Tensor, n_shot: int, dtype: torch.dtype = torch.float32
) -> Episodes:
    """The episodes of these rows, of each class the first `n_shot` as support. All happens on the
    device of `images`, where `rows` [n_tasks, n_way, n_per_class] must be."""
    n_tasks, n_way, n_per_class = rows.shape
    picked = images.images[rows].to(dtype) / 255
    image_shape = picked.shape[-3:]
    labels = torch.arange(n_way, device=rows.device)
    return Episodes(
        support=picked[:, :, :n_shot].reshape(n_tasks, -1, *image_shape),
        support_labels=labels.repeat_interleave(n_shot),
        query=picked[:, :, n_shot:].reshape(n_tasks, -1, *image_shape),
        query_labels=labels.repeat_interleave(n_per_class - n_shot),
    )


def episodes_at_once(images: ImageSet, n_way: int, n_query: int) -> int:
    """How many episodes to evaluate side by side: their query images are about a million pixels
    on a CPU, where more no longer fits the caches, or one episode a thread; and fifteen million on
    a GPU."""
    pixels = n_way * n_query * images.image_size**2
    if images.images.is_cuda:
        return max(1, 15 * 10**6 // pixels)
    return max(torch.get_num_threads(), 10**6 // pixels)


def counted_generator(seed: int, stream: str, index: int) -> np.random.Generator:
    """The generator of number `index` of a stream under a seed, and of nothing else."""
    # The index is the counter's highest word, so episodes can never run into one another.
    key = np.array([seed, STREAMS[stream]], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
