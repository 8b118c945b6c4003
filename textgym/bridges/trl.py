"""A TextGym id in the loops of TRL: reward function, prompts, generation settings, and environments with a tool.

TRL writes the texts; the rewards are those of the env for the same tokens. A completion that is no whole episode of the
env, because TRL was told to sample otherwise, is refused and never scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from textgym.arguments import Count, Finite, Seed, check_argument
from textgym.bridges.tasks import column_names, prompt_rows, task_of
from textgym.envs.finished import finished_rows, returns_of
from textgym.envs.task import TextTask
from textgym.importing import require
from textgym.mdp import IntArray
from textgym.scorers.trainer import Trainer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


class TRLTask:
    """What TRL's `GRPOTrainer` and `RLOOTrainer` need of an env id.

    Args:
        env_id: the id.
        kwargs: the env's arguments; `tokenizer` must be that of the model that is trained.

    Raises:
        ValueError: see `task_of`.
    """

    def __init__(self, env_id: str, **kwargs: Any):
        self.env_id, self.kwargs = env_id, kwargs
        self.task = task_of(env_id, **kwargs)
        self._columns = column_names(self.task)

    @property
    def processing_class(self) -> PreTrainedTokenizerBase:
        """The env's tokenizer, as TRL takes it."""
        return self.task.tokenizer.to_pretrained()

    @property
    def config(self) -> dict[str, Any]:
        """Arguments of `GRPOConfig` and `RLOOConfig` by which TRL samples what the env permits, and as long."""
        mdp = self.task.mdp
        generation: dict[str, Any] = {"eos_token_id": list(mdp.eos_token_ids)}
        if not mdp.allowed.all():
            generation["suppress_tokens"] = np.flatnonzero(~mdp.allowed).tolist()
        if mdp.min_new_tokens:
            generation["min_new_tokens"] = mdp.min_new_tokens
        return {"max_completion_length": mdp.max_new_tokens, "generation_kwargs": generation}

    def dataset(
        self, split: str | None = None, size: int | None = None, seed: int = 0, *, conversational: bool = False
    ) -> Dataset:
        """The prompts as a `datasets.Dataset`, with the columns `prompt` and those of the env's prompt source.

        A prompt is the text that TRL's tokenizer makes the env's tokens of; a chat, as its template renders it.

        Args:
            split: `"train"` or `"test"`; None for what the env was made with.
            size: how many prompts, drawn with replacement; None for all of the source.
            seed: of the draw.
            conversational: for `environment_factory`: the prompt is one message of the user's.

        Raises:
            ValueError: TRL would read other tokens in a prompt than the env, the source has no such part, or it has no
                end and no size is given.
            ImportError: datasets is missing.
        """
        datasets = require("datasets", "trl")
        check_argument("size", size, Count | None)
        check_argument("seed", seed, Seed)
        task = self.task if split is None else task_of(self.env_id, **self.kwargs | {"split": split})
        rows = []
        for prompt_id, row in prompt_rows(task, size, seed):
            if conversational:
                row["prompt"] = [{"role": "user", "content": row["prompt"]}]
            else:
                row["prompt"] = self._text(task.prompts.find([prompt_id])[0].token_ids.tolist(), row["prompt"])
            rows.append(row)
        return datasets.Dataset.from_list(rows, on_mixed_types="use_json")

    @property
    def reward_func(self) -> Callable[..., list[float]]:
        """For `reward_funcs`: the env's return of each completion; it has the scorer's name, by which TRL logs it.

        What TRL passes as `trainer_state`, `log_metric` and `log_extra` reaches functions that are scorers of the env;
        the mean of each component is logged, too, where the reward is made of several.
        """

        def rewards(
            prompts: list[Any],
            completions: list[Any],
            completion_ids: list[list[int]],
            trainer_state: Any = None,
            log_metric: Callable[[str, float], None] | None = None,
            log_extra: Callable[[str, list[Any]], None] | None = None,
            **columns: list[Any],
        ) -> list[float]:
            trainer = Trainer()
            told = {"state": trainer_state, "log_metric": log_metric, "log_extra": log_extra}
            vars(trainer).update({name: value for name, value in told.items() if value is not None})
            prompt_ids = self.prompt_ids(prompts, columns)
            task = replace(self.task, trainer=trainer)
            scores = returns_of(task, finished_rows(task, prompt_ids, completion_ids), prompt_ids)
            self.task.prompts.release()
            if log_metric is not None and len(scores.components) > 1:
                for name, values in scores.components.items():
                    log_metric(f"components/{name}/mean", float(np.nanmean(values)))
            return scores.rewards.tolist()

        rewards.__name__ = self.task.scorer.name
        return rewards

    def prompt_ids(self, prompts: list[Any], columns: dict[str, list[Any]]) -> IntArray:
        """(n,) the numbers that the prompts of some rows of a `dataset` have in the env's table.

        Raises:
            ValueError: a prompt is a chat, or a column of the env's prompts is missing.
        """
        if missing := [name for name in self._columns if name not in columns]:
            raise ValueError(f"the data set has no column {missing[0]!r}, which the env's prompts have; use dataset()")
        if chats := [prompt for prompt in prompts if not isinstance(prompt, str)]:
            raise ValueError(
                f"the prompt {chats[0]!r} is a chat, which TRL's template turns into other tokens than the env's; use "
                "dataset(), which renders chats"
            )
        table = self.task.prompts
        rows = [{"prompt": p, **{name: columns[name][i] for name in self._columns}} for i, p in enumerate(prompts)]
        return np.array([table.add(row) for row in rows])

    def environment_factory(self, reward_without_text: float = 0.0) -> Callable[[], TextEnvironment]:
        """For `environment_factory`: the model hands its text in by calling the tool `submit`.

        The training needs `dataset(conversational=True)`, and a model that can call tools.

        Args:
            reward_without_text: the reward of a rollout that submits nothing.
        """
        check_argument("reward_without_text", reward_without_text, Finite)
        return lambda: TextEnvironment(self.task, self._columns, reward_without_text)

    def _text(self, token_ids: list[int], text: str) -> str:
        """What TRL is to be given so that it reads these tokens."""
        backend = self.task.tokenizer.backend
        for candidate in (text, backend.decode(token_ids, skip_special_tokens=False)):
            if candidate and self.processing_class(candidate)["input_ids"] == token_ids:
                return candidate
        raise ValueError(
            f"TRL's tokenizer reads {self.processing_class(text)['input_ids']} in the prompt {text!r}, and the env "
            f"{token_ids}; give the env a tokenizer that adds no special tokens, and no prompts that it has to cut"
        )


class TextEnvironment:
    """One rollout's environment for TRL: it begins with the row's prompt and ends when a text is submitted."""

    def __init__(self, task: TextTask, columns: tuple[str, ...], reward_without_text: float):
        self._task, self._columns, self._without = task, columns, reward_without_text
        self._prompt: dict[str, Any] = {}
        self._reward: float | None = None

    def reset(self, **row: Any) -> None:
        """Begin with the prompt of a row of `dataset(conversational=True)`.

        Raises:
            ValueError: the row is none.
        """
        text = row["prompt"][-1]["content"] if isinstance(row["prompt"], list) else ""
        if not text or not set(self._columns) <= set(row):
            raise ValueError(f"train on the prompts of dataset(conversational=True); this row is none of it: {row!r}")
        self._prompt = {"prompt": text, **{name: row[name] for name in self._columns}}
        self._reward = None

    def submit(self, text: str) -> str:
        """Hand in the text that answers the user. This can be done once.

        Args:
            text: The whole text.

        Returns:
            That the text was received.
        """
        if self._reward is not None:
            raise ValueError("a text was handed in already")
        row = self._task.encode_parts(self._prompt["prompt"], text)
        prompt_id = np.array([self._task.prompts.add(self._prompt)])
        self._reward = float(returns_of(self._task, row[None], prompt_id).rewards[0])
        return "received"

    def get_reward(self) -> float:
        """The env's return of the submitted text."""
        return self._without if self._reward is None else self._reward
