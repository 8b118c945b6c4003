"""What a policy, or another scorer, would have earned: the value of one from logged episodes of another one.

The episodes hold the log-probabilities with which their tokens were drawn. One forward pass gives those of the policy,
and the values of its value head; the rest is `textgym.evaluation.importance`.
"""

from __future__ import annotations

from typing import Any

import torch

from textgym.arguments import Count, Probability
from textgym.evaluation.episode_log import check_episodes
from textgym.evaluation.groups import group_size
from textgym.evaluation.importance import (
    SMALLEST_SAMPLE,
    Estimator,
    OffPolicyEstimate,
    OffPolicySample,
    SampleSize,
    estimate_value,
)
from textgym.evaluation.other_scorers import rescore
from textgym.evaluation.policies import Policy
from textgym.language_models.token_model import TokenModel
from textgym.scorers import make_scorer
from textgym.training.episodes import Episodes
from textgym.training.terms import with_training_terms


def off_policy(
    episodes: Episodes,
    policy: Policy,
    estimator: Estimator = "wis",
    *,
    scorer: Any = None,
    values: torch.Tensor | None = None,
    q_values: torch.Tensor | None = None,
    gamma: Probability = 1.0,
    group: Count | None = None,
    min_effective_sample_size: SampleSize = SMALLEST_SAMPLE,
) -> OffPolicyEstimate:
    """The expected discounted return of a policy, from episodes that another policy wrote.

    Args:
        episodes: of the behaviour, with `log_probs` of its own: what `sample_episodes` of an agent or a `ModelPolicy`
            returns, or `read_episodes`. The behaviour must be able to choose whatever the policy may choose.
        policy: an agent, or a `ModelPolicy`, in an env with the same MDP.
        estimator: see `textgym.evaluation.importance`.
        scorer: in any form that an env's `scorer` takes: its rewards count in place of the logged ones.
        values: (E, T) V(s_t), for `dr` and `wdr`; by default those of the policy's value head, if it is trained.
        q_values: (E, T) Q(s_t, a_t); by default V(s_t).
        gamma: see `estimate_value`.
        group: every so many episodes that stand together depend on each other; by default those of one prompt.
        min_effective_sample_size: see `estimate_value`.

    Raises:
        NoOverlapError: the estimate is refused, see `estimate_value`.
        ValueError: what `off_policy_sample` and `estimate_value` refuse.
        ScorerError: the scorer failed.
    """
    sample = off_policy_sample(episodes, policy, scorer=scorer, values=values, q_values=q_values)
    group, bound = group_size(episodes) if group is None else group, min_effective_sample_size
    return estimate_value(sample, estimator, gamma=gamma, group=group, min_effective_sample_size=bound)


def off_policy_sample(
    episodes: Episodes,
    policy: Policy,
    *,
    scorer: Any = None,
    values: torch.Tensor | None = None,
    q_values: torch.Tensor | None = None,
) -> OffPolicySample:
    """What all estimators are computed from, so that the episodes go through the model once; see `off_policy`.

    Raises:
        ValueError: the episodes are of another MDP, have tokens that the env forbids, or no log-probabilities; or the
            policy is truncated by top-k or top-p.
        ScorerError: the scorer failed.
    """
    check_episodes(episodes, policy.task.mdp)
    policy.token_model.distribution.refuse_truncation(
        "logged tokens that it makes impossible would be given a probability all the same"
    )
    if scorer is not None:
        episodes = rescore(policy.task, make_scorer(scorer), episodes)
    episodes = episodes.to(policy.token_model.device)
    behaviour = episodes.log_probs.double()
    episodes = with_training_terms(policy.token_model, episodes, policy.micro_batch_size)
    if values is None and q_values is None and _has_values(policy.token_model):
        values = episodes.values
    sample = OffPolicySample(
        episodes.log_probs.double() - behaviour,
        episodes.rewards,
        *(None if given is None else torch.as_tensor(given).to(behaviour.device) for given in (values, q_values)),
    )
    return sample.masked(episodes.mask)


def _has_values(token_model: TokenModel) -> bool:
    """Whether the value head says anything: it starts at zero."""
    return any(bool(parameter.any()) for parameter in token_model.value_net.parameters())
