"""Over-optimisation where gold reward and proxy are both known: exact curves, fitted forms, and rules to stop by.

All texts of a few words are enumerated, so the reward of every policy is exact, and what is seen is the proxy's fault
alone. Reinforcement learning is the path of its optima p_beta proportional to a exp(proxy / beta), beta falling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch

from textgym.evaluation import Frontier
from textgym.exact import AnswerTree, best_of_log_probs, expectation, kl
from textgym.tokenizers import make_tokenizer

Method = Literal["RL", "best-of-n"]
Fault = Literal["learned", "gaussian", "heavy-tailed"]
WORDS = " a", " very", " not", " good", " bad", " movie"
BETAS = np.geomspace(5, 0.01, 60)
CHOICES = 2 ** np.arange(13)
KNOWN = 1.0


class Path(NamedTuple):
    """What a method reaches as it goes on: (n,) each.

    Attributes:
        kl: to the reference, in nats per text.
        proxy: mean of the proxy.
        gold: mean of the gold reward.
        other: mean of another proxy with independent faults of the same kind.
    """

    kl: np.ndarray
    proxy: np.ndarray
    gold: np.ndarray
    other: np.ndarray


class Fit(NamedTuple):
    """Gao et al. 2023 (arXiv 2210.10760): gain = d (alpha - beta log d) for RL, d (alpha - beta d) for best-of-n.

    Attributes:
        alpha: see above, d being the root of the KL.
        beta: see above.
        r2: share of the variance of the gain that the form explains.
    """

    alpha: float
    beta: float
    r2: float

    @classmethod
    def of(cls, kl: np.ndarray, gain: np.ndarray, method: Method) -> Fit:
        """Least squares; (n,) KLs above 0 and gains in gold reward over the reference."""
        d = np.sqrt(kl)
        columns = np.stack([d, -d * (np.log(d) if method == "RL" else d)], 1)
        found = np.linalg.lstsq(columns, gain, rcond=None)[0]
        r2 = 1 - np.square(columns @ found - gain).sum() / np.square(gain - gain.mean()).sum()
        return cls(float(found[0]), float(found[1]), float(r2))

    def peak(self, method: Method) -> float:
        """The KL where the form is highest; infinite where it never falls."""
        if self.beta <= 0:
            return math.inf
        d = math.exp(min(self.alpha / self.beta - 1, 50.0)) if method == "RL" else self.alpha / self.beta / 2
        return d**2


@dataclass(frozen=True)
class Problem:
    """Openings of reviews that `tiny` ends with up to `length` of six words, and proxies of the sentiment.

    Attributes:
        log_a: (C, X) of the reference.
        gold: (C, X) the env's reward.
        features: (X, F) of the texts: counts of words and of neighbouring pairs, and 1.
    """

    log_a: torch.Tensor
    gold: torch.Tensor
    features: torch.Tensor

    @classmethod
    def make(cls, prompts: int, length: int) -> Problem:
        """Enumerate."""
        tokenizer = make_tokenizer("tiny")
        allowed = [*(tokenizer.encode(word)[0] for word in WORDS), *tokenizer.eos_token_ids]
        env: Any = gym.make("TextGen-v0", allowed_tokens=allowed, max_new_tokens=length)
        answers = AnswerTree(env, range(prompts))
        counts = (answers.outcomes[..., None] == answers.tokens).double()  # (X, T, K)
        pairs = counts[:, :-1, :, None] * counts[:, 1:, None, :]
        features = torch.cat([torch.ones(len(counts), 1), counts.sum(1), pairs.sum(1).flatten(1)], 1)
        return cls(answers.log_probs("tiny"), answers.scores()["reward"], features)

    def proxy(self, fault: Fault, seed: int, labels: int, spread: float) -> torch.Tensor:
        """A proxy, (C, X): a ridge regression on labelled texts of the reference, or gold and an error per text.

        Args:
            fault: `"gaussian"` and `"heavy-tailed"` (Student's t with 2 degrees) errors are independent over texts.
            seed: of what is drawn.
            labels: texts of the reference whose gold reward the regression is told.
            spread: scale of the errors.
        """
        random = torch.Generator().manual_seed(seed)
        if fault == "learned":
            prompts = torch.randint(len(self.gold), (labels,), generator=random)
            texts = torch.multinomial(self.log_a[prompts].exp(), 1, generator=random)[:, 0]
            known = self.features[texts]
            gram = known.T @ known + torch.eye(known.shape[1], dtype=torch.float64)
            return (self.features @ torch.linalg.solve(gram, known.T @ self.gold[prompts, texts])).expand_as(self.gold)
        errors = torch.randn(*self.gold.shape, 3, generator=random, dtype=torch.float64)
        scale = errors[..., 1:].square().mean(-1).sqrt() if fault == "heavy-tailed" else 1.0
        return self.gold + spread * errors[..., 0] / scale

    def path(self, method: Method, proxy: torch.Tensor, other: torch.Tensor) -> Path:
        """Exact means along beta, or along n."""
        rows = []
        for step in BETAS if method == "RL" else CHOICES:
            tilted = (self.log_a + proxy / float(step)).log_softmax(-1)
            log_pi = tilted if method == "RL" else best_of_log_probs(int(step), self.log_a, proxy)
            values = kl(log_pi, self.log_a), *(expectation(log_pi, r) for r in (proxy, self.gold, other))
            rows.append([value.mean().item() for value in values])
        return Path(*np.array(rows if method == "RL" else rows[1:]).T)

    @property
    def start(self) -> float:
        """The reference's gold reward."""
        return expectation(self.log_a, self.gold).mean().item()

    def best(self) -> Frontier:
        """The frontier of the gold reward."""
        return Frontier(self.gold, self.log_a)


def judged(path: Path, start: float, method: Method) -> dict[str, float]:
    """What became of the gold reward on a path, and where three rules would have stopped.

    The rules are: at the end of the path; where the mean of the other proxy is highest; and where Gao et al.'s form is
    highest, fitted to the gold reward up to the KL `KNOWN`.

    Returns:
        `peak`, the highest gain in gold reward over the reference, and `peak_kl`; `r2` of the form fitted to the whole
        path; and the gain where each rule stops: `end`, `second_proxy`, `extrapolated`.
    """
    gain = path.gold - start
    top, near = int(gain.argmax()), path.kl <= max(KNOWN, path.kl[2])  # three points at least
    expected = Fit.of(path.kl[near], gain[near], method).peak(method)
    stops = {
        "end": len(gain) - 1,
        "second_proxy": int(path.other.argmax()),
        "extrapolated": int(np.abs(path.kl - min(expected, path.kl[-1])).argmin()),
    }
    found = {"peak": gain[top], "peak_kl": path.kl[top], "r2": Fit.of(path.kl, gain, method).r2}
    return {name: float(x) for name, x in (found | {name: gain[i] for name, i in stops.items()}).items()}
