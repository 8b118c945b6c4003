"""What a policy, or another scorer, would have earned: the value of one from logged episodes of another one.

The episodes hold the log-probabilities with which their tokens were drawn. One forward pass gives those of the policy,
and the values of its value head; the rest is `textgym.evaluation.importance`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from textgym.arguments import Count, Probability
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
from textgym.mdp import TextMDP
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
    group: Count = 1,
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
        gamma: see `estimate_value`, as for all that follow.
        group: episodes that stand together for one prompt.
        min_effective_sample_size: below it, the estimate is refused.

    Raises:
        NoOverlapError: the estimate is refused, see `estimate_value`.
        ValueError: what `off_policy_sample` and `estimate_value` refuse.
        ScorerError: the scorer failed.
    """
    sample = off_policy_sample(episodes, policy, scorer=scorer, values=values, q_values=q_values)
    bound = min_effective_sample_size
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
    mdp, distribution = policy.task.mdp, policy.token_model.distribution
    _check_episodes(episodes, mdp)
    distribution.refuse_truncation("logged tokens that it makes impossible would be given a probability all the same")
    if scorer is not None:
        episodes = rescore(policy.task, make_scorer(scorer), episodes)
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


def _check_episodes(episodes: Episodes, mdp: TextMDP) -> None:
    """Refuse episodes that no policy of the MDP could be weighed on.

    Raises:
        ValueError: it names the episode.
    """
    rows, mask, log_probs = (x.cpu() for x in (episodes.rows, episodes.mask, episodes.log_probs))
    width = mdp.max_prompt_tokens + mdp.max_new_tokens
    if not len(rows):
        raise ValueError("there are no episodes")
    if rows.shape[1] != width or mask.shape[1] != mdp.max_new_tokens:
        raise ValueError(
            f"the episodes have {rows.shape[1] - mask.shape[1]} + {mask.shape[1]} cells for prompt and completion; the "
            f"env has max_prompt_tokens={mdp.max_prompt_tokens} and max_new_tokens={mdp.max_new_tokens}"
        )
    actions = rows[:, mdp.max_prompt_tokens :]
    if (rows > mdp.pad_id).any() or ((actions != mdp.pad_id) != mask).any():
        raise ValueError(f"the episodes were written with another tokenizer; the env's has {mdp.vocab_size} tokens")
    is_eos, permits = (torch.from_numpy(x) for x in (mdp.is_eos, mdp.action_masks(np.arange(mdp.max_new_tokens))))
    tokens, steps = actions.clamp(max=mdp.vocab_size - 1), torch.arange(mdp.max_new_tokens)
    last = torch.nn.functional.pad(mask[:, 1:], (0, 1)) != mask
    ends = is_eos[tokens] | (steps == mdp.max_new_tokens - 1)
    for wrong, problem in (
        (~permits[steps, tokens], "the env forbids this token there"),
        (
            ends != last,
            f"an episode ends with an end-of-text token or max_new_tokens={mdp.max_new_tokens}, and only so",
        ),
        (~log_probs.isfinite() | (log_probs > 1e-4), "a token that was drawn has a finite log-probability, at most 0"),
    ):
        if (wrong := wrong & mask).any():
            episode, step = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"episode {episode}, token {step} (id {tokens[episode, step]}, log-probability "
                f"{log_probs[episode, step]:g}): {problem}"
            )
    if not mask.any(-1).all():
        raise ValueError(f"episode {int((~mask.any(-1)).nonzero()[0])} has no token")
    if not log_probs.any():
        raise ValueError(
            "all log-probabilities of the episodes are 0; what wrote them must not be greedy, and is to be logged with "
            "the log-probabilities of the tokens that it drew"
        )
