"""Reading a table of Q-values: by the number of a state or, in a TextGym env, by the text written so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.tabular import TabularPolicy
from textgym.contexts import context_indices
from textgym.mdp import first_observation


class TableViews(BaseAlgorithm):
    """The part of a tabular algorithm that people look at."""

    policy: TabularPolicy

    def q_values(self, observation: Any) -> np.ndarray:
        """Q(s, .), the mean of the tables: (A,) float32 of a state, (..., A) of an array of states.

        Args:
            observation: a state or an array of states; in a TextGym env also the text written so far.

        Raises:
            ValueError: there is no such state, or no text may follow.
        """
        states = torch.as_tensor(self._context(observation) if isinstance(observation, str) else observation)
        if ((states < 0) | (states >= self.observation_space.n)).any():  # type: ignore[attr-defined]
            raise ValueError(f"there is no state {observation} in {self.observation_space}")
        return self.policy.q_values(states.to(self.device)).cpu().numpy()

    def show(self, observation: Any, console: Console | None = None) -> None:
        """Print Q(s, .) of one state, the best action first; actions are named by the env's tokens.

        Args:
            observation: a state; in a TextGym env also the text written so far.
            console: where to print.
        """
        values, name = self.q_values(observation), str
        if self.env is not None and self.env.has_attr("tokenizer"):
            name = self.env.get_attr("tokenizer")[0].backend.id_to_token
        table = Table("action", title=escape(f"Q({observation!r}, .)"), title_justify="left")
        table.add_column("Q", justify="right")
        for action in np.argsort(-values, kind="stable").tolist():
            table.add_row(escape(name(action)), f"{values[action]:+.4f}")
        (console or Console(highlight=False)).print(table)

    def _context(self, text: str) -> int:
        """The number of the context that a text is."""
        if self.env is None or not self.env.has_attr("mdp"):
            raise ValueError(f"{text!r} is a text, but there is no TextGym env; give the number of a state")
        mdp, tokens = self.env.get_attr("mdp")[0], self.env.get_attr("tokenizer")[0].encode(text)
        if len(tokens) >= mdp.max_new_tokens:
            raise ValueError(f"nothing follows {text!r}, which has max_new_tokens={mdp.max_new_tokens} tokens or more")
        observation = first_observation(mdp, [mdp.bos_token_id])
        observation[1 : 1 + len(tokens)] = tokens
        return int(context_indices(mdp, observation))
