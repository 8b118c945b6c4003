"""The single-episode text-generation env."""

from __future__ import annotations

import copy
import operator
from dataclasses import replace
from typing import Any, Self

import gymnasium as gym
import numpy as np
from gymnasium.error import InvalidAction, ResetNeeded

from textgym.envs.conversations import Conversations
from textgym.envs.rendering import LiveView, ansi
from textgym.envs.reset_options import check_options
from textgym.envs.task import NamedArguments, make_task
from textgym.mdp import BoolArray, IntArray, append
from textgym.scorers.trainer import Trainer

BOOLS = bool, np.bool_
"""No token ids, although Python takes them for integers. A union made at every step would cost a tenth of it."""


class TextGenerationEnv(NamedArguments, gym.Env[Any, Any]):
    """Write a text, one token per step; a scorer rewards it when it is finished.

    ## Description
    A prompt is drawn from a prompt source. Each action appends one token to it. The episode ends with an end-of-text
    token or when the length limit is reached, and then the scorer's value of the text is the reward. With the default
    arguments the prompt is the opening of a movie review, and the reward is positive sentiment.

    Below, P is `max_prompt_tokens`, T is `max_new_tokens` and V is the vocabulary size (the largest token id + 1, added
    tokens included). All facts of the MDP are in `env.unwrapped.mdp`, a `TextMDP`.

    ## Action Space
    `Discrete(V)`: the next token. An action outside the vocabulary, or one that `min_new_tokens`, `banned_tokens` or
    `allowed_tokens` forbid, raises `gymnasium.error.InvalidAction`. Where tokens are restricted,
    `env.unwrapped.action_masks()` gives the allowed ones, (V,) bool, and `info["action_mask"]` the same as int8 (the
    form that `Discrete.sample(mask)` takes). `action_space.sample()` draws from those that are allowed at every step.

    ## Observation Space
    `Box(0, V, (P + T,), int64)`. Columns [0, P) hold the prompt, right-aligned; columns [P, P + T) hold the completion,
    left-aligned; every other cell is the pad id V. Observations are copies. `textgym.model_inputs(obs, mdp.pad_id)`
    turns them into the arguments of a transformers model.

    ## Starting State
    A prompt from the prompt source, drawn with `np_random`; an empty prompt becomes the BOS token alone.
    `reset(options={"prompt": "The plot"})` pins a text (or a list of chat messages), `{"prompt_ids": array}` an integer
    array padded with V.

    ## Rewards
    0 until the end, then the scorer's value. Scorers that pay per token pay at every step.

    ## Episode End
    `terminated`: an end-of-text token was chosen, or T tokens were written. The budget is visible in the observation, so
    both are ends of a finite-horizon MDP. `truncated` is always False.

    ## Turns
    With a `partner`, a token of `eot_token_ids` ends a turn of the policy, as does the `max_turn_tokens`-th token of
    the turn; in the same step the partner's answer is appended to the row: it is observed, but no action, and a row
    still grows only at its end. T is for both together. The episode is over, with an end-of-text token that the env
    writes, when the partner has no answer (None), or when its answer would not leave the policy a cell.

    ## Information
    `prompt_id` (int) at reset and at the end; at the end also every scorer component by name (float) and `eos` (bool:
    ended by an end-of-text token). `action_mask`, (V,) int8, at every step where tokens are restricted.

    ## Arguments
    | argument | default | meaning |
    |---|---|---|
    | `tokenizer` | `"tiny"` | `"tiny"` or `"tiny-tasks"` (embedded), `"bytes"`, `{"name": "characters", "alphabet": "ab"}`, a directory or hub id, or a transformers fast tokenizer |
    | `prompts` | `"reviews"` | a list of texts, chats or dicts (`"prompt"` and columns), a `.txt` or `.jsonl` file, `"module:attribute"`, any iterable of these (a `datasets.Dataset`), a function of a `numpy.random.Generator`, or a prompt source by name, also with arguments: `{"name": "reviews", "split": "test"}` |
    | `scorer` | `"sentiment"` | a name, a dict, `"module:function"`, a function or a `textgym.Scorer` |
    | `max_prompt_tokens` | `16` | P, columns of the observation for the prompt |
    | `max_new_tokens` | `32` | T, the most tokens that a completion can have |
    | `min_new_tokens` | `0` | end-of-text is forbidden before this many tokens |
    | `banned_tokens` | `()` | ids that are never allowed |
    | `allowed_tokens` | `None` | if given, the only ids allowed |
    | `eos_token_ids` | `None` | ids that end a text; by default the tokenizer's EOS and, where the tokenizer is named by a directory or hub id, those of the model's `generation_config.json` (of a loaded tokenizer they cannot be known) |
    | `truncate_prompts` | `False` | keep the last P tokens of longer prompts, instead of raising |
    | `level` | `None` | how hard the prompts are; None is what their source starts from, and prompts without levels refuse any other |
    | `split` | `None` | `"train"`, or `"test"` for prompts that training has not seen; None is what their source starts from, and prompts without parts refuse any other |
    | `partner` | `None` | who answers the policy's turns: a function of the prompt's columns and the turns so far (`textgym.turns.Partner`), or `"module:function"`; None where an episode is one turn |
    | `eot_token_ids` | `()` | ids that end a turn; needed with a `partner`, and only then |
    | `max_turn_tokens` | `None` | tokens of a turn of the policy, the one that ends it included; None for as many as T leaves |
    | `render_mode` | `None` | `"ansi"` (`render()` returns text) or `"human"` (writes to the terminal as it goes; needs rich) |

    `gym.make_vec` gives the vector env, which adds `autoreset_mode` and `num_generations`.
    """  # noqa: E501 (the table is a documentation page)

    metadata: dict[str, Any] = {"render_modes": ["ansi", "human"], "render_fps": 30}

    def __init__(self, render_mode: str | None = None, **task: Any):
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            # A TypeError, because SB3 makes envs by id with "rgb_array" and falls back to no mode on that.
            raise TypeError(f"render_mode is {render_mode!r}; accepted are {self.metadata['render_modes']} and None")
        self.task = make_task(**task)
        self.mdp, self.tokenizer, self.scorer = self.task.mdp, self.task.tokenizer, self.task.scorer
        self.observation_space, self.action_space = self.mdp.observation_space, self.mdp.action_space
        self.render_mode = render_mode
        self._view = LiveView(self.task) if render_mode == "human" else None
        width = self.mdp.max_prompt_tokens + self.mdp.max_new_tokens
        self._row: IntArray = np.full(width, self.mdp.pad_id, np.int64)
        self._length, self._running, self._return, self._prompt_id = 0, False, 0.0, -1
        self._totals: dict[str, float] = {}
        self._conversations = Conversations(self.task, 1) if self.task.partner is not None else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntArray, dict[str, Any]]:
        """Start an episode; `options` may pin the prompt by `prompt` or `prompt_ids`."""
        super().reset(seed=seed)
        pin = check_options(options, ("prompt", "prompt_ids"))
        prompts = self.task.prompts
        prompts.release(self._prompt_id)
        if "prompt" in pin:
            self._prompt_id = prompts.add(pin["prompt"])
        elif "prompt_ids" in pin:
            self._prompt_id = prompts.add_ids(pin["prompt_ids"])
        else:
            self._prompt_id = int(prompts.draw(self.np_random, 1)[0])
        self._row[:] = prompts.observations(self._prompt_id)
        self._length, self._running, self._return = 0, True, 0.0
        if self._conversations is not None:
            self._conversations.start(np.zeros(1, np.int64))
        self._totals = dict.fromkeys(self.scorer.component_names, 0.0)
        info: dict[str, Any] = {"prompt_id": self._prompt_id}
        return self._finish(info)

    def step(self, action: Any) -> tuple[IntArray, float, bool, bool, dict[str, Any]]:
        """Append one token, and where it ends a turn, the partner's answer.

        Raises:
            gymnasium.error.InvalidAction: `action` is not an allowed token id.
            gymnasium.error.ResetNeeded: the episode has ended, or none was started.
        """
        mdp = self.mdp
        if not self._running:
            raise ResetNeeded("the episode has ended (or none was started); call reset() before step()")
        try:
            if isinstance(action, BOOLS):
                raise TypeError
            token = operator.index(action)
        except TypeError:
            raise InvalidAction(f"an action is an integer token id, not {action!r}") from None
        if not 0 <= token < mdp.vocab_size:
            raise InvalidAction(f"token {token} is outside the vocabulary; ids run from 0 to {mdp.vocab_size - 1}")
        if mdp.restricted and not mdp.permits(self._length, token):
            raise InvalidAction(f"token {token} is forbidden after {self._length} tokens; see action_masks()")
        self._length, ended = append(mdp, self._row, mdp.max_prompt_tokens, self._length, token)
        newest = token
        if self._conversations is not None:
            lengths, over = np.array([self._length]), np.array([ended])
            prompt_ids, tokens = np.array([self._prompt_id]), np.array([token])
            self._conversations.answer(self._row[None], lengths, prompt_ids, slice(None), tokens, over)
            self._length, ended = int(lengths[0]), over[0]
            newest = int(self._row[mdp.max_prompt_tokens + self._length - 1])
        reward, info = 0.0, dict[str, Any]()
        if ended or self.scorer.per_token:
            reward = self._score(bool(ended))
            self._return += reward
            if ended:
                self._running = False
                info = {**self._totals, "eos": bool(mdp.is_eos[newest]), "prompt_id": self._prompt_id}
        observation, info = self._finish(info)
        return observation, reward, not self._running, False, info

    def copy(self) -> Self:
        """An env of the same task without an episode.

        Tokenizer and scorer are shared; prompts that resets bring, random numbers, and what the scorer is told of a
        training or reports to it are each one's own.
        """
        other = copy.copy(self)
        other.task = replace(self.task, prompts=self.task.prompts.copy(), trainer=Trainer())
        other._row, other._np_random = np.full_like(self._row, self.mdp.pad_id), None
        other._length, other._running, other._prompt_id = 0, False, -1
        other._view = None if self._view is None else LiveView(other.task)
        return other

    def action_masks(self) -> BoolArray:
        """(V,) True where the token may be chosen now; the method that sb3-contrib's MaskablePPO calls."""
        return self.mdp.action_masks(self._length)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return self.tokenizer.encode(text)

    def decode(self, observation: Any) -> str:
        """The text of an observation, or of any padded array of token ids; special tokens are left out."""
        return self.task.decode(observation)

    def render(self) -> str | None:  # type: ignore[override]
        """The episode as text in mode `"ansi"`; mode `"human"` has already written it."""
        if self.render_mode is None:
            gym.logger.warn("render() was called on an env made without a render_mode; pass render_mode='ansi'")
        if self.render_mode != "ansi":
            return None
        return ansi(self.task, self._row, None if self._running else self._return)

    def _score(self, ended: bool) -> float:
        prompt_id, length = np.array([self._prompt_id]), np.array([self._length])
        scores = self.task.score(self._row[None].copy(), prompt_id, np.zeros(1, np.int64), length, np.array([ended]))
        for name, values in scores.components.items():
            self._totals[name] += float(values[0])
        return float(scores.rewards[0])

    def _finish(self, info: dict[str, Any]) -> tuple[IntArray, dict[str, Any]]:
        if self.mdp.restricted:
            info["action_mask"] = self.action_masks().astype(np.int8)
        if self._view is not None:
            self._view.show(self._row, None if self._running else self._return)
        return self._row.copy(), info
