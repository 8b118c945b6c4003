"""The native vector env: N rows in one array, one scorer call for all rows that ended in a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from textgym.arguments import check_argument
from textgym.envs.calls import Calls
from textgym.envs.conversations import Conversations
from textgym.envs.deferred import DeferredScores
from textgym.envs.prompt_schedule import PromptSchedule
from textgym.envs.rendering import ansi
from textgym.envs.reset_options import check_options, owners_of, pins_of, rows_of
from textgym.envs.task import NamedArguments, make_task
from textgym.mdp import BoolArray, IntArray, append

AUTORESET_MODES = [mode.value for mode in AutoresetMode]


class TextGenerationVectorEnv(NamedArguments, Calls, VectorEnv[IntArray, Any, np.ndarray]):
    """N episodes of `TextGenerationEnv` side by side; what a row means is said there.

    Observations are `(N, P + T)` int64 copies, rewards `(N,)` float64, `terminations` and `truncations` `(N,)` bool.
    Every value in `info` is an array of N entries with a mask of the same name behind an underscore, as in
    `gymnasium.vector.SyncVectorEnv`; `prompt_id` is that of every row. `call` and `get_attr` are that env's, too:
    `env.call("action_masks")` is a tuple of N masks.

    ## Autoreset
    `"SameStep"`: a row that ends starts its next episode in the same step. `info["final_obs"]` is then a numeric
    `(N, P + T)` array, all pad where a row did not end, and `info["final_info"]` a dict of arrays; the other keys of
    `info` belong to the new episodes.

    `"NextStep"`: a row that ends begins its next episode in the step after, which ignores its action, pays 0, and whose
    observation is the first one of the new episode. One step in T + 1 is lost by it.

    `"Disabled"`: a row that ends reports it once, then is inert (same observation, reward 0, flags False, its action
    ignored) until `reset(options={"reset_mask": mask})` names it, or a full reset.

    ## Groups
    Rows [g k, (g + 1) k) share prompts, where k is `num_generations`: the n-th episode of row i starts from the n-th
    prompt that was drawn for group i // k.

    Args:
        num_envs: N.
        autoreset_mode: `"SameStep"`, `"NextStep"` or `"Disabled"`, or the member of `gymnasium.vector.AutoresetMode`.
            stable-baselines3 needs the first or the last.
        num_generations: k, which divides N.
        render_mode: `"ansi"` or None.
        **task: the arguments of `TextGenerationEnv`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = "SameStep",
        num_generations: int = 1,
        render_mode: str | None = None,
        **task: Any,
    ):
        mode = getattr(autoreset_mode, "value", autoreset_mode)
        if mode not in AUTORESET_MODES:
            raise ValueError(f"autoreset_mode is {autoreset_mode!r}; accepted are {AUTORESET_MODES}")
        for name, count in (("num_envs", num_envs), ("num_generations", num_generations)):
            check_argument(name, count, int)
        if num_envs < 1 or num_generations < 1 or num_envs % num_generations:
            raise ValueError(f"num_generations={num_generations} must divide num_envs={num_envs}, and both be positive")
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode is {render_mode!r}; the vector env accepts 'ansi' and None")
        self.autoreset_mode = AutoresetMode(mode)
        self.metadata = {"render_modes": ["ansi"], "autoreset_mode": self.autoreset_mode}
        self.num_envs, self.num_generations, self.render_mode = num_envs, num_generations, render_mode
        self.task = make_task(**task)
        self.mdp, self.tokenizer, self.scorer = self.task.mdp, self.task.tokenizer, self.task.scorer
        self.single_observation_space, self.single_action_space = self.mdp.observation_space, self.mdp.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = self.mdp.batched_action_space(num_envs)
        width = self.mdp.max_prompt_tokens + self.mdp.max_new_tokens
        self._cells = np.full((num_envs, width), self.mdp.pad_id, np.int64)
        self._flat, self._empty = self._cells.reshape(-1), self._cells.copy()  # the same memory, and all pad for ever
        # glibc hands freed memory back to the system beyond twice the largest block freed so far. Free a larger block
        # once, or each step's arrays may be mapped and faulted in anew (5 times slower at N=1024).
        np.empty((8, *self._cells.shape), np.int64)
        self._starts = np.arange(num_envs) * width + self.mdp.max_prompt_tokens
        self._lengths, self._live, self._num_live = np.zeros(num_envs, np.int64), np.zeros(num_envs, bool), 0
        self._due = np.zeros(0, np.int64)  # rows that begin anew in the next step, under NextStep
        self._prompt_ids = np.full(num_envs, -1, np.int64)
        self._pins = np.full(num_envs, -1, np.int64)  # -1: not pinned
        self._totals = {name: np.zeros(num_envs) for name in self.scorer.component_names}  # of a token scorer
        self._returns = np.zeros(num_envs)  # for rendering
        self._deferred: DeferredScores | None = None
        self._schedule = PromptSchedule(self.task.prompts, num_envs, num_generations)
        self._conversations = Conversations(self.task, num_envs) if self.task.partner is not None else None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make a copy's `_flat` share memory with its `_cells` again; copied as they are, the two come apart."""
        self.__dict__.update(state)
        self._flat = self._cells.reshape(-1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntArray, dict[str, Any]]:
        """Start an episode in every row, or in those that `options["reset_mask"]` names.

        Args:
            seed: seeds `np_random`.
            options: `reset_mask`, (N,) bool; `episode_of`, (N,) integers, the rows whose next episodes these play
                instead of their own; and a pin, which holds until the next full reset: `prompts`, N texts or chats, or
                `prompt_ids`, (N, any) integers padded with V.
        """
        super().reset(seed=seed)
        pin = check_options(options, ("prompts", "prompt_ids", "reset_mask", "episode_of"))
        mask = rows_of(pin, self.num_envs)
        pins = pins_of(pin, self.task.prompts, self.num_envs)
        if "reset_mask" not in pin:
            self._pins[:] = -1
            self._schedule.restart()
        if pins is not None:
            self._pins[mask] = pins[mask]
        self._any_pin = bool((self._pins >= 0).any())
        self._begin(np.flatnonzero(mask), owners_of(pin, mask))
        self._due = self._due[~mask[self._due]]
        return self._cells.copy(), self._prompt_info(mask.copy())

    def step(self, actions: Any) -> tuple[IntArray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Append one token to every row, (N,) integers, and where it ends a turn, the partner's answer.

        Raises:
            gymnasium.error.InvalidAction: an action is not an allowed token id.
            gymnasium.error.ResetNeeded: every row has ended, or none was started.
        """
        mdp = self.mdp
        rows: Any = slice(None) if self._num_live == self.num_envs else self._live.nonzero()[0]
        actions = np.asarray(actions)
        tokens = self._check(actions, rows)
        lengths, row_ended = append(mdp, self._flat, self._starts[rows], self._lengths[rows], tokens)
        self._lengths[rows] = lengths
        if self._conversations is not None:
            self._conversations.answer(self._cells, self._lengths, self._prompt_ids, rows, tokens, row_ended)
        ended = row_ended if len(row_ended) == self.num_envs else self._spread(rows, row_ended)
        rewards = np.zeros(self.num_envs)
        info: dict[str, Any] = {}
        over = ended.nonzero()[0]
        if self.scorer.per_token:
            self._pay(rewards, ended, self._live.nonzero()[0], self._totals)
            components = {name: total[over] for name, total in self._totals.items()}
        elif len(over):
            components = self._pay(rewards, ended, over)
        if len(over):
            newest = self._flat[self._starts[over] + self._lengths[over] - 1]  # a partner's end is no action
            info = self._end(over, ended, components | {"eos": mdp.is_eos[newest]})
        if self.autoreset_mode is AutoresetMode.NEXT_STEP:
            if len(self._due):
                self._begin(self._due, self._due)
                ended_or_new = ended.copy()
                ended_or_new[self._due] = True
                info |= self._prompt_info(ended_or_new)
            self._due = over
        return self._cells.copy(), rewards, ended, np.zeros(self.num_envs, bool), info

    @contextmanager
    def deferred_scores(self) -> Iterator[DeferredScores | None]:
        """A block in which a slow scorer is asked behind the env, for a collector of whole episodes.

        Steps then give no reward, and NaN for components; what is handed out has them (`join`). It is None, and steps
        are as ever, where the scorer is not slow or pays per token, and where the env renders.
        """
        if not self.scorer.slow or self.scorer.per_token or self.render_mode is not None:
            yield None
            return
        self._deferred = DeferredScores(self.task)
        try:
            yield self._deferred
        finally:
            self._deferred.close()
            self._deferred = None

    def action_masks(self) -> BoolArray:
        """(N, V) True where the token may be chosen now."""
        return self.mdp.action_masks(self._lengths)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return self.tokenizer.encode(text)

    def decode(self, observation: Any) -> str:
        """The text of one row, or of any padded array of token ids; special tokens are left out."""
        return self.task.decode(observation)

    def render(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """One line per row in mode `"ansi"`."""
        if self.render_mode is None:
            return None
        ended = ~self._live
        returns = [float(r) if e else None for r, e in zip(self._returns, ended, strict=True)]
        return tuple(ansi(self.task, row, r) for row, r in zip(self._cells, returns, strict=True))

    def _check(self, actions: np.ndarray, rows: Any) -> IntArray:
        """The actions of the live rows, checked."""
        mdp = self.mdp
        if not self._num_live and not len(self._due):
            raise ResetNeeded("every row has ended (or none was started); call reset() before step()")
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise InvalidAction(
                f"actions are {self.num_envs} integer token ids, not {actions.dtype} of shape {actions.shape}"
            )
        tokens = actions[rows].astype(np.int64, copy=False)
        if np.count_nonzero(tokens.view(np.uint64) >= mdp.vocab_size):  # as unsigned, negative ids are huge
            row = int(np.argmax((tokens < 0) | (tokens >= mdp.vocab_size)))
            raise InvalidAction(
                f"token {tokens[row]} of row {np.arange(self.num_envs)[rows][row]} is outside the vocabulary; "
                f"ids run from 0 to {mdp.vocab_size - 1}"
            )
        if mdp.restricted:
            allowed = mdp.permits(self._lengths[rows], tokens)
            if not allowed.all():
                row = int(np.argmin(allowed))
                raise InvalidAction(
                    f"token {tokens[row]} of row {np.arange(self.num_envs)[rows][row]} is forbidden after "
                    f"{self._lengths[rows][row]} tokens; see action_masks()"
                )
        return tokens

    def _pay(
        self, rewards: np.ndarray, ended: BoolArray, rows: IntArray, totals: dict[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Ask the scorer about `rows`; add to `rewards` and `totals` in place, and return the rows' components."""
        given = rows.copy()  # a scorer may write into what it is given
        arguments = self._cells[rows], self._prompt_ids[rows], given, self._lengths[rows], ended[rows]
        if self._deferred is not None:
            self._deferred.ask(*arguments)
            return dict.fromkeys(self.scorer.component_names, np.full(len(rows), np.nan))
        scores = self.task.score(*arguments)
        rewards[rows] = scores.rewards
        if self.render_mode is not None:
            self._returns[rows] += scores.rewards
        if totals is not None:
            for name, values in scores.components.items():
                totals[name][rows] += values
        return scores.components

    def _end(self, rows: IntArray, ended: BoolArray, components: dict[str, np.ndarray]) -> dict[str, Any]:
        """End the episodes of `rows`, and under SameStep begin the next ones; returns the step's info."""
        mask = ended.copy()  # one array serves as every mask
        info = self._info_of(rows, mask, components) | self._prompt_info(mask)
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._live[rows] = False
            self._num_live -= len(rows)
            return info
        final_obs = self._empty.copy()
        final_obs[rows] = self._cells[rows]
        info = {"final_obs": final_obs, "_final_obs": mask, "final_info": info, "_final_info": mask}
        self._start(rows, rows)
        return info | self._prompt_info(mask)

    def _prompt_info(self, mask: BoolArray) -> dict[str, Any]:
        return {"prompt_id": self._prompt_ids.copy(), "_prompt_id": mask}

    def _info_of(self, rows: IntArray, mask: BoolArray, values: dict[str, np.ndarray]) -> dict[str, Any]:
        """Values of some rows as arrays of N entries, each with the mask of these rows."""
        info: dict[str, Any] = {}
        for name, value in values.items():
            info[name], info[f"_{name}"] = self._spread(rows, value), mask
        return info

    def _spread(self, rows: IntArray, values: np.ndarray) -> np.ndarray:
        """Values of some rows as an array of N entries, 0 elsewhere."""
        (array := np.zeros(self.num_envs, values.dtype))[rows] = values
        return array

    def _begin(self, rows: IntArray, owners: IntArray) -> None:
        """Begin the next episodes of `owners` in `rows`, which have ended or are given up."""
        self._start(rows, owners)
        self._live[rows] = True
        self._num_live = int(self._live.sum())

    def _start(self, rows: IntArray, owners: IntArray) -> None:
        """Begin the next episodes of `owners` in `rows`."""
        self.task.prompts.release(self._prompt_ids, self._pins, self._schedule.rounds)
        if self._any_pin:
            ids = self._pins[owners]
            unpinned = ids < 0
            ids[unpinned] = self._schedule.advance(owners[unpinned], self.np_random)
        else:
            ids = self._schedule.advance(owners, self.np_random)
        self._prompt_ids[rows], self._lengths[rows] = ids, 0
        self._cells[rows] = self.task.prompts.observations(ids)
        if self._conversations is not None:
            self._conversations.start(rows)
        if self.render_mode is not None:
            self._returns[rows] = 0.0
        if self.scorer.per_token:
            for total in self._totals.values():
                total[rows] = 0.0
