"""One episode of the embedded glyphs, classified by a network that comes with the package."""

from negmeta_utils.adaptation import adapt
from negmeta_utils.data.datasets import load
from negmeta_utils.episodes import draw_episodes
from negmeta_utils.runs import load_run, network_of

run = load_run("glyphs-meta-sgd-0")
images = load("glyphs", "test", image_size=run.parameters["image_size"])
task = draw_episodes(images, 0, "test", range(1), n_way=5, n_shot=1, n_query=10)
adapted = adapt(run.params, run.alpha, task.support[0], task.support_labels, n_steps=5)

for name, params in {"before adaptation": run.params, "adapted": adapted}.items():
    answers = network_of(run).forward(params, task.query[0]).argmax(1)
    right = (answers == task.query_labels).float().mean()
    print(f"{name}: {right:.0%} of {len(answers)} query images right")
