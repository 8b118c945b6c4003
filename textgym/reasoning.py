"""Prompts of reasoning-gym: questions with verifiable answers, from any of its datasets, at any of its levels.

A row brings its whole entry along, in the column `COLUMN`, for the scorer `reasoning_gym`. An index would not do: some
datasets make another entry of the same index in another process, by Python's random hash seed, and some take seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from functools import lru_cache
from typing import Annotated, Any

from textgym.arguments import Count, Range, Seed, in_words
from textgym.importing import did_you_mean, require
from textgym.splits import Split, in_split

COLUMN = "reasoning_gym"
SIZE = 500
"""How many prompts there are where no size is given, as in reasoning-gym."""
CANDIDATES = 10
"""How many entries are looked at for each prompt wanted, because some ask the same, or are of the other part."""

Level = Annotated[int, Range(0)]


def prompts(
    dataset: str,
    level: Level | None = None,
    split: Split | None = None,
    size: Count | None = None,
    seed: Seed = 0,
    **config: Any,
) -> list[dict[str, Any]]:
    """Questions of a dataset of reasoning-gym, with the answer in the column `reference` and the entry in `COLUMN`.

    Args:
        dataset: its name, such as `"leg_counting"`; `"composite"` takes a list `datasets` of
            `{"name": ..., "weight": ..., "config": {...}}`.
        level: of the dataset's curriculum, from 0 on; None for the defaults of its config.
        split: a part that a hash of the question decides, so it is the same at every seed and size; None for all.
        size: how many different questions; None for `SIZE`, or all if there are fewer.
        seed: reasoning-gym makes entry i from `seed + i`, so seeds near each other share most of their entries.
        **config: fields of the dataset's config; they count where a level sets them, too.

    Raises:
        ValueError: there is no such dataset, level or field, the dataset refuses the values, or has fewer than `size`.
        ImportError: reasoning-gym is not installed.
    """
    wanted = size or SIZE
    fields = {"seed": seed, "size": CANDIDATES * wanted + 100, **config}
    try:
        recipe = json.dumps({"dataset": dataset, "level": level, "fields": fields}, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the config of {dataset!r} is no JSON, as it must be: {error}") from error
    found: dict[str, dict[str, Any]] = {}
    made = dataset_of(recipe)
    for index in range(fields["size"]):
        if len(found) == wanted:
            break
        with contextlib.redirect_stdout(io.StringIO()):  # some print what they do
            entry = made[index]
        question = entry["question"]
        if question not in found and (split is None or in_split(question, split)):
            column = {"dataset": recipe, "entry": entry}
            found[question] = {"prompt": question, "reference": entry["answer"], COLUMN: column}
    if size is not None and len(found) < size:
        part = "" if split is None else f" of split={split!r}"
        raise ValueError(f"size is {size}, but {fields['size']} entries of {dataset!r} have only {len(found)}{part}")
    return list(found.values())


@lru_cache(maxsize=64)
def dataset_of(recipe: str) -> Any:
    """The dataset that a row's column names, made once in a process.

    Args:
        recipe: JSON of its name (`dataset`), its `level` or null, and `fields` of its config.

    Raises:
        ValueError: there is no such dataset, level or field, or the dataset refuses the values.
    """
    given = json.loads(recipe)
    name, level, fields = given["dataset"], given["level"], given["fields"]
    factory = require("reasoning_gym", "reasoning").factory
    if name not in factory.DATASETS:
        hint = (
            did_you_mean(name, factory.DATASETS) or f"; there are {len(factory.DATASETS)}: {sorted(factory.DATASETS)}"
        )
        raise ValueError(f"reasoning-gym has no dataset {name!r}{hint}")
    dataset_class, config_class = factory.DATASETS[name]
    known = [field.name for field in dataclasses.fields(config_class)]
    for field in fields:
        if field not in known:
            hint = did_you_mean(field, known)
            raise ValueError(f"the config of {name!r} has no {field!r}{hint or ';'} its fields are {known}")
    if name == "composite" and "datasets" in fields:
        fields["datasets"] = _specs(fields["datasets"])
    if level is not None:
        fields = _fields_of_level(name, level, factory) | fields
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return dataset_class(config_class(**fields))
    except (AssertionError, TypeError, ValueError, KeyError) as error:
        at = "" if level is None else f" at level {level}"
        raise ValueError(f"reasoning-gym makes no {name!r} of these values{at}: {error}") from error


def _fields_of_level(name: str, level: int, factory: Any) -> dict[str, Any]:
    """The fields of a config that a level of the curriculum sets."""
    if name not in factory.CURRICULA:
        raise ValueError(f"level is {level}, but {name!r} has no levels; set fields of its config")
    curriculum = factory.create_curriculum(name)
    highest = max(len(attribute.levels) for attribute in curriculum.attributes.values()) - 1
    if level > highest:
        raise ValueError(f"level is {level}; for {name!r} it must be {in_words(Annotated[int, Range(0, highest)])}")
    curriculum.set_global_level(level)
    config = curriculum.generate_configuration()
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def _specs(datasets: Any) -> list[Any]:
    from reasoning_gym.composite import DatasetSpec

    try:
        return [DatasetSpec(**spec) for spec in datasets]
    except TypeError as error:
        raise ValueError(f"datasets is {datasets!r}; it must be a list of dicts of name, weight and config") from error
