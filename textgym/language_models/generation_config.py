"""What a model's `generation_config.json` says of how its texts end."""

from __future__ import annotations

import json
import os
from pathlib import Path

from textgym.arguments import check_argument
from textgym.language_models.adapters import adapter_base
from textgym.language_models.loader import loading, pretrained_arguments, resolve, saved_adapters

FILE = "generation_config.json"


def end_ids(model: str | Path) -> tuple[int, ...]:
    """The `eos_token_id` of a model's generation config, one or several; () where there is none.

    Args:
        model: a name, a directory or a hub id, as `load_tokenizer` takes it. For a folder of adapters alone, the base
            model's counts.

    Raises:
        ValueError: the file is no JSON object, or its `eos_token_id` is none of an integer, a list of them and null.
    """
    from transformers.utils import cached_file

    source = resolve(model)
    hub = pretrained_arguments(source)
    with loading(model, source):
        if os.path.isdir(source):
            found = str(Path(source) / FILE) if (Path(source) / FILE).is_file() else None
        else:
            offline = hub["local_files_only"]
            found = cached_file(source, FILE, _raise_exceptions_for_missing_entries=False, local_files_only=offline)
    if found is None:
        adapters = saved_adapters(model, source, hub)
        return () if adapters is None else end_ids(adapter_base(adapters))
    try:
        ids = json.loads(Path(found).read_text(encoding="utf-8")).get("eos_token_id")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{found!r} is no JSON object: {error}") from error
    check_argument(f"eos_token_id in {found!r}", ids, int | list | None)
    listed = ids if isinstance(ids, list) else [] if ids is None else [ids]
    for one in listed:
        check_argument(f"an eos_token_id in {found!r}", one, int)
    return tuple(listed)
