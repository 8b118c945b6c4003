"""What targets read of episodes: the scorer's components, and the return under the name `"reward"`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from textgym.matching.targets import Target
from textgym.training.episodes import Episodes


def features_of(episodes: Episodes, component_names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The features of E episodes by name, (E,) float64 each.

    Raises:
        ValueError: a component does not apply to some episode.
    """
    for name, values in zip(component_names, episodes.components.T, strict=True):
        if values.isnan().any():
            raise ValueError(f"the feature {name!r} does not apply to all texts (None); a target needs it of every one")
    components = dict(zip(component_names, episodes.components.double().T, strict=True))
    return {**components, "reward": episodes.rewards.double().sum(-1)}


def check_features(target: Target, component_names: Sequence[str]) -> None:
    """Refuse a target that reads what the env does not report.

    Raises:
        ValueError: it names the feature, and those that there are.
    """
    known = ("reward", *component_names)
    if unknown := [name for name in target.features if name not in known]:
        raise ValueError(f"the target reads the feature {unknown[0]!r}; the env reports {list(known)}")
