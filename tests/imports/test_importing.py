"""Weights of other libraries. The oracle for each is its own network, written down from its
documentation, with random weights, saved as that library saves them."""

import pytest
import torch
from oracles import FILTERS, N_WAY, Oracle, block, blocks, named
from safetensors.torch import save_file
from torch import nn

from negmeta_utils.imports import importing
from negmeta_utils.imports.importing import import_run
from negmeta_utils.networks import catalogue
from negmeta_utils.runs import network_of
from negmeta_utils.studies import cli
from negmeta_utils.studies.cli import main


def few_shot():
    return Oracle(blocks(), FILTERS * 4, named("conv{}.0", "conv{}.1", "logits")).double()


def learn2learn(body="features", head="classifier", **options):
    keys = named(f"module.{body}.{{}}.conv", f"module.{body}.{{}}.normalize", f"module.{head}", 0)
    return Oracle(blocks(**options), FILTERS * 4, keys)


def learn2learn_omniglot(head="classifier", **options):
    body = blocks(1, order="conv norm relu", stride=2, **options)[:-1]
    body = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Oracle(body, FILTERS, named("base.{}.conv", "base.{}.normalize", head, 0))


# Batch normalisation of learn2learn 0.0.4; in later releases these are comments.
OF_2019 = {"eps": 1e-3, "track": False}


def maml_pytorch():
    body = [block(3 if b == 0 else FILTERS, FILTERS, "conv relu norm pool", padding=0,
                  last=1 if b == 3 else 2) for b in range(4)]  # fmt: skip
    return Oracle(nn.Sequential(*body, nn.Flatten()), FILTERS * 25, None)


def maml_pytorch_state(oracle):
    """Its parameters are a list, in the order of conv, norm of each block, and the head."""
    state = {}
    for b in range(4):
        parts = oracle.body[b].conv, oracle.body[b].norm
        values = [value for part in parts for value in (part.weight, part.bias)]
        state |= {f"net.vars.{4 * b + n}": value.data for n, value in enumerate(values)}
        state[f"net.vars_bn.{2 * b}"] = oracle.body[b].norm.running_mean
        state[f"net.vars_bn.{2 * b + 1}"] = oracle.body[b].norm.running_var
    return state | {"net.vars.16": oracle.head.weight.data, "net.vars.17": oracle.head.bias.data}


def libfewshot(slope=0.0):
    keys = named("emb_func.layer{}.0", "emb_func.layer{}.1", "classifier.layers.0")
    return Oracle(blocks(slope=slope), FILTERS * 4, keys)


def torchmeta(conv, norm, first):
    return Oracle(blocks(track=False), FILTERS * 4, named(conv, norm, "classifier", first))


class Feat(nn.Module):
    """easy-few-shot-learning's feat_resnet12, a block."""

    def __init__(self, inputs, width):
        super().__init__()
        for n, before in enumerate((inputs, width, width), 1):
            setattr(self, f"conv{n}", nn.Conv2d(before, width, 3, padding=1, bias=False))
            setattr(self, f"bn{n}", nn.BatchNorm2d(width))
        shortcut = nn.Conv2d(inputs, width, 1, bias=False)
        self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(width))
        self.relu, self.maxpool = nn.LeakyReLU(0.1), nn.MaxPool2d(2)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        return self.maxpool(self.relu(out + self.downsample(x)))


class FeatResNet12(nn.Module):
    def __init__(self, n_filters=4):
        super().__init__()
        widths = [3, *(n_filters * w // 64 for w in (64, 160, 320, 640))]
        for n in range(1, 5):
            setattr(self, f"layer{n}", nn.Sequential(Feat(widths[n - 1], widths[n])))

    def forward(self, x):
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((-2, -1))


# library: oracle, its network here, image size, how its state_dict is made
LIBRARIES = {
    "few-shot": (few_shot, "conv4", 32, Oracle.state),
    "learn2learn": (learn2learn, "conv4", 32, Oracle.state),
    "learn2learn without statistics": (
        lambda: learn2learn(track=False), "conv4", 32, Oracle.state,
    ),
    "learn2learn 0.1.3": (lambda: learn2learn("features.0"), "conv4", 32, Oracle.state),
    "learn2learn 0.1.0": (lambda: learn2learn("base", "linear"), "conv4", 32, Oracle.state),
    "learn2learn 0.0": (
        lambda: learn2learn("base", "linear", **OF_2019), "learn2learn-0.0", 32, Oracle.state,
    ),
    "learn2learn (Omniglot)": (learn2learn_omniglot, "learn2learn-omniglot", 28, Oracle.state),
    "learn2learn 0.1.0 (Omniglot)": (
        lambda: learn2learn_omniglot("linear"), "learn2learn-omniglot", 28, Oracle.state,
    ),
    "learn2learn 0.0 (Omniglot)": (
        lambda: learn2learn_omniglot("linear", **OF_2019), "learn2learn-0.0-omniglot", 28,
        Oracle.state,
    ),
    "MAML-Pytorch": (maml_pytorch, "maml-pytorch", 84, maml_pytorch_state),
    "LibFewShot": (libfewshot, "conv4", 32, Oracle.state),
    "torchmeta": (
        lambda: torchmeta("features.{}.0", "features.{}.1", 0), "conv4", 32, Oracle.state,
    ),
    "torchmeta, named": (
        lambda: torchmeta("features.layer{}.conv", "features.layer{}.norm", 1),
        "conv4", 32, Oracle.state,
    ),
}  # fmt: skip


def check_logits(run, oracle, size, channels=3):
    images = torch.rand(7, channels, size, size)
    found = network_of(run).forward(run.params, images)
    oracle.train()
    expected = oracle.float()(images)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_same_logits_as_in_their_own_library(tmp_path, library):
    make, name, size, state_of = LIBRARIES[library]
    oracle = make()
    torch.save(state_of(oracle), tmp_path / "theirs.pt")
    dataset = "omniglot" if "Omniglot" in library else "mini-imagenet"
    run = import_run(tmp_path / "theirs.pt", tmp_path / "run", image_size=size, dataset=dataset)
    assert run.parameters["network"] == name
    assert (run.parameters["n_way"], run.parameters["n_filters"]) == (N_WAY, FILTERS)
    check_logits(run, oracle, size, 1 if dataset == "omniglot" else 3)


def test_leaky_blocks_of_libfewshot_when_told(tmp_path):
    oracle = libfewshot(slope=0.2)
    torch.save({"model": oracle.state(), "epoch": 3}, tmp_path / "theirs.pth")
    run = import_run(
        tmp_path / "theirs.pth", tmp_path / "run", image_size=32, network="conv64f-leaky"
    )
    check_logits(run, oracle, 32)


def test_a_body_that_two_releases_may_have_written_is_asked_about(tmp_path):
    oracle = learn2learn_omniglot(track=False)
    body = {key: value for key, value in oracle.state().items() if key.startswith("base.")}
    torch.save(body, tmp_path / "theirs.pt")
    told = {"dataset": "omniglot", "image_size": 28}
    with pytest.raises(ValueError, match="learn2learn-0.0-omniglot; say which with --network"):
        import_run(tmp_path / "theirs.pt", tmp_path / "run", **told)
    for network in ("learn2learn-omniglot", "learn2learn-0.0-omniglot", "conv4"):
        run = import_run(tmp_path / "theirs.pt", tmp_path / network, network=network, **told)
        assert network_of(run).name == network
    twins = {key.replace("base", "features.1"): value for key, value in body.items()}
    torch.save(body | twins, tmp_path / "later.pt")
    run = import_run(tmp_path / "later.pt", tmp_path / "later", **told)
    assert network_of(run).name == "learn2learn-omniglot"


def test_an_import_for_a_network_of_another_version_is_to_be_made_again(tmp_path):
    torch.save(learn2learn().state(), tmp_path / "theirs.pt")
    run = import_run(tmp_path / "theirs.pt", tmp_path / "run", image_size=32)
    run.manifest["parameters"]["network"] = "learn2learn-0.1.3"
    with pytest.raises(ValueError, match="this version has not; import theirs.pt again, into ano"):
        network_of(run)


def test_a_body_without_head_is_a_prototypical_network(tmp_path):
    oracle = FeatResNet12().train()
    torch.save(oracle.state_dict(), tmp_path / "theirs.pth")
    run = import_run(tmp_path / "theirs.pth", tmp_path / "run", image_size=32)
    assert (run.parameters["network"], run.parameters["method"]) == ("resnet12", "protonet")
    images = torch.rand(5, 3, 32, 32)
    torch.testing.assert_close(network_of(run).embed(run.params, images), oracle(images))
    assert run.params["logits.weight"].abs().max() == 0
    with pytest.raises(ValueError, match="no linear layer in it, which maml adapts"):
        import_run(tmp_path / "theirs.pth", tmp_path / "other", image_size=32, method="maml")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_meta_sgds_rates_come_along(tmp_path, suffix):
    """learn2learn lists rates in the order of parameters(), where normalisation comes first."""
    oracle = learn2learn()
    state, rates = oracle.state(), {}
    for number, b in enumerate(range(4)):
        for place, part in enumerate(("normalize", "conv")):
            for kind, name in enumerate(("weight", "bias")):
                value = state[f"module.features.{b}.{part}.{name}"]
                rates[f"lrs.{4 * number + 2 * place + kind}"] = torch.randn(value.shape)
    rates["lrs.16"], rates["lrs.17"] = torch.randn(N_WAY, FILTERS * 4), torch.randn(N_WAY)
    file = tmp_path / f"theirs.{suffix}"
    (torch.save if suffix == "pt" else save_file)({**state, **rates}, file)
    run = import_run(file, tmp_path / "run", image_size=32, seed=7)
    assert run.parameters["method"] == "meta-sgd"
    torch.testing.assert_close(run.alpha["norm1.bias"], rates["lrs.1"])
    torch.testing.assert_close(run.alpha["conv2.weight"], rates["lrs.6"])
    torch.testing.assert_close(run.alpha["logits.bias"], rates["lrs.17"])
    row = run.rates().set_index(["layer", "group"]).loc["conv2", "weights+bias"]
    expected = torch.cat([rates["lrs.6"].flatten(), rates["lrs.7"]]).mean()
    assert row["mean"] == pytest.approx(float(expected), abs=1e-6)
    with pytest.raises(ValueError, match="has rates of its own; use meta-sgd"):
        import_run(file, tmp_path / "other", image_size=32, method="maml")


def test_the_manifest_says_what_is_known(tmp_path, capsys):
    oracle = few_shot()
    torch.save(oracle.state(), tmp_path / "theirs.pt")
    arguments = ["import", f"{tmp_path}/theirs.pt", "--out", f"{tmp_path}/run"]
    assert main([*arguments, "--image-size", "32", "--inner-steps", "3"]) == 0
    assert "Assumed, not known: dataset=mini-imagenet" in capsys.readouterr().out
    run = import_run(tmp_path / "theirs.pt", tmp_path / "run", image_size=32, inner_steps=3)
    imported = run.manifest["imported"]
    assert imported["file"] == "theirs.pt" and len(imported["sha256"]) == 64
    assert imported["library"] == "few-shot" and imported["dtype"] == "float64"
    assert {"method", "inner_lr", "n_query"} <= set(imported["assumed"])
    assert {"n_way", "n_filters", "network", "inner_steps"}.isdisjoint(imported["assumed"])
    assert {"seed", "n_updates", "outer_lr"} <= set(imported["unknown"])
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    left_out = {f"conv{block}.1.{name}" for block in range(1, 5) for name in statistics}
    assert set(imported["left_out"]) == left_out & set(oracle.state())
    assert run.parameters["seed"] < 0 and run.parameters["n_updates"] is None
    torch.save(learn2learn().state(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds another run; choose another folder"):
        import_run(tmp_path / "other.pt", tmp_path / "run", image_size=32)


NETS = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, n_way, channels):
        norm = nn.BatchNorm2d(4, track_running_stats=False)
        pool = nn.AdaptiveAvgPool2d(1)
        super().__init__(nn.Conv2d(channels, 4, 3), norm, pool, nn.Flatten(), nn.Linear(4, n_way))
"""


MLP = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, n_way, channels, image_size):
        super().__init__(
            nn.Flatten(), nn.Linear(channels * image_size**2, 8), nn.ReLU(), nn.Linear(8, n_way)
        )
"""


def test_an_import_is_not_called_as_a_network_of_a_run(tmp_path):
    torch.save(few_shot().state(), tmp_path / "theirs.pt")
    with pytest.raises(ValueError, match="net@5: what follows an @ names a network of a run"):
        import_run(tmp_path / "theirs.pt", tmp_path / "net@5", image_size=32)
    assert not (tmp_path / "net@5").exists()


def test_a_network_without_convolutions_takes_the_images_of_its_data_set(tmp_path):
    (tmp_path / "nets.py").write_text(MLP)
    own = catalogue.find(f"{tmp_path}/nets.py:Net", channels=1, image_size=28, n_way=5)
    torch.save(own.init(0, 1, 28, 5, 8), tmp_path / "own.pt")
    run = import_run(
        tmp_path / "own.pt", tmp_path / "run", network=f"{tmp_path}/nets.py:Net", dataset="glyphs",
        n_way=5,
    )  # fmt: skip
    assert run.params["1.weight"].shape == (8, 28 * 28)


def test_sizes_that_were_assumed_are_named_where_shapes_differ(tmp_path):
    torch.save(few_shot().state(), tmp_path / "theirs.pt")
    with pytest.raises(ValueError, match=r"'logits.weight' is \[5, 24\], wanted") as told:
        import_run(tmp_path / "theirs.pt", tmp_path / "run")
    last = str(told.value).splitlines()[-1]
    assert "wanted for image_size=84, n_way=5, n_filters=6; give those of the file" in last


CENTRED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, n_way, n_filters):
        super().__init__()
        self.register_buffer("mean", torch.full((28, 1), 0.5))
        self.conv1 = nn.Conv1d(28, n_filters, 3)
        self.fc = nn.Linear(n_filters, n_way)

    def forward(self, x):
        return self.fc(self.conv1(x.mean(1) - self.mean).relu().mean(2))
"""


@pytest.mark.parametrize("wrapped", ["", "module."])
def test_buffers_of_a_module_of_ones_own_are_those_that_it_makes(tmp_path, wrapped):
    (tmp_path / "nets.py").write_text(CENTRED)
    name = f"{tmp_path}/nets.py:Net"
    own = catalogue.find(name, channels=1, image_size=28, n_way=5, n_filters=64)
    params = own.init(0, 1, 28, 5, 64)
    state = {wrapped + key: value for key, value in {**own.buffers, **params}.items()}
    torch.save(state, tmp_path / "own.pt")
    run = import_run(tmp_path / "own.pt", tmp_path / "run", network=name, dataset="glyphs")
    assert run.params.keys() == params.keys()
    assert run.manifest["imported"]["left_out"] == [f"{wrapped}mean"]
    torch.save({**state, f"{wrapped}mean": torch.ones(28, 1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=f"the buffer {wrapped}mean is another than .*Net makes"):
        import_run(tmp_path / "other.pt", tmp_path / "other", network=name, dataset="glyphs")


@pytest.mark.parametrize("wrapped", ["", "module."])
def test_a_module_of_ones_own_needs_no_mapping(tmp_path, wrapped):
    """Its file's keys are its own names, and it may have been trained with running statistics."""
    (tmp_path / "nets.py").write_text(NETS)
    norm, pool = nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1)
    oracle = nn.Sequential(nn.Conv2d(3, 4, 3), norm, pool, nn.Flatten(), nn.Linear(4, N_WAY))
    state = {wrapped + name: value for name, value in oracle.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "theirs.pt")
    given = {"image_size": 32, "network": f"{tmp_path}/nets.py:Net"}
    run = import_run(tmp_path / "theirs.pt", tmp_path / "run", **given)
    check_logits(run, oracle, 32)
    state[f"{wrapped}5.weight"] = state.pop(f"{wrapped}4.weight")
    torch.save(state, tmp_path / "theirs.pt")
    with pytest.raises(ValueError, match="5.weight: no parameter of the network") as told:
        import_run(tmp_path / "theirs.pt", tmp_path / "other", **given)
    assert "4.weight: nothing is named for it; wanted [5, 4]" in str(told.value)


def test_a_mapping_of_ones_own(tmp_path):
    oracle = few_shot().float()
    state = {f"deep.{key}": value for key, value in oracle.state().items()}
    state["rate"] = torch.rand(N_WAY)
    torch.save(state, tmp_path / "theirs.pt")
    lines = ["network: conv4", "keys:"]
    for b in range(1, 5):
        for ours, place in ((f"conv{b}", 0), (f"norm{b}", 1)):
            lines += [f"  {ours}.{k}: deep.conv{b}.{place}.{k}" for k in ("weight", "bias")]
    lines += [f"  logits.{kind}: deep.logits.{kind}" for kind in ("weight", "bias")]
    mapping = tmp_path / "keys.yml"
    mapping.write_text("\n".join(lines))
    run = import_run(tmp_path / "theirs.pt", tmp_path / "run", mapping, image_size=32)
    check_logits(run, oracle, 32)
    mapping.write_text("\n".join([*lines, "  norm5.bias: rate"]))
    with pytest.raises(
        ValueError, match=r"norm5.bias: no parameter of the network \(nearest: 'norm"
    ):
        import_run(tmp_path / "theirs.pt", tmp_path / "other", mapping, image_size=32)
    mapping.write_text("\n".join([*lines, "rates: {logits.bias: rate}"]))
    with pytest.raises(ValueError, match="conv1.weight: nothing is named for it; wanted") as told:
        import_run(tmp_path / "theirs.pt", tmp_path / "other", mapping, image_size=32)
    assert len(str(told.value).splitlines()) == 17, "a line for each of the others"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("network: conv4", "must have network and keys"),
        ("network: [conv4]\nkeys: {}", "network must be a name, or a FILE.py:CLASS"),
        ("network: conv9\nkeys: {}", "network='conv9': not one of"),
        ("network: conv4\nkeys: {a: 3}", "keys must be lines of NAME: KEY"),
        ("network: conv4\nkeys: {}\nrate: {}", "'rate' has no meaning"),
        ("keys: [", "not YAML"),
        ("network: conv4\nkeys: {a: b, a: c}", "'a' stands twice"),
    ],
)
def test_mappings_that_are_none(tmp_path, text, said):
    torch.save(few_shot().state(), tmp_path / "theirs.pt")
    (tmp_path / "keys.yml").write_text(text)
    with pytest.raises(ValueError, match=said):
        import_run(tmp_path / "theirs.pt", tmp_path / "run", tmp_path / "keys.yml")


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


MISFITS = {
    "another size": (
        lambda state: state, {"image_size": 84},
        r"logits.weight: 'logits.weight' is \[5, 24\], wanted \[5, 150\]",
    ),
    "renamed": (
        lambda state: {k.replace("conv3.1.", "conv3.norm."): v for k, v in state.items()}, {},
        r"most like few-shot, but without 'conv3.1.weight' \(nearest: 'conv3.norm.weight'\)",
    ),
    "one lacks": (
        lambda state: without(state, "logits.bias"), {}, "logits.bias: nothing is named for it",
    ),
    "transposed": (
        lambda state: {**state, "logits.weight": state["logits.weight"].T}, {},
        r"logits.weight: 'logits.weight' is \[24, 5\], wanted \[24, 24\]",
    ),
    "a fifth block": (
        lambda state: {**state, "conv5.0.weight": state["conv4.0.weight"]}, {},
        "conv5.0.weight has no place in conv4, as which few-shot is read",
    ),
    "whole numbers": (
        lambda state: {**state, "conv2.0.bias": torch.zeros(FILTERS, dtype=torch.int64)}, {},
        "'conv2.0.bias' holds torch.int64",
    ),
    "not finite": (
        lambda state: {**state, "conv2.0.bias": torch.full((FILTERS,), float("nan"))}, {},
        "conv2.0.bias holds values that are not finite",
    ),
    "no rates": (lambda state: state, {"method": "meta-sgd"}, "no rates that are known"),
    "no such parameter": (lambda state: state, {"outer": 3}, "outer: not one of dataset"),
    "against the file": (lambda state: state, {"n_way": 6}, "n_way=6: the file has 5"),
    "claims a terabyte": (
        lambda state: {**state, "conv1.0.weight": torch.zeros(1).expand(10**9, 3, 3, 3)}, {},
        "conv1.0.weight claims 108000000000 bytes, more than the file holds",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_said_in_a_line(tmp_path, case):
    change, given, said = MISFITS[case]
    torch.save(change(few_shot().state()), tmp_path / "theirs.pt")
    with pytest.raises(ValueError, match=said) as told:
        import_run(tmp_path / "theirs.pt", tmp_path / "run", **{"image_size": 32, **given})
    assert all(len(line) < 300 for line in str(told.value).splitlines())
    assert not (tmp_path / "run").exists(), "nothing is written of what is refused"


def test_the_command_line_takes_what_an_import_may_be_given():
    assert set(cli.KNOWN) == set(importing.KNOWN)
