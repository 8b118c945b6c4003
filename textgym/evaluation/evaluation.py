"""The evaluation of a policy: reward, distance from a reference, and how varied its texts are.

`evaluate` is the one evaluation of this project, for agents, checkpoints and plain models; `describe` is the same for
episodes that are there already.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from textgym.evaluation.frontier import Frontier, OutOfRangeError
from textgym.evaluation.groups import group_size
from textgym.evaluation.other_scorers import make_scorers, score_episodes
from textgym.evaluation.policies import Policy
from textgym.evaluation.samples import Sample
from textgym.evaluation.success import Success
from textgym.matching.estimates import LIMITS, Estimate
from textgym.matching.intervals import ANY, SHARE, Range
from textgym.metrics import distinct_n, evenly_spaced, self_bleu
from textgym.scorers import Scorer
from textgym.scorers.trainer import take_metrics
from textgym.training.episodes import Episodes


@dataclass(frozen=True)
class Evaluation:
    """What is measured over E episodes, each number with its standard error and 95% interval where it has one.

    `distinct_1` to `distinct_3` and `self_bleu` have none (`textgym.metrics` says why), and depend on E.

    Attributes:
        episodes: E.
        reward: undiscounted return of the env.
        components: total of each scorer component, mean over the episodes to which it applies.
        metrics: what reward functions reported with `log_metric`, means over their calls.
        pass_at: the chance that at least one of k completions of a prompt is right, by k; empty where it is not asked.
        other_components: the components of the scorers that were given, which the env's reward does not have in it.
        kl_to_reference: sum_t log pi(a_t | s_t) - log a(a_t | s_t), nats per sequence: the unbiased k1 estimator of
            KL(pi || a), a being the frozen reference.
        share_of_attainable: the gain in reward over the reference, by the most that is possible at this KL; None
            without a frontier, or where its samples do not reach this KL.
        times_least_kl: the KL, by the least at which this reward can be earned; None as before.
        entropy: of the next-token distribution in nats, mean over all sampled tokens.
        length: completion tokens, EOS included and a partner's left out.
        eos_share: share of episodes that ended with an EOS token, and not at the length limit.
        distinct_1: different tokens among all completion tokens.
        distinct_2: the same for pairs of tokens.
        distinct_3: the same for triples.
        self_bleu: of the completion texts, in [0, 1]; None for one episode.
        samples: a few episodes, evenly spaced.
        turns: of the policy, per episode; None where an episode is one turn.
    """

    episodes: int
    reward: Estimate
    components: dict[str, Estimate]
    pass_at: dict[int, Estimate]
    other_components: dict[str, Estimate]
    kl_to_reference: Estimate
    entropy: Estimate
    length: Estimate
    eos_share: Estimate
    distinct_1: float
    distinct_2: float
    distinct_3: float
    self_bleu: float | None
    samples: tuple[Sample, ...]
    share_of_attainable: Estimate | None = None
    times_least_kl: Estimate | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    turns: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """Nested dicts and lists that `json.dumps` takes; what is not known, NaN, becomes None."""

        def plain(value: Any) -> Any:
            if isinstance(value, Estimate):
                value = value._asdict()
            if isinstance(value, dict):
                return {str(name): plain(item) for name, item in value.items()}
            if isinstance(value, list | tuple):
                return [plain(item) for item in value]
            return None if isinstance(value, float) and math.isnan(value) else value

        return plain(dataclasses.asdict(self))


def evaluate(
    policy: Policy,
    episodes: int,
    samples: int = 4,
    success: Success | None = None,
    scorers: Sequence[Any] = (),
    frontier: Frontier | None = None,
) -> Evaluation:
    """Sample fresh episodes of a policy in its env and measure them; the policy and its counters do not change.

    Standard errors and intervals take groups as independent, where the env has `num_generations` above 1 and several
    prompts, because mates share a prompt; otherwise episodes. With `success`, the env must have
    `num_generations=success.attempts`, or a multiple of it.

    Args:
        policy: an agent, or a `ModelPolicy`; in an env with `split="test"`, it is measured on held-out prompts.
        episodes: how many; a multiple of the number of envs.
        samples: how many texts to keep.
        success: when a completion is right, for pass@k.
        scorers: others than the env's, which training never sees, each in any form that an env's `scorer` takes.
        frontier: over the policy's reference in this env, from which the policy's distance is to be told.

    Raises:
        ValueError: no episodes, or no multiple; what `Success.pass_at` and `make_scorers` refuse.
        ScorerError: a scorer failed.
    """
    made, trainer = make_scorers(scorers), policy.task.trainer
    take_metrics([trainer])  # what was reported before is not of these episodes
    described = describe(policy, policy.sample_episodes(episodes), samples, success, made, frontier)
    return dataclasses.replace(described, metrics=take_metrics([trainer]))


def describe(
    policy: Policy,
    episodes: Episodes,
    samples: int = 4,
    success: Success | None = None,
    scorers: Sequence[Scorer] = (),
    frontier: Frontier | None = None,
) -> Evaluation:
    """Measure episodes of a policy that hold the reference's log-probabilities.

    Args:
        policy: what sampled them.
        episodes: E of them.
        samples: how many texts to keep.
        success: see `evaluate`.
        scorers: see `evaluate`.
        frontier: see `evaluate`.
    """
    task, rewards, group = policy.task, episodes.rewards.sum(-1), group_size(episodes)
    pass_at = success.pass_at(episodes, task.scorer.component_names) if success else {}

    def mean_of(values: torch.Tensor, limits: Range = ANY) -> Estimate:
        x, applies = values.double(), ~values.isnan()  # NaN where nothing applies
        if group == 1:
            return Estimate.mean_of(x[applies], limits)
        if ((x == 0) | (x == 1) | ~applies).all():
            limits = SHARE
        sums, counts = (part.view(-1, group).sum(-1) for part in (x.nan_to_num(), applies.double()))
        return Estimate.ratio_of(sums[counts > 0], counts[counts > 0], limits)

    kls = (episodes.log_probs - episodes.reference_log_probs).double().sum(-1)
    independent = [values.double().view(-1, group).mean(-1).cpu() for values in (rewards, kls)]
    completions = completion_ids(episodes)
    parts = [task.decode_parts(row) for row in episodes.rows.cpu().numpy()]
    texts = [text for _, text in parts]
    ends = task.mdp.ended_by_eos(episodes.rows.cpu().numpy())
    components = zip(task.scorer.component_names, episodes.components.T, strict=True)
    return Evaluation(
        episodes=len(episodes),
        reward=mean_of(rewards),
        components={name: mean_of(values) for name, values in components},
        pass_at=pass_at,
        other_components={
            name: mean_of(values)
            for scorer in scorers
            for name, values in score_episodes(task, scorer, episodes).items()
        },
        kl_to_reference=mean_of(kls, LIMITS["kl_to_reference"]),
        share_of_attainable=within_range(frontier.share, *independent) if frontier else None,
        times_least_kl=within_range(frontier.times_least, *independent) if frontier else None,
        entropy=token_entropy(policy, episodes, group),
        length=mean_of(episodes.lengths, (1.0, task.mdp.max_new_tokens)),
        eos_share=mean_of(torch.from_numpy(ends)),
        turns=mean_of(episodes.turns, (1.0, task.mdp.max_new_tokens)) if task.partner else None,
        **variety(completions, texts),  # type: ignore[arg-type]
        samples=tuple(Sample(*parts[i], rewards[i].item()) for i in evenly_spaced(range(len(texts)), samples)),
    )


def within_range(measure: Callable[..., Estimate], rewards: torch.Tensor, kls: torch.Tensor) -> Estimate | None:
    """What a method of `Frontier` says of rewards and KLs; None where they are out of its range."""
    try:
        return measure(rewards, kls)
    except OutOfRangeError:
        return None


def completion_ids(episodes: Episodes) -> list[list[int]]:
    """The tokens of each completion, EOS included; a partner's are left out."""
    chosen = zip(episodes.actions.cpu(), episodes.mask.cpu(), strict=True)
    return [actions[mask].tolist() for actions, mask in chosen]


@torch.no_grad()
def token_entropy(policy: Policy, episodes: Episodes, group: int = 1) -> Estimate:
    """The mean entropy of the next-token distribution over all sampled tokens, in nats.

    It is a ratio of two means over episodes, of summed entropies and of lengths; so is its standard error. Of the
    episodes, every `group` that stand together have one prompt.
    """
    sums = torch.zeros(len(episodes), dtype=torch.float64, device=episodes.rows.device)  # (E,)
    sharing = policy.token_model.shares_prompts()
    for index in episodes.micro_batches(policy.micro_batch_size, sharing):
        terms = policy.token_model.evaluate_episodes(
            episodes.rows[index], episodes.actions[index], entropy_gradient=False
        )
        sums[index] = terms.entropies.double().sum(-1)
    sums, lengths = (x.double().view(-1, group).sum(-1) for x in (sums, episodes.lengths))
    return Estimate.ratio_of(sums, lengths, (0.0, math.log(policy.task.mdp.allowed.sum())))


def variety(completions: Sequence[Sequence[int]], texts: Sequence[str]) -> dict[str, float | None]:
    """How varied a sample is: `distinct_1` to `distinct_3` of the tokens and `self_bleu` of the texts.

    Self-BLEU is None for a single text. All depend on the size of the sample.
    """
    distinct: dict[str, float | None] = {f"distinct_{n}": distinct_n(completions, n) for n in (1, 2, 3)}
    return distinct | {"self_bleu": self_bleu(texts) if len(texts) > 1 else None}
