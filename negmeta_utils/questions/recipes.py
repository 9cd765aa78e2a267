"""Which of the choices that the paper does not state give its table 1 (notebook 10)."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from negmeta_utils import runs
from negmeta_utils.adaptation import METHODS
from negmeta_utils.config import TrainConfig
from negmeta_utils.evidence.learned_rates import (
    PAPER_TABLE_1,
    WEIGHTS,
    distance_to_paper,
    is_papers,
)
from negmeta_utils.evidence.words import signed
from negmeta_utils.parameters import check_folders
from negmeta_utils.storage.atomic import read_json
from negmeta_utils.storage.files import read_table

# A parameter whose value the paper does not state: what it is in words.
CHOICES = {
    "lr_schedule": "schedule of the outer rate",
    "alpha_init": "start of the learned rates",
    "alpha_lr": "outer rate of the learned rates",
}
# What trainings must have in common for their recipes to be compared; a schedule and where a
# training was nearest depend on its validations.
ALIKE = (
    "dataset", "classes", "method", "image_size", "network", "n_filters", "n_way", "n_shot",
    "n_query", "n_tasks", "inner_steps", "outer_lr", "val_every", "val_episodes", "val_fresh",
)  # fmt: skip
STARTS = {"uniform": "U[0.005, 0.1]"}  # of the learned rates
WRITTEN = "recipes.parquet"  # by notebook 10
LAYERS = ", ".join(PAPER_TABLE_1["layer"])
FACTOR = 2  # a standard deviation within this factor of the paper's counts as near


def read_recipes(names: list[str]) -> pd.DataFrame:
    """The rates along several trainings, complete or not, with what each was trained with.

    names: folders of notebook 1, or shipped runs; one that holds no rates yet is left out; or of
    notebook 10, with the table that it wrote. Columns: those of `rates.summarise_rates`; `ALIKE`;
    `CHOICES`, alpha_lr being outer_lr where it is None; recipe, these in words. Raises ValueError
    for a method that learns no rates, a network of other layers than the paper's, trainings of
    which too little is known or that differ in other ways, too, and for two of one recipe and seed;
    FileNotFoundError where no folder holds any rates.
    """
    check_folders("runs", names)
    tables: list[pd.DataFrame] = []
    alike: dict[str, object] = {}
    trainings = []
    for directory in map(runs.directory_of, names):
        if (table := _read(directory)) is None:
            continue
        for name in ALIKE:
            value = _setting(directory, table[name])
            if alike.setdefault(name, value) != value:
                raise ValueError(
                    f"{directory}: {name}={value!r}, and {alike[name]!r} before; compare trainings "
                    "that differ in nothing but the schedule, and start and outer rate of the rates"
                )
        of_each = table[["recipe", "seed"]].drop_duplicates().itertuples()
        trainings += [(f"{of.recipe}, seed {of.seed}", directory) for of in of_each]
        tables.append(table)
    if not tables:
        raise FileNotFoundError(f"runs={names}: no rates.parquet in any; train with notebook 1")
    runs.check_in_one_place(trainings)
    return pd.concat(tables, ignore_index=True)


def _setting(directory: Path, values: pd.Series) -> object:
    """The one value of a setting in a folder's table. Raises ValueError where it has several."""
    if values.nunique(dropna=False) != 1:
        raise ValueError(
            f"{directory}: no one {values.name} of its trainings; name folders of notebook 1, or "
            "execute notebook 10 on them again"
        )
    (value,) = values.unique().tolist()
    return None if pd.isna(value) else value  # a file may hold either for nothing


def _read(directory: Path) -> pd.DataFrame | None:
    """The table that notebook 10 wrote to a folder, or that of a training; None where there is
    neither."""
    if (directory / WRITTEN).is_file():
        table = read_table(directory / WRITTEN)
        if missing := [name for name in ALIKE if name not in table]:
            raise ValueError(
                f"{directory / WRITTEN}: does not say {missing[0]} of its trainings; execute "
                "notebook 10 on them again"
            )
        return table
    if not (directory / "rates.parquet").is_file():
        return None
    manifest = read_json(directory / "manifest.json")
    if "imported" in manifest:
        raise ValueError(f"{directory}: imported, so that its recipe is not known; leave it out")
    given = manifest["parameters"]
    if not METHODS[given["method"]].learns_alpha:
        raise ValueError(
            f"{directory}: a run of {given['method']}, which learns no rates; name one of meta-sgd"
        )
    table = read_table(directory / "rates.parquet")
    if not is_papers(table["layer"]):
        raise ValueError(f"{directory}: its layers are not {LAYERS}, as in table 1; leave it out")
    settings = {name: given.get(name, getattr(TrainConfig, name)) for name in ALIKE}
    return table.assign(**settings, **choices(given), recipe=in_words(given))


def choices(given: dict) -> dict:
    """`CHOICES` of a training's parameters, the start of its rates in words; those of the
    notebook's default where not given."""
    constant = f"{given.get('inner_lr', 0.01):g}"
    return {
        "lr_schedule": given.get("lr_schedule", "constant"),
        "alpha_init": STARTS.get(given.get("alpha_init", "constant"), constant),
        "alpha_lr": given.get("alpha_lr") or given.get("outer_lr", 0.001),
    }


def in_words(given: dict) -> str:
    """A recipe such as "plateau, from 0.01, outer rate 0.0001"."""
    chosen = choices(given)
    schedule, start, alpha_lr = chosen.values()
    return f"{schedule}, from {start}, outer rate {alpha_lr:g}"


def distances(rates: pd.DataFrame) -> pd.DataFrame:
    """`distance_to_paper` along every training; columns recipe, `CHOICES` and its own."""
    tables = [
        distance_to_paper(rows).assign(**dict(zip(["recipe", *CHOICES], of, strict=True)))
        for of, rows in rates.groupby(["recipe", *CHOICES], sort=False)
    ]
    return pd.concat(tables, ignore_index=True)


def nearest(distance: pd.DataFrame) -> pd.DataFrame:
    """One row a recipe, seed and group, the nearest recipe first: update, distance and signs as
    far as training has come; nearest_update, nearest_distance and nearest_signs where it was
    nearest to the paper, by distance and then by signs."""
    keys = ["recipe", "seed", "group"]
    last = distance.loc[distance.groupby(keys)["update"].idxmax()].set_index(keys)
    by_rule = distance.sort_values(["distance", "signs"], ascending=[True, False])
    best = by_rule.groupby(keys).first()[["update", "distance", "signs"]].add_prefix("nearest_")
    table = last[["update", "distance", "signs"]].join(best).reset_index()
    return table.sort_values(["group", "distance"], ascending=[False, True], ignore_index=True)


def one_choice_apart(distance: pd.DataFrame) -> pd.DataFrame:
    """What one choice changes: a row for every two trainings of one seed that differ in it alone,
    at the last update that both have reached, weights and biases only.

    Columns: choice, of and to (its two values), others (what both share), all in words; seed,
    update, distance_of, distance_to, signs_of, signs_to.
    """
    own = distance[distance["group"] == WEIGHTS]
    trainings = [(dict(zip([*CHOICES, "seed"], of, strict=True)), rows.set_index("update"))
                 for of, rows in own.groupby([*CHOICES, "seed"], sort=False)]  # fmt: skip
    records = []
    for (a, along_a), (b, along_b) in itertools.combinations(trainings, 2):
        differ = [name for name in a if a[name] != b[name]]
        if len(differ) != 1 or differ == ["seed"]:
            continue
        update = along_a.index.intersection(along_b.index).max()
        at = along_a.loc[update], along_b.loc[update]
        others = ", ".join(_told(name, a[name]) for name in CHOICES if name not in differ)
        (choice,) = differ
        records.append(
            (CHOICES[choice], *(_value(own[choice]) for own in (a, b)), others, a["seed"], update,
             *(row["distance"] for row in at), *(row["signs"] for row in at))
        )  # fmt: skip
    columns = ["choice", "of", "to", "others", "seed", "update"]
    return pd.DataFrame(
        records, columns=[*columns, "distance_of", "distance_to", "signs_of", "signs_to"]
    )


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _told(choice: str, value: str | float) -> str:
    return f"{CHOICES[choice]}: {_value(value)}"


def told(rates: pd.DataFrame, apart: pd.DataFrame, missing: list[str]) -> list[str]:
    """What the recipes at hand say, in sentences; apart: as `one_choice_apart` gives."""
    own = rates[rates["group"] == WEIGHTS].merge(PAPER_TABLE_1, on="layer")
    own["right"] = np.sign(own["mean"]) == np.sign(own["paper mean"])
    own["near"] = np.abs(np.log(own["std"].clip(lower=1e-12) / own["paper std"])) < np.log(FACTOR)
    last = own[own["update"] == own.groupby(["recipe", "seed"])["update"].transform("max")]
    all_right = own.groupby(["recipe", "seed", "update"])["right"].all()
    trainings = own.groupby(["recipe", "seed"]).ngroups
    having = all_right[all_right].reset_index().drop_duplicates(["recipe", "seed"])
    ended = int(last.groupby(["recipe", "seed"])["right"].all().sum())
    sentences = [
        f"All five signs of claim (a) are right at some validation in {len(having)} of {trainings} "
        f"trainings{_listed(having['recipe'])}, and at the last validation in {ended}."
    ]
    for choice in CHOICES.values():
        sentences += _of_choice(choice, apart[apart["choice"] == choice])
    for column, what in (
        ("right", "the paper's sign of the mean"),
        ("near", f"a standard deviation within a factor of {FACTOR} of the paper's"),
    ):
        by_layer = last.groupby("layer")[column].any()
        lacking = ", ".join(by_layer.index[~by_layer])
        which = f"in no training for {lacking}" if lacking else "for every layer in some training"
        sentences.append(f"At the last validation {what} is found {which}.")
    if missing:
        sentences.append(f"Planned, and not there yet: {'; '.join(missing)}.")
    return sentences


def _listed(recipes: pd.Series) -> str:
    return f" ({'; '.join(recipes)})" if len(recipes) else ""


def _of_choice(choice: str, pairs: pd.DataFrame) -> list[str]:
    """What a choice changes, a sentence for every two values that were compared."""
    if pairs.empty:
        return [f"{choice.capitalize()}: no two of these trainings differ in it alone."]
    sentences = []
    for (of, to), rows in pairs.groupby(["of", "to"], sort=False):
        change = rows["distance_to"] - rows["distance_of"]
        signs = int((rows["signs_of"] != rows["signs_to"]).sum())
        sentences.append(
            f"{choice.capitalize()}, {of} to {to}: the distance changes by {signed(change.min())} "
            f"to {signed(change.max())}, and how many signs are right in {signs} of {len(rows)} "
            "pairs of trainings."
        )
    return sentences
