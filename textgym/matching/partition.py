"""Z, which makes a target a distribution, estimated from all samples so far."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch


class LogPartition:
    """Z of each prompt as the running mean of P(x) / q(x) over all samples so far.

    It is unbiased for any proposals q that are positive where P is, also for changing ones.

    Args:
        num_prompts: prompts are numbered 0..num_prompts - 1.
    """

    def __init__(self, num_prompts: int):
        self.counts = np.zeros(num_prompts, np.int64)
        self.log_sums, self.log_squares = (np.full(num_prompts, -np.inf) for _ in range(2))

    def add(self, prompt_ids: torch.Tensor, log_ratios: torch.Tensor) -> None:
        """Count samples: (n,) prompts, and (n,) log P - log q, which may be -inf."""
        ids, values = prompt_ids.cpu().numpy(), log_ratios.double().cpu().numpy()
        np.add.at(self.counts, ids, 1)
        np.logaddexp.at(self.log_sums, ids, values)
        np.logaddexp.at(self.log_squares, ids, 2 * values)

    @property
    def log_z(self) -> torch.Tensor:
        """The estimates of log Z, (num_prompts,) float64; -inf where no sample had P > 0, NaN where there is none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return torch.from_numpy(self.log_sums - np.log(self.counts))

    @property
    def standard_errors(self) -> torch.Tensor:
        """The standard errors of log Z, (num_prompts,): those of Z, relative to it; NaN where they are not known."""
        with np.errstate(invalid="ignore", divide="ignore"):
            second = np.exp(self.log_squares - 2 * self.log_sums + np.log(self.counts))  # mean of squares / mean^2
            return torch.from_numpy(np.sqrt((second - 1).clip(0) / (self.counts - 1)))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything, for a checkpoint."""
        return {name: torch.tensor(getattr(self, name)) for name in ("counts", "log_sums", "log_squares")}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` returned.

        Raises:
            ValueError: they are of another number of prompts.
        """
        if len(tensors["counts"]) != len(self.counts):
            raise ValueError(f"Z was estimated for {len(tensors['counts'])} prompts, the env has {len(self.counts)}")
        for name in ("counts", "log_sums", "log_squares"):
            setattr(self, name, tensors[name].cpu().numpy().copy())
