"""An OpenEnv environment of one turn as prompts and scorer: what its `reset` asks is a prompt, its `step` the reward.

A row brings along how its prompt was asked for, in the column `COLUMN`. The scorer asks for it in the same way again,
and steps once with the completion. So an environment fits if the same seed and options of `reset` give the same
question, if an action is one text, and if the episode is over after it; the scorer refuses all else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from textgym.arguments import Count, Seed, accepts, check_argument
from textgym.importing import require
from textgym.scorers.base import Scorer
from textgym.scorers.event_loop import wait
from textgym.scorers.extraction import Extraction
from textgym.scorers.generations import Generations
from textgym.splits import Split, in_split

COLUMN = "openenv"
SIZE = 500
"""How many seeds are tried where no size is given."""


def prompts(
    base_url: str,
    prompt: str = "prompt",
    reset: Any = None,
    size: Count = SIZE,
    seed: Seed = 0,
    split: Split | None = None,
) -> list[dict[str, Any]]:
    """What a served environment asks, each question once, with the column `COLUMN`, by which `OneTurn` asks again.

    Args:
        base_url: the server's, `"http://127.0.0.1:8000"`.
        prompt: the field of the observation that has the question.
        reset: further arguments of the environment's `reset`, a dict.
        size: how many seeds are tried; questions that repeat one are left out.
        seed: the first seed; the others follow it.
        split: a part that a hash of the question decides, so it is the same at every seed and size; None for all.

    Raises:
        ValueError: `reset` is no dict, or the observation has no such field that is a text.
        RuntimeError: the environment refuses the reset.
        ConnectionError: the server does not answer.
        ImportError: openenv is missing.
    """
    check_argument("prompt source 'openenv': reset", reset, dict | None)
    asked = [{"base_url": base_url, "prompt": prompt, "reset": {"seed": seed + i} | (reset or {})} for i in range(size)]
    found: dict[str, dict[str, Any]] = {}
    for question, entry in zip(_play(asked, _question, sessions=1), asked, strict=True):
        if split is None or in_split(question, split):
            found.setdefault(question, {"prompt": question, COLUMN: entry | {"question": question}})
    return list(found.values())


class OneTurn(Scorer):
    """What an OpenEnv environment pays for the completion as the one action of its episode.

    The prompts are those of the prompt source `"openenv"`.

    Args:
        action: the field of the environment's action that takes the text.
        extract: where in the completion the action stands, as in the scorer `reasoning_gym`; where there is none of it
            the reward is 0, and the environment is not asked.
        sessions: how many episodes are played at once. The server must permit as many.
        name: the component's name in `info`.

    Range: the environment's.

    Cost: a connection for each session, and a reset and a step for each row.

    Source: OpenEnv 0.10, `GenericEnvClient`.

    Example: `{"name": "textgym.bridges.openenv_tasks:OneTurn", "action": "answer"}`

    Raises:
        ValueError: an argument of another type; when asked, prompts of another source, an environment that asks
            something else at the same reset, does not end after one action, or gives no reward.
        ImportError: when asked, openenv is missing.
    """

    slow = True

    def __init__(self, action: str, *, extract: str = "all", sessions: Count = 1, name: str = "openenv"):
        check_argument(f"scorer {name!r}: action", action, str)
        check_argument(f"scorer {name!r}: sessions", sessions, Count)
        self.action, self.sessions, self.name = action, sessions, name
        self.action_in = Extraction(extract, f"scorer {name!r}: extract")

    def score(self, generations: Generations) -> list[float]:
        """(n,) the rewards of the steps."""
        entries = generations.columns.get(COLUMN, [None] * len(generations))
        if not all(isinstance(entry, Mapping) and {"base_url", "reset", "question"} <= set(entry) for entry in entries):
            raise ValueError(
                f"the prompts do not say in a column {COLUMN!r} how they were asked for; take them from the prompt "
                'source of that name, as in prompts="openenv:http://127.0.0.1:8000"'
            )
        texts = [self.action_in(completion) for completion in generations.completions]
        rows = [entry | {"text": text} for entry, text in zip(entries, texts, strict=True) if text is not None]
        paid = iter(_play(rows, self._reward, self.sessions))
        return [0.0 if text is None else next(paid) for text in texts]

    async def _reward(self, client: Any, row: Mapping[str, Any]) -> float:
        if (question := await _question(client, row)) != row["question"]:
            raise ValueError(
                f"the environment asked {row['question']!r}, and with the same {row['reset']} now asks {question!r}; a "
                "reset must ask the same again"
            )
        result = await client.step({self.action: row["text"]})
        if not result.done:
            raise ValueError("the episode is not over after one action; an environment of several turns is no scorer")
        if not accepts(float, result.reward):
            raise ValueError(f"the environment's reward is {result.reward!r}; it must be a number")
        return float(result.reward)


async def _question(client: Any, row: Mapping[str, Any]) -> str:
    """What the environment asks after a reset."""
    observation = (await client.reset(**row["reset"])).observation
    question = observation.get(row["prompt"])
    if not isinstance(question, str):
        texts = [name for name, value in observation.items() if isinstance(value, str)]
        raise ValueError(f"the observation's {row['prompt']!r} is {question!r}; its fields that are texts are {texts}")
    return question


def _play(rows: Sequence[Any], play: Callable[[Any, Any], Awaitable[Any]], sessions: int) -> list[Any]:
    """`play(client, row)` for each row, some at once, with clients that are connected to the row's `base_url`."""
    client_class = require("openenv.core", "openenv").GenericEnvClient
    played: dict[int, Any] = {}

    async def session(base_url: str, queue: Iterator[int]) -> None:
        async with client_class(base_url=base_url) as client:
            for i in queue:
                played[i] = await play(client, rows[i])

    async def all_sessions() -> None:
        async with asyncio.TaskGroup() as tasks:
            for url in {row["base_url"] for row in rows}:
                mine = [i for i, row in enumerate(rows) if row["base_url"] == url]
                queue = iter(mine)
                for _ in range(min(sessions, len(mine))):
                    tasks.create_task(session(url, queue))

    try:
        wait(all_sessions())
    except ExceptionGroup as group:  # one for all sessions; the first error ended them
        raise group.exceptions[0] from None
    return [played[i] for i in range(len(rows))]
