"""Agents that learn from texts which are there already: minibatches of a data set in place of sampled episodes."""

from __future__ import annotations

import itertools
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from textgym.arguments import Count, Named
from textgym.envs.task import TextTask
from textgym.mdp import BoolArray, IntArray, TextMDP
from textgym.preferences import Preference, read_preferences
from textgym.prompt_table import Ids
from textgym.sb3 import EpisodeRolloutBuffer, EpisodicAlgorithm, TokenPolicy
from textgym.training import Episodes
from textgym.training.distributed import share


@dataclass(frozen=True)
class Candidates:
    """Completions of one prompt that meet in the loss.

    Attributes:
        prompt: what they go on with.
        chosen: the good one.
        rejected: those that are worse.
        where: what names them in errors.
    """

    prompt: str
    chosen: str
    rejected: tuple[str, ...]
    where: str


@dataclass(frozen=True)
class TextData:
    """Candidates as finished episodes of an MDP.

    Attributes:
        mdp: the MDP.
        rows: (R, P + T) int32, the candidates' last observations, those of a group side by side.
        chosen: (R,) bool, True for the first row of a group.
        starts: (G + 1,) where each group begins, and where the last one ends.
    """

    mdp: TextMDP
    rows: Ids
    chosen: BoolArray
    starts: IntArray

    def __len__(self) -> int:
        """The number of groups, G."""
        return len(self.starts) - 1

    @classmethod
    def encode(cls, task: TextTask, groups: Sequence[Candidates]) -> TextData:
        """Candidates under an env's tokenizer.

        Raises:
            ValueError: a text is no episode of the MDP (`TextTask.encode_parts`), or a rejected text is the chosen one
                in token ids; the group is named.
        """
        encode_parts, rows = cache(task.encode_parts), []
        for group in groups:
            try:
                good, *bad = (encode_parts(group.prompt, text) for text in (group.chosen, *group.rejected))
                if any((row == good).all() for row in bad):
                    raise ValueError(f"chosen and rejected have the same token ids: {group.chosen!r}")
            except ValueError as error:
                raise ValueError(f"{group.where}: {error}") from error
            rows += [good, *bad]
        starts = np.cumsum([0, *(1 + len(group.rejected) for group in groups)])
        chosen = np.zeros(len(rows), bool)
        chosen[starts[:-1]] = True
        return cls(task.mdp, np.stack(rows).astype(np.int32), chosen, starts)

    def episodes(self, groups: IntArray, device: torch.device) -> Episodes:
        """Some groups as episodes: `prompt_ids` number the groups, and the reward is 1 for a chosen text, else 0."""
        index = np.concatenate([np.arange(self.starts[g], self.starts[g + 1]) for g in groups])
        numbers = np.repeat(np.arange(len(groups)), np.diff(self.starts)[groups])
        rows = torch.from_numpy(self.rows[index].astype(np.int64))
        zeros = torch.zeros(len(rows), self.mdp.max_new_tokens)
        last = (rows[:, self.mdp.max_prompt_tokens :] != self.mdp.pad_id).sum(-1) - 1
        rewards = zeros.clone()
        rewards[torch.arange(len(rows)), last] = torch.from_numpy(self.chosen[index]).float()
        fields = {"rows": rows, "prompt_ids": torch.from_numpy(numbers), "components": zeros[:, :0], "rewards": rewards}
        fields |= {"sampled_log_probs": zeros, "values": zeros}
        return Episodes.sampled(self.mdp.pad_id, **{name: tensor.to(device) for name, tensor in fields.items()})


def places(dataset: Any) -> Iterator[str]:
    """What names the rows of a data set in errors, one after the other."""
    if isinstance(dataset, str | Path):
        return (f"line {number} of {str(dataset)!r}" for number in itertools.count(1))
    return (f"row {number} of the dataset" for number in itertools.count())


class OfflineAlgorithm(EpisodicAlgorithm):
    """The base of agents that learn from a data set: each rollout is one minibatch of it, and one gradient step.

    The env says what the texts are texts of: tokenizer, P, T, and which tokens are permitted. It is not stepped in
    training; `sample_episodes` and callbacks that evaluate play in it. `num_timesteps` counts the tokens of completions
    that were trained on, and callbacks are called once for each column of them. Every epoch has its own random order,
    which follows from the seed and the number of the step, so a training that goes on from a checkpoint goes on in it.

    Logged in each update: `train/epoch`, passes over the data so far, `train/loss`, `train/entropy` (nats per token)
    and `train/grad_norm`.

    Args:
        dataset: what is learned from; needed to train, but not to evaluate a checkpoint. Checkpoints do not hold it.
        batch_size: groups of texts that meet in the loss (pairs, say) in a minibatch; the last one of an epoch has what
            is left.
        **kwargs: see `EpisodicAlgorithm`. `micro_batch_size` counts texts, and cuts no group.

    Raises:
        ValueError: a value that an annotation excludes, a text that the env could not have written (its row is named),
            or what `EpisodicAlgorithm` raises; when training starts, there are no data.
    """

    withheld: ClassVar[frozenset[str]] = frozenset({"gamma", "episodes_per_update"})
    apart: ClassVar[frozenset[str]] = EpisodicAlgorithm.apart | {"dataset"}

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        dataset: Named = None,
        batch_size: Count = 32,
        **kwargs: Any,
    ):
        self.batch_size, self._dataset = batch_size, dataset
        self.data: TextData | None = None
        super().__init__(policy, env, model, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.env is not None and self._dataset is not None:
            self._read()

    def _read(self) -> TextData:
        if self._dataset is None:
            raise ValueError(f"{type(self).__name__} has nothing to learn from; pass dataset= (--dataset)")
        self.data, self._dataset = TextData.encode(self.task, self.candidates(self._dataset)), None
        return self.data

    @abstractmethod
    def candidates(self, dataset: Any) -> list[Candidates]:
        """The texts that meet in the loss, group by group."""

    def preferences(self, dataset: Any) -> list[tuple[str, Preference]]:
        """The pairs of a data set, each behind what names it in errors; ties are left out, with a warning."""
        pairs = read_preferences(dataset, "dataset", tokenizer=self.task.tokenizer)
        named = [(where, pair) for where, pair in zip(places(dataset), pairs, strict=False) if not pair.tie]
        if len(named) < len(pairs):
            count, agent = len(pairs) - len(named), type(self).__name__
            ties = f"{count} of the {len(pairs)} rows of the dataset are ties, from which {agent} learns nothing"
            if not named:
                raise ValueError(ties)
            warnings.warn(f"{ties}; they are left out", stacklevel=2)
        return named

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: EpisodeRolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Fill the buffer with the next minibatch.

        Returns:
            False if a callback stopped the training.
        """
        data = self._read() if self.data is None else self.data
        self.begin_rollout()
        rollout_buffer.reset()
        callback.on_rollout_start()
        episodes = self.next_minibatch(data)
        for tokens in episodes.mask.sum(0).tolist():  # of each column
            self.num_timesteps += tokens
            callback.update_locals(locals())
            if tokens and not callback.on_step():
                return False
        self.end_sampling()
        if self.reference is not None:
            own = episodes.select(share(len(episodes)))  # where several processes train, each has the same minibatch
            log_probs, log_normalizers = self.reference.log_probs(own, self.micro_batch_size)
            own = own.replace(reference_log_probs=log_probs, reference_log_normalizers=log_normalizers)
            episodes = own.of_all_processes(own_prompts=False)
        rollout_buffer.episodes = episodes
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def next_minibatch(self, data: TextData) -> Episodes:
        """The groups of the next gradient step."""
        epoch, number = divmod(self._n_updates, self._steps_per_epoch(data))
        order = np.random.default_rng([self.seed or 0, epoch]).permutation(len(data))
        return data.episodes(order[number * self.batch_size : (number + 1) * self.batch_size], self.device)

    def train(self) -> None:
        """One gradient step on the minibatch."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        self.step(self.rollout_buffer.episodes)
        assert self.data is not None
        self.logger.record("train/epoch", self._n_updates / self._steps_per_epoch(self.data))

    @abstractmethod
    def step(self, episodes: Episodes) -> None:
        """Take the gradient step on a minibatch, by `gradient_step`."""

    def _steps_per_epoch(self, data: TextData) -> int:
        return -(-len(data) // self.batch_size)
