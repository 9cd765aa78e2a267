"""Tables and tensors in files: whole or not there, each with a digest."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from negmeta_utils.storage import digests
from negmeta_utils.storage.atomic import parsed, replacing


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write `table`, without its index, as Parquet. Raises OSError as `atomic.replacing`."""
    content = pyarrow.Table.from_pandas(table, preserve_index=False)
    with replacing(path) as temporary:
        with pyarrow.parquet.ParquetWriter(temporary, content.schema, compression="zstd") as file:
            file.write_table(content)
            file.add_key_value_metadata({digests.KEY: digests.EMPTY})
        digests.seal(temporary)


def read_table(path: Path) -> pd.DataFrame:
    """What `write_table` wrote. Raises FileNotFoundError, and ValueError for any other file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table; name a folder that holds one")
    digests.check(path)
    try:
        return pd.read_parquet(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a table ({reason}); {digests.AGAIN}") from error


def digest_of(table: pd.DataFrame) -> str:
    """The digest of a table's columns and rows, 64 hexadecimals: the same before writing and after
    reading, and with every version of pandas, whose own hashes of categories are not."""
    digest = hashlib.sha256(json.dumps(list(table)).encode())
    for _, column in table.items():
        if pd.api.types.is_numeric_dtype(column):
            values = column.to_numpy("<f8", na_value=np.nan)
        else:
            codes, words = pd.factorize(column)  # words in the order in which they come
            digest.update(json.dumps([str(word) for word in words]).encode())
            values = codes.astype("<i8")
        digest.update(np.ascontiguousarray(values))
    return digest.hexdigest()


def write_tensors(path: Path, groups: dict[str, dict[str, torch.Tensor]], metadata: dict) -> str:
    """Write named groups of tensors, and metadata that JSON can hold, as safetensors. Returns the
    file's digest. Raises OSError as `atomic.replacing`."""
    flat = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    whole = {digests.KEY: digests.EMPTY, **metadata}
    with replacing(path) as temporary:
        try:
            save_file(flat, temporary, {"json": json.dumps(whole)})
        except SafetensorError as error:  # what it makes of a full disk, for one
            raise OSError(f"{path}: cannot be written ({error}); make room there") from error
        return digests.seal(temporary)


def read_tensors(path: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict]:
    """What `write_tensors` wrote: groups on the CPU, and the metadata. The order of the tensors is
    not kept: go by their names.

    Raises FileNotFoundError, and ValueError for any other file.
    """
    digests.check(path)
    groups: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = parsed(file.metadata()["json"], path)
            for key in file.keys():  # noqa: SIM118 (not a dictionary)
                group, _, name = key.partition("/")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not a checkpoint of this package ({error}); {digests.AGAIN}"
        ) from error
    del metadata[digests.KEY]
    return groups, metadata
