"""The convex problem behind distributional targets: the exponential family's member with wanted means."""

from __future__ import annotations

import math

import torch


def newton(
    phi: torch.Tensor, log_base: torch.Tensor, groups: torch.Tensor | None, steps: int = 200
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """The argmin over lambda of the mean over groups of log Z_g(lambda), by damped Newton steps.

    Args:
        phi: (n, F) features minus their wanted means, float64, scaled to the order of 1.
        log_base: (n,) log-weights of the sample.
        groups: (n,) integers, or None for one group.
        steps: at most this many.

    Returns:
        lambda, (F,); E_p phi under it, (F,), which is the gradient; and whether this is a minimum. It is none where the
        means are out of reach, nor where they are only reached as lambda goes to infinity.
    """
    groups = torch.zeros_like(log_base) if groups is None else groups
    _, group = groups.unique(return_inverse=True)
    coefficients = phi.new_zeros(phi.shape[1])
    value, gradient, hessian = moments(coefficients, phi, log_base, group)
    for _ in range(steps):
        direction = torch.linalg.pinv(hessian, rtol=1e-13, hermitian=True) @ gradient
        if gradient.abs().max() <= 1e-12:
            break
        size = 1.0
        slope = gradient @ direction
        while size > 1e-10:  # halve until the objective falls by a quarter of what its slope promises (Armijo 1966)
            tried = coefficients - size * direction
            new_value, *rest = moments(tried, phi, log_base, group)
            if new_value <= value - size * slope / 4 + 1e-12 * (1 + value.abs()):  # less is lost in float64's sums
                break
            size /= 2
        else:
            break  # as near as float64 gets
        coefficients, value, (gradient, hessian) = tried, new_value, rest
    # towards a minimum at infinity the gradient vanishes as well, but Newton's steps keep their size
    found = gradient.abs().max() <= 1e-9 and (phi @ direction).abs().max() <= 1e-3
    return coefficients, gradient, bool(found)


def moments(
    coefficients: torch.Tensor, phi: torch.Tensor, log_base: torch.Tensor, group: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The objective of `newton`, its gradient E_p phi, (F,), and its Hessian Cov_p(phi), (F, F)."""
    number = int(group.max()) + 1
    logits = log_base + phi @ coefficients  # (n,)
    highest = logits.new_full((number,), -math.inf).scatter_reduce(0, group, logits, "amax")
    masses = (logits - highest[group]).exp()
    totals = masses.new_zeros(number).index_add(0, group, masses)  # (G,)
    p = masses / totals[group]
    means = phi.new_zeros(number, phi.shape[1]).index_add(0, group, p[:, None] * phi)  # (G, F)
    centred = phi - means[group]
    return (totals.log() + highest).mean(), means.mean(0), (p[:, None] * centred).T @ centred / number
