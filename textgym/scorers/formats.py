"""Scorers of form: sections between tags, JSON, and source text of Python that compiles. Nothing is executed."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from textgym.arguments import check_argument
from textgym.importing import require
from textgym.scorers.base import Generations, Scorer
from textgym.scorers.reading import Of, texts_of


class Tags(Scorer):
    """1.0 if the completion consists of tagged sections and then an answer, else 0.0.

    With the tags "think" it must read `<think>...</think>...`. Each section stands there once, in the order given, with
    nothing but white space before and between them, and none of the tags stands anywhere else. A section may be empty,
    the answer may not.

    A tokenizer whose tags are special tokens leaves them out of its texts, so they are not seen.

    Args:
        tags: the name of the section, or the names of several, in order.
        answer: whether something other than white space must follow the last section; where False, nothing may.
        opened: whether the prompt ends with the first opening tag, as some chat templates let it; the completion then
            begins within that section.
        name: the component's name in `info`.

    Range: 0 or 1; 1 is best.

    Cost: one pass of a regular expression.

    Source: DeepSeek-R1's format reward (arXiv 2501.12948); TRL's `think_format_reward`, which demands no answer.

    Example: `{"name": "tags", "tags": ["reasoning", "answer"], "answer": false}`

    Raises:
        ValueError: no tag, an empty one, one twice, or one with white space, "<", ">" or "/"; `answer` or `opened` is
            neither True nor False.
    """

    def __init__(
        self, tags: str | Sequence[str] = "think", *, answer: bool = True, opened: bool = False, name: str = "tags"
    ):
        check_argument(f"scorer {name!r}: answer", answer, bool)
        check_argument(f"scorer {name!r}: opened", opened, bool)
        listed = [tags] if isinstance(tags, str) else tags
        is_list = isinstance(listed, list | tuple) and all(isinstance(tag, str) for tag in listed)
        if not is_list or not listed or len(set(listed)) < len(listed) or not all(map(_TAG.fullmatch, listed)):
            raise ValueError(
                f"scorer {name!r}: tags is {tags!r}; it must be the name of a tag, such as 'think', or a list of "
                "different ones"
            )
        self.name, self.answer, self.opened = name, answer, opened
        self._wanted = [bracketed for tag in listed for bracketed in (f"<{tag}>", f"</{tag}>")]
        self._any_tag = re.compile("(" + "|".join(map(re.escape, self._wanted)) + ")")

    def score(self, generations: Generations) -> list[float]:
        """(n,) 0.0 or 1.0."""
        return [float(self._is_formed(text)) for text in generations.completions]

    def _is_formed(self, text: str) -> bool:
        parts = self._any_tag.split(self._wanted[0] + text if self.opened else text)
        *outside, rest = parts[::4]  # the texts before each section, and after the last
        return parts[1::2] == self._wanted and not any(map(str.strip, outside)) and bool(rest.strip()) == self.answer


_TAG = re.compile(r"[^\s<>/]+")
DEEPEST = 128
"""Lists and objects in one another that count as JSON."""


class ValidJSON(Scorer):
    """1.0 if the completion is JSON, and fits a schema if there is one, else 0.0.

    White space around it is allowed, and nothing else; NaN and Infinity, which Python reads, are no JSON. Two more
    things count as no JSON here: integers of more than 4,300 digits, which Python does not read, and values that are
    nested deeper than 128, which only some versions of Python read. For partial credit, put one scorer with and one
    without a schema into a `WeightedSum`.

    Args:
        schema: a JSON Schema, or the path of a file that holds one; None asks for JSON of any kind. Its draft is the
            one that its `$schema` names, otherwise 2020-12. References are resolved within it; nothing is downloaded.
        of: `"completion"`, or `"text"` for prompt and completion, where the prompt begins the JSON.
        name: the component's name in `info`.

    Range: 0 or 1; 1 is best.

    Cost: parsing, linear in the length, and the validation.

    Source: Python's `json`, and the `Validator` of the package jsonschema.

    Example: `{"name": "json", "schema": {"type": "object", "required": ["answer"]}}`

    Raises:
        ImportError: there is a schema, and jsonschema is missing.
        FileNotFoundError: there is no such file.
        ValueError: the schema is none, or has a reference that leads nowhere; its file holds no JSON; `of` is none of
            its two values.
    """

    def __init__(self, schema: Mapping[str, Any] | str | None = None, *, of: Of = "completion", name: str = "json"):
        check_argument(f"scorer {name!r}: schema", schema, Mapping | str | None)
        check_argument(f"scorer {name!r}: of", of, Of)
        self.name, self.of = name, of
        self.schema = _loaded(f"scorer {name!r}", schema) if isinstance(schema, str) else schema
        self._validator = None if self.schema is None else _validator(f"scorer {name!r}", self.schema)

    def __reduce__(self) -> Any:
        """What pickle needs, as jsonschema's validators cannot be pickled."""
        return partial(type(self), self.schema, of=self.of, name=self.name), ()

    def score(self, generations: Generations) -> list[float]:
        """(n,) 0.0 or 1.0."""
        return [float(self._is_valid(text)) for text in texts_of(generations, self.of)]

    def _is_valid(self, text: str) -> bool:
        try:
            value = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return False
        if _depth(value) > DEEPEST:
            return False
        try:
            return self._validator is None or self._validator.is_valid(value)
        except RecursionError:
            return False


def _depth(value: Any) -> int:
    """How many lists and objects stand in one another."""
    depth, inside = 0, [value]
    while containers := [x for x in inside if isinstance(x, dict | list)]:
        depth, inside = depth + 1, [x for c in containers for x in (c.values() if isinstance(c, dict) else c)]
    return depth


class Compiles(Scorer):
    """1.0 if prompt and completion together are source text that Python compiles, else 0.0.

    It is compiled as a module, and never executed; nothing is imported, and names need not exist. The Python that runs
    TextGym decides what is right. Where the prompt compiles alone, so does an empty completion: add a scorer that asks
    for more.

    Args:
        of: `"text"`, or `"completion"` to compile that alone.
        name: the component's name in `info`.

    Range: 0 or 1; 1 is best.

    Cost: Python's parser and compiler, about linear in the length.

    Source: Python's `compile`.

    Example: `{"name": "compiles", "of": "completion"}`

    Raises:
        ValueError: `of` is none of its two values.
    """

    def __init__(self, *, of: Of = "text", name: str = "compiles"):
        check_argument(f"scorer {name!r}: of", of, Of)
        self.name, self.of = name, of

    def score(self, generations: Generations) -> list[float]:
        """(n,) 0.0 or 1.0."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as those about escapes, which are no errors yet
            return [float(_compiles(source)) for source in texts_of(generations, self.of)]


def _compiles(source: str) -> bool:
    """Whether Python takes it; what it refuses comes as any of these errors, a null byte and deep nesting included."""
    try:
        compile(source, "<completion>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _loaded(who: str, path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{who}: the file {path!r} holds no JSON: {error}") from error


def _validator(who: str, schema: Any) -> Any:
    """The validator of a schema, which is checked first, its references included."""
    jsonschema = require("jsonschema", "text")
    from jsonschema_specifications import REGISTRY  # the drafts themselves; it downloads nothing
    from referencing import Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
        resource = Resource.from_contents(schema, default_specification=DRAFT202012)
        _look_up_references(resource, REGISTRY.resolver_with_root(resource))
    except jsonschema.SchemaError as error:
        raise ValueError(f"{who}: schema is no JSON Schema: {error.message} (at {error.json_path})") from error
    except Unresolvable as error:
        raise ValueError(
            f"{who}: schema has the reference {error.ref!r}, which leads nowhere within it; nothing is downloaded"
        ) from error
    return kind(schema, registry=REGISTRY)


def _look_up_references(resource: Any, resolver: Any) -> None:
    """Follow each `$ref` of a schema, with the errors of the package referencing for those that lead nowhere."""
    if isinstance(resource.contents, Mapping) and "$ref" in resource.contents:
        resolver.lookup(resource.contents["$ref"])
    for part in resource.subresources():
        _look_up_references(part, resolver.in_subresource(part))
