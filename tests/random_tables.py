"""Random tables of features and rates about which the truth is known."""

import numpy as np
import pandas as pd

from negmeta_utils.evidence.quantities import ACCURACIES, MAML, META_SGD

# What is true, in percentage points (MAML, Meta-SGD), head being before adaptation minus ordinary;
# and of the layers' mean rates, in the spread between seeds.
RATE_SIGNS = {"conv1": -1, "conv2": -1, "conv3": -1, "conv4": -1, "logits": 1}
SIGNS = np.array(list(RATE_SIGNS.values()))
NONE = {"head": (-2, -2), "skill": (0, 0), "on": (0, 0), "off": (0, 0), "rates": 0 * SIGNS}


def table(n_seeds=3, n_episodes=60, methods=(MAML, META_SGD), seed=0):
    """Random features of 50 query images; an episode's difficulty is shared by all the models."""
    rng = np.random.default_rng(seed)
    difficulty = rng.uniform(0.3, 0.9, n_episodes)
    models = [(method, s) for method in methods for s in range(n_seeds)]
    frames = []
    for method, s in models:
        counts = rng.binomial(50, difficulty[:, None], (n_episodes, len(ACCURACIES)))
        frame = pd.DataFrame(counts / 50, columns=ACCURACIES)
        frames.append(frame.assign(method=method, seed=s, episode=range(n_episodes)))
    return pd.concat(frames, ignore_index=True)


def crossed(rng, n_seeds, n_episodes, between_seeds, between_episodes, residual=1.0):
    """A grid [seeds, episodes] whose true mean is zero."""
    values = residual * rng.standard_normal((n_seeds, n_episodes))
    values += between_seeds * rng.standard_normal((n_seeds, 1))
    return pd.DataFrame(values + between_episodes * rng.standard_normal((1, n_episodes)))


def synthetic(rng, truth, n_seeds=5, n_episodes=30, between_seeds=0.6, centred=False, spread=1.0):
    """Features whose effects are known; seeds crossed with episodes, episodes shared by methods.

    Every quantity varies between seeds (of each method), between episodes (in part alike for both
    methods) and by a residual, in percentage points. centred: what varies between seeds adds up to
    nothing, so that the truth holds for these very networks and not only for the methods. spread:
    of seeds, episodes and residual, as a multiple.
    """
    shape = (2, n_seeds, n_episodes)
    between_seeds *= spread

    def vary(truth, scale):
        scale *= spread
        values = np.asarray(truth, dtype=float)[:, None, None] + np.zeros(shape)
        seeds = between_seeds * rng.standard_normal((2, n_seeds, 1))
        values += seeds - seeds.mean(axis=1, keepdims=True) * centred
        values += scale * rng.standard_normal((1, 1, n_episodes))
        values += 0.5 * scale * rng.standard_normal((2, 1, n_episodes))
        return values + scale * rng.standard_normal(shape)

    same, other = 60 + vary(truth["skill"], 2), 60 + vary((0, 0), 2)
    method, seed, episode = np.indices(shape)
    columns = {
        "method": np.where(method == 0, MAML, META_SGD),
        "seed": seed,
        "episode": episode,
        "same_before": same / 100,
        "same_after": (same + vary(truth["on"], 1.5)) / 100,
        "other_before": other / 100,
        "other_after": (other + vary(truth["off"], 1.5)) / 100,
        "ordinary": (same - vary(truth["head"], 1.5)) / 100,
    }
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()})


def rates_table(means, updates=(0, 10)):
    """means: [seeds, 5 layers] at the last update; zero before, and rows of another group."""
    rows = [
        (seed, update, layer, group, mean * (update == updates[-1]) * (group != "batchnorm"))
        for seed, layers in enumerate(means)
        for update in updates
        for layer, mean in zip(RATE_SIGNS, layers, strict=True)
        for group in ("weights+bias", "batchnorm")
    ]
    return pd.DataFrame(rows, columns=["seed", "update", "layer", "group", "mean"])
