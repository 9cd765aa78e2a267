"""Kernels and reference compared before a training, as on every device that tests do not run on."""

import dataclasses

import torch

from negmeta_utils import objective
from negmeta_utils.adaptation import METHODS, MetaGradient
from negmeta_utils.checkpoints import State
from negmeta_utils.config import TrainConfig
from negmeta_utils.engine import checked
from negmeta_utils.episodes import ImageSet, episodes_of_rows, rows_of_episodes
from negmeta_utils.gpu.group import Group, batches, free_gradients
from negmeta_utils.networks.conv4 import CONV4


def refuse_wrong(
    configs: list[TrainConfig], states: list[State], group: Group, images: ImageSet
) -> None:
    """Raise ValueError unless the kernels' first meta-gradient of every network is, but for the
    last bits, the reference's: nobody has tried them on this card with these versions."""
    on_device, rows = images.to(group.images.device), []
    for config, state in zip(configs, states, strict=True):
        numbers = range(state.update * config.n_tasks, (state.update + 1) * config.n_tasks)
        sizes = config.n_way, config.n_shot + config.n_query
        rows.append(rows_of_episodes(images.class_sizes, config.seed, "train", numbers, *sizes))
    found = free_gradients(group, *batches(group, group.images, torch.stack(rows).int()))
    for i, (config, state) in enumerate(zip(configs, states, strict=True)):
        learns = METHODS[config.method].learns_alpha
        like = {name: torch.zeros_like(value) for name, value in state.params.items()}
        got = MetaGradient(
            found.loss[i].cpu(),
            found.accuracy[i].cpu(),
            group.layout.unpack(found.params[i].cpu(), like),
            group.layout.unpack(found.alpha[i].cpu(), like) if learns else {},
        )
        episodes = episodes_of_rows(on_device, rows[i].to(group.images.device), config.n_shot)
        params, free = (_moved(of, group.images.device) for of in (state.params, state.alpha))
        reference = dataclasses.replace(config, engine="reference")
        expected = objective.gradient(reference, CONV4, params, free, episodes)
        expected = MetaGradient(
            expected.loss.cpu(),
            expected.accuracy.cpu(),
            _moved(expected.params, "cpu"),
            _moved(expected.alpha, "cpu") if learns else {},
        )
        apart = checked.difference(got, expected)
        if not apart <= checked.MOST_APART:
            raise ValueError(
                f"{config.method}, seed {config.seed}: the meta-gradient on this GPU is "
                f"{apart:.2g} times the reference's length away from it; train without --together"
            )


def _moved(tensors: dict, device: torch.device | str) -> dict:
    return {name: value.to(device) for name, value in tensors.items()}
