"""The losses of TorchRL as functions of enumerated batches (`textgym.exact.Batch`); needs TorchRL.

Its own modules do everything from the rewards on: `KLComputation` puts the KL into them, `MCAdvantage` or `GAE` makes
advantages, and a loss module the loss. Only the actor and the critic are replaced, by the batch.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch

from textgym.exact import Batch, Objective
from textgym.exact.gradients import Loss


class KnownDistribution(NamedTuple):
    """A distribution over episodes of which nothing but the log-probabilities of what was sampled is asked."""

    log_probs: torch.Tensor
    mask: torch.Tensor

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Those of the batch."""
        return self.log_probs


class Actor(torch.nn.Module):
    """An actor that says of any input what `batch` says."""

    batch: Batch
    in_keys: tuple[str, ...] = ()
    out_keys: tuple[str, ...] = ()

    def get_dist(self, tensordict: Any, **kwargs: Any) -> KnownDistribution:
        """The policy at the tokens of the batch."""
        return KnownDistribution(self.batch.log_probs, self.batch.mask)


def torchrl_group_loss(
    objective: Objective,
    group_size: int,
    algorithm: Literal["GRPOLoss", "CISPOLoss"] = "GRPOLoss",
    kl: Literal["loss", "reward"] = "loss",
    trajectory_return: Literal["sum"] | None = None,
    **config: Any,
) -> Loss:
    """A loss of `torchrl.objectives.llm`, with an episode as one turn, as its envs for language models have it.

    Args:
        objective: its penalty.
        group_size: `grpo_size` of `MCAdvantage`.
        algorithm: which loss.
        kl: whether the penalty is the loss' (`kl_to_ref_coeff`), or in the reward (`KLComputation`).
        trajectory_return: of `MCAdvantage`.
        **config: further arguments of the loss.

    Raises:
        ImportError: TorchRL is not installed.
    """
    import torchrl.objectives.llm
    from tensordict import TensorDict, lazy_stack
    from torchrl.envs.llm.transforms.kl import KLComputation

    actor, coeff = Actor(), objective.beta if kl == "loss" else None
    module = getattr(torchrl.objectives.llm, algorithm)(actor, entropy_bonus=False, kl_to_ref_coeff=coeff, **config)
    penalty = KLComputation(coeff=objective.beta)
    known: dict[bytes, torch.Tensor] = {}  # what the rewards alone decide; grouping takes most of the time

    def advantages(batch: Batch) -> torch.Tensor:
        """Those of `MCAdvantage`, (B, T, 1), or (B, 1, 1) where the tokens of a turn share theirs."""
        grouping = torchrl.objectives.llm.MCAdvantage(group_size, "group", trajectory_return=trajectory_return)
        found: dict[int, torch.Tensor] = {}
        for i, mask in enumerate(batch.mask):
            after: dict[str, Any] = {
                "reward": batch.rewards[i].sum()[None, None],
                "done": torch.ones(1, dtype=torch.bool),
            }
            after["log_probs"] = {"full": batch.old_log_probs[i, mask]}
            after["ref_log_probs"] = {"full": batch.reference_log_probs[i, mask]}
            turn = lazy_stack([TensorDict({"group": batch.groups[i], "number": torch.tensor(i), "next": after})])
            group = grouping.inv(penalty(turn) if kl == "reward" else turn)
            if group is not None:  # it is complete
                found |= {int(turn["number"]): turn["advantage"] for turn in group.unbind(0)}
        if kl == "loss":
            return torch.stack([found[i] for i in range(len(batch.mask))])  # (B, 1, 1)
        of_tokens = torch.zeros_like(batch.rewards)[..., None]
        for i, mask in enumerate(batch.mask):
            of_tokens[i, mask] = found[i]
        return of_tokens

    def loss(batch: Batch) -> torch.Tensor:
        actor.batch, key = batch, batch.actions.numpy().tobytes()
        if key not in known or kl == "reward":
            known[key] = advantages(batch)
        inputs = {
            "advantage": known[key],
            "tokens": {"full": batch.actions},
            "log_probs": {"full": batch.old_log_probs},
            "next": {"ref_log_probs": {"full": batch.reference_log_probs}},
        }
        found = module(TensorDict(inputs, [len(batch.mask)]))
        return found.loss_objective.sum() + (found.loss_kl_to_ref if kl == "loss" else 0.0)

    return loss


def torchrl_critic_loss(
    algorithm: Literal["ClipPPOLoss", "ReinforceLoss"], objective: Objective, perfect_critic: bool, lmbda: float = 1.0
) -> Loss:
    """A loss of `torchrl.objectives` with advantages of its `GAE`; a token is a step, and pays for its own KL.

    Args:
        algorithm: which loss.
        objective: its penalty and discount.
        perfect_critic: whether the values are the exact ones, or 0.
        lmbda: of `GAE`.

    Raises:
        ImportError: TorchRL is not installed.
    """
    import torchrl.objectives
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.objectives.value import GAE

    actor = Actor()
    critic = TensorDictModule(torch.nn.Identity(), in_keys=["state_value"], out_keys=["state_value"])
    config = {"entropy_bonus": False, "critic_coeff": None} if algorithm == "ClipPPOLoss" else {}
    module = getattr(torchrl.objectives, algorithm)(actor, critic, functional=False, **config)
    gae = GAE(gamma=objective.gamma, lmbda=lmbda, value_network=None, average_gae=False)

    def loss(batch: Batch) -> torch.Tensor:
        mask, last = batch.mask, batch.mask & ~torch.nn.functional.pad(batch.mask[:, 1:], (0, 1))
        rewards = batch.rewards - objective.beta * (batch.old_log_probs - batch.reference_log_probs)
        values = batch.values if perfect_critic else torch.zeros_like(batch.values)
        done = last[mask][:, None]
        after = torch.nn.functional.pad(values[:, 1:], (0, 1))[mask][:, None]
        inputs = {
            "action": batch.actions[mask],
            "action_log_prob": batch.old_log_probs[mask],
            "state_value": values[mask][:, None],
            "next": {"reward": rewards[mask][:, None], "done": done, "terminated": done, "state_value": after},
        }
        steps = gae(TensorDict(inputs, [int(mask.sum())]))
        actor.batch = batch._replace(log_probs=batch.log_probs[mask])
        found = module(steps)
        return found["loss_objective" if algorithm == "ClipPPOLoss" else "loss_actor"]

    return loss
