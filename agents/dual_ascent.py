"""Wanted means for the policy itself: dual ascent on the coefficients of a distributional target.

A model that cannot reach p misses p's means as well, and the fit of lambda has an error of its own. What is wanted is

    min KL(pi || a)  subject to  E_pi phi = mu,

over the policies that the model can be. Its Lagrangian is

    KL(pi || a) - <lambda, E_pi phi - mu>  =  KL(pi || p_lambda) + <lambda, mu> - log Z(lambda),

so the descent in pi is f-DPG with the reverse KL, and the ascent in lambda is

    lambda <- lambda + step * (mu - E_pi phi)

(Arrow, Hurwicz and Uzawa 1958). A model that can be p ends there: at p the two agree. With another divergence, lambda
moves until the means hold as well, but the price in KL is not the least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from stable_baselines3.common.callbacks import BaseCallback

from agents.distribution_matching import DistributionMatching
from textgym.arguments import CheckedArguments, Positive
from textgym.matching import Distributional, Product, Target
from textgym.training import Episodes


def distributional_part(target: Target) -> Distributional | None:
    """The target itself where it is distributional, or the distributional part of a product; None without one."""
    parts = target.targets if isinstance(target, Product) else [target]
    return next((part for part in parts if isinstance(part, Distributional)), None)


def with_coefficients(target: Target, coefficients: Mapping[str, float]) -> Target:
    """The same target with other coefficients in its distributional part."""
    if isinstance(target, Product):
        return Product([with_coefficients(part, coefficients) for part in target.targets])
    return replace(target, coefficients=coefficients) if isinstance(target, Distributional) else target


class DualAscent(CheckedArguments, BaseCallback):
    """Moves lambda before each rollout by what the last one missed, for `DistributionMatching.learn(callback=...)`.

    Each move gives the agent a new target; the one that it was made with stays as it was. Z of the moved target is
    estimated anew from the reference's samples. Where no policy that the model can be has the means, lambda grows
    without end. Logged: `target/lambda_<feature>`.

    Args:
        episodes: samples of the reference, `agent.reference_episodes()`; they fit the target where it is open.
        step: per unit of the feature. A feature in {0, 1} near mean 1/2 follows lambda at a rate of 1/4, so at 0.1 half
            of a miss is gone after some 30 rollouts.

    Raises:
        ValueError: a step that is not positive; when training starts, an agent without a distributional target.
    """

    model: DistributionMatching

    def __init__(self, episodes: Episodes, step: Positive = 0.1):
        super().__init__()
        self.episodes, self.step = episodes, step

    def _on_training_start(self) -> None:
        target = getattr(self.model, "target", None)
        if target is None or distributional_part(target) is None:
            raise ValueError("DualAscent moves a distributional target, and the agent has none")
        self.model.start(self.episodes)

    def _on_rollout_start(self) -> None:
        sample, part = getattr(self.model, "sample", None), distributional_part(self.model.target)
        if sample is None:  # the agent has had no rollout so far
            return
        assert part is not None and part.coefficients is not None
        share = (sample.log_pi - sample.log_q).softmax(0)  # (E,)
        missed = {name: mean - (share * sample.features[name]).sum().item() for name, mean in part.means.items()}
        moved = {name: value + self.step * missed[name] for name, value in part.coefficients.items()}
        self.model.set_target(with_coefficients(self.model.target, moved))
        self.model.start(self.episodes)

    def _on_rollout_end(self) -> None:
        part = distributional_part(self.model.target)
        assert part is not None and part.coefficients is not None
        for name, value in part.coefficients.items():
            self.logger.record(f"target/lambda_{name}", value)

    def _on_step(self) -> bool:
        return True
