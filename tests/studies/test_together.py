import pytest
import small_studies
import torch

from negmeta_utils.config import TrainConfig
from negmeta_utils.gpu.drawing import stretches_of
from negmeta_utils.storage import files
from negmeta_utils.studies import cli, planning, study_file, together
from negmeta_utils.studies.values import TRAINING, notebook_defaults

pytest.importorskip("triton")


def jobs_of(out_dir, **overrides):
    given = {"train.n_updates": 4, "train.seed": [0, 1], **overrides}
    return planning.plan(study_file.read_study(study_file.find_study("demo"), given), out_dir)


@pytest.fixture
def groups(monkeypatch):
    """What is trained together, without training it."""
    from negmeta_utils.gpu import training as gpu_training

    found = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        gpu_training,
        "train_together",
        lambda configs, folders, *_: found.append((configs, folders)),
    )
    return found


def test_the_trainings_of_a_study_that_are_alike_train_together(groups, tmp_path):
    together.train_jobs(jobs_of(tmp_path), tmp_path, lambda text: None)
    ((configs, folders),) = groups
    assert {(c.method, c.seed) for c in configs} == {
        (method, seed) for method in ("maml", "meta-sgd") for seed in (0, 1)
    }
    assert all(c.device == "cuda" and c.n_updates == 4 for c in configs)
    assert [folder.parent for folder in folders] == 4 * [tmp_path]


def test_what_a_study_leaves_out_is_as_the_notebook_has_it(groups, tmp_path):
    path = tmp_path / "own.yml"
    small_studies.write_study(path, {"train": {"notebook": "01_train"}})
    (job,) = planning.plan(study_file.read_study(path, {}), tmp_path)
    together.train_jobs([job], tmp_path, lambda text: None)
    (((config,), _),) = groups
    defaults = notebook_defaults(job.notebook)
    asked = {name for name in TRAINING - {"device", "engine"} if defaults[name] is not None}
    assert {n: getattr(config, n) for n in asked} == {n: defaults[n] for n in asked}
    assert config.n_filters != TrainConfig().n_filters, "or this shows nothing"


def test_other_shapes_train_apart(groups, tmp_path):
    jobs = jobs_of(tmp_path / "a") + jobs_of(tmp_path / "b", **{"train.n_query": 3})
    together.train_jobs(jobs, tmp_path, lambda text: None)
    assert sorted(len(configs) for configs, _ in groups) == [4, 4]
    assert [sorted({c.n_query for c in configs}) for configs, _ in groups] in (
        [[3], [10]],
        [[10], [3]],
    )


def test_those_that_are_not_as_far_train_apart(groups, tmp_path):
    jobs = jobs_of(tmp_path)
    (tmp_path / jobs[1].name).mkdir()
    files.write_tensors(tmp_path / jobs[1].name / "checkpoint.safetensors", {}, {"update": 2})
    together.train_jobs(jobs, tmp_path, lambda text: None)
    assert sorted(len(configs) for configs, _ in groups) == [1, 3]


def test_trainings_halt_where_any_of_them_keeps_a_network():
    alike = {"dataset": "glyphs", "val_every": 40, "n_updates": 100}
    configs = [TrainConfig(**alike), TrainConfig(**alike, keep_at=[50])]
    assert [last for _, last in stretches_of(configs, 0)] == [40, 50, 80, 100]
    assert [last for _, last in stretches_of(configs, 50)] == [80, 100]


def test_where_they_cannot_it_says_so_and_leaves_them_to_their_notebooks(tmp_path, monkeypatch):
    from negmeta_utils.gpu import training as gpu_training

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(gpu_training, "train_together", lambda *_: "maml, seed 0: it fails")
    said = []
    together.train_jobs(jobs_of(tmp_path), tmp_path, said.append)
    assert said[-1] == "not side by side: maml, seed 0: it fails; each trains by itself"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_one_that_diverges_does_not_keep_the_others_waiting(groups, tmp_path, monkeypatch):
    from negmeta_utils.gpu import training as gpu_training

    def train(configs, folders, *_):
        groups.append(configs)
        raise FloatingPointError(f"{folders[0]}: the loss stopped being finite")

    monkeypatch.setattr(gpu_training, "train_together", train)
    jobs = jobs_of(tmp_path / "a") + jobs_of(tmp_path / "b", **{"train.n_query": 3})
    said = []
    together.train_jobs(jobs, tmp_path, said.append)
    assert len(groups) == 2
    assert sum("stopped being finite; each trains by itself" in line for line in said) == 2


def test_without_a_gpu_it_is_refused_in_one_line(tmp_path, capsys):
    assert cli.main(["study", "demo", "--out", str(tmp_path / "out"), "--together"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said == ["negmeta: device='cuda': no such CUDA device here; use device='auto' or 'cpu'"]
