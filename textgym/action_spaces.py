"""Action spaces of envs that forbid some tokens: a sample of theirs is a token that the env accepts.

Gymnasium's and stable-baselines3's checkers, and every random policy, call `action_space.sample()` and step with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class TokenSpace(spaces.Discrete):
    """`Discrete(V)` whose samples are permitted tokens, unless a mask or probabilities say otherwise.

    Args:
        permitted: (V,) bool, True where the token may be chosen at every step.
    """

    def __init__(self, permitted: NDArray[np.bool_]):
        super().__init__(len(permitted))
        self.permitted = permitted.astype(np.int8)

    def sample(self, mask: Any = None, probability: Any = None) -> Any:
        """A token id."""
        if mask is None and probability is None:
            mask = self.permitted
        return super().sample(mask, probability)


class TokenSpaces(spaces.MultiDiscrete):
    """`MultiDiscrete([V] * N)` with the same rule for every row.

    Args:
        permitted: (V,) bool, True where the token may be chosen at every step.
        num_envs: N.
    """

    def __init__(self, permitted: NDArray[np.bool_], num_envs: int):
        super().__init__(np.full(num_envs, len(permitted)))
        self.permitted = permitted.astype(np.int8)

    def sample(self, mask: Any = None, probability: Any = None) -> Any:
        """(N,) token ids."""
        if mask is None and probability is None:
            mask = (self.permitted,) * len(self.nvec)
        return super().sample(mask, probability)
