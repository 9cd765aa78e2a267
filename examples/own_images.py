"""Images of one's own, as PATH/{train,val,test}/CLASS/*.png: what an episode of them holds."""

import sys

from negmeta_utils.data.datasets import load
from negmeta_utils.episodes import draw_classes, draw_episodes

for split in ("train", "val", "test"):
    images = load(f"folder:{sys.argv[1]}", split, image_size=28)
    print(f"{split}: {images.n_classes} classes, {len(images.images)} images")

n_way = min(5, images.n_classes)
task = draw_episodes(images, 0, "test", range(1), n_way, n_shot=1, n_query=2)
classes = draw_classes(images.class_sizes, 0, "test", 0, n_way)
print("a task of", ", ".join(images.class_names[c] for c in classes))
print("support", tuple(task.support[0].shape), "query", tuple(task.query[0].shape))
