"""Where f-DPG's samples come from: the policy, the mixture of policy and reference, or the best policy so far."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch

from textgym.matching import Estimate
from textgym.training import Actor, Alternating, Episodes, ModelActor, Reference, TokenModel
from textgym.training.reference import with_log_probs
from textgym.training.returns import Baseline, baselines
from textgym.training.terms import log_probs_under, with_training_terms

ProposalName = Literal["on_policy", "mixture", "adaptive"]


class Proposal:
    """The proposal q is the policy pi itself; the base class of the other proposals.

    Args:
        token_model: the policy pi.
        reference: the frozen reference a.
        micro_batch_size: episodes per forward pass at most.

    Attributes:
        actor: what samples from q.
    """

    rows_together = 1
    """Every so many rows have one of each model that samples; they are drawn together."""

    def __init__(self, token_model: TokenModel, reference: Reference, micro_batch_size: int | None):
        self.token_model, self.reference, self.micro_batch_size = token_model, reference, micro_batch_size
        self.actor: Actor = token_model

    @staticmethod
    def check_groups(size: int) -> None:
        """Refuse, with a ValueError, a number of episodes per prompt that leaves an episode without others."""
        if size < 2:
            raise ValueError(
                "baseline 'leave_one_out' needs at least two episodes of every prompt; make the env with "
                "num_generations=2 or more, or choose another baseline"
            )

    def evaluated(self, episodes: Episodes) -> Episodes:
        """The sampled episodes with the reference's log-probabilities, and the policy's and its values."""
        return with_log_probs(self.token_model, self.reference, episodes, self.micro_batch_size)

    def log_q(self, episodes: Episodes) -> torch.Tensor:
        """Log-probabilities of evaluated episodes under the proposal, (E,) float64."""
        return episodes.log_probs.double().sum(-1)

    def baselines(self, rewards: torch.Tensor, prompts: torch.Tensor, kind: Baseline) -> torch.Tensor:
        """An estimate of E_q[reward] for each episode's prompt, from other episodes only, (E,)."""
        return baselines(rewards, prompts, kind)

    def update(self, estimates: dict[str, Estimate]) -> None:
        """Adapt q to estimates of the policy's distance from the target, before the policy is trained."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold."""
        return {}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over what `tensors` returned."""


def mixture_log_probs(episodes: Episodes) -> torch.Tensor:
    """Log-probabilities of evaluated episodes under (pi + a) / 2, (E,) float64."""
    parts = episodes.log_probs, episodes.reference_log_probs
    return torch.logaddexp(*(part.double().sum(-1) for part in parts)) - math.log(2)


def mixed_episodes(
    ours: Episodes, theirs: Episodes, token_model: TokenModel, reference: Reference, micro_batch_size: int | None
) -> Episodes:
    """Evaluated samples of the policy, (E,), and samples of the reference, (E,), in turn and all evaluated: (2 E,).

    In float32 the reference is not asked about its own samples, whose log-probabilities it gave while it sampled them.
    """
    if token_model.dtype == "float32":
        theirs = theirs.replace(reference_log_probs=theirs.sampled_log_probs)
    else:
        theirs = with_log_probs(token_model, reference, theirs, micro_batch_size)
    theirs = with_training_terms(token_model, theirs, micro_batch_size)
    theirs = theirs.replace(sampled_log_probs=theirs.log_probs)
    in_turn = torch.arange(2 * len(ours), device=ours.rows.device).view(2, -1).T.flatten()
    return Episodes.concatenate([ours, theirs]).select(in_turn)


class Mixture(Proposal):
    """q = (pi + a) / 2: every other row is sampled from the reference, so pi / q and a / q never exceed 2."""

    rows_together = 2

    def __init__(self, token_model: TokenModel, reference: Reference, micro_batch_size: int | None):
        super().__init__(token_model, reference, micro_batch_size)
        self.actor = Alternating([token_model, reference.actor()])

    @staticmethod
    def check_groups(size: int) -> None:
        """Refuse groups without two pairs of a policy's and a reference's row."""
        if size < 4 or size % 2:
            raise ValueError(
                "baseline 'leave_one_out' with the mixture needs two episodes each of the policy and the reference of "
                "every prompt; make the env with an even num_generations of at least 4, or choose another baseline or "
                "proposal"
            )

    def evaluated(self, episodes: Episodes) -> Episodes:
        """The episodes with what each model says of the other one's rows; of its own, sampling has told."""
        if self.token_model.dtype != "float32":
            return super().evaluated(episodes)  # one pass of each model over all
        ours, theirs = (episodes.select(slice(first, None, 2)) for first in (0, 1))
        ours = with_log_probs(self.token_model, self.reference, ours, self.micro_batch_size)
        return mixed_episodes(ours, theirs, self.token_model, self.reference, self.micro_batch_size)

    def log_q(self, episodes: Episodes) -> torch.Tensor:
        """Log-probabilities under (pi + a) / 2, (E,) float64."""
        return mixture_log_probs(episodes)

    def baselines(self, rewards: torch.Tensor, prompts: torch.Tensor, kind: Baseline) -> torch.Tensor:
        """The baselines of `Proposal`, but a policy's row and the reference's next to it are left out together.

        If one row were left out alone, the rest of a policy's row would hold one row more of the reference, and the
        rest of a reference's row one more of the policy. The two halves would have different baselines, which brings a
        bias.
        """
        first = prompts.view(-1, 2)[:, 0]
        return baselines(rewards.view(-1, 2).mean(-1), first, kind).repeat_interleave(2)


class Adaptive(Proposal):
    """q is a copy of the policy where it was nearest to the target so far, as in GDC (Khalifa et al. 2021).

    After each rollout q becomes the policy if the estimate of KL(p || pi) is below that of KL(p || q). The copy is a
    third model in memory.
    """

    def __init__(self, token_model: TokenModel, reference: Reference, micro_batch_size: int | None):
        super().__init__(token_model, reference, micro_batch_size)
        self.model = copy.deepcopy(token_model.model).requires_grad_(False)
        self.actor = ModelActor(token_model, self.model)

    def evaluated(self, episodes: Episodes) -> Episodes:
        """The episodes with the policy's log-probabilities, since a copy of it sampled them."""
        episodes = with_training_terms(self.token_model, super().evaluated(episodes), self.micro_batch_size)
        return episodes.replace(sampled_log_probs=episodes.log_probs)

    def log_q(self, episodes: Episodes) -> torch.Tensor:
        """Log-probabilities under the copy, (E,) float64."""
        return log_probs_under(self.token_model, self.model, episodes, self.micro_batch_size)[0].double().sum(-1)

    def update(self, estimates: dict[str, Estimate]) -> None:
        """Replace q where the policy is nearer to the target."""
        if estimates["kl_p_pi"].value < estimates["kl_p_q"].value:
            self.load(dict(self.token_model.model.named_parameters()))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The copy's weights, tied ones once."""
        return dict(self.model.named_parameters())

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Replace the copy's weights."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[name])
        self.actor = ModelActor(self.token_model, self.model)  # what was decoded with the old weights is dropped


PROPOSALS: dict[ProposalName, type[Proposal]] = {"on_policy": Proposal, "mixture": Mixture, "adaptive": Adaptive}
