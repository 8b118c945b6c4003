"""A language model as a judge, behind a chat endpoint as OpenAI's API has it; vLLM, llama.cpp and others offer one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from textgym.arguments import Count, NonNegative, Positive, accepts, check_argument
from textgym.scorers.base import Generations
from textgym.scorers.endpoint import Endpoint
from textgym.scorers.references import references_of
from textgym.scorers.remote import EndpointScorer

RUBRIC = """Rate how good the continuation of the text is, from 1 (very bad) to 10 (excellent).

Text:
{prompt}

Continuation:
{completion}

Think about it in one or two sentences. Then end with a line "Score: " and the number."""

PATTERN = r"[Ss]core\W*?(-?\d+(?:\.\d+)?)"
PLACES = ("prompt", "completion", "reference")


class Judge(EndpointScorer):
    """The verdict of a language model behind a chat endpoint, by a rubric of yours.

    One request per row: the rubric with the row's texts in it, as one message of the user's, at temperature 0. The
    answer's text must hold a number on the scale; one that does not is asked for again, with the next seed, and is an
    error when all attempts are spent. No reward is ever made up.

    Args:
        url: of the endpoint, with its path: `"http://localhost:8000/v1/chat/completions"`.
        model: which of the endpoint's models is asked.
        rubric: the message; `{prompt}`, `{completion}` and `{reference}` in it become the row's.
        pattern: a regular expression with one group, the number; its last match in the answer counts. By default it is
            the number behind the word "Score".
        key: in place of a pattern, the key of the number in a JSON object, the last one in the answer that has it.
        scale: the least and the greatest number that the judge may give.
        column: the prompts' column with the reference, a text or a list of texts; read where the rubric has it.
        parameters: further fields of the request, such as `{"max_tokens": 256}`, on top of `{"temperature": 0, "seed":
            0}`; None in place of a value leaves a field out.
        concurrency: requests at the same time at most.
        timeout: seconds to wait for a connection, and then for each next part of the answer.
        retries: attempts after the first one.
        backoff: seconds before the second attempt; each further wait is twice as long, up to a minute.
        cache_size: how many verdicts are kept, by the message; those asked for last stay. 0 keeps none.
        headers: sent with every request. They stand in the env's spec, so a key does not belong there.
        api_key_variable: the name of an environment variable, whose value is sent as `Authorization: Bearer ...`.
        name: the component's name in `info`.

    Range: [0, 1]: the judge's number, 0 at the least and 1 at the greatest of the scale.

    Cost: one answer of the judge's per row; 64 of 50 ms each take 0.2 s.

    Source: Zheng et al. 2023 (arXiv 2306.05685), single-answer grading; the client is requests.

    Example: `{"name": "judge", "url": "http://localhost:8000/v1/chat/completions", "model": "qwen3"}`

    Raises:
        ImportError: requests is missing.
        ValueError: an argument of another type, no such URL, a rubric without `{completion}` or with a place that
            nothing fills, a pattern that is none or has not one group, or a scale without a width.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        rubric: str = RUBRIC,
        pattern: str | None = None,
        key: str | None = None,
        scale: Sequence[float] = (1.0, 10.0),
        column: str = "reference",
        parameters: Mapping[str, Any] | None = None,
        concurrency: Count = 32,
        timeout: Positive = 60.0,
        retries: int = 4,
        backoff: NonNegative = 0.5,
        cache_size: int = 0,
        headers: Mapping[str, str] | None = None,
        api_key_variable: str | None = None,
        name: str = "judge",
    ):
        for argument, value in (("model", model), ("rubric", rubric), ("column", column)):
            check_argument(f"scorer {name!r}: {argument}", value, str)
        check_argument(f"scorer {name!r}: key", key, str | None)
        check_argument(f"scorer {name!r}: parameters", parameters, Mapping | None)
        if not isinstance(scale, list | tuple) or len(scale) != 2 or not all(accepts(float, one) for one in scale):
            raise ValueError(f"scorer {name!r}: scale is {scale!r}; it must be two numbers, the least and the greatest")
        if not scale[0] < scale[1] < float("inf") or scale[0] == -float("inf"):
            raise ValueError(f"scorer {name!r}: scale is {scale!r}; both are finite, and the first is below the second")
        self.model, self.rubric, self.column, self.key = model, rubric, column, key
        self.scale = float(scale[0]), float(scale[1])
        fields = {"temperature": 0, "seed": 0, **(parameters or {})}
        self.parameters = {field: value for field, value in fields.items() if value is not None}
        self._places = _places(name, rubric)
        self._pattern = _pattern(name, pattern, key)
        endpoint = Endpoint(
            name,
            url,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            concurrency=concurrency,
            headers=headers,
            api_key_variable=api_key_variable,
        )
        super().__init__(name, endpoint, batch_size=1, cache_size=cache_size)

    def rows(self, generations: Generations) -> list[dict[str, Any]]:
        """The message about each row."""
        texts = {"prompt": generations.prompts, "completion": generations.completions}
        if "reference" in self._places:
            texts["reference"] = ["\n".join(known) for known in references_of(generations, self.column)]

        def message(row: int) -> str:
            return re.sub(_PLACE, lambda place: texts[place[1]][row], self.rubric)

        return [{"role": "user", "content": message(row)} for row in range(len(generations))]

    def body(self, rows: Sequence[dict[str, Any]], unread: int) -> dict[str, Any]:
        """A chat of one message; after answers that could not be read, with a later seed."""
        body = {"model": self.model, "messages": list(rows), **self.parameters}
        if isinstance(body.get("seed"), int):
            body["seed"] += unread
        return body

    def read(self, answer: Any, count: int) -> list[float]:
        """The number in the text of the first choice, from 0 to 1."""
        try:
            text = answer["choices"][0]["message"]["content"]
        except (TypeError, KeyError, IndexError):
            text = None
        if not isinstance(text, str):
            raise ValueError("the answer is no chat completion with a text")
        number, (least, greatest) = self._number(text), self.scale
        if not least <= number <= greatest:  # also where it is not a number
            raise ValueError(f"the verdict {number:g} is not on the scale from {least:g} to {greatest:g}")
        return [(number - least) / (greatest - least)]

    def _number(self, text: str) -> float:
        if self.key is not None:
            found = [value[self.key] for value in _objects(text) if self.key in value]
            if not found or not accepts(float, found[-1]):
                raise ValueError(f"no JSON object in the text has a number under {self.key!r}")
            return found[-1]
        found = self._pattern.findall(text)
        if not found:
            raise ValueError(f"nothing in the text matches {self._pattern.pattern!r}")
        return float(found[-1])


_PLACE = re.compile(r"\{(\w+)\}")


def _places(name: str, rubric: str) -> set[str]:
    """What a rubric is to be filled with."""
    places = set(_PLACE.findall(rubric))
    if unknown := places - set(PLACES):
        raise ValueError(f"scorer {name!r}: nothing fills {{{min(unknown)}}} in the rubric; places are {list(PLACES)}")
    if "completion" not in places:
        raise ValueError(f"scorer {name!r}: the rubric has no place {{completion}}, so every text would get one reward")
    return places


def _pattern(name: str, pattern: str | None, key: str | None) -> re.Pattern[str]:
    check_argument(f"scorer {name!r}: pattern", pattern, str | None)
    if pattern is not None and key is not None:
        raise ValueError(f"scorer {name!r} reads by a pattern or by a key, not by both")
    try:
        compiled = re.compile(PATTERN if pattern is None else pattern)
    except re.error as error:
        raise ValueError(f"scorer {name!r}: pattern {pattern!r} is no regular expression: {error}") from error
    if compiled.groups != 1:
        raise ValueError(f"scorer {name!r}: pattern {pattern!r} has {compiled.groups} groups; it must have one")
    return compiled


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects that stand in a text, in order; those within another one are part of it."""
    decoder, found, at = json.JSONDecoder(), [], text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
            found.append(value)
        except ValueError:
            end = at + 1
        at = text.find("{", end)
    return found
