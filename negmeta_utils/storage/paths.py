"""Where things are: the clone, what a relative path means, the cache."""

import os
from pathlib import Path

from platformdirs import user_cache_path

ROOT = Path(__file__).resolve().parents[2]  # the clone, where this is one


def resolve(path: str | Path) -> Path:
    """`path` itself if absolute, else below the working directory."""
    return Path(path).expanduser().absolute()


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Where decoded data sets and compiled sources are kept, which can be made again: `cache_dir`,
    else the variable NEGMETA_CACHE, else `own_cache`."""
    given = cache_dir or os.environ.get("NEGMETA_CACHE")
    return resolve(given) if given else own_cache()


def own_cache() -> Path:
    """The user's own cache folder."""
    return user_cache_path("negmeta")
