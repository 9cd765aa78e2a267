import numpy as np
import pytest
import torch

from negmeta_utils.episodes import check_episode_fits, draw_classes, draw_episodes, draw_rows

SIZES = np.array([6, 7, 8] * 4)
CLASS_OF_ROW = np.repeat(np.arange(12), SIZES)


def test_an_episode_never_repeats_a_class_or_an_image():
    for index in range(200):
        rows = draw_rows(SIZES, 0, "train", index, n_way=5, n_per_class=6)
        classes = CLASS_OF_ROW[rows]
        assert (classes == classes[:, :1]).all(), "a row of an episode is one class"
        assert len(set(classes[:, 0])) == 5
        assert len(np.unique(rows)) == rows.size, "so support and query share no image either"


def test_draw_classes_names_the_classes_of_draw_rows():
    for index in range(20):
        rows = draw_rows(SIZES, 3, "test", index, n_way=4, n_per_class=2)
        assert (draw_classes(SIZES, 3, "test", index, 4) == CLASS_OF_ROW[rows[:, 0]]).all()


def test_episodes_are_the_same_for_any_batch_size(random_images):
    whole = draw_episodes(random_images, 0, "train", range(6), 3, 1, 2)
    parts = [draw_episodes(random_images, 0, "train", range(i, i + 2), 3, 1, 2) for i in (0, 2, 4)]
    assert torch.equal(whole.support, torch.cat([p.support for p in parts]))
    assert torch.equal(whole.query, torch.cat([p.query for p in parts]))


def test_seed_stream_and_index_all_change_the_episode():
    def draw(*key):
        return draw_rows(SIZES, *key, n_way=5, n_per_class=6).tolist()

    drawn = [draw(0, "train", 0), draw(1, "train", 0), draw(0, "val", 0), draw(0, "train", 1)]
    assert len({str(rows) for rows in drawn}) == 4
    assert draw(0, "train", 0) == drawn[0]


def test_images_and_labels_are_those_of_the_rows(random_images):
    episodes = draw_episodes(random_images, 0, "test", range(2), n_way=3, n_shot=2, n_query=4)
    assert episodes.support.shape == (2, 6, 1, 16, 16)
    assert episodes.query.shape == (2, 12, 1, 16, 16)
    assert episodes.support_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert episodes.query_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for task in range(2):
        rows = draw_rows(random_images.class_sizes, 0, "test", task, n_way=3, n_per_class=6)
        support = (episodes.support[task, :, 0, 0, 0] * 255).round().int().view(3, 2)
        query = (episodes.query[task, :, 0, 0, 0] * 255).round().int().view(3, 4)
        assert (torch.cat([support, query], 1).numpy() == rows).all()


@pytest.mark.slow
def test_every_class_and_image_is_drawn_about_equally_often():
    rows = np.concatenate(
        [draw_rows(SIZES, 0, "train", i, n_way=3, n_per_class=2).ravel() for i in range(4000)]
    )
    counts = np.bincount(CLASS_OF_ROW[rows], minlength=12)
    # A class is in an episode with probability 1/4: mean 2000 images, deviation 77.
    assert np.abs(counts - 2000).max() < 5 * 77
    assert np.bincount(rows, minlength=SIZES.sum()).min() > 0


@pytest.mark.parametrize(
    ("n_way", "n_per_class", "message"),
    [
        (13, 2, "n_way=13: this split has 12 classes"),
        (2, 7, "'class 0' of this split has 6 images"),
    ],
)
def test_an_episode_larger_than_the_split_is_refused(random_images, n_way, n_per_class, message):
    with pytest.raises(ValueError, match=message):
        check_episode_fits(random_images, n_way, n_per_class)
