"""Somebody else's weights as a finished run, which notebooks 0, 2, 3, 5 and 8 take."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from negmeta_utils import runs
from negmeta_utils.adaptation import METHODS, init_alpha
from negmeta_utils.config import TrainConfig
from negmeta_utils.data.datasets import find_dataset
from negmeta_utils.data.names import nearest
from negmeta_utils.imports.formats import (
    Translation,
    leftovers,
    own_names,
    read_mapping,
    recognise,
)
from negmeta_utils.imports.reading import read_tensors_of
from negmeta_utils.networks import catalogue
from negmeta_utils.networks.modules import same_values
from negmeta_utils.networks.network import Network, Params
from negmeta_utils.rates import summarise_rates, table_of_rates
from negmeta_utils.storage import atomic, files, paths

# What a run cannot be used without: assumed to be as in `TrainConfig` where nobody says, and the
# method to be MAML.
NEEDED = (
    "dataset", "classes", "method", "n_way", "n_shot", "n_query", "image_size", "n_filters",
    "inner_steps", "inner_lr", "network",
)  # fmt: skip
KNOWN = (*NEEDED, "seed", "n_updates")  # all that may be given
FIRST = ("conv1.weight", "block1.conv1.weight")  # convolutions of `catalogue.NETWORKS`
END = 1  # stands in tables for the meta-update of the file, where nobody says which


def import_run(
    path: str | Path, out: str | Path, mapping: str | Path | None = None, **given: object
) -> runs.Run:
    """Write the run folder `out` from the weights in file `path`.

    mapping: a YAML file that says where a file of no known format has what (`read_mapping`).
    given: what is known of the training (names: `KNOWN`). What is needed and neither given nor to
    be seen in the file is assumed as in `TrainConfig` and named in the manifest; so is all that
    stays unknown. Without a seed the run gets a negative one, made from the file's digest: it
    counts for no verdict on a method.
    Raises ValueError for a file that cannot be read, is of no known format or does not fit its
    network, a line for each key at fault; and for a folder that holds something else.
    """
    path, out = paths.resolve(path), paths.resolve(out)
    runs.check_no_network(out)
    tensors = read_tensors_of(path)
    found = _translation(path, mapping, given.get("network"), tensors)
    seen = _seen_in(path, found, tensors) | {"network": given.get("network", found.network)}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config, image_size, unknown_seed = _config(seen, given, digest)
    channels = _channels(found, tensors, given.get("dataset"))
    network, wanted, own = _network(config, image_size, channels)
    found = _without_buffers(path, network, found, tensors)
    params = _params(path, network, wanted, found, tensors, config)
    alpha = _alpha(path, network, params, found, tensors, config)
    manifest = _manifest(path, digest, found, tensors, config, {**seen, **given}, unknown_seed, own)
    _write(out, manifest, network, params, alpha)
    return runs.load_run(out)


def _translation(
    path: Path, mapping: str | Path | None, network: object, tensors: dict[str, torch.Tensor]
) -> Translation:
    if mapping:
        return read_mapping(paths.resolve(mapping))
    if network is not None and network not in catalogue.NETWORKS:
        return own_names(str(network), tensors)
    found = recognise(path, tensors, network)
    _refuse_leftovers(path, found, tensors)
    return found


def describe_import(run: runs.Run) -> str:
    """What was imported, and what had to be assumed."""
    imported, parameters = run.manifest["imported"], run.parameters
    shown = ("network", "method", "n_way", "n_filters", "image_size")
    lines = [f"{imported['library']}: {', '.join(f'{n} {parameters[n]}' for n in shown)}"]
    if imported["assumed"]:
        assumed = ", ".join(f"{name}={parameters[name]}" for name in imported["assumed"])
        lines.append(f"Assumed, not known: {assumed}")
    return "\n".join([*lines, f"The run is {run.directory}"])


def _refuse_leftovers(path: Path, found: Translation, tensors: Iterable[str]) -> None:
    """A file with parameters that the network has no place for holds another network."""
    if left := leftovers(found, tensors):
        raise ValueError(
            f"{path}: {left[0]} has no place in {found.network}, as which {found.library} is read; "
            "name the keys to take in a file for --mapping"
        )


def _seen_in(path: Path, found: Translation, tensors: dict[str, torch.Tensor]) -> dict[str, object]:
    """What the file itself shows of the training."""
    seen: dict[str, object] = {}
    if found.rates:
        seen["method"] = "meta-sgd"
    head = [tensors[key] for ours, key in found.keys.items() if key in tensors and _is_head(ours)]
    if head:
        seen["n_way"] = len(head[0])
    elif found.network in catalogue.NETWORKS:
        seen["method"] = "protonet"  # what has no linear layer classifies by features
    for ours in FIRST:
        if ours in found.keys and found.network in catalogue.NETWORKS:
            value = tensors.get(found.keys[ours])
            if value is None or value.dim() != 4:
                raise ValueError(f"{path}: {found.keys[ours]} is no convolution of the file")
            seen["n_filters"] = len(value)
    return seen


def _is_head(ours: str) -> bool:
    return ours.startswith("logits.")


def _config(
    seen: dict[str, Any], given: dict[str, Any], digest: str
) -> tuple[TrainConfig, int, int | None]:
    """The training as far as it is known, held to the rules of `TrainConfig`; its image size; and
    the seed that the run gets where its own is unknown."""
    for name in given:
        if name not in KNOWN:
            raise ValueError(f"{name}: not one of {', '.join(KNOWN)}")
    for name, value in seen.items():
        if given.get(name, value) != value and name in ("n_way", "n_filters"):
            raise ValueError(f"{name}={given[name]!r}: the file has {value}; leave it out")
    known: dict[str, Any] = {"method": "maml", **seen, **given}
    config = TrainConfig(**known)
    image_size = config.image_size or find_dataset(config.dataset).image_size
    config = replace(config, image_size=image_size)
    return config, image_size, None if "seed" in given else -1 - int(digest[:8], 16)


def _channels(found: Translation, tensors: dict[str, torch.Tensor], dataset: object) -> int:
    """Of the images that the network takes: those of its first convolution where its name is known;
    of a network of one's own, of the data set that was given, or else of the first weights that may
    be a convolution's."""
    if found.network in catalogue.NETWORKS:
        first = [found.keys[name] for name in FIRST if found.keys.get(name) in tensors]
    elif dataset is not None:
        return {"L": 1, "RGB": 3}[find_dataset(str(dataset)).mode]
    else:
        first = [key for key in found.keys.values() if key in tensors]
    return next((tensors[key].shape[1] for key in first if tensors[key].dim() == 4), 3)


def _network(
    config: TrainConfig, image_size: int, channels: int
) -> tuple[Network, Params, dict | None]:
    """The network, its parameters' shapes (tensors without memory), and what the manifest says of
    a network of one's own."""
    sizes = (channels, image_size, config.n_way, config.n_filters)
    named = dict(zip(("channels", "image_size", "n_way", "n_filters"), sizes, strict=True))
    network = catalogue.checked(config.network, **named)
    wanted = network.init(0, *sizes, device="meta")
    digest = catalogue.fingerprint(config.network)
    return network, wanted, {"sha256": digest, "channels": channels} if digest else None


def _without_buffers(
    path: Path, network: Network, found: Translation, tensors: dict[str, torch.Tensor]
) -> Translation:
    """A run keeps parameters; buffers are as the network makes them, so a file's have to be."""
    for name, value in network.buffers.items():
        key = found.keys.get(name, name)
        if key in tensors and not same_values(value, tensors[key]):
            raise ValueError(
                f"{path}: the buffer {key} is another than {network.name} makes, and a run keeps "
                "parameters alone; have the class make it so"
            )
    keys = {ours: key for ours, key in found.keys.items() if ours not in network.buffers}
    return found._replace(keys=keys)


def _params(
    path: Path,
    network: Network,
    wanted: Params,
    found: Translation,
    tensors: dict[str, torch.Tensor],
    config: TrainConfig,
) -> Params:
    head = [name for name in wanted if name.startswith(f"{network.head}.")]
    absent = [name for name in head if name not in found.keys]
    if absent == head and METHODS[config.method].prototypes:  # it plays no part: zeros
        own = {name: value for name, value in wanted.items() if name not in head}
        zeros = {name: torch.zeros_like(wanted[name], device="cpu") for name in head}
        return _taken(path, own, found.keys, tensors, config) | zeros
    if absent == head:
        raise ValueError(
            f"{path}: no linear layer in it, which {config.method} adapts; use --method protonet"
        )
    return _taken(path, wanted, found.keys, tensors, config)


def _alpha(
    path: Path,
    network: Network,
    params: Params,
    found: Translation,
    tensors: dict[str, torch.Tensor],
    config: TrainConfig,
) -> Params:
    if METHODS[config.method].learns_alpha and not found.rates:
        raise ValueError(
            f"method={config.method!r}: {path} has no rates that are known to be such; name them "
            "in a file for --mapping, or use a method that learns none"
        )
    if found.rates and not METHODS[config.method].learns_alpha:
        raise ValueError(f"method={config.method!r}: {path} has rates of its own; use meta-sgd")
    if found.rates:
        return _taken(path, params, found.rates, tensors, config)
    return init_alpha(config.method, params, config.inner_lr, network=network)


def _taken(
    path: Path,
    wanted: Params,
    keys: dict[str, str],
    tensors: dict[str, torch.Tensor],
    config: TrainConfig,
) -> Params:
    """Tensors of the wanted names and shapes, float32, copied once all is known to fit.

    Raises ValueError with a line for each that is missing, of another shape, or not wanted, and one
    with the sizes that shapes are wanted for.
    """
    strange = [ours for ours in keys if ours not in wanted]
    wrong = [f"{ours}: no parameter of the network{nearest(ours, wanted)}" for ours in strange]
    misshapen = False
    for ours, value in wanted.items():
        key, shape = keys.get(ours), list(value.shape)
        if key is None:
            wrong.append(f"{ours}: nothing is named for it; wanted {shape}")
        elif key not in tensors:
            near = nearest(key, tensors)
            wrong.append(f"{ours}: no key {key!r} in the file{near}; wanted {shape}")
        elif list(tensors[key].shape) != shape:
            same = [other for other, it in tensors.items() if list(it.shape) == shape]
            near, misshapen = nearest(key, same), True
            wrong.append(f"{ours}: {key!r} is {list(tensors[key].shape)}, wanted {shape}{near}")
        elif not tensors[key].is_floating_point():
            wrong.append(f"{ours}: {key!r} holds {tensors[key].dtype}, not numbers with a point")
    if misshapen:
        sizes = ("image_size", "n_way", "n_filters")
        told = ", ".join(f"{name}={getattr(config, name)}" for name in sizes)
        wrong.append(f"wanted for {told}; give those of the file where they are others")
    if wrong:
        raise ValueError("\n".join(f"{path}: {line}" for line in wrong))
    taken = {ours: tensors[keys[ours]].to(torch.float32, copy=True) for ours in wanted}
    for ours, value in taken.items():
        if not value.isfinite().all():
            raise ValueError(f"{path}: {keys[ours]} holds values that are not finite")
    return taken


def _manifest(
    path: Path,
    digest: str,
    found: Translation,
    tensors: dict[str, torch.Tensor],
    config: TrainConfig,
    known: dict[str, object],
    unknown_seed: int | None,
    own: dict | None,
) -> dict:
    parameters = {name: value for name, value in asdict(config).items() if name in KNOWN}
    unknown = [f.name for f in fields(TrainConfig) if f.name not in (*NEEDED, *known, *runs.PLACE)]
    parameters |= dict.fromkeys(unknown)
    if unknown_seed is not None:
        parameters["seed"] = unknown_seed
    used = {*found.keys.values(), *found.rates.values()}
    imported = {
        "file": path.name,
        "sha256": digest,
        "library": found.library,
        "dtype": str(tensors[next(iter(found.keys.values()))].dtype).removeprefix("torch."),
        "assumed": [name for name in NEEDED if name not in known],
        "unknown": unknown,
        "left_out": [key for key in tensors if key not in used],
    }
    return {
        "status": "complete",
        "imported": imported,
        "parameters": parameters,
        **({"network": own} if own else {}),
        "started": atomic.now(),
    }


def _write(out: Path, manifest: dict, network: Network, params: Params, alpha: Params) -> None:
    with atomic.sole_user(out):
        file = out / "manifest.json"
        before = atomic.read_json(file) if file.exists() else None
        if before and before.get("imported", {}).get("sha256") != manifest["imported"]["sha256"]:
            raise ValueError(f"{out}: holds another run; choose another folder")
        update = manifest["parameters"]["n_updates"] or END
        full = {name: alpha[name].expand(value.shape) for name, value in params.items()}
        seed = manifest["parameters"]["seed"]
        files.write_table(out / "rates.parquet", summarise_rates(full, seed, update, network))
        precision = manifest["parameters"]["inner_lr"] / 100
        files.write_table(out / "every_rate.parquet", table_of_rates(full, update, precision))
        groups = {"params": params, "alpha": alpha}
        files.write_tensors(out / "model.safetensors", groups, {"update": update})
        atomic.write_json(file, manifest)
