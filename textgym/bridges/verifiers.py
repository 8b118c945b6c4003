"""A TextGym id as a verifiers taskset: each prompt a task, the env's return of the model's reply the reward.

verifiers lets a model reply as a chat and hands over texts, no tokens, so a reply is encoded by the env's tokenizer.
One that the env could not have written, because it is too long or has forbidden tokens, earns `refused_reward` and is
counted by the metric `refused`.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

from textgym.bridges.tasks import prompt_rows, task_of
from textgym.envs.finished import returns_of
from textgym.envs.task import TextTask
from textgym.importing import require
from textgym.scorers import Scores

require("verifiers", "verifiers")

import verifiers.v1 as vf  # noqa: E402 (asked for above)
from pydantic import Field, FiniteFloat  # noqa: E402

__all__ = ["TextGymTaskset"]  # verifiers takes the one taskset that a module lists

THREAD = ThreadPoolExecutor(1, "textgym-scores")
"""All scoring is done here: scorers are not made for several threads, and slow ones must not stop the event loop."""


class TextGymData(vf.TaskData):
    """A prompt of an env.

    Attributes:
        env_id: the id.
        env_kwargs: the env's arguments, as JSON.
        row: the prompt with its columns, as the env's `reset` takes it.
    """

    env_id: str
    env_kwargs: str
    row: dict[str, Any]


class TextGymTaskConfig(vf.TaskConfig):
    """How replies are paid.

    Attributes:
        refused_reward: of a reply that is no completion of the env.
    """

    refused_reward: FiniteFloat = 0.0


class TextGymTask(vf.Task[TextGymData, vf.State, TextGymTaskConfig]):
    """One prompt."""

    @vf.reward
    async def reward(self, trace: vf.Trace) -> float:
        """The env's return of the reply; its components become metrics."""
        replies = trace.assistant_messages
        reply = (replies[-1].content or "") if replies else ""
        scores = await asyncio.get_running_loop().run_in_executor(THREAD, self._scores, reply)
        trace.record_metric("refused", scores is None)
        if scores is None:
            return self.config.refused_reward
        components = {name: float(values[0]) for name, values in scores.components.items()}
        trace.record_metrics({name: value for name, value in components.items() if not math.isnan(value)})
        return float(scores.rewards[0])

    def _scores(self, reply: str) -> Scores | None:
        """What the env gives for a reply; None if it is none of its completions."""
        task = _task(self.data.env_id, self.data.env_kwargs)
        prompt_id = np.array([task.prompts.add(self.data.row)])
        try:
            row = task.encode_parts(task.prompts.texts(prompt_id)[0], reply)
        except ValueError:
            return None
        scores = returns_of(task, row[None], prompt_id)
        task.prompts.release()
        return scores


class TextGymConfig(vf.TasksetConfig):
    """Which prompts.

    Attributes:
        env_id: the id.
        env_kwargs: the env's arguments, such as `{"split": "test"}`; they must be JSON.
        size: how many prompts, drawn with replacement; None for all of the source.
        seed: of the draw.
        task: how replies are paid.
    """

    env_id: str = "TextGen-v0"
    env_kwargs: dict[str, Any] = Field(default_factory=dict)
    size: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    task: TextGymTaskConfig = TextGymTaskConfig()


class TextGymTaskset(vf.Taskset[TextGymTask, TextGymConfig]):
    """The prompts of an env id.

    Raises:
        ValueError: the id or its arguments, see `textgym.bridges.tasks.env_of`; a source without an end and no size.
    """

    def load(self) -> Iterator[TextGymTask]:
        """A task for each prompt; its columns must be JSON."""
        config, kwargs = self.config, json.dumps(self.config.env_kwargs, sort_keys=True)
        task = _task(config.env_id, kwargs)
        for prompt_id, _ in prompt_rows(task, config.size, config.seed):
            row = task.prompts.pin(prompt_id)
            data = TextGymData(prompt=row["prompt"], env_id=config.env_id, env_kwargs=kwargs, row=row)
            yield TextGymTask(data, config.task)


@lru_cache(maxsize=8)
def _task(env_id: str, env_kwargs: str) -> TextTask:
    return task_of(env_id, **json.loads(env_kwargs))
