"""JSON endpoints: many requests at once, tried again where they fail, and never an answer that was not given.

What is left out: what is asked and how an answer is read (`textgym.scorers.remote`, `textgym.scorers.judge`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from textgym.arguments import Count, NonNegative, Positive, check_argument
from textgym.importing import require
from textgym.scorers.base import ScorerError

LONGEST_WAIT = 60.0
"""Seconds between two attempts at most, also where a Retry-After header asks for more."""

TRY_AGAIN = frozenset({408, 425, 429})
"""Statuses below 500 of which a later attempt may be free: timeout, too early, too many requests."""


@dataclass(frozen=True)
class Question:
    """One request, and what is to become of its answer.

    Attributes:
        body: gives the JSON to send, from how many answers to this question could not be read so far.
        read: makes the values of the answer's JSON, or raises a ValueError that says what is wrong with it.
        about: what the question is about, for errors.
    """

    body: Callable[[int], Any]
    read: Callable[[Any], list[float]]
    about: str


class Endpoint:
    """A URL that answers a POST of JSON with JSON.

    Connections that fail, answers that do not come in time or break off, statuses 408, 425, 429 and from 500 on, and
    answers that cannot be read are tried again; other statuses, redirects among them, are errors at once.

    Args:
        name: the scorer's, for errors.
        url: `http://` or `https://`.
        timeout: seconds to wait for a connection, and then for each next part of the answer.
        retries: attempts after the first one.
        backoff: seconds before the second attempt; each further wait is twice as long, up to a minute. A Retry-After
            header of the answer makes it longer, up to a minute too.
        concurrency: requests at the same time at most.
        headers: sent with every request. They stand in the env's spec, so a key does not belong there.
        api_key_variable: the name of an environment variable, whose value is sent as `Authorization: Bearer ...`. It
            is read for each request, and kept nowhere.

    Raises:
        ImportError: requests is missing.
        ValueError: an argument of another type, no such URL, one that holds a password, headers that HTTP does not
            allow, or an environment variable that is not set.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        timeout: Positive,
        retries: int,
        backoff: NonNegative,
        concurrency: Count,
        headers: Mapping[str, str] | None,
        api_key_variable: str | None,
    ):
        check_argument(f"scorer {name!r}: timeout", timeout, Positive)
        check_argument(f"scorer {name!r}: retries", retries, int)
        check_argument(f"scorer {name!r}: backoff", backoff, NonNegative)
        check_argument(f"scorer {name!r}: concurrency", concurrency, Count)
        check_argument(f"scorer {name!r}: api_key_variable", api_key_variable, str | None)
        if retries < 0:
            raise ValueError(f"scorer {name!r}: retries is {retries}; it must be an integer of at least 0")
        if api_key_variable is not None and not os.environ.get(api_key_variable):
            raise ValueError(f"scorer {name!r}: the environment variable {api_key_variable!r} is not set")
        self.name, self.url, self.timeout, self.retries, self.backoff = name, url, timeout, retries, backoff
        self.concurrency, self.headers, self.api_key_variable = concurrency, dict(headers or {}), api_key_variable
        self._check_url()

    def ask(self, questions: Sequence[Question]) -> list[list[float]]:
        """The values of each question, in order, asked at the same time.

        Raises:
            ScorerError: one was not answered in all attempts; it names the endpoint, the attempts and the last problem.
        """
        session, stopped = self._session, threading.Event()
        threads = ThreadPoolExecutor(min(self.concurrency, len(questions)), f"textgym-{self.name}")
        answers = [threads.submit(self._values, session, question, stopped) for question in questions]
        try:
            return [answer.result() for answer in answers]
        finally:  # after an error, or Ctrl-C, nobody waits for the others any more
            stopped.set()
            threads.shutdown(wait=False, cancel_futures=True)

    def _values(self, session: Any, question: Question, stopped: threading.Event) -> list[float]:
        unread, problem, last = 0, "", self.retries + 1
        for attempt in range(1, last + 1):
            wait = min(self.backoff * 2 ** (attempt - 1), LONGEST_WAIT)
            try:
                response = session.post(
                    self.url,
                    json=question.body(unread),
                    headers=self.headers,
                    auth=self._authorize,
                    timeout=self.timeout,
                    allow_redirects=False,  # a redirected POST would become a GET
                )
            except self._requests.RequestException as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                status, text = response.status_code, response.text
                problem = f"status {status}: {_shortened(text)}"
                if 200 <= status < 300:
                    try:
                        return question.read(response.json())
                    except ValueError as error:
                        unread, problem = unread + 1, f"status {status}, but {error}: {_shortened(text)}"
                elif status < 500 and status not in TRY_AGAIN:
                    last = attempt
                wait = max(wait, _retry_after(response))
            if attempt == last or stopped.wait(wait):
                break
        raise ScorerError(
            f"scorer {self.name!r}: {self.url} gave no reward for {question.about} in {attempt} "
            f"attempt{'s' * (attempt > 1)}; the last one: {problem}"
        )

    def _authorize(self, request: Any) -> Any:
        """Add the key; as an `auth` of requests it also keeps the user's .netrc out."""
        if self.api_key_variable is not None:
            request.headers["Authorization"] = f"Bearer {os.environ.get(self.api_key_variable, '')}"
        return request

    @property
    def _requests(self) -> Any:
        return require("requests", "remote")

    @cached_property
    def _session(self) -> Any:
        """Keeps connections open from call to call."""
        session = self._requests.Session()
        adapter = self._requests.adapters.HTTPAdapter(pool_maxsize=self.concurrency)
        for scheme in ("http://", "https://"):
            session.mount(scheme, adapter)
        return session

    def _check_url(self) -> None:
        url = f"scorer {self.name!r}: url is {self.url!r}"
        try:
            parts = urlsplit(self.url) if isinstance(self.url, str) else None
            if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("no host")
            _ = parts.port
        except ValueError as error:
            raise ValueError(f"{url}; it must be a URL with a host, as in 'http://localhost:8000/score'") from error
        if parts.username or parts.password:
            raise ValueError(f"scorer {self.name!r}: the url holds a name or a password; use api_key_variable")
        try:
            self._requests.Request("POST", self.url, headers=self.headers).prepare()
        except (self._requests.RequestException, TypeError, AttributeError) as error:
            raise ValueError(f"{url} and headers are {self.headers!r}: {error}") from error


def _retry_after(response: Any) -> float:
    """Seconds that an answer asks to wait, at most a minute; 0 where it does not, or in no form that HTTP has."""
    from urllib3 import Retry
    from urllib3.exceptions import InvalidHeader

    value = response.headers.get("Retry-After")
    try:
        return 0.0 if value is None else min(Retry().parse_retry_after(value), LONGEST_WAIT)
    except InvalidHeader:
        return 0.0


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "...")
