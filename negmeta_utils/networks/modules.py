"""Any `torch.nn.Module` as a `Network`, through `torch.func.functional_call`.

What cannot be measured honestly is refused: running statistics, which the inner loop of one task
would leave to the next; dropout, with which two looks at one image differ; a head that is missing,
is no linear layer or is not what answers; layers that are not there or take no part; frozen
parameters, and buffers that are drawn at random; and embeddings that are no vectors.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

from negmeta_utils.data.names import kind_and_line, nearest
from negmeta_utils.networks.network import WEIGHTS, Network, Params, RefusedNetworkError

OTHER_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.RMSNorm)
# What a network may be made for, where its constructor has arguments of these names.
SIZES = ("channels", "image_size", "n_way", "n_filters")


def network(
    module: nn.Module | Callable[..., nn.Module],
    head: str | None = None,
    layers: Sequence[str] | None = None,
    name: str | None = None,
    **sizes: int,
) -> Network:
    """A network of your own for the study.

    module: a module, whose own weights `init` gives under every seed; or a class or function that
    makes one, called under torch's seed with those of channels, image_size, n_way and n_filters
    that it takes. sizes: their values for a first such module, from which layers are read.
    head: name of the linear layer that answers; None is the last linear layer.
    layers: names of the submodules that are rows of tables, head not among them; None is one row
    for each module with parameters of its own. Normalisation outside them joins the layer before,
    and what belongs to no submodule, such as a class token, the first.
    name: as manifests have it; None is the class's.
    Raises ValueError for what this module's docstring lists; what only a forward pass shows, the
    first one raises.
    """
    if isinstance(module, nn.Module):
        kept = copy.deepcopy(module)

        def init(*_: int, device: str = "cpu") -> Params:
            return {
                key: value.detach().to(device, copy=True) for key, value in kept.named_parameters()
            }

    else:
        kept = _make(module, 0, sizes, "cpu")
        if dict(kept.named_buffers()):
            _check_buffers(kept, _make(module, 1, sizes, "cpu"))

        def init(seed: int, *given: int, device: str = "cpu") -> Params:
            made = _make(module, seed, dict(zip(SIZES, given, strict=False)), device)
            return {key: value.detach() for key, value in made.named_parameters()}

    name = name or type(kept).__name__
    kept.train()  # normalisation by the batch's own statistics
    _check_modules(name, kept)
    head = _find_head(name, kept, head)
    placed, watched = _place(name, kept, head, layers)
    ordered, buffers = (*watched, head), dict(kept.named_buffers())

    def activations(params: Params, images: torch.Tensor) -> dict[str, torch.Tensor]:
        if missing := placed.keys() - params.keys():  # else the module's own would step in
            raise RefusedNetworkError(f"params: {min(missing)!r} of {name} is missing")
        # of the faster ways to compute attention torch has no second derivative
        whole = sdpa_kernel(SDPBackend.MATH)
        given = {key: value.to(images.device) for key, value in buffers.items()} | params
        with whole, _watching(kept, [*watched.values(), head]) as seen:
            answer = torch.func.functional_call(kept, given, (images,))
        return _check_pass(name, seen, watched, head, answer)

    return Network(name, ordered, init, activations, placed.__getitem__, buffers=buffers)


def _make(
    maker: Callable[..., nn.Module], seed: int, sizes: dict[str, int], device: str
) -> nn.Module:
    takes, called = inspect.signature(maker).parameters, getattr(maker, "__name__", maker)
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        try:
            made = maker(**{key: value for key, value in sizes.items() if key in takes})
        except Exception as error:  # whatever the code of a network of one's own raises
            hint = f"; of its arguments only {', '.join(SIZES)} may be without a default"
            raise ValueError(
                f"network: {called} cannot be made ({kind_and_line(error)})"
                f"{hint if isinstance(error, TypeError) else ''}"
            ) from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"network: {called} gives a {type(made).__name__}, no nn.Module")
    return made


def _check_buffers(one: nn.Module, other: nn.Module) -> None:
    """Raise ValueError where two modules made under different seeds differ in a buffer: parameters
    alone follow the seed."""
    others = dict(other.named_buffers())
    for place, buffer in one.named_buffers():
        if not same_values(buffer, others[place]):
            raise ValueError(
                f"network: the buffer {place!r} of {type(one).__name__} is drawn at random, and "
                "only parameters follow the seed; make it a parameter, or always the same"
            )


def same_values(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have one shape and the same values, of which some may be NaN."""
    if one.layout != other.layout:
        return False
    one, other = one.to_dense(), other.to_dense()
    if one.shape != other.shape or not (one.is_floating_point() or one.is_complex()):
        return torch.equal(one, other)
    return torch.allclose(one, other.to(one.dtype), rtol=0, atol=0, equal_nan=True)


def _check_modules(name: str, module: nn.Module) -> None:
    for place, value in module.named_parameters():
        if not value.requires_grad:
            raise ValueError(
                f"network: {name}.{place} is frozen, and every parameter adapts; register it as a "
                "buffer, or let it learn by requires_grad_(True)"
            )
    for place, part in module.named_modules():
        if isinstance(part, _NormBase) and part.running_mean is not None:
            instead = f"make it {type(part).__name__}(…, track_running_stats=False)"
            if isinstance(part, _BatchNorm):
                instead = "call torch.func.replace_all_batch_norm_modules_(module) before"
            raise ValueError(
                f"network: {name}.{place} keeps running statistics, which one task would leave to "
                f"the next; {instead}"
            )
        rate = part.p if isinstance(part, _DropoutNd) else getattr(part, "dropout", 0)
        if isinstance(rate, float) and rate > 0:
            raise ValueError(
                f"network: {name}.{place} has dropout, with which two looks at one image differ; "
                "take it out, or set it to 0"
            )


def _find_head(name: str, module: nn.Module, head: str | None) -> str:
    linear = [place for place, part in module.named_modules() if isinstance(part, nn.Linear)]
    if head is None and not linear:
        raise ValueError(f"head: {name} has no linear layer; give it one that answers")
    if head is not None and head not in linear:
        raise ValueError(
            f"head={head!r}: {name} has no such linear layer{nearest(head, linear)}; it has "
            f"{', '.join(linear) or 'none'}"
        )
    return head or linear[-1]


def _place(
    name: str, module: nn.Module, head: str, layers: Sequence[str] | None
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Each parameter's layer and group, and of each layer of the body the submodule whose output
    is its activation."""
    parts = dict(module.named_modules())
    for layer in layers or ():
        if layer not in parts or layer == head:
            raise ValueError(
                f"layers: {name} has no {layer!r} in its body{nearest(layer, list(parts))}; name "
                "submodules, the head not among them"
            )
    placed: dict[str, tuple[str, str]] = {}
    watched: dict[str, str] = {layer: layer for layer in layers or ()}
    before = None
    for key, _ in module.named_parameters():
        owner = _owner(key, parts)
        if not owner:
            continue
        group = _group(parts[owner])
        if owner == head:
            placed[key] = (head, WEIGHTS)
            continue
        within = [layer for layer in layers or () if f"{owner}.".startswith(f"{layer}.")]
        if within:
            before = max(within, key=len)
        elif group == WEIGHTS or before is None:
            if layers is not None:
                raise ValueError(f"layers: parameter {key!r} of {name} is in none of them; add one")
            before = owner
        if layers is None:
            watched[before] = owner
        placed[key] = (before, group)
    if not watched:
        raise ValueError(f"network: {name} has nothing before its head {head!r} to adapt")
    first = (next(iter(watched)), WEIGHTS)
    alone = {key: first for key, _ in module.named_parameters(recurse=False)}
    return placed | alone, watched


def _owner(key: str, parts: dict[str, nn.Module]) -> str:
    """The submodule that a parameter belongs to. Attention computes with the weights of its last
    linear layer without calling it, so they are its own."""
    owner = key.rpartition(".")[0]
    above = owner.rpartition(".")[0]
    return above if isinstance(parts[above], nn.MultiheadAttention) else owner


def _group(part: nn.Module) -> str:
    if isinstance(part, _BatchNorm):
        return "batchnorm"
    return "norm" if isinstance(part, (_NormBase, *OTHER_NORMS)) else WEIGHTS


def _first(output: torch.Tensor | tuple) -> torch.Tensor:
    """The activation in a layer's output: the first of the tuple that attention and recurrent
    layers give."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def _watching(module: nn.Module, places: list[str]) -> Iterator[dict[str, tuple]]:
    """Input and output of the submodules at `places` in what is computed inside, of the last call
    of each, in the order of these calls."""
    seen: dict[str, tuple] = {}
    parts = dict(module.named_modules())

    def noting(place: str) -> Callable[..., None]:
        def note(_: nn.Module, inputs: tuple, named: dict, output: torch.Tensor | tuple) -> None:
            seen.pop(place, None)
            seen[place] = (*inputs, *named.values(), None)[0], output

        return note

    handles = [
        parts[place].register_forward_hook(noting(place), with_kwargs=True) for place in places
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _check_pass(
    name: str, seen: dict[str, tuple], watched: dict[str, str], head: str, answer: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Activations by layer, from what was seen of a forward pass."""
    for layer, place in {**watched, head: head}.items():
        if place not in seen:
            raise RefusedNetworkError(
                f"layers: {layer!r} of {name} takes no part in its forward pass, or is not called "
                "there; name with layers=[…] the submodules that are"
            )
    embedding, logits = seen[head]
    if embedding.dim() != 2:
        raise RefusedNetworkError(
            f"network: what reaches {name}.{head} is {list(embedding.shape)}, not a vector an "
            "image; flatten it, or take its mean over places"
        )
    if answer is not logits:
        raise RefusedNetworkError(
            f"head={head!r}: what {name} returns is not what its head answers; return the logits "
            "as they are, or name the layer that answers"
        )
    outputs = {layer: _first(seen[place][1]).flatten(1) for layer, place in watched.items()}
    layer_at, order = {place: layer for layer, place in watched.items()}, list(seen)
    before = [layer_at[place] for place in order[: order.index(head)]]
    if not before:
        raise RefusedNetworkError(
            f"head={head!r}: no layer of {name} is called before it; name the layer that answers"
        )
    del outputs[before[-1]]
    return outputs | {before[-1]: embedding}
