"""Prototypical networks (Snell et al. 2017; paper, section 2.1.3): a class is the mean of its
support embeddings, and an image is the more likely of a class the nearer it is to that mean.

Trained end to end, this is what features look like that were made for being compared.
"""

import torch
import torch.nn.functional as F

from negmeta_utils.adaptation import MetaGradient
from negmeta_utils.episodes import Episodes
from negmeta_utils.model import Params, embed


def prototypes(support: torch.Tensor, n_way: int) -> torch.Tensor:
    """Centroids [n_tasks, n_way, n_features] of support embeddings (paper, eq. 5).

    support: [n_tasks, n_way * n_shot, n_features], classes in order.
    """
    return support.unflatten(1, (n_way, -1)).mean(2)


def logits(support: torch.Tensor, query: torch.Tensor, n_way: int) -> torch.Tensor:
    """Minus the squared distances to the prototypes: [n_tasks, n_queries, n_way].

    support as for `prototypes`; query: [n_tasks, n_queries, n_features].
    """
    # In float64, in which no two BLAS libraries differ by enough to show in the result.
    exact, centroids = query.double(), prototypes(support.double(), n_way)
    squares = exact.square().sum(2)[..., None] + centroids.square().sum(2)[:, None]
    return (2 * exact @ centroids.mT - squares).to(query.dtype)


def meta_gradient(params: Params, episodes: Episodes) -> MetaGradient:
    """Gradient of the mean cross-entropy of `logits` over a batch of tasks. There is no inner
    loop: the gradients of the rates, and of the linear layer that is not used, are zero."""
    gradient, (loss, accuracy) = torch.func.grad(_mean_loss, has_aux=True)(params, episodes)
    zeros = {name: torch.zeros((), device=value.device) for name, value in params.items()}
    return MetaGradient(loss, accuracy, gradient, zeros)


def _mean_loss(
    params: Params, episodes: Episodes
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    # Support and query are batches of their own, as everywhere in this study.
    support = torch.stack([embed(params, images) for images in episodes.support])
    query = torch.stack([embed(params, images) for images in episodes.query])
    n_way = int(episodes.support_labels.max()) + 1
    scores = logits(support, query, n_way)
    labels = episodes.query_labels.expand(len(scores), -1)
    loss = F.cross_entropy(scores.flatten(0, 1), labels.flatten())
    accuracy = (scores.argmax(2) == labels).to(loss.dtype).mean()
    return loss, (loss.detach(), accuracy.detach())
