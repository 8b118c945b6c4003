"""f-DPG (Go et al. 2023, arXiv 2302.08215): make a language model match a target distribution in any f-divergence.

With p(x) = P(x) / Z the target, t = pi(x) / p(x) and q the proposal that the samples come from,

    grad D_f(pi || p) = E_q[(pi(x) / q(x)) f'(t) grad log pi(x)],

a policy gradient whose whole-sequence reward is -f'(t). Forward KL is GDC (Khalifa et al. 2021, arXiv 2012.11635),
reverse KL to an RLHF target the KL-penalised policy gradient. Left out on purpose: rewards-to-go, because f'(t) belongs
to the whole sequence; several epochs per rollout; and a Z of each batch alone, which couples its samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from agents.proposals import PROPOSALS, ProposalName, mixed_episodes, mixture_log_probs
from textgym.arguments import Count, Named, NonNegative, Positive, Probability, Written
from textgym.evaluation import describe
from textgym.matching import (
    DivergenceName,
    Estimate,
    LogPartition,
    Target,
    WeightedSample,
    check_zeros,
    estimate,
    fit_to_reference,
    make_divergence,
    make_target,
)
from textgym.sb3 import EpisodeRolloutBuffer, EpisodicAlgorithm, TokenPolicy
from textgym.sb3.checkpoints import num_generations
from textgym.training import Actor, Episodes, TokenTerms
from textgym.training.distributed import from_first
from textgym.training.losses import policy_gradient_loss, value_loss

MatchingBaseline = Literal["none", "leave_one_out", "value"]
DEFAULT_TARGET = {"name": "rlhf", "beta": 0.1}


class DistributionMatching(EpisodicAlgorithm):
    """f-DPG: minimises D_f(pi || p) for a target p over whole completions.

    Before the first update, `initial_episodes` of the reference start the estimate of Z (one per prompt, each with its
    own baseline) and fit the coefficients of a distributional target: `agent.target` is then the fitted target, and the
    one that was given stays as it was. The prompt source must be finite.

    Logged in each rollout, from its samples: `rollout/reward`, the scorer's components and `rollout/kl_to_reference`,
    all under the policy whatever the proposal; `target/...`, what `textgym.matching.estimate` says of the target; of
    each its standard error `..._se`, where it has one; and in each update `train/cap_rate`, the share of episodes whose
    weighted pseudo-reward was capped.

    Args:
        target: a `textgym.matching.Target` or its JSON; by default RLHF with beta = 0.1. Its features are `"reward"`
            and the scorer's components.
        divergence: which D_f(pi || p) is minimised; see `textgym.matching.make_divergence`.
        alpha: of the divergence `"alpha"`, which needs it: 0 is the forward KL, 1 the reverse.
        baseline: `"leave_one_out"`, the mean of the other episodes of the prompt; `"value"`, a value head's value of
            each state; or `"none"`.
        proposal: `"on_policy"`, `"mixture"` (half the rows from the reference) or `"adaptive"` (GDC's).
        cap: bound on the size of an episode's weighted pseudo-reward (pi / q)(f'(1) - f'(t)); None takes no bound, and
            brings no bias.
        initial_episodes: about how many episodes of the reference to begin with, the same number for every prompt.
        vf_coef: weight of the value loss, with `baseline="value"`.
        **kwargs: see `EpisodicAlgorithm`.

    Raises:
        ValueError: a value that an annotation excludes, a target with zeros under a divergence that is infinite there,
            a feature that the env does not report, a prompt source without end, too few episodes of a prompt for
            leave-one-out, an odd number of envs with the mixture, top-k or top-p; while training starts, a target that
            the reference's samples show to be infeasible.
    """

    def __init__(
        self,
        policy: str | type[TokenPolicy],
        env: Any,
        model: Named = None,
        *,
        target: Annotated[Target | Mapping[str, Any], Written.JSON] = DEFAULT_TARGET,
        divergence: DivergenceName = "jensen_shannon",
        alpha: Probability | None = None,
        baseline: MatchingBaseline = "leave_one_out",
        proposal: ProposalName = "mixture",
        cap: Positive | None = 10.0,
        initial_episodes: Count = 2048,
        vf_coef: NonNegative = 0.5,
        **kwargs: Any,
    ):
        self.target, self.divergence, self.alpha = make_target(target), divergence, alpha
        self.f_divergence = make_divergence(divergence, alpha)
        check_zeros(self.target, self.f_divergence)
        self.baseline, self.proposal, self.cap, self.initial_episodes = baseline, proposal, cap, initial_episodes
        super().__init__(policy, env, model, **kwargs)
        self.vf_coef = vf_coef

    @classmethod
    def adapted_arguments(cls, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """The target, because the start fits it."""
        return ("target",)

    def _setup_model(self) -> None:
        if self.proposal == "mixture" and self.n_envs % 2:
            raise ValueError(f"the mixture gives every other row to the reference; n_envs={self.n_envs} is odd")
        if self.env is not None:
            self.partition = LogPartition(self._num_prompts(self.env))
        super()._setup_model()
        assert self.reference is not None
        self.token_model.distribution.refuse_truncation(
            "a truncated policy cannot write all texts of the reference, so Z would be wrong; turn it off to train"
        )
        self._proposal = PROPOSALS[self.proposal](self.token_model, self.reference, self.micro_batch_size)

    def set_target(self, target: Target | Mapping[str, Any]) -> None:
        """Aim at another target from the next rollout on; `start` fits it and estimates its Z, from nothing.

        Raises:
            ValueError: as the constructor's.
        """
        target = make_target(target)
        check_zeros(target, self.f_divergence)
        if self.env is not None:
            self.check_features(target, self.env)
        self.target, self.partition = target, LogPartition(len(self.partition.counts))

    def check_env(self, env: VecEnv) -> None:
        """Check what `EpisodicAlgorithm` checks, and that the env has as many prompts and suits target and baseline."""
        super().check_env(env)
        number, known = self._num_prompts(env), len(self.partition.counts)
        if number != known:
            raise ValueError(f"Z was estimated for {known} prompts, the env has {number}")

    def _num_prompts(self, env: VecEnv) -> int:
        """The number of the env's prompts, once the env is known to suit the target and the baseline."""
        self.check_features(self.target, env)
        number: int | None = env.get_attr("task")[0].prompts.num_prompts
        if number is None:
            raise ValueError("Z is estimated for each prompt, so the prompt source must be finite, not a sampler")
        if self.baseline == "leave_one_out":  # among the episodes of a rollout that surely share a prompt
            PROPOSALS[self.proposal].check_groups(self.episodes_per_update if number == 1 else num_generations(env))
        return number

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: EpisodeRolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Collect as `EpisodicAlgorithm` does, after the start from samples of the reference."""
        self.start()
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    def actor(self) -> Actor:
        """The actor that samples from the proposal."""
        return self._proposal.actor

    def start(self, episodes: Episodes | None = None) -> None:
        """Fit the target and start Z, once; the first rollout does it where it was not called before.

        Args:
            episodes: samples of the reference; by default `reference_episodes()`.

        Raises:
            ValueError: they show the target to be infeasible.
        """
        if self.partition.counts.any():
            return
        episodes = from_first(self.reference_episodes()) if episodes is None else episodes
        self.target, log_weights = fit_to_reference(self.target, self.features(episodes), episodes.prompt_ids)
        self.partition.add(episodes.prompt_ids, log_weights)  # P / a

    def reference_episodes(self) -> Episodes:
        """About `initial_episodes` samples of the reference, as many of every prompt; without its log-probabilities."""
        assert self.env is not None and self.reference is not None
        number = len(self.partition.counts)
        return self._collect_each(number, math.ceil(self.initial_episodes / number), self.reference.actor())

    def weighted(self, episodes: Episodes, log_q: torch.Tensor) -> WeightedSample:
        """Evaluated episodes as samples of a proposal, (E,) log q."""
        features = self.features(episodes)
        return WeightedSample(
            log_pi=episodes.log_probs.double().sum(-1),
            log_a=episodes.reference_log_probs.double().sum(-1),
            log_q=log_q,
            log_weights=self.target.log_weights(features),
            features={**features, "length": episodes.lengths.double()},
            prompts=episodes.prompt_ids,
        )

    def with_terms(self, episodes: Episodes) -> Episodes:
        """The episodes with what reference, policy and proposal say of them."""
        return self._proposal.evaluated(episodes)

    def process_rollout(self, episodes: Episodes) -> Episodes:
        """Keep the episodes as the `sample` of the proposal, and count them in Z."""
        self.sample = self.weighted(episodes, self._proposal.log_q(episodes))
        self.partition.add(self.sample.prompts, self.sample.log_p - self.sample.log_q)
        return episodes

    def _log_rollout(self, episodes: Episodes) -> None:
        numbers = self._estimates(self.sample, self._proposal.rows_together)
        self._proposal.update(numbers)
        self.logger.record("rollout/cache_mib", self.token_model.cache_bytes / 2**20)
        for name, number in numbers.items():
            where = "rollout" if name in self.sample.features or name == "kl_to_reference" else "target"
            self.logger.record(f"{where}/{name}", number.value)
            if math.isfinite(number.standard_error):
                self.logger.record(f"{where}/{name}_se", number.standard_error)

    def _estimates(self, sample: WeightedSample, rows_together: int) -> dict[str, Estimate]:
        """The estimates; rows that share a prompt, or are drawn together, do not count as independent."""
        mates = num_generations(self.get_env()) if len(self.partition.counts) > 1 else 1  # type: ignore[arg-type]
        z = self.partition.log_z, self.partition.standard_errors
        return estimate(sample.cpu(), *z, math.lcm(mates, rows_together))

    def train(self) -> None:
        """One gradient step on the rollout."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        episodes = self.with_advantages(self.rollout_buffer.episodes, self.sample)
        if episodes.advantages.any():
            self.gradient_step(episodes, self.loss, "sum")

    def with_advantages(self, episodes: Episodes, sample: WeightedSample) -> Episodes:
        """The weight of each token's log-probability, (E, T), 0 for prompts whose Z is 0 so far.

        Args:
            episodes: E evaluated episodes.
            sample: the same, see `weighted`.
        """
        weights, pseudo_rewards, rewards = self._pseudo_rewards(sample)  # (E,) each
        if self.cap is not None:
            self.logger.record("train/cap_rate", (rewards.abs() > self.cap).double().mean().item())
            rewards, pseudo_rewards = (r.clamp(-self.cap, self.cap) for r in (rewards, pseudo_rewards))
        if self.baseline == "value":
            advantages = rewards[:, None] - weights[:, None] * episodes.values
        else:
            # the mean over the others of (pi / q) R estimates E_pi[R]; it knows nothing of x, so it brings no bias
            advantages = (rewards - weights * self._proposal.baselines(rewards, sample.prompts, self.baseline))[:, None]
        made = {"advantages": advantages, "returns": pseudo_rewards[:, None]}  # (E, T) or (E, 1)
        return episodes.replace(**{name: (number * episodes.mask).float() for name, number in made.items()})

    def _pseudo_rewards(self, sample: WeightedSample) -> list[torch.Tensor]:
        """Weights pi / q, pseudo-rewards f'(1) - f'(t) and their products, (E,); 0 for prompts whose Z is 0 so far."""
        log_z = self.partition.log_z.to(sample.log_pi.device)[sample.prompts]
        log_weights, log_t = sample.log_pi - sample.log_q, sample.log_pi - sample.log_p + log_z
        weighted = self.f_divergence.weighted_pseudo_reward(log_weights, log_t)
        numbers = log_weights.exp(), self.f_divergence.pseudo_reward(log_t), weighted
        return [torch.where(torch.isfinite(log_z), number, 0.0) for number in numbers]

    def loss(self, episodes: Episodes, terms: TokenTerms) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of each token, (B, T), and what is logged."""
        losses = policy_gradient_loss(terms.log_probs, episodes.advantages)
        if self.baseline != "value":
            return losses, {}
        statistics = {"value_loss": value_loss(terms.values, episodes.values, episodes.returns, None)}
        return losses + self.vf_coef * statistics["value_loss"], statistics

    def report(self, episodes: int) -> dict[str, Estimate]:
        """Everything that describes the policy, from fresh samples: of a trained policy, the final word.

        Half are the reference's, as the policy's own do not show what it has lost; the last five need its own alone.

        Args:
            episodes: of the policy, and as many of the reference; a multiple of the number of envs.

        Returns:
            what is logged in rollouts, `cap_rate`, `length` in tokens, and `entropy`, `distinct_1` to `distinct_3` and
            `self_bleu` as `textgym.evaluation.Evaluation` has them.
        """
        assert self.reference is not None
        self.start()
        drawn = self.sample_episodes(episodes)
        theirs = self._collect(episodes // self.n_envs, self.reference.actor())
        mixed = mixed_episodes(drawn, theirs, self.token_model, self.reference, self.micro_batch_size)
        sample = self.weighted(mixed, mixture_log_probs(mixed))
        capped = self._pseudo_rewards(sample)[1].abs() > (math.inf if self.cap is None else self.cap)
        sample = replace(sample, features={**sample.features, "cap_rate": capped.double()})
        described = describe(self, drawn, samples=0)
        varied = {name: getattr(described, name) for name in ("distinct_1", "distinct_2", "distinct_3", "self_bleu")}
        numbers = {name: Estimate(math.nan if v is None else v) for name, v in varied.items()}
        return self._estimates(sample, rows_together=2) | {"entropy": described.entropy} | numbers

    def extra_tensors(self) -> dict[str, torch.Tensor]:
        """The estimate of Z, and the proposal's weights."""
        return self.partition.tensors() | {f"proposal.{n}": t for n, t in self._proposal.tensors().items()}

    def load_extra_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `extra_tensors`."""
        if self.env is None:
            self.partition = LogPartition(len(tensors["counts"]))
        self.partition.load(tensors)
        if kept := {n.removeprefix("proposal."): t for n, t in tensors.items() if n.startswith("proposal.")}:
            self._proposal.load(kept)
