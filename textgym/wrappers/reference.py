"""A frozen language model as a distribution of tokens under an env's masks, for wrappers that need one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from textgym.language_models.decoder import Decoder
from textgym.language_models.distribution import TokenDistribution
from textgym.language_models.forward import check_model, logits_of
from textgym.language_models.loader import load_model
from textgym.language_models.shared_prompts import episode_hidden
from textgym.mdp import IntArray, TextMDP, append
from textgym.scorers.base import FloatArray


class FrozenReference:
    """a(token | context): a causal language model that is not trained, at temperature 1, under the env's masks.

    So it is what agents call their reference. Token ids go into the model as they are.

    Args:
        model: anything that `textgym.language_models.load_model` accepts. A loaded model stays where it is, and must
            not be trained.
        mdp: the env's.

    Raises:
        ValueError: there is no such model, or it does not fit the env.
        ImportError: a package is missing; the message names the extra.
    """

    def __init__(self, model: Any, mdp: TextMDP):
        self.model, self.mdp = load_model(model), mdp
        check_model(self.model, mdp)
        self._distribution = TokenDistribution(mdp).to(self.model.device)
        self._decoder = Decoder(self.model, mdp)

    def log_probs_of(self, observations: IntArray, actions: IntArray) -> FloatArray:
        """The value of log a(action | observation), by cached decoding: (N, P + T), (N,) -> (N,) in nats.

        It is 0 in rows that have ended.

        Raises:
            ValueError: an action has no probability.
        """
        result, live = np.zeros(len(observations)), ~self.mdp.ended(observations)
        if not live.any():
            return result
        log_probs = self._next(observations)  # (n, V)
        result[live] = log_probs[np.arange(len(log_probs)), actions[live]]
        if not np.isfinite(result).all():
            row = int(np.argmin(np.isfinite(result)))
            raise ValueError(
                f"the reference gives token {actions[row]} of row {row} no probability, so its logarithm is "
                f"{result[row]}; a reference must allow every token that the env allows"
            )
        return result

    def sample_replacements(self, rows: IntArray, samples: int, rng: np.random.Generator) -> IntArray:
        """Tokens that could have stood in place of those of completions, each drawn given what was before it.

        Args:
            rows: (E, P + T) finished episodes, with M completion tokens in all.
            samples: tokens drawn for each place.
            rng: draws them.

        Returns:
            (M, samples), in the order of `np.argwhere(rows[:, P:] != pad)`.
        """
        tensor = torch.from_numpy(rows).to(self.model.device)
        real = tensor[:, self.mdp.max_prompt_tokens :] != self.mdp.pad_id  # (E, T)
        with torch.no_grad():
            logits = logits_of(self.model, episode_hidden(self.model, self.mdp, tensor), self.mdp.vocab_size)
            log_probs = self._distribution.log_probs(logits, (real.cumsum(-1) - 1)[real])  # (M, V)
        return sample_tokens(log_probs.cpu().numpy(), samples, rng)

    def complete(self, rows: IntArray, rng: np.random.Generator) -> IntArray:
        """Unfinished episodes written to their ends: (n, P + T) -> (n, P + T)."""
        mdp, rows = self.mdp, np.ascontiguousarray(rows).copy()
        starts = np.arange(len(rows)) * rows.shape[1] + mdp.max_prompt_tokens
        while (live := np.flatnonzero(~mdp.ended(rows))).size:
            tokens = sample_tokens(self._next(rows), 1, rng)[:, 0]
            append(mdp, rows.reshape(-1), starts[live], mdp.completion_lengths(rows[live]), tokens)
        return rows

    def _next(self, observations: IntArray) -> np.ndarray:
        """(n, V) float32 log-probabilities of the next tokens of the n rows that have not ended."""
        hidden, live = self._decoder.hidden(torch.from_numpy(observations))
        lengths = torch.from_numpy(self.mdp.completion_lengths(observations))[live].to(self.model.device)
        with torch.no_grad():
            logits = logits_of(self.model, hidden[live.to(hidden.device)], self.mdp.vocab_size)
            return self._distribution.log_probs(logits, lengths).cpu().numpy()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the decoder, whose cache the next call rebuilds."""
        return {name: value for name, value in self.__dict__.items() if name != "_decoder"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin with an empty cache."""
        self.__dict__.update(state)
        self._decoder = Decoder(self.model, self.mdp)


def sample_tokens(log_probs: np.ndarray, samples: int, rng: np.random.Generator) -> IntArray:
    """Tokens of M distributions, by inverting their distribution functions: (M, V) -> (M, samples) int64."""
    cumulative = np.exp(log_probs.astype(np.float64)).cumsum(-1)
    drawn = rng.random((len(log_probs), samples)) * cumulative[:, -1:]
    tokens = [np.searchsorted(row, values, side="right") for row, values in zip(cumulative, drawn, strict=True)]
    return np.array(tokens, np.int64).reshape(drawn.shape)
