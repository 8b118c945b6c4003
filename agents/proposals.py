"""Where f-DPG's samples come from: the policy, the mixture of policy and reference, or the best policy so far."""

from __future__ import annotations

import copy
import math

import torch

from agents.returns import Baseline, baselines
from textgym.matching import Estimate
from textgym.sb3 import Episodes, TokenPolicy
from textgym.sb3.collection import evaluated, scores_under
from textgym.sb3.players import Alternating, ModelPlayer, Player
from textgym.sb3.reference import Reference


class Proposal:
    """On-policy: q = pi. The base of the others.

    Args:
        policy: pi.
        reference: a.
        micro_batch_size: episodes per forward pass at most.

    Attributes:
        player: what samples.
    """

    def __init__(self, policy: TokenPolicy, reference: Reference, micro_batch_size: int | None):
        self.policy, self.reference, self.micro_batch_size = policy, reference, micro_batch_size
        self.player: Player = policy

    def scored(self, episodes: Episodes) -> Episodes:
        """The episodes with the policy's log-probabilities and values, whoever sampled them."""
        return episodes

    def log_q(self, episodes: Episodes) -> torch.Tensor:
        """Log-probabilities of scored episodes under the proposal, (E,) float64."""
        return episodes.log_probs.double().sum(-1)

    def baselines(self, rewards: torch.Tensor, prompts: torch.Tensor, kind: Baseline) -> torch.Tensor:
        """For each episode an estimate of E_q[reward] for its prompt that it has no part in, (E,)."""
        return baselines(rewards, prompts, kind)

    def update(self, estimates: dict[str, Estimate]) -> None:
        """Learn how the policy does, before it is trained on the episodes."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold."""
        return {}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `tensors`."""


class Mixture(Proposal):
    """q = (pi + a) / 2: every other row is sampled from the reference, so pi / q and a / q never exceed 2."""

    def __init__(self, policy: TokenPolicy, reference: Reference, micro_batch_size: int | None):
        super().__init__(policy, reference, micro_batch_size)
        self.player = Alternating([policy, reference.player(policy)])

    def scored(self, episodes: Episodes) -> Episodes:
        """See the base."""
        if self.policy.dtype != "float32":
            return episodes  # the training forward has scored all
        index = torch.arange(1, len(episodes), 2, device=episodes.rows.device)
        theirs = evaluated(self.policy, episodes.select(index), self.micro_batch_size)
        log_probs = episodes.log_probs.index_copy(0, index, theirs.log_probs)
        values = episodes.values.index_copy(0, index, theirs.values)
        return episodes.replace(log_probs=log_probs, sampled_log_probs=log_probs, values=values)

    def log_q(self, episodes: Episodes) -> torch.Tensor:
        """See the base."""
        parts = episodes.log_probs, episodes.reference_log_probs
        return torch.logaddexp(*(part.double().sum(-1) for part in parts)) - math.log(2)

    def baselines(self, rewards: torch.Tensor, prompts: torch.Tensor, kind: Baseline) -> torch.Tensor:
        """See the base; a policy's row and the reference's next to it are left out together.

        Alone, the others of a policy's row would hold one more of the reference, those of a reference's row one more of
        the policy; as they differ, so would the baselines of the two halves, which brings a bias.

        Raises:
            ValueError: leave-one-out meets a prompt with less than two such pairs.
        """
        first, second = prompts.view(-1, 2).T
        if kind == "leave_one_out" and ((first != second).any() or first.unique(return_counts=True)[1].min() < 2):
            raise ValueError(
                "baseline 'leave_one_out' with the mixture needs two episodes each of the policy and the reference of "
                "every prompt; make the env with an even num_generations of at least 4, or choose another baseline or "
                "proposal"
            )
        return baselines(rewards.view(-1, 2).mean(-1), first, kind).repeat_interleave(2)


class Adaptive(Proposal):
    """q is a copy of the policy where it was nearest to the target so far, as in GDC (Khalifa et al. 2021).

    After each rollout q becomes the policy if the estimate of KL(p || pi) is below that of KL(p || q). The copy is a
    third model in memory.
    """

    def __init__(self, policy: TokenPolicy, reference: Reference, micro_batch_size: int | None):
        super().__init__(policy, reference, micro_batch_size)
        self.model = copy.deepcopy(policy.model).requires_grad_(False)
        self.player = ModelPlayer(policy, self.model)

    def scored(self, episodes: Episodes) -> Episodes:
        """See the base."""
        episodes = evaluated(self.policy, episodes, self.micro_batch_size)
        return episodes.replace(sampled_log_probs=episodes.log_probs)

    def log_q(self, episodes: Episodes) -> torch.Tensor:
        """See the base."""
        return scores_under(self.policy, self.model, episodes, self.micro_batch_size)[0].double().sum(-1)

    def update(self, estimates: dict[str, Estimate]) -> None:
        """Replace q where the policy is nearer to the target."""
        if estimates["kl_p_pi"].value < estimates["kl_p_q"].value:
            self.load(dict(self.policy.model.named_parameters()))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The copy's weights, tied ones once."""
        return dict(self.model.named_parameters())

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Replace the copy's weights."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[name])
        self.player = ModelPlayer(self.policy, self.model)  # what was decoded with the old weights is dropped


PROPOSALS: dict[str, type[Proposal]] = {"on_policy": Proposal, "mixture": Mixture, "adaptive": Adaptive}
