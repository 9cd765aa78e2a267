"""YAML, read strictly: no repeated keys, self-references, huge expansions, or numbers to base 8 or
60 that look decimal."""

import re
from pathlib import Path

import yaml

LARGEST = 10_000  # values, each counted as often as aliases repeat it
LONGEST = 10**6  # bytes
# YAML 1.1 reads 010 as 8 and 1:30 as 90.
NOT_DECIMAL = re.compile(r"[-+]?0[0-9_]+|.*:.*")


class _Loader(yaml.SafeLoader):
    def compose_document(self) -> yaml.Node:
        node = super().compose_document()
        _size(node, {})
        return node


def read(path: Path) -> object:
    """The content of a YAML file. Raises ValueError as `load`, and OSError."""
    if not path.is_file():  # a pipe would be waited for
        raise ValueError("neither a file nor a link to one")
    with path.open("rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ValueError(f"of more than {LONGEST} bytes")
    return load(content.decode())


def load(text: str) -> object:
    """The content of YAML. Raises ValueError for what is not YAML or is refused here."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        said = " ".join(str(error).split())
        # Python's limit comes with the advice to change it.
        raise ValueError(said.partition("; use sys.")[0]) from error


def _size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """How many values a node and all below it hold. sizes: those that are known, by node; 0 while
    a node is being measured. Raises YAMLError where there are too many, and for a node that holds
    itself, a key twice, or a number that is not decimal."""
    if node in sizes:
        if not sizes[node]:
            raise yaml.YAMLError(f"a value that holds itself{_line(node)}")
        return sizes[node]
    sizes[node] = 0
    if isinstance(node, yaml.ScalarNode):
        _refuse_not_decimal(node)
    if isinstance(node, yaml.MappingNode):
        _refuse_twice([key for key, _ in node.value])
        below = [part for pair in node.value for part in pair]
    else:
        below = node.value if isinstance(node, yaml.SequenceNode) else []
    sizes[node] = 1 + sum(_size(part, sizes) for part in below)
    if sizes[node] > LARGEST:
        raise yaml.YAMLError(f"more than {LARGEST} values{_line(node)}")
    return sizes[node]


def _refuse_twice(keys: list[yaml.Node]) -> None:
    seen = set()
    for key in keys:
        if (key.tag, str(key.value)) in seen:
            raise yaml.YAMLError(f"{key.value!r} stands twice{_line(key)}; delete one")
        seen.add((key.tag, str(key.value)))


def _refuse_not_decimal(node: yaml.ScalarNode) -> None:
    is_number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    if is_number and NOT_DECIMAL.fullmatch(node.value):
        value = yaml.safe_load(node.value)
        raise yaml.YAMLError(
            f"{node.value} means {value} in YAML{_line(node)}; write the number to base ten, or "
            f"'{node.value}' for text"
        )


def _line(node: yaml.Node) -> str:
    return f" (line {node.start_mark.line + 1})"
