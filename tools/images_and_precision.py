"""For maintainers: what images normalised by channel, and float64, change. Short trainings of
Meta-SGD on Mini-ImageNet at 28x28 by each, of the same episodes from the same start.

    python tools/images_and_precision.py figures/images-and-precision

Written down before it was run: a difference between two kinds counts where the 95 % interval of its
mean over seeds (Student's t, paired) excludes zero. What is compared: test accuracy, and the
standard deviation and mean of the convolutions' rates.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from negmeta_utils import objective
from negmeta_utils.checkpoints import fresh_state
from negmeta_utils.config import TrainConfig
from negmeta_utils.data.datasets import load
from negmeta_utils.episodes import Episodes, ImageSet, draw_episodes
from negmeta_utils.networks.network import Params

SEEDS, N_TEST = range(3), 600
SETTINGS = {
    "dataset": "mini-imagenet", "method": "meta-sgd", "image_size": 28, "n_filters": 32,
    "n_updates": 1000, "device": "cpu",
}  # fmt: skip
KINDS = {
    "as they are": (False, torch.float32),
    "normalised": (True, torch.float32),
    "float64": (False, torch.float64),
}


def trained(config: TrainConfig, images: ImageSet, scale, dtype) -> tuple[Params, Params]:
    state = fresh_state(config, config.find_network(images), images, torch.device("cpu"))
    params, alpha = ({n: v.to(dtype) for n, v in x.items()} for x in (state.params, state.alpha))
    optimizer = torch.optim.Adam([*params.values(), *alpha.values()], config.outer_lr)
    for update in range(config.n_updates):
        episodes = scale(drawn(config, images, "train", 3 * update, 3, dtype))
        found = objective.gradient(config, state.network, params, alpha, episodes)
        for values, gradient in ((params, found.params), (alpha, found.alpha)):
            for name, value in values.items():
                value.grad = gradient[name]
        optimizer.step()
    return params, alpha


def drawn(config, images: ImageSet, stream: str, first: int, n: int, dtype) -> Episodes:
    shape = config.n_way, config.n_shot, config.n_query
    return draw_episodes(images, config.seed, stream, range(first, first + n), *shape, dtype=dtype)


def tested(config, images: ImageSet, scale, dtype, params: Params, alpha: Params) -> float:
    """Accuracy on `N_TEST` test tasks, in percent."""
    engine = objective.engine_of(config.find_network(images), config.engine)
    right = []
    for first in range(0, N_TEST, 20):
        tasks = scale(drawn(config, images, "test", first, 20, dtype))
        adapted = engine.adapt(
            params, alpha, tasks.support, tasks.support_labels, config.inner_steps
        )
        logits = engine.logits(adapted, tasks.query)
        right.append((logits.argmax(-1) == tasks.query_labels).double().mean())
    return 100 * float(torch.stack(right).mean())


def normalising(images: ImageSet):
    """What makes each channel's mean zero and its standard deviation one over `images`."""
    pixels = images.images.float() / 255
    mean, std = (f(pixels, dim=(0, 2, 3)).view(-1, 1, 1) for f in (torch.mean, torch.std))

    def scale(episodes: Episodes) -> Episodes:
        support, query = ((x - mean) / std for x in (episodes.support, episodes.query))
        return episodes._replace(support=support, query=query)

    return scale


def main(folder: Path) -> None:
    train, test = (load("mini-imagenet", split, 28, None) for split in ("train", "test"))
    rows = []
    for seed in SEEDS:
        config = replace(TrainConfig(**SETTINGS).resolved(train), seed=seed)
        for kind, (normalised, dtype) in KINDS.items():
            scale = normalising(train) if normalised else (lambda episodes: episodes)
            params, alpha = trained(config, train, scale, dtype)
            row = {"kind": kind, "seed": seed}
            row["accuracy"] = tested(config, test, scale, dtype, params, alpha)
            for layer in ("conv1", "conv2", "conv3", "conv4"):
                rates = torch.cat([alpha[f"{layer}.{x}"].flatten() for x in ("weight", "bias")])
                row |= {f"{layer} mean": float(rates.mean()), f"{layer} std": float(rates.std())}
            rows.append(row)
            print(row, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "trainings.csv", index=False, float_format="%.6g")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
