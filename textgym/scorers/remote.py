"""Scorers that run elsewhere: what those behind an endpoint share, and a service of one's own."""

from __future__ import annotations

import hashlib
import json
import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from textgym.arguments import Count, NonNegative, Positive, accepts, check_argument
from textgym.importing import did_you_mean
from textgym.scorers.base import Generations, Scorer, ScorerError
from textgym.scorers.endpoint import Endpoint, Question


class EndpointScorer(Scorer):
    """A scorer whose values an endpoint gives; a subclass says what is asked, and reads the answers.

    Args:
        name: the component's name in `info`.
        endpoint: whom to ask.
        batch_size: rows in a request at most.
        cache_size: how many rows' rewards are kept, those asked for last; 0 keeps none.

    Raises:
        ValueError: a size that is no such integer.
    """

    slow = True

    def __init__(self, name: str, endpoint: Endpoint, *, batch_size: Count, cache_size: int):
        check_argument(f"scorer {name!r}: batch_size", batch_size, Count)
        check_argument(f"scorer {name!r}: cache_size", cache_size, int)
        if cache_size < 0:
            raise ValueError(f"scorer {name!r}: cache_size is {cache_size}; it must be an integer of at least 0")
        self.name, self.endpoint, self.batch_size, self.cache_size = name, endpoint, batch_size, cache_size
        self._cache: OrderedDict[bytes, float] = OrderedDict()

    @abstractmethod
    def rows(self, generations: Generations) -> list[dict[str, Any]]:
        """What the endpoint is told of each row, n JSON objects; rows of which it is told the same share a reward."""

    @abstractmethod
    def body(self, rows: Sequence[dict[str, Any]], unread: int) -> dict[str, Any]:
        """The JSON of a request about some rows, after `unread` answers to it that could not be read."""

    @abstractmethod
    def read(self, answer: Any, count: int) -> list[float]:
        """The rewards of `count` rows from an answer's JSON; a ValueError where it holds none."""

    def score(self, generations: Generations) -> list[float]:
        """(n,) rewards.

        Raises:
            ScorerError: a row is no JSON, or the endpoint gave no reward for it.
        """
        rows = self.rows(generations)
        if not self.cache_size:
            return self._ask(rows, generations.rows.tolist())
        keys = [hashlib.blake2b(json.dumps(row, sort_keys=True).encode(), digest_size=16).digest() for row in rows]
        known = {key: self._cache[key] for key in keys if key in self._cache}
        first = {key: index for index, key in reversed(list(enumerate(keys))) if key not in known}
        new = sorted(first.values())
        if new:
            asked = self._ask([rows[i] for i in new], [int(generations.rows[i]) for i in new])
            known |= dict(zip([keys[i] for i in new], asked, strict=True))
        for key in keys:
            self._cache[key] = known[key]
            self._cache.move_to_end(key)
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        return [known[key] for key in keys]

    def _ask(self, rows: list[dict[str, Any]], numbers: list[int]) -> list[float]:
        questions = []
        for start in range(0, len(rows), self.batch_size):
            part, rest = rows[start : start + self.batch_size], numbers[start : start + self.batch_size]
            about = f"row{'s' * (len(rest) > 1)} {', '.join(map(str, rest))}"
            questions.append(Question(partial(self.body, part), partial(self.read, count=len(part)), about))
        return [reward for rewards in self.endpoint.ask(questions) for reward in rewards]


class Remote(EndpointScorer):
    """What a service of your own answers: JSON with texts is sent to a URL, JSON with rewards comes back.

    A request is `{"prompts": [...], "completions": [...], "level": [...]}`, with an entry of the same length for each
    column of the prompts; the answer is `{"rewards": [0.5, ...]}`, one finite number per row, in order. Anything else
    is an error, and so is a service that does not answer; no reward is ever made up. What is tried again, and when, is
    said at `textgym.scorers.endpoint.Endpoint`.

    Args:
        url: `http://` or `https://`.
        columns: names of the prompts' columns to send; None sends all.
        batch_size: rows in a request at most.
        concurrency: requests at the same time at most.
        timeout: seconds to wait for a connection, and then for each next part of the answer.
        retries: attempts after the first one.
        backoff: seconds before the second attempt; each further wait is twice as long, up to a minute.
        cache_size: how many rows' rewards are kept, by all that is sent of them; those asked for last stay. 0 keeps
            none. A service that gives a row another reward each time would be asked once.
        headers: sent with every request. They stand in the env's spec, so a key does not belong there.
        api_key_variable: the name of an environment variable, whose value is sent as `Authorization: Bearer ...`.
        name: the component's name in `info`.

    Range: what the service gives.

    Cost: a request per `batch_size` rows; 64 rows of 50 ms each take 0.2 s.

    Source: the service; the client is requests.

    Example: `{"name": "remote", "url": "http://localhost:8000/score", "batch_size": 16}`

    Raises:
        ImportError: requests is missing.
        ValueError: an argument of another type, no such URL, or an environment variable that is not set.
    """

    def __init__(
        self,
        url: str,
        *,
        columns: Sequence[str] | None = None,
        batch_size: Count = 8,
        concurrency: Count = 16,
        timeout: Positive = 30.0,
        retries: int = 4,
        backoff: NonNegative = 0.5,
        cache_size: int = 0,
        headers: Mapping[str, str] | None = None,
        api_key_variable: str | None = None,
        name: str = "remote",
    ):
        if columns is not None and not (isinstance(columns, list | tuple) and all(isinstance(c, str) for c in columns)):
            raise ValueError(f"scorer {name!r}: columns is {columns!r}; it must be a list of columns' names, or None")
        self.columns = columns
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
        super().__init__(name, endpoint, batch_size=batch_size, cache_size=cache_size)

    def rows(self, generations: Generations) -> list[dict[str, Any]]:
        """Prompt, completion and columns of each row.

        Raises:
            ScorerError: the prompts have no such column, or a value that is no JSON.
        """
        known = generations.columns
        for column in self.columns or ():
            if column not in known:
                hint = did_you_mean(column, known)
                raise ScorerError(
                    f"scorer {self.name!r}: the prompts have no column {column!r} (columns: {list(known)}){hint}"
                )
        sent = {column: known[column] for column in (known if self.columns is None else self.columns)}
        for column, values in sent.items():
            try:
                json.dumps(values, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise ScorerError(
                    f"scorer {self.name!r}: the column {column!r} is no JSON ({error}); leave it out with columns=[...]"
                ) from error
        sent |= {"prompts": generations.prompts, "completions": generations.completions}
        return [{name: values[i] for name, values in sent.items()} for i in range(len(generations))]

    def body(self, rows: Sequence[dict[str, Any]], unread: int) -> dict[str, Any]:
        """Lists by name."""
        return {name: [row[name] for row in rows] for name in rows[0]}

    def read(self, answer: Any, count: int) -> list[float]:
        """The numbers under `"rewards"`."""
        rewards = answer.get("rewards") if isinstance(answer, dict) else None
        if not isinstance(rewards, list):
            raise ValueError('the answer has no list "rewards"')
        if len(rewards) != count:
            raise ValueError(f"the answer has {len(rewards)} rewards for {count} rows")
        for reward in rewards:
            if not accepts(float, reward) or math.isinf(reward):
                raise ValueError(f"the reward {reward!r} is no finite number")
        return rewards
