"""Networks of one's own."""

import os
import sys
from functools import partial

import pytest
import torch
from tiny_network import TINY
from torch import nn

from negmeta_utils.adaptation import loss_of, task_loss
from negmeta_utils.networks.catalogue import find
from negmeta_utils.networks.modules import network
from negmeta_utils.networks.network import check_pass


class Tiny(nn.Module):
    """Two convolutions, the second in a block of its own, and a head without bias."""

    def __init__(self, n_way=3, channels=2, norm=None, end=None):
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3)
        self.norm = norm or nn.BatchNorm2d(4, track_running_stats=False)
        self.block = nn.Sequential(nn.Conv2d(4, 5, 3), nn.GroupNorm(1, 5), nn.ReLU())
        self.fc = nn.Linear(5, n_way, bias=False)
        self.end = end or nn.Identity()

    def forward(self, x):
        return self.end(self.fc(self.block(self.norm(self.stem(x)).relu()).mean((2, 3))))


def test_a_module_answers_as_it_would_itself():
    module, images = Tiny(), torch.rand(6, 2, 9, 9)
    own = network(module, head="fc")
    params = own.init(0, 2, 9, 3, 4)
    torch.testing.assert_close(own.forward(params, images), module(images))
    assert own.layers == ("stem", "block.0", "fc")
    assert own.layer_and_group("norm.bias") == ("stem", "batchnorm")
    assert own.layer_and_group("block.1.weight") == ("block.0", "norm")
    activations = own.activations(params, images)
    torch.testing.assert_close(activations["stem"], module.norm(module.stem(images)).flatten(1))
    assert activations["block.0"].shape == (6, 5), "the last are the embeddings"
    module.fc.weight.data.zero_()
    assert params["fc.weight"].abs().sum() > 0, "the network keeps weights of its own"


def test_layers_may_be_submodules():
    own = network(Tiny(), layers=["stem", "block"])
    assert own.layers == ("stem", "block", "fc")
    assert own.layer_and_group("norm.weight") == ("stem", "batchnorm")
    assert own.layer_and_group("block.0.bias") == ("block", "weights+bias")


class Backwards(nn.Module):
    """Declared in another order than called, and its head called by keyword."""

    def __init__(self):
        super().__init__()
        self.second, self.first = nn.Conv2d(4, 5, 3), nn.Conv2d(2, 4, 3)
        self.fc = nn.Linear(5, 3)
        self.register_buffer("mean", torch.ones(2, 1, 1))

    def forward(self, x):
        return self.fc(input=self.second(self.first(x - self.mean)).mean((2, 3)))


def test_the_layer_that_is_called_last_shows_the_embeddings():
    module, images = Backwards(), torch.rand(6, 2, 9, 9)
    own = network(module)
    activations = own.activations(own.init(0), images)
    assert {layer: tuple(a.shape) for layer, a in activations.items()} == {
        "first": (6, 4 * 7 * 7), "second": (6, 5),
    }  # fmt: skip
    torch.testing.assert_close(own.forward(own.init(0), images), module(images))
    check_pass(network(Backwards), own.init(0), images, 3)


class Again(nn.Module):
    """Calls its first layer twice, and one more behind the head."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.fc, self.aside = nn.Linear(2, 3), nn.Linear(2, 4)

    def forward(self, x):
        features = self.a(self.b(self.a(x))).mean((2, 3))
        logits = self.fc(features)
        self.aside(features)
        return logits


def test_a_layer_called_twice_or_behind_the_head_keeps_the_others_in_place():
    module, images = Again(), torch.rand(6, 2, 9, 9)
    own = network(module, head="fc")
    activations = own.activations(own.init(0), images)
    torch.testing.assert_close(activations["b"], module.b(module.a(images)).flatten(1))
    embeddings = module.a(module.b(module.a(images))).mean((2, 3))
    assert list(activations)[-1] == "a"
    torch.testing.assert_close(activations["a"], embeddings)
    torch.testing.assert_close(activations["aside"], module.aside(embeddings))


def test_gradients_go_through():
    own = network(Tiny())
    images, labels = torch.rand(6, 2, 9, 9), torch.tensor([0, 0, 1, 1, 2, 2])
    module = Tiny()
    params = {name: value.detach() for name, value in module.named_parameters()}

    def loss(params):
        return nn.functional.cross_entropy(own.forward(params, images), labels)

    found = torch.func.grad(loss)(params)
    nn.functional.cross_entropy(module(images), labels).backward()
    for name, value in module.named_parameters():
        torch.testing.assert_close(found[name], value.grad)


def test_a_class_is_made_under_the_seed():
    own = network(Tiny, n_way=4)
    first, again, other = (own.init(seed, 2, 9, 4, 8) for seed in (0, 0, 1))
    assert first["fc.weight"].shape == (4, 5)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])
    state = torch.random.get_rng_state()
    own.init(3, 2, 9, 4, 8)
    assert torch.equal(state, torch.random.get_rng_state()), "torch's own seed is left alone"


def test_its_weights_are_on_the_cpu_whatever_torchs_default_is():
    with torch.device("meta"):
        found = network(Tiny).init(0, 2, 9, 4, 8)
    assert {value.device.type for value in found.values()} == {"cpu"}


def test_a_file_of_ones_own(tmp_path):
    (tmp_path / "nets.py").write_text(TINY)
    own = find(f"{tmp_path}/nets.py:TinyNet", n_way=4, channels=3, image_size=9, n_filters=2)
    assert own.layers == ("conv", "fc")
    assert own.init(0, 3, 9, 4, 2)["fc.weight"].shape == (4, 3)


class Attention(nn.Module):
    """A class token and patches, attention between them, and the token's answer."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.patches = nn.Conv2d(2, 8, 3, 3)
        self.attention = nn.MultiheadAttention(8, 2, dropout, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        tokens = self.token.expand(len(x), -1, -1), self.patches(x).flatten(2).mT
        tokens = torch.cat(tokens, 1)
        return self.fc(self.attention(tokens, tokens, tokens, need_weights=False)[0][:, 0])


def test_a_transformer_has_layers_and_second_derivatives():
    """torch's fast attention has no second derivative; its own equals it."""
    own, images = network(Attention()), torch.rand(6, 2, 9, 9)
    assert own.layers == ("patches", "attention", "fc")
    assert own.layer_and_group("token") == ("patches", "weights+bias")
    assert own.layer_and_group("attention.out_proj.weight") == ("attention", "weights+bias")
    params = own.init(0)
    assert own.activations(params, images)["attention"].shape == (6, 8), "the embedding"
    rates = {name: torch.full((), 0.1) for name in params}
    labels = torch.tensor([0, 1, 2] * 2)

    def after_a_step(params):
        return task_loss(params, rates, *[images, labels] * 2, 1, loss=loss_of(own))[0]

    name, step = "attention.in_proj_weight", 1e-2
    gradient = torch.func.grad(after_a_step)(params)[name]
    direction = gradient / gradient.norm()
    moved = [after_a_step({**params, name: params[name] + s * direction}) for s in (step, -step)]
    assert float(moved[0] - moved[1]) / 2 / step == pytest.approx(float(gradient.norm()), rel=0.02)


def test_torchs_advice_on_running_statistics_works():
    """As the refusal says, of a module made by others, whose weights stay as they are."""
    module = Tiny(norm=nn.BatchNorm2d(4))
    torch.func.replace_all_batch_norm_modules_(module)
    images = torch.rand(6, 2, 9, 9)
    own = network(module)
    torch.testing.assert_close(own.forward(own.init(0), images), module(images))


class Looks(Tiny):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5, training=self.training))


class Unflat(Tiny):
    def forward(self, x):
        return self.fc(self.block(self.norm(self.stem(x)).relu()).mean(3).mT)


class Idle(Tiny):
    def forward(self, x):
        return self.fc(torch.cat([self.norm(self.stem(x)).mean((2, 3)), x.mean((2, 3))[:, :1]], 1))


class Lucky(Tiny):
    def __init__(self):
        super().__init__()
        self.register_buffer("noise", torch.rand(2, 1, 1))


class Gaps(Tiny):
    """A buffer that is always the same, and partly no number."""

    def __init__(self):
        super().__init__()
        self.register_buffer("gaps", torch.tensor([0.0, float("nan")]))


def test_a_buffer_may_hold_nan():
    assert network(Gaps).buffers["gaps"].isnan().sum() == 1


class Odd(Tiny):
    """Buffers that are sparse, or complex and partly no number."""

    def __init__(self):
        super().__init__()
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.register_buffer("complex", torch.tensor([1j, float("nan")]))


def test_a_buffer_may_be_of_any_kind():
    assert set(network(Odd).buffers) == {"sparse", "complex"}


def test_a_network_with_buffers_can_be_a_key():
    one, other = network(Gaps), network(Gaps)
    assert {one: "one", other: "other"}[one] == "one" and one != other


def frozen():
    module = Tiny()
    module.stem.requires_grad_(False)
    return module


def broken(n_way):
    raise RuntimeError("no weights here")


REFUSED = {
    "a random buffer": (lambda: network(Lucky), "the buffer 'noise' of Lucky is drawn at random"),
    "a frozen layer": (
        lambda: network(frozen()),
        r"Tiny.stem.weight is frozen, .* buffer, or let it learn by requires_grad_\(True\)",
    ),
    "no constructor": (
        lambda: network(lambda: 1 / 0),
        r"cannot be made \(ZeroDivisionError: division by zero\)$",
    ),
    "no name": (
        lambda: network(partial(broken, 3)),
        r"cannot be made \(RuntimeError: no weights here\)$",
    ),
    "running statistics": (
        lambda: network(Tiny(norm=nn.BatchNorm2d(4))),
        "Tiny.norm keeps running statistics, .* call torch.func.replace_all_batch_norm_modules_",
    ),
    "running statistics of another kind": (
        lambda: network(Tiny(norm=nn.InstanceNorm2d(4, track_running_stats=True))),
        r"make it InstanceNorm2d\(…, track_running_stats=False\)",
    ),
    "dropout": (lambda: network(Tiny(end=nn.Dropout(0.5))), "Tiny.end has dropout, .*take it out"),
    "dropout in attention": (lambda: network(Attention(0.1)), "Attention.attention has dropout"),
    "no head": (lambda: network(Tiny(), head="fcc"), r"head='fcc': .*\(nearest: 'fc'\); it has fc"),
    "no linear": (lambda: network(nn.Conv2d(1, 1, 3)), "head: Conv2d has no linear layer"),
    "no layer": (lambda: network(Tiny(), layers=["blok"]), r"no 'blok' .*\(nearest: 'block'\)"),
    "a layer lacks": (
        lambda: network(Tiny(), layers=["block"]),
        "'stem.weight' .* is in none",
    ),
    "needs more": (lambda: network(lambda depth: Tiny()), "cannot be made .*channels, image_size"),
    "no module": (lambda: network(lambda: 3), "gives a int, no nn.Module"),
    "no body": (lambda: network(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))), "nothing before"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused(case):
    make, said = REFUSED[case]
    with pytest.raises(ValueError, match=said) as refused:
        make()
    assert "\n" not in str(refused.value)


class Asserting(Tiny):
    def forward(self, x):
        assert x.shape[1] == 7


class Flat(Tiny):
    def forward(self, x):
        n, p = x.shape
        return super().forward(x)


class Draws(Tiny):
    def forward(self, x):
        torch.rand(1)
        return super().forward(x)


class HeadFirst(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(162, 3), nn.Linear(3, 3))

    def forward(self, x):
        logits = self[0](x.flatten(1))
        self[1](logits)
        return logits


class Behind(Looks):
    """Its head answers nothing yet, so that dropout before it does not show."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.fc.weight)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Asserting(), r"Asserting with these params takes no images of 2x9x9 \(assert"),
        (Flat(), r"Flat with these params takes no images of 2x9x9 \(too many values"),
        (Behind(), "Behind draws random numbers in its forward pass; take them out"),
        (Draws(), "Draws draws random numbers in its forward pass; take them out"),
        (Unflat(), "not a vector an image; flatten it"),
        (Idle(), "'block.0' of Idle takes no part"),
        (Tiny(end=nn.LogSoftmax(1)), "head='fc': what Tiny returns is not what its head answers"),
        (Looks(), "two looks of Looks at one image differ; take its dropout out"),
        (Tiny(channels=3), r"Tiny with these params takes no images of 2x9x9 \("),
        (Tiny(n_way=2), "n_way=3: the head of Tiny answers 2 classes"),
    ],
)
def test_what_only_a_forward_pass_shows_is_refused_there(module, said):
    own = network(module)
    with pytest.raises(ValueError, match=said):
        check_pass(own, own.init(0), torch.rand(4, 2, 9, 9), 3)


def test_a_head_that_is_called_before_all_layers_is_refused():
    own = network(HeadFirst(), head="0")
    with pytest.raises(ValueError, match="head='0': no layer of HeadFirst is called before it"):
        check_pass(own, own.init(0), torch.rand(4, 2, 9, 9), 3)


def test_a_file_is_executed_as_it_is_now(tmp_path, monkeypatch):
    """Python's bytecode is known by length and second alone."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "nets.py"
    for filters in (3, 5):
        file.write_text(TINY.replace("width=3", f"width={filters}"))
        os.utime(file, (0, 0))
        own = find(f"{file}:TinyNet", channels=3, image_size=16, n_way=5, n_filters=8)
        assert own.init(0, 3, 16, 5, 8)["conv.weight"].shape[0] == filters


def test_the_modules_own_weights_do_not_step_in():
    own = network(Tiny())
    params = own.init(0)
    del params["norm.bias"]
    with pytest.raises(ValueError, match="params: 'norm.bias' of Tiny is missing"):
        own.activations(params, torch.rand(4, 2, 9, 9))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("conv5", "network='conv5': not one of conv4, resnet12"),
        ("nowhere.py:Net", "no file .*nowhere.py"),
        ("{folder}/nets.py:Net", "nets.py has no class or function Net"),
        ("{folder}/broken.py:Net", "cannot be executed"),
        ("{folder}/ends.py:Net", r"cannot be executed \(SystemExit\)"),
    ],
)
def test_names_that_lead_nowhere(tmp_path, name, said):
    (tmp_path / "nets.py").write_text(TINY)
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found")
    (tmp_path / "ends.py").write_text("raise SystemExit")
    with pytest.raises(ValueError, match=said):
        find(name.format(folder=tmp_path))
