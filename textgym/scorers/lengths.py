"""Scorers of length from work on reasoning: DAPO's soft over-length punishment, and the cosine length reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from textgym.arguments import Count, Finite, accepts, check_argument
from textgym.scorers.base import FloatArray, Generations, Scorer, Scores
from textgym.scorers.composition import refuse_duplicates
from textgym.scorers.registry import make_scorer


class Overlong(Scorer):
    """Nothing up to a length, then ever less down to -1 at the longest length allowed.

    For a completion of n tokens, EOS included, it is 0 up to max_tokens - cache, then (max_tokens - cache - n) / cache,
    and -1 beyond max_tokens.

    Args:
        max_tokens: L_max, the longest length allowed; None is the env's own limit, `max_new_tokens`.
        cache: L_cache, over how many tokens before it the punishment grows; at most `max_tokens`.
        name: the component's name in `info`.

    Range: [-1, 0]; 0 is best.

    Cost: none; nothing is decoded.

    Source: DAPO (Yu et al. 2025, arXiv 2503.14476), equation 13; TRL's `get_soft_overlong_punishment`.

    Example: `{"name": "overlong", "max_tokens": 32, "cache": 8}`

    Raises:
        ValueError: an argument is no integer of at least 1, or `cache` is above `max_tokens`.
    """

    def __init__(self, max_tokens: Count | None = None, *, cache: Count, name: str = "overlong"):
        check_argument(f"scorer {name!r}: max_tokens", max_tokens, Count | None)
        check_argument(f"scorer {name!r}: cache", cache, Count)
        self.name, self.max_tokens, self.cache = name, max_tokens, cache
        if max_tokens is not None and cache > max_tokens:
            raise ValueError(f"scorer {name!r}: cache is {cache}; it must be at most max_tokens, {max_tokens}")

    def score(self, generations: Generations) -> FloatArray:
        """(n,) values in [-1, 0].

        Raises:
            ValueError: `cache` is above the env's limit.
        """
        generations.mdp.refuse_turns(f"scorer {self.name!r}, which counts tokens,")
        longest = generations.mdp.max_new_tokens if self.max_tokens is None else self.max_tokens
        if self.cache > longest:
            raise ValueError(f"cache is {self.cache}; it must be at most max_new_tokens, {longest}")
        return np.clip((longest - self.cache - generations.lengths) / self.cache, -1, 0)


class CosineLength(Scorer):
    """Another scorer's verdict, scaled by length along half a cosine.

    A completion is right where the inner scorer gives at least `at`. One of n tokens, EOS included, then gets a value
    between those of its kind, (r_0, r_L): r_L + (r_0 - r_L) (1 + cos(pi n / max_tokens)) / 2, which is r_0 at no length
    and r_L at `max_tokens`. By default a right one earns more the shorter it is, and a wrong one the longer it is. From
    `max_tokens` on the value is `exceeded`, right or wrong.

    Args:
        scorer: says what is right, as `exact_match` does; anything that `make_scorer` accepts. Its components stay
            visible in `info`.
        at: the inner scorer's value from which on a completion is right.
        right: (r_0, r_L) of right completions.
        wrong: (r_0, r_L) of wrong ones.
        exceeded: the value of completions of `max_tokens` or more.
        max_tokens: L_max; None is the env's own limit, `max_new_tokens`.
        name: the component's name in `info`.

    Range: between the least and the largest of the five values, [-10, 2] by default.

    Cost: that of the inner scorer.

    Source: Yeo et al. 2025 (arXiv 2502.03373), section 4, with its values; open-r1's `get_cosine_scaled_reward`, which
        counts characters and knows no `exceeded`.

    Example: `{"name": "cosine_length", "scorer": "exact_match", "right": [1, 0.5], "wrong": [0, 0], "exceeded": -1}`

    Raises:
        ValueError: an argument of another type; an inner scorer that pays per token, or has a component of this name.
    """

    def __init__(
        self,
        scorer: Any,
        *,
        at: Finite = 1.0,
        right: Sequence[float] = (2.0, 1.0),
        wrong: Sequence[float] = (-10.0, 0.0),
        exceeded: Finite = -10.0,
        max_tokens: Count | None = None,
        name: str = "cosine_length",
    ):
        check_argument(f"scorer {name!r}: at", at, Finite)
        check_argument(f"scorer {name!r}: exceeded", exceeded, Finite)
        check_argument(f"scorer {name!r}: max_tokens", max_tokens, Count | None)
        self.name, self.at, self.exceeded, self.max_tokens = name, at, exceeded, max_tokens
        self.right = _pair(f"scorer {name!r}: right", right)
        self.wrong = _pair(f"scorer {name!r}: wrong", wrong)
        self.scorer = make_scorer(scorer)
        self.slow = self.scorer.slow
        if self.scorer.per_token:
            raise ValueError(
                f"scorer {name!r}: {self.scorer.name!r} pays per token; it must judge the whole completion"
            )
        refuse_duplicates(name, self.component_names)

    @property
    def component_names(self) -> tuple[str, ...]:
        """This one's name, then the inner scorer's components."""
        return (self.name, *self.scorer.component_names)

    def score(self, generations: Generations) -> FloatArray:
        """(n,) values."""
        return self.evaluate(generations).rewards

    def evaluate(self, generations: Generations) -> Scores:
        """The scaled verdict, and the inner scorer's components as they are."""
        generations.mdp.refuse_turns(f"scorer {self.name!r}, which counts tokens,")
        inner = self.scorer.evaluate(generations)
        longest = generations.mdp.max_new_tokens if self.max_tokens is None else self.max_tokens
        nearness = (1 + np.cos(math.pi * generations.lengths / longest)) / 2  # 1 at no length, 0 at the longest
        scaled = [last + (first - last) * nearness for first, last in (self.right, self.wrong)]
        values = np.where(inner.rewards >= self.at, *scaled)
        values[generations.lengths >= longest] = self.exceeded
        values[np.isnan(inner.rewards)] = np.nan  # it does not apply
        values[~generations.ended] = 0.0
        return Scores(values, {self.name: values, **inner.components})


def _pair(argument: str, values: Sequence[float]) -> tuple[float, float]:
    """Two finite numbers."""
    if not isinstance(values, list | tuple) or len(values) != 2 or not all(accepts(Finite, one) for one in values):
        raise ValueError(f"{argument} is {values!r}; it must be two finite numbers, at no length and at the longest")
    return float(values[0]), float(values[1])
