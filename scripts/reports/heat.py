"""Texts of a policy token by token: where it has moved from its reference, and which tokens the reward is owed to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from textgym.evaluation.policies import Policy
from textgym.scorers.base import FloatArray
from textgym.training.episodes import Episodes
from textgym.wrappers import counterfactual_credit

FULL_KL = 4
"""Nats of a token at which its colour is full."""
END, PART = "\u220e", "\u00b7"
"""What stands for the end of the text, and for a token that completes no character."""


@dataclass(frozen=True)
class Token:
    """A token of a text.

    Attributes:
        text: what it adds to the text.
        log_prob: of the policy, in nats.
        reference: log-probability under the reference, in nats.
        credit: in units of reward; None where there is none.
    """

    text: str
    log_prob: float
    reference: float
    credit: float | None

    @property
    def log_ratio(self) -> float:
        """Its part of the KL to the reference, in nats."""
        return self.log_prob - self.reference


@dataclass(frozen=True)
class Text:
    """A text with its prompt and its reward."""

    prompt: str
    tokens: list[Token]
    reward: float

    @property
    def kl(self) -> float:
        """Nats: log pi(x) - log a(x)."""
        return sum(token.log_ratio for token in self.tokens)


@dataclass(frozen=True)
class Heat:
    """Texts, and in words what their credit is; empty where there is none."""

    texts: list[Text]
    credit: str

    @property
    def full_credit(self) -> float:
        """The credit at which a colour is full: the largest of these texts, of whichever sign."""
        return max((abs(token.credit or 0.0) for text in self.texts for token in text.tokens), default=0.0)


def heat_of(policy: Policy, texts: int, samples: int) -> Heat:
    """Fresh texts of a policy, token by token.

    Args:
        policy: with a reference.
        texts: how many, at most those of one round of its env.
        samples: other tokens for each place, from which its credit is estimated; 0 estimates none.
    """
    episodes, task = policy.sample_episodes(policy.n_envs), policy.task
    credits, sentence = credits_of(policy, episodes, texts, samples)
    found = []
    for i in range(min(texts, len(episodes))):
        n, ids = int(episodes.last[i]) + 1, episodes.rows[i, -episodes.mask.shape[1] :].tolist()
        numbers = (x[i, :n].tolist() for x in (episodes.log_probs, episodes.reference_log_probs))
        credit = [None] * n if credits is None else credits[i, :n].tolist()
        pieces = pieces_of(
            [task.tokenizer.decode(ids[: k + 1]) for k in range(n)], ids[n - 1] in task.mdp.eos_token_ids
        )
        prompt, _ = task.decode_parts(episodes.rows[i].cpu().numpy())
        tokens = [Token(*token) for token in zip(pieces, *numbers, credit, strict=True)]
        found.append(Text(prompt, tokens, episodes.rewards[i].sum().item()))
    return Heat(found, sentence)


def credits_of(policy: Policy, episodes: Episodes, texts: int, samples: int) -> tuple[FloatArray | None, str]:
    """The credits of the first texts' tokens, (texts, T), and what they are; None and nothing where there are none.

    One text at a time, so that the forward pass over a large vocabulary has as many rows as one text has tokens.
    """
    task = policy.task
    if not samples or task.mdp.eot_token_ids:  # what a partner answers to another token is not known
        return None, ""
    if task.scorer.per_token:
        return episodes.rewards[:texts].cpu().numpy(), "what the scorer paid for the token"
    assert policy.reference is not None
    rows, prompts = episodes.rows[:texts].cpu().numpy(), episodes.prompt_ids[:texts].cpu().numpy()
    with policy.reference.running() as model:
        parts = [
            counterfactual_credit(task, model, rows[i : i + 1], prompts[i : i + 1], samples, seed=i)
            for i in range(len(rows))
        ]
    drawn = f"the mean reward of {samples} texts in which this token was drawn anew from the reference"
    return np.concatenate(parts), f"the reward of the text minus {drawn} and the rest stayed, or was cut off by an end"


def pieces_of(so_far: list[str], ends: bool) -> list[str]:
    """What each token adds to a text, given the texts so far; `ends`: the last one is the end of the text."""
    pieces, shown = [], ""
    for text in so_far:
        whole = not text.endswith("\ufffd")  # bytes of a character that later tokens complete
        pieces.append((text[len(shown) :] if whole else "") or PART)
        shown = text if whole else shown
    return [*pieces[:-1], END] if ends else pieces


def colour(value: float, full: float) -> str:
    """Blue above 0, orange below, plain at 0 and full from `full` on."""
    strength = min(abs(value) / full, 1.0) if full else 0.0
    return f"rgb({'86 180 233' if value > 0 else '230 159 0'} / {strength:.2f})"
