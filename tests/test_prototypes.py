"""The prototypical objective against torch's distances and a plain loop."""

import torch
import torch.nn.functional as F

from negmeta_utils.adaptation import prototype_gradient, prototype_logits
from negmeta_utils.episodes import Episodes
from negmeta_utils.model import embed, init_params

N_WAY, N_SHOT, N_QUERY = 3, 2, 4


def setting():
    generator = torch.Generator().manual_seed(0)
    params = {n: v.double() for n, v in init_params(0, 1, 16, N_WAY, n_filters=4).items()}
    images = torch.rand(2, N_WAY * (N_SHOT + N_QUERY), 1, 16, 16, generator=generator).double()
    labels = torch.arange(N_WAY)
    support, query = images.split([N_WAY * N_SHOT, N_WAY * N_QUERY], dim=1)
    return params, Episodes(
        support, labels.repeat_interleave(N_SHOT), query, labels.repeat_interleave(N_QUERY)
    )


def plain_loss(params, episodes):
    losses = []
    for support, query in zip(episodes.support, episodes.query, strict=True):
        embedded = embed(params, support)
        centroids = torch.stack(
            [embedded[episodes.support_labels == c].mean(0) for c in range(N_WAY)]
        )
        distances = torch.cdist(embed(params, query), centroids)
        losses.append(F.cross_entropy(-distances.square(), episodes.query_labels))
    return torch.stack(losses).mean()


def test_logits_are_minus_squared_distances():
    generator = torch.Generator().manual_seed(1)
    support = torch.randn(2, N_WAY * N_SHOT, 5, generator=generator, dtype=torch.float64)
    query = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64)
    centroids = torch.stack(
        [support[:, :2].mean(1), support[:, 2:4].mean(1), support[:, 4:].mean(1)], 1
    )
    expected = -torch.cdist(query, centroids).square()
    torch.testing.assert_close(prototype_logits(support, query, N_WAY), expected)


def test_gradient_is_that_of_the_plain_loop():
    params, episodes = setting()
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    loss = plain_loss(leaves, episodes)
    expected = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    got = prototype_gradient(params, episodes)
    torch.testing.assert_close(got.loss, loss.detach())
    for (name, value), wanted in zip(got.params.items(), expected, strict=True):
        wanted = torch.zeros_like(value) if wanted is None else wanted
        torch.testing.assert_close(value, wanted, msg=name)
    assert got.params["logits.weight"].abs().max() == 0, "the linear layer plays no part"
    assert all(value == 0 for value in got.alpha.values())
