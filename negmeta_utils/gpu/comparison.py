"""Kernels and reference compared before a training, as on every device that tests do not run on."""

import dataclasses
from functools import cache, partial

import torch

from negmeta_utils import objective
from negmeta_utils.adaptation import MetaGradient
from negmeta_utils.checkpoints import State
from negmeta_utils.config import TrainConfig
from negmeta_utils.engine import checked
from negmeta_utils.episodes import ImageSet, episodes_of_rows, rows_of_episodes
from negmeta_utils.gpu.group import Group, batches, free_gradients
from negmeta_utils.gpu.meta_gradient import MetaGradients
from negmeta_utils.networks.conv4 import CONV4


def fault(
    configs: list[TrainConfig], states: list[State], group: Group, images: ImageSet
) -> str | None:
    """Why the kernels cannot be used, in one line; None where of every network a meta-gradient is
    the reference's, as far as float32 goes (`checked`): nobody has tried them on this card with
    these versions."""
    on_device = images.to(group.images.device)

    @cache
    def rows(ahead: int) -> torch.Tensor:
        return torch.stack([_rows(*p, images, ahead) for p in zip(configs, states, strict=True)])

    @cache
    def of_all(ahead: int) -> MetaGradients:
        return free_gradients(group, *batches(group, group.images, rows(ahead).int()))

    def of_one(i: int, ahead: int) -> MetaGradient:
        found = of_all(ahead)
        like = {name: torch.zeros_like(value) for name, value in states[i].params.items()}
        learned = [group.layout.unpack(of[i].cpu(), like) for of in (found.params, found.alpha)]
        return MetaGradient(found.loss[i].cpu(), found.accuracy[i].cpu(), *learned)

    def reference(i: int, ahead: int) -> MetaGradient:
        return _reference(configs[i], states[i], on_device, rows(ahead)[i])

    for i, config in enumerate(configs):
        if said := checked.fault(partial(of_one, i), partial(reference, i)):
            return f"{config.method}, seed {config.seed}: {said}"
    return None


def _rows(config: TrainConfig, state: State, images: ImageSet, ahead: int) -> torch.Tensor:
    """Of the images of the next meta-update, or of one so many further ahead."""
    first = (state.update + ahead) * config.n_tasks
    numbers = range(first, first + config.n_tasks)
    sizes = config.n_way, config.n_shot + config.n_query
    return rows_of_episodes(images.class_sizes, config.seed, "train", numbers, *sizes)


def _reference(
    config: TrainConfig, state: State, images: ImageSet, rows: torch.Tensor
) -> MetaGradient:
    """The readable meta-gradient, brought to the CPU."""
    device = images.images.device
    episodes = episodes_of_rows(images, rows.to(device), config.n_shot)
    params, free = (_moved(of, device) for of in (state.params, state.alpha))
    plain = dataclasses.replace(config, engine="reference")
    found = objective.gradient(plain, CONV4, params, free, episodes)
    return MetaGradient(
        found.loss.cpu(),
        found.accuracy.cpu(),
        _moved(found.params, "cpu"),
        _moved(found.alpha, "cpu"),
    )


def _moved(tensors: dict, device: torch.device | str) -> dict:
    return {name: value.to(device) for name, value in tensors.items()}
