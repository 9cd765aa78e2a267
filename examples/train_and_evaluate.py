"""Train a small Meta-SGD network, then see what adaptation does to its features."""

import sys
import tempfile

from negmeta_utils.config import TrainConfig
from negmeta_utils.evaluation import evaluate_features, shared_test_images
from negmeta_utils.training import train

n_updates = int(sys.argv[1]) if len(sys.argv) > 1 else 60
config = TrainConfig(
    dataset="glyphs", method="meta-sgd", n_filters=16, n_updates=n_updates, val_every=20,
    val_episodes=10, test_episodes=60,
)  # fmt: skip
run = train(config, tempfile.mkdtemp(), report=print)
print(f"{run.directory}: test accuracy {run.manifest['results']['test_accuracy']:.1%}")

images = shared_test_images([run], data_dir=None)
table = evaluate_features(run, images, n_episodes=20)
print(table[["same_before", "same_after", "other_before", "other_after", "ordinary"]].mean())
