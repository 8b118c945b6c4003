"""What a reward model minimises, from the scores of the texts that a batch compares."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from textgym.preferences.comparisons import Comparisons
from textgym.preferences.losses import bradley_terry_loss, info_nce_loss, margin_loss

LossName = Literal["bradley_terry", "info_nce", "margin", "regression"]


class Objective(torch.nn.Module):
    """One of the losses with its settings, and the tie parameter, which is learned.

    Args:
        loss: its name.
        data: what is trained on.
        temperature: of `"info_nce"`.
        margin: of `"margin"`.
        center_rewards_coefficient: weight of (r_chosen + r_rejected)^2 in `"bradley_terry"`; None is 0.

    Attributes:
        log_nu: see `bradley_terry_loss`; at first the one for which texts of equal rewards tie as often as the data do,
            nu / (2 + nu). None where there are no ties.

    Raises:
        ValueError: the loss cannot learn from the data.
    """

    def __init__(
        self,
        loss: LossName,
        data: Comparisons,
        temperature: float = 1.0,
        margin: float = 1.0,
        center_rewards_coefficient: float | None = None,
    ):
        super().__init__()
        self.loss, self.temperature, self.margin = loss, temperature, margin
        self.center_rewards_coefficient = center_rewards_coefficient or 0.0
        ties = float(data.ties.mean())
        _check(loss, data, ties)
        self.log_nu = torch.nn.Parameter(torch.tensor(math.log(2 * ties / (1 - ties)))) if ties else None

    @property
    def odds_temperature(self) -> float | None:
        """The difference of two scores at which the odds of their order are e : 1; None where scores say no odds."""
        return {"bradley_terry": 1.0, "info_nce": self.temperature}.get(self.loss)

    @property
    def leaves_constant_open(self) -> bool:
        """Whether the loss is the same after a constant is added to all rewards."""
        return self.loss != "regression"

    def forward(self, scores: torch.Tensor, batch: Comparisons) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of each comparison, and what to log of it.

        Args:
            scores: (B, n) of the candidates; what stands where there is none is not read.
            batch: the B comparisons.

        Returns:
            (B,), and (B,) of each statistic.
        """
        first, others = scores[:, 0], scores[:, 1:]
        if self.loss == "regression":
            return F.mse_loss(first, _like(first, batch.ratings), reduction="none"), {"mean_reward": first}
        mask, ties = (torch.from_numpy(a).to(scores.device) for a in (batch.candidates[:, 1:] >= 0, batch.ties))
        if self.loss == "info_nce":
            losses = info_nce_loss(first, others, mask, self.temperature)
        elif self.loss == "margin":
            losses = margin_loss(first, others[:, 0], self.margin)
        else:
            margins = _like(first, batch.margins)
            losses = bradley_terry_loss(
                first, others[:, 0], margins, None if self.log_nu is None else ties, self.log_nu
            )
            losses = losses + self.center_rewards_coefficient * (first + others[:, 0]) ** 2
        ahead = first - others.masked_fill(~mask, -torch.inf).amax(-1)  # of the best of the others
        right = torch.where(ties, 0.5, (ahead > 0).float())
        mean = (first + others.where(mask, 0.0).sum(-1)) / (1 + mask.sum(-1))
        return losses, {"accuracy": right, "margin": ahead, "mean_reward": mean}


def _check(loss: LossName, data: Comparisons, ties: float) -> None:
    """Refuse data that a loss cannot learn from."""
    if loss == "regression" and not len(data.ratings):
        raise ValueError("loss='regression' needs ratings, train_dataset has preferences; take loss='bradley_terry'")
    if loss != "regression" and len(data.ratings):
        raise ValueError(
            f"loss={loss!r} needs preferences, train_dataset has ratings; take loss='regression', or make pairs of them"
        )
    if loss == "margin" and ties:
        raise ValueError("loss='margin' has no place for ties, and train_dataset has some; take loss='bradley_terry'")
    if ties == 1:
        raise ValueError("all of train_dataset are ties, so nothing says which texts are better")


def _like(scores: torch.Tensor, values: np.ndarray) -> torch.Tensor:
    """An array on the device and in the dtype of scores."""
    return torch.from_numpy(values).to(scores)
