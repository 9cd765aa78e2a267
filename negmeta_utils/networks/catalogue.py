"""Networks by name."""

import sys
from pathlib import Path
from types import ModuleType

import torch

from negmeta_utils.data.names import kind_and_line
from negmeta_utils.networks import own_file
from negmeta_utils.networks.conv4 import CONV4, FOREIGN, four_blocks
from negmeta_utils.networks.modules import network
from negmeta_utils.networks.network import Network, check_pass
from negmeta_utils.networks.resnet12 import RESNET12

# The first two to train with, the others as the weights of other libraries need them.
NETWORKS: dict[str, Network] = {
    "conv4": CONV4,
    "resnet12": RESNET12,
    **{name: four_blocks(name, kind) for name, kind in FOREIGN.items()},
}


def check_name(name: str) -> None:
    """Raise ValueError for a name that is none of `NETWORKS`, nor FILE.py:CLASS of a file that is
    there."""
    if name in NETWORKS:
        return
    path, maker = own_file.split(name)
    if not maker.isidentifier() or path.suffix != ".py":
        raise ValueError(f"network={name!r}: not one of {', '.join(NETWORKS)}, nor FILE.py:CLASS")
    if not path.is_file():
        raise ValueError(f"network={name!r}: no file {path}; correct the path")


def find(name: str, **sizes: int) -> Network:
    """The network of that name: one of `NETWORKS`, or FILE.py:CLASS, which executes that file.

    sizes: channels, image_size, n_way and n_filters, as far as known, for a class that takes them.
    A class of your own may have attributes HEAD, the name of its last linear layer, and LAYERS, the
    names of the submodules that are rows of tables; see `modules.network`.
    Raises ValueError for an unknown name, a file without it, and a network that is refused.
    """
    check_name(name)
    if name in NETWORKS:
        return NETWORKS[name]
    path, attribute = own_file.split(name)
    maker = getattr(_execute(path), attribute, None)
    if not callable(maker):
        raise ValueError(f"network={name!r}: {path.name} has no class or function {attribute}")
    head, layers = getattr(maker, "HEAD", None), getattr(maker, "LAYERS", None)
    return network(maker, head, layers, name, **sizes)


def checked(name: str, channels: int, image_size: int, n_way: int, n_filters: int) -> Network:
    """As `find`, for images of that size; a network of one's own is tried on random ones.

    Raises ValueError as `find`, `Network.check_image_size` and `network.check_pass`.
    """
    sizes = {"channels": channels, "image_size": image_size, "n_way": n_way, "n_filters": n_filters}
    found = find(name, **sizes)
    found.check_image_size(image_size)
    if name not in NETWORKS:
        generator = torch.Generator().manual_seed(0)  # torch's own is left alone
        images = torch.rand(4, channels, image_size, image_size, generator=generator, device="cpu")
        check_pass(found, found.init(0, *sizes.values()), images, n_way)
    return found


def fingerprint(name: str) -> str | None:
    """SHA-256 of the file that a network of your own is in; None for one of `NETWORKS`."""
    check_name(name)
    return None if name in NETWORKS else own_file.digest(name)


def _execute(path: Path) -> ModuleType:
    module = ModuleType(f"network_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # as importing does: a dataclass looks it up
    try:
        # Not by import, which may take bytecode of the file as it was within the same second.
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise ValueError(f"network: {path} cannot be executed ({kind_and_line(error)})") from error
    return module
