"""The start of a target from samples of the reference: what is open is fitted, what cannot work is refused."""

from __future__ import annotations

import torch

from textgym.matching.divergences import Divergence
from textgym.matching.estimates import effective_sample_size
from textgym.matching.targets import Features, Target

LEAST_EFFECTIVE_SAMPLES = 25


def check_zeros(target: Target, divergence: Divergence) -> None:
    """Refuse, with a ValueError, a target with zeros under a divergence that is infinite there."""
    if target.has_zeros and not divergence.finite_on_zeros:
        raise ValueError(
            f"the divergence {divergence.name!r} is infinite where the target is 0, as {target.spec} may be; "
            "choose 'jensen_shannon' or 'forward_kl', or give the pointwise target a floor"
        )


def fit_to_reference(target: Target, features: Features, prompts: torch.Tensor) -> tuple[Target, torch.Tensor]:
    """Fit a target to samples of the reference, and weigh them.

    Args:
        target: fitted or not.
        features: (n,) each, of samples of the reference.
        prompts: (n,) the prompt of each sample.

    Returns:
        the fitted target, and log P - log a of the samples, (n,).

    Raises:
        ValueError: no sample has a positive weight, fitted coefficients rest on fewer than 25 effective samples, or
            what `Target.fit` raises.
    """
    fitted = target.fit(features, torch.zeros(len(prompts), dtype=torch.float64, device=prompts.device), prompts)
    log_weights = fitted.log_weights(features)
    if torch.isneginf(log_weights).all():
        raise ValueError(
            f"none of {len(prompts)} samples of the reference satisfies the target {fitted.spec}; take more samples "
            "(initial_episodes), or begin from a model that sometimes does"
        )
    size = effective_sample_size(log_weights)
    if fitted is not target and size < LEAST_EFFECTIVE_SAMPLES:
        raise ValueError(
            f"the coefficients of {fitted.spec} rest on {size:.1f} effective samples of {len(prompts)}; take more "
            "samples (initial_episodes), or choose means nearer to the reference's"
        )
    return fitted, log_weights
