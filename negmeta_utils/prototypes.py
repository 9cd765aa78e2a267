"""How embeddings classify: by prototypes, and by a model's own rule.

The linear layer is left out of the first. A class's centroid is the mean embedding of its support
images, and a query image belongs to the class whose centroid is most similar by cosine.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from negmeta_utils.adaptation import METHODS, prototype_logits, prototypes
from negmeta_utils.engine.engines import Engine
from negmeta_utils.episodes import Episodes
from negmeta_utils.networks.network import Params


def prototype_answers(support: torch.Tensor, query: torch.Tensor, n_way: int) -> torch.Tensor:
    """The class whose centroid is nearest by cosine to each query embedding (paper, eq. 5).

    support: [n_tasks, n_way * n_shot, n_features], classes in order; query: [n_tasks, n_queries,
    n_features]. Returns int64 [n_tasks, n_queries].
    """
    # In float64, so that which centroid is the nearest does not depend on the order of a sum.
    centroids = F.normalize(prototypes(support.double(), n_way), dim=-1)
    similarity = F.normalize(query.double(), dim=-1) @ centroids.mT
    return similarity.argmax(-1)


def prototype_accuracy(
    support: torch.Tensor, query: torch.Tensor, n_way: int, query_labels: torch.Tensor
) -> torch.Tensor:
    """Share of query embeddings nearest by cosine to their own class's centroid.

    Arguments as for `prototype_answers`; query_labels: int64 [n_queries]. Returns [n_tasks],
    values in 0..1.
    """
    return (prototype_answers(support, query, n_way) == query_labels).float().mean(-1)


class Embedded(NamedTuple):
    """Embeddings of a batch of tasks, each [n_tasks, n, n_features]."""

    support: torch.Tensor
    query: torch.Tensor


def embed_tasks(engine: Engine, sets: list[Params], episodes: Episodes) -> list[Embedded]:
    """Embeddings of a batch of tasks by each of several parameters. sets: each shared by all tasks
    or, with a leading dimension n_tasks, one for each. Raises FloatingPointError where an embedding
    is not finite: accuracy would look like chance."""
    support, query = engine.embed(sets, episodes.support), engine.embed(sets, episodes.query)
    for of in (*support, *query):
        _refuse_not_finite(of, "the features")
    return [Embedded(*of) for of in zip(support, query, strict=True)]


def _refuse_not_finite(values: torch.Tensor, what: str) -> None:
    if not values.isfinite().all():
        raise FloatingPointError(
            f"evaluation: {what} of a network, or of one adapted to a task, are not finite; look "
            "at its inner rates, and train it with a lower outer_lr or inner_lr"
        )


def own_accuracy(
    engine: Engine,
    method: str,
    adapted: Params,
    embedded: Embedded,
    n_way: int,
    query_labels: torch.Tensor,
) -> torch.Tensor:
    """Accuracy [n_tasks] of adapted models by their own rule: the linear layer's, or for a
    prototypical network the nearest centroid's."""
    if METHODS[method].prototypes:
        logits = prototype_logits(embedded.support, embedded.query, n_way)
    else:
        logits = engine.head(adapted, embedded.query)
    _refuse_not_finite(logits, "the answers")
    return (logits.argmax(-1) == query_labels).float().mean(-1)
