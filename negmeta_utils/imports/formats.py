"""How other libraries call the parameters of a network, and how a mapping of one's own does.

Every library's names are those of its own code at the version in `FORMATS`. A file is recognised
from its keys; running statistics of batch normalisation are left where they are, since this study
normalises by the batch's own.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from negmeta_utils.data.names import nearest
from negmeta_utils.networks.catalogue import check_name
from negmeta_utils.storage import strict_yaml

# Wrappers of modules, whose names stand before a parameter's.
PREFIXES = ("", "module.", "model.", "net.", "network.", "module.module.", "model.module.")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def without_prefix(named: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors by their keys without the wrapper's prefix that all of these have, and without the
    count that `torch.optim.swa_utils.AveragedModel` keeps beside its module."""
    own = {key: value for key, value in named.items() if key != "n_averaged"}
    prefix = max((p for p in PREFIXES if all(key.startswith(p) for key in own)), key=len)
    return {key.removeprefix(prefix): value for key, value in own.items()}


class Format(NamedTuple):
    """One library's network.

    library: in words. network: the name in `NETWORKS`.
    keys: the library's names of parameters by ours, in the order of its rates.
    without_statistics: the network in place of `network` where a file has no running statistics.
    rates: what the library calls its list of rates, if it has one.
    twins: how keys begin that are left aside, being a tensor's second name or no parameter.
    channels: of the images, where two networks have the same keys.
    """

    library: str
    network: str
    keys: dict[str, str]
    without_statistics: str | None = None
    rates: str | None = None
    twins: tuple[str, ...] = ()
    channels: int | None = None


class Translation(NamedTuple):
    """Which keys of a file hold what, by our names of parameters: `keys`, without the head's where
    it has none, and `rates`, empty where it has none. twins: as in `Format`, with its prefix."""

    library: str
    network: str
    keys: dict[str, str]
    rates: dict[str, str]
    twins: tuple[str, ...] = ()


def _four_blocks(conv: str, norm: str, head: str, first: int = 1, norm_first: bool = False) -> dict:
    """Keys of four blocks; {} in `conv` and `norm` is the number of a block, from `first` on."""
    keys = {}
    for block in range(4):
        parts = [(f"conv{block + 1}", conv), (f"norm{block + 1}", norm)]
        for ours, theirs in reversed(parts) if norm_first else parts:
            for kind in ("weight", "bias"):
                keys[f"{ours}.{kind}"] = f"{theirs.format(block + first)}.{kind}"
    return keys | {f"logits.{kind}": f"{head}.{kind}" for kind in ("weight", "bias")}


def _learn2learn(body: str, head: str) -> dict[str, str]:
    """Its blocks make batch normalisation before the convolution."""
    conv, norm = f"{body}.{{}}.conv", f"{body}.{{}}.normalize"
    return _four_blocks(conv, norm, head, first=0, norm_first=True)


def _numbered() -> dict[str, str]:
    """MAML-Pytorch's list: of each block the convolution's, then batch normalisation's."""
    names = _four_blocks("conv{}", "norm{}", "logits")
    return {name: f"vars.{number}" for number, name in enumerate(names)}


def _resnet12() -> dict[str, str]:
    """FEAT's ResNet-12, as easy-few-shot-learning has it."""
    places = {name: (f"{name}", f"bn{name[-1]}") for name in ("conv1", "conv2", "conv3")}
    places["shortcut"] = ("downsample.0", "downsample.1")
    keys = {}
    for block in range(1, 5):
        for ours, (conv, norm) in places.items():
            start = f"layer{block}.0"
            keys[f"block{block}.{ours}.weight"] = f"{start}.{conv}.weight"
            for kind in ("weight", "bias"):
                keys[f"block{block}.{ours}.norm.{kind}"] = f"{start}.{norm}.{kind}"
    return keys | {f"logits.{kind}": f"fc.{kind}" for kind in ("weight", "bias")}


FORMATS = (
    Format("few-shot", "conv4", _four_blocks("conv{}.0", "conv{}.1", "logits")),
    Format("learn2learn", "conv4", _learn2learn("features", "classifier"), rates="lrs"),
    Format("learn2learn 0.1.3", "conv4", _learn2learn("features.0", "classifier"), rates="lrs"),
    Format(
        "learn2learn (Omniglot)",
        "learn2learn-omniglot",
        _learn2learn("base", "classifier"),
        rates="lrs",
        twins=("features.1.",),
        channels=1,
    ),
    Format(
        "learn2learn 0.1.0",
        "conv4",
        _learn2learn("base", "linear"),
        without_statistics="learn2learn-0.0",
        rates="lrs",
        channels=3,
    ),
    Format(
        "learn2learn 0.1.0 (Omniglot)",
        "learn2learn-omniglot",
        _learn2learn("base", "linear"),
        without_statistics="learn2learn-0.0-omniglot",
        rates="lrs",
        channels=1,
    ),
    Format("MAML-Pytorch", "maml-pytorch", _numbered(), twins=("vars_bn.",)),
    Format(
        "LibFewShot",
        "conv4",
        _four_blocks("emb_func.layer{}.0", "emb_func.layer{}.1", "classifier.layers.0"),
    ),
    Format("LibFewShot", "conv4", _four_blocks("layer{}.0", "layer{}.1", "classifier.layers.0")),
    Format("easy-few-shot-learning", "resnet12", _resnet12()),
    Format(
        "torchmeta",
        "conv4",
        _four_blocks("features.{}.0", "features.{}.1", "classifier", first=0),
    ),
    Format(
        "torchmeta",
        "conv4",
        _four_blocks("features.layer{}.conv", "features.layer{}.norm", "classifier"),
    ),
)


def recognise(path: Path, tensors: dict[str, torch.Tensor], network: object = None) -> Translation:
    """The translation of a file with these tensors.

    network: the one that the user names, which tells apart what the keys do not.
    Raises ValueError, with the key that the most similar format lacks, for one of no known format;
    and for one that the keys of two networks fit alike.
    """
    keys = list(tensors)
    found = []
    for form in FORMATS:
        for prefix in PREFIXES:
            wanted = {ours: prefix + theirs for ours, theirs in form.keys.items()}
            body = {k for ours, k in wanted.items() if not ours.startswith("logits.")}
            share = len(body & set(keys)) / len(body)
            if share < 1 or _fits(form, wanted, tensors):
                found.append((share, wanted["logits.weight"] in keys, form, prefix, wanted))
    best = max(one[:2] for one in found)
    share, _, form, prefix, wanted = next(one for one in found if one[:2] == best)
    if share == 1:
        alike = [_translation(*one[2:], keys) for one in found if one[:2] == best]
        return _only(path, [of for of in alike if not leftovers(of, keys)] or alike, network)
    missing = next(key for key in wanted.values() if key not in keys)
    left = [key for key in keys if key not in wanted.values()]
    raise ValueError(
        f"{path}: of no known format; most like {form.library}, but without {missing!r}"
        f"{nearest(missing, left)}; name its keys in a file for --mapping, or a module of your own "
        "with --network FILE.py:CLASS"
    )


def _only(path: Path, alike: list[Translation], network: object) -> Translation:
    """The one of these that is for `network`; or, where all are for one network or the user names
    one that none is for, the first."""
    names = list(dict.fromkeys(one.network for one in alike))
    if len(names) > 1 and network is None:
        raise ValueError(
            f"{path}: its keys are those of {' and of '.join(names)}; say which with --network"
        )
    return next((one for one in alike if one.network == network), alike[0])


def leftovers(found: Translation, keys: Iterable[str]) -> list[str]:
    """Those of a file's keys that name parameters for which the translation has no place."""
    used = {*found.keys.values(), *found.rates.values()}
    left = [key for key in keys if key not in used and not key.endswith(STATISTICS)]
    return [key for key in left if not key.startswith(found.twins)]


def _fits(form: Format, wanted: dict[str, str], tensors: dict[str, torch.Tensor]) -> bool:
    """Whether the first convolution is for images as the format has them."""
    if form.channels is None:
        return True
    first = tensors[wanted["conv1.weight"]]
    return first.dim() == 4 and first.shape[1] == form.channels


def _translation(form: Format, prefix: str, wanted: dict[str, str], keys: list[str]) -> Translation:
    has_statistics = any(key.endswith(STATISTICS) for key in keys)
    network = form.network if has_statistics else form.without_statistics or form.network
    found = {ours: key for ours, key in wanted.items() if key in keys}
    rates = {}
    if form.rates and any(re.fullmatch(rf"{form.rates}\.\d+", key) for key in keys):
        rates = {ours: f"{form.rates}.{number}" for number, ours in enumerate(wanted)}
    twins = tuple(prefix + start for start in form.twins)
    return Translation(form.library, network, found, rates, twins)


def own_names(network: str, keys: Iterable[str]) -> Translation:
    """The translation of the state_dict() of a module of one's own, which DataParallel may have
    wrapped. Raises ValueError for a network that is not there."""
    check_name(network)
    names = [key for key in keys if not key.endswith(STATISTICS)]
    wrapped = "module." if all(name.startswith("module.") for name in names) else ""
    return Translation(network, network, {key.removeprefix(wrapped): key for key in names}, {})


def read_mapping(path: Path) -> Translation:
    """A translation from a YAML file: `network`, `keys` (the network's names to the file's keys)
    and, where the file has rates, `rates` (the same names to the rates' keys).

    Raises ValueError for anything else.
    """
    try:
        content = strict_yaml.read(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(
            f"{path}: not YAML, or not a mapping ({error}); it must have network, keys and maybe "
            "rates"
        ) from error
    if not isinstance(content, dict) or not {"network", "keys"} <= set(content):
        raise ValueError(f"{path}: must have network and keys, and may have rates")
    if unknown := sorted(set(content) - {"network", "keys", "rates"}):
        raise ValueError(f"{path}: {unknown[0]!r} has no meaning; use network, keys and rates")
    for name in ("keys", "rates"):
        given = content.get(name, {})
        texts = isinstance(given, dict) and all(
            isinstance(text, str) for pair in given.items() for text in pair
        )
        if not texts:
            raise ValueError(f"{path}: {name} must be lines of NAME: KEY")
    if not isinstance(content["network"], str):
        raise ValueError(f"{path}: network must be a name, or a FILE.py:CLASS")
    check_name(content["network"])
    return Translation("a mapping", content["network"], content["keys"], content.get("rates", {}))
