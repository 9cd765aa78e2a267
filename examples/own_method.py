"""A method of one's own: first-order Meta-SGD, trained as any other."""

import sys
import tempfile

from negmeta_utils.adaptation import METHODS, Method
from negmeta_utils.config import TrainConfig
from negmeta_utils.training import train

n_updates = int(sys.argv[1]) if len(sys.argv) > 1 else 60
METHODS["fo-meta-sgd"] = Method(learns_alpha=True, first_order=True)
config = TrainConfig(
    dataset="glyphs", method="fo-meta-sgd", n_filters=16, n_updates=n_updates, val_every=20,
    val_episodes=10, test_episodes=60,
)  # fmt: skip
run = train(config, tempfile.mkdtemp(), report=print)
print(f"test accuracy {run.manifest['results']['test_accuracy']:.1%}")
weights = run.rates().query("group == 'weights+bias'")
print(weights.tail(5)[["layer", "mean", "share_negative"]])
