"""The toy: the same MDP and the same env classes with a vocabulary so small that every completion can be enumerated.

It comes with a reference model, a table of logits with one row per context. Nothing is solved here; `textgym.exact`
does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from textgym.arguments import check_argument
from textgym.contexts import context_indices, table_shape
from textgym.envs.text_generation import TextGenerationEnv
from textgym.envs.text_generation_vector import TextGenerationVectorEnv
from textgym.mdp import IntArray, TextMDP

if TYPE_CHECKING:
    from textgym.language_models.tabular import TabularLM

WEIGHTS = {1: 1.0, 3: -0.5}


class Toy:
    """What both toy envs share: the task in a few numbers, and the reference model.

    Args:
        env_arguments: arguments of the env class beside the task.
        num_tokens: see `TextGenToyEnv`, as for all that follow.
        max_new_tokens: L.
        scorer: the reward.
        reference_seed: seed of the reference's logits.
        reference_logits: or the logits themselves.
        words: what the tokens read as.
    """

    mdp: TextMDP

    def __init__(
        self,
        env_arguments: dict[str, Any],
        /,
        num_tokens: int | None = None,
        max_new_tokens: int = 4,
        scorer: Any = None,
        reference_seed: int | None = None,
        reference_logits: Any = None,
        words: Sequence[str] | None = None,
    ):
        check_argument("num_tokens", num_tokens, int | None)
        check_argument("max_new_tokens", max_new_tokens, int)
        if words is None:
            words = [str(token) for token in range(4 if num_tokens is None else num_tokens)]
        elif num_tokens not in (None, len(words)):
            raise ValueError(f"num_tokens is {num_tokens}, but there are {len(words)} words; leave one of the two out")
        self.num_tokens = len(words)
        shape = table_shape(self.num_tokens if num_tokens is None else num_tokens, max_new_tokens)
        if reference_seed is not None and reference_logits is not None:
            raise ValueError(
                "reference_seed and reference_logits both say what the reference is; leave one of them out"
            )
        if scorer is None:  # token K is EOS, and no ordinary token
            weights = {str(token): weight for token, weight in WEIGHTS.items() if token < self.num_tokens}
            scorer = {"name": "token_counts", "weights": weights}
        self._reference_seed = reference_seed or 0
        self._given_logits = None if reference_logits is None else _checked(reference_logits, shape)
        super().__init__(  # type: ignore[call-arg]
            tokenizer={"name": "words", "words": list(words)},
            prompts=[""],
            scorer=scorer,
            max_prompt_tokens=1,
            max_new_tokens=max_new_tokens,
            **env_arguments,
        )

    @cached_property
    def reference_logits(self) -> NDArray[np.float64]:
        """The reference's logits, (S, K + 1) float64, contexts in the order of `textgym.contexts`, EOS last."""
        if self._given_logits is not None:
            return self._given_logits
        shape = table_shape(self.num_tokens, self.mdp.max_new_tokens)
        return np.random.default_rng(self._reference_seed).normal(size=shape)

    def reference_model(self) -> TabularLM:
        """The reference as a causal LM, a new one in each call, so that it may be trained."""
        from textgym.language_models.tabular import TabularLM

        return TabularLM.from_logits(self.reference_logits, self.mdp.max_new_tokens)

    def context_index(self, observation: IntArray) -> IntArray:
        """The number of an observation's context, S where the episode has ended; (..., 1 + L) -> (...) int64."""
        return context_indices(self.mdp, observation)


def _checked(logits: Any, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Given logits as an array of the wanted shape."""
    try:
        array = np.array(logits, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"reference_logits must be numbers of shape {shape}: {error}") from error
    if array.shape != shape:
        raise ValueError(f"reference_logits has shape {array.shape}; wanted is {shape}, one row per context, EOS last")
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"reference_logits[{row}][{column}] is {array[row, column]}; logits must be finite")
    return array


class TextGenToyEnv(Toy, TextGenerationEnv):
    """Write a text of a few tokens; a task small enough to know every answer exactly.

    ## Description
    K ordinary tokens 0..K-1, an end-of-text token, no prompt, and at most L tokens. It is the MDP of
    `TextGenerationEnv`, played by the same classes, so what runs here runs on real models unchanged. And it is small:
    S = sum_{d < L} K^d contexts (completions without EOS that may still grow) and S + K^L completions in all, so the
    best policy, every target distribution and every divergence can be computed by enumeration. A reference model
    comes with the env, one row of logits per context.

    ## Action Space
    `Discrete(K + 1)`: the next token; K is EOS.

    ## Observation Space
    `Box(0, K + 1, (1 + L,), int64)`. Column 0 holds BOS (id K, the same as EOS); columns [1, 1 + L) the completion,
    left-aligned; every other cell is the pad id K + 1. `textgym.wrappers.DiscreteContexts` (for vector envs
    `VectorDiscreteContexts`) turns this into `Discrete(S + 1)`, the number of the context; S is the ended episode.

    Contexts are ordered by length, then as base-K numbers, the first token the most significant digit: with K = 2 they
    are (), 0, 1, 00, 01, 10, 11, 000 and so on. `env.unwrapped.context_index(obs)` gives the number.

    ## Starting State
    BOS alone. Nothing is drawn, so the seed of `reset` changes nothing.

    ## Rewards
    0 until the end, then the scorer's value. By default the number of tokens 1 minus half the number of tokens 3 in the
    completion, as far as there are such tokens (1 < K, 3 < K). Its best value is L, for L times token 1.

    ## Episode End
    `terminated`: EOS was chosen, or L tokens were written. A completion of L tokens without EOS is a valid outcome like
    any other, not a failure. `truncated` is always False.

    ## Information
    As in `TextGenerationEnv`: `prompt_id` at reset and at the end; at the end also every scorer component by name
    (`token_counts` by default) and `eos`.

    ## Reference Model
    `env.unwrapped.reference_logits` is the table, (S, K + 1) float64: standard normal by `reference_seed`, or what
    `reference_logits` gave. `env.unwrapped.reference_model()` makes a causal LM of it (needs torch), a
    `TabularLM` whose only parameter is the table. Agents that are made without a `model` start from it:
    `REINFORCE("TokenPolicy", "TextGenToy-v0")`.

    ## Arguments
    | argument | default | meaning |
    |---|---|---|
    | `num_tokens` | `4` | K, the ordinary tokens; where `words` are given, their number |
    | `max_new_tokens` | `4` | L, the most tokens that a completion can have |
    | `scorer` | `{"name": "token_counts", "weights": {"1": 1.0, "3": -0.5}}` | as in `TextGenerationEnv` |
    | `reference_seed` | `0` | seed of the reference's logits, `numpy.random.default_rng(seed).normal(size=(S, K + 1))` |
    | `reference_logits` | `None` | the logits themselves, (S, K + 1), nested lists or an array |
    | `words` | `["0", "1", ...]` | what the tokens read as; texts are joined by single spaces |
    | `render_mode` | `None` | `"ansi"` or `"human"` |

    The table of contexts and actions may have at most 2^24 entries. `gym.make_vec` gives the vector env, which adds
    `autoreset_mode` and `num_generations`.
    """  # noqa: E501 (the table is a documentation page)

    def __init__(self, render_mode: str | None = None, **toy: Any):
        super().__init__({"render_mode": render_mode}, **toy)


class TextGenToyVectorEnv(Toy, TextGenerationVectorEnv):
    """N episodes of `TextGenToyEnv` side by side; autoreset and the form of `info` are `TextGenerationVectorEnv`'s.

    Args:
        num_envs: N.
        autoreset_mode: `"SameStep"`, `"NextStep"` or `"Disabled"`.
        num_generations: rows that share a prompt; here all do, as there is only one.
        render_mode: `"ansi"` or None.
        **toy: the arguments of `TextGenToyEnv`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = "SameStep",
        num_generations: int = 1,
        render_mode: str | None = None,
        **toy: Any,
    ):
        vector = {"num_envs": num_envs, "autoreset_mode": autoreset_mode, "num_generations": num_generations}
        super().__init__({**vector, "render_mode": render_mode}, **toy)
