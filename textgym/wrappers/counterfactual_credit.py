"""Counterfactual credit: how much of a text's score is owed to each of its tokens.

A token's credit is the score of the text minus what it would have been, had a reference written another token there.
An advantage with the counterfactual baseline of Foerster et al. (2018), "Counterfactual multi-agent policy gradients",
section 4, where the tokens take the part of the agents; with `rest="redrawn"` it is that of VinePPO (Kazemnejad et al.
2024, arXiv 2410.01679) with the reference in place of the policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper

from textgym.arguments import Count, check_argument
from textgym.envs.task import TextTask
from textgym.mdp import IntArray
from textgym.scorers.base import FloatArray
from textgym.wrappers.episodes import task_of, with_end_values
from textgym.wrappers.reference_reward import make_reference

if TYPE_CHECKING:
    from textgym.wrappers.reference import FrozenReference

Rest = Literal["held", "redrawn"]
CREDITS = "credits"


class CounterfactualCredit(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """At the end of an episode `info["credits"]` says what each token added to the score; rewards stay as they are.

    The credit of token t is R(x) - mean_j R(x with x'_t), over `samples` tokens x'_t that the reference draws in the
    same context. What follows it is, by `rest`:

    - `"held"`: the same as in x, which costs no more of the reference than one forward pass. It is a cheap proxy: a
      token is blamed for what was written because of it, or praised. An EOS that is drawn ends the text there; another
      token in the place of EOS leaves a text of the same length, scored as it is.
    - `"redrawn"`: written anew by the reference. Then the mean is an unbiased estimate of the reference's value of the
      context, a baseline that depends on the context alone: the credits weigh a policy gradient without bias, and
      those of the reference's own texts have its advantages as their mean.

    An env cannot pay credits, as they are known only when the text is: use them as advantages. `counterfactual_credit`
    is the same for many episodes at once, and docs/wrappers.md has an agent that learns from it.

    `info["credits"]` is (T,) float64 in the scorer's unit, 0 behind the end of the completion.

    Args:
        env: a TextGym env.
        reference: anything that `textgym.language_models.load_model` accepts; its tokens are the env's. A loaded model
            stays where it is, and must not be trained.
        samples: other tokens for each token; the scorer is asked about 1 + samples times the number of tokens.
        rest: what becomes of the tokens that follow.

    Raises:
        ValueError: another env, a scorer that pays per token, a reference that does not fit the env, or another `rest`.
        ImportError: torch or transformers is missing.
    """

    def __init__(self, env: gym.Env[Any, Any], reference: Any, samples: int = 4, rest: Rest = "held"):
        arguments = {"reference": reference, "samples": samples, "rest": rest}
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, **arguments)
        gym.Wrapper.__init__(self, env)
        self._credits = Credits(task_of(env), reference, samples, rest)

    @property
    def end_defaults(self) -> dict[str, Any]:
        """What `ConstantInfo` shows before the end."""
        return self._credits.defaults

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntArray, dict[str, Any]]:
        """Reset the env; a seed seeds the reference's draws as well."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._credits.seed(seed)
        self._prompt_ids = np.array([info["prompt_id"]])
        return observation, info

    def step(self, action: Any) -> tuple[IntArray, float, bool, bool, dict[str, Any]]:
        """Step the env; at an end, ask the reference and the scorer about other texts."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated:
            info = {**info, CREDITS: self._credits(observation[None], self._prompt_ids)[0]}
        return observation, float(reward), terminated, truncated, info


class VectorCounterfactualCredit(VectorWrapper, RecordConstructorArgs):
    """`CounterfactualCredit` for the native vector env: one call for all episodes that end in a step.

    `credits`, (N, T) float64 with its mask, is in `info["final_info"]` under SameStep, and in `info` otherwise.

    Args:
        env: a TextGym vector env, of `gym.make_vec`.
        reference: see `CounterfactualCredit`.
        samples: see `CounterfactualCredit`.
        rest: see `CounterfactualCredit`.

    Raises:
        ValueError: as `CounterfactualCredit`.
        ImportError: as `CounterfactualCredit`.
    """

    def __init__(self, env: VectorEnv, reference: Any, samples: int = 4, rest: Rest = "held"):
        arguments = {"reference": reference, "samples": samples, "rest": rest}
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, **arguments)
        VectorWrapper.__init__(self, env)
        self._credits = Credits(task_of(env), reference, samples, rest)

    @property
    def end_defaults(self) -> dict[str, Any]:
        """What `VectorConstantInfo` shows before the end."""
        return self._credits.defaults

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntArray, dict[str, Any]]:
        """Reset the vector env; a seed seeds the reference's draws as well."""
        self._credits.seed(seed)
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[IntArray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the vector env; where episodes end, ask the reference and the scorer about other texts."""
        observations, rewards, terminations, truncations, info = self.env.step(actions)
        if terminations.any():
            last, ends = info.get("final_obs", observations), info.get("final_info", info)
            credits = np.zeros((self.num_envs, self._credits.task.mdp.max_new_tokens))
            credits[terminations] = self._credits(last[terminations], ends["prompt_id"][terminations])
            info = with_end_values(info, terminations, {CREDITS: credits})
        return observations, rewards, terminations, truncations, info


def counterfactual_credit(
    env: Any,
    reference: Any,
    rows: Any,
    prompt_ids: Any,
    samples: int = 4,
    rest: Rest = "held",
    seed: int | None = None,
) -> FloatArray:
    """The credits of finished episodes' tokens; see `CounterfactualCredit`.

    Args:
        env: the TextGym env of the episodes, single or vector, wrapped or not; or its `TextTask`.
        reference: see `CounterfactualCredit`; a name is loaded anew in each call.
        rows: (E, P + T) integers, the last observations.
        prompt_ids: (E,) their prompts, from `info`.
        samples: other tokens for each token.
        rest: what becomes of the tokens that follow.
        seed: of the draws; None draws differently in each call.

    Returns:
        (E, T) float64 in the scorer's unit, 0 behind the end of a completion.

    Raises:
        ValueError: as `CounterfactualCredit`, or an episode that has not ended.
        ImportError: torch or transformers is missing.
    """
    credits = Credits(env if isinstance(env, TextTask) else task_of(env), reference, samples, rest)
    credits.seed(seed)
    return credits(np.asarray(rows), np.asarray(prompt_ids))


class Credits:
    """A function of finished episodes, with the state of its random draws."""

    def __init__(self, task: TextTask, reference: Any, samples: int, rest: Rest):
        task.mdp.refuse_turns("counterfactual credit")
        check_argument("samples", samples, Count)
        check_argument("rest", rest, Rest)
        if task.scorer.per_token:
            raise ValueError(
                f"the scorer {task.scorer.name!r} pays per token; counterfactual credit shares out one score of a text"
            )
        self.task, self._samples, self._rest = task, samples, rest
        self._reference: FrozenReference = make_reference(reference, task.mdp)
        self._rng = np.random.default_rng()

    @property
    def defaults(self) -> dict[str, Any]:
        """The credits before they are known, (T,) zeros."""
        return {CREDITS: np.zeros(self.task.mdp.max_new_tokens)}

    def seed(self, seed: int | None) -> None:
        """Begin the draws anew; None lets them go on."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)

    def __call__(self, rows: IntArray, prompt_ids: IntArray) -> FloatArray:
        """(E, P + T), (E,) -> (E, T)."""
        mdp = self.task.mdp
        if not mdp.ended(rows).all():
            row = int(np.argmin(mdp.ended(rows)))
            raise ValueError(f"episode {row} has not ended; credits are shares of a finished text's score")
        width = mdp.max_prompt_tokens
        episode, place = np.nonzero(rows[:, width:] != mdp.pad_id)  # (M,) each
        tokens = self._reference.sample_replacements(rows, self._samples, self._rng)  # (M, samples)
        others = rows[episode].repeat(self._samples, 0)  # (M samples, P + T)
        at = width + place.repeat(self._samples)
        others[np.arange(len(others)), at] = drawn = tokens.reshape(-1)
        cut = mdp.is_eos[drawn] if self._rest == "held" else np.ones(len(others), bool)
        others[cut[:, None] & (np.arange(others.shape[1]) > at[:, None])] = mdp.pad_id
        if self._rest == "redrawn":
            others = self._reference.complete(others, self._rng)
        scores = self._scores(
            np.concatenate([rows, others]),
            np.concatenate([prompt_ids, prompt_ids[episode].repeat(self._samples)]),
        )
        credits = np.zeros((len(rows), mdp.max_new_tokens))
        counterfactual = scores[len(rows) :].reshape(-1, self._samples).mean(-1)
        credits[episode, place] = scores[episode] - counterfactual
        return credits

    def _scores(self, rows: IntArray, prompt_ids: IntArray) -> FloatArray:
        """(n,) scores of rows as finished texts."""
        lengths, numbers = self.task.mdp.completion_lengths(rows), np.arange(len(rows))
        return self.task.score(rows, prompt_ids, numbers, lengths, np.ones(len(rows), bool)).rewards
