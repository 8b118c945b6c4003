"""What AdaLoRA does beside the gradient of a loss: singular vectors stay orthogonal, ranks move to where they count.

peft adds the first to the loss in the forward pass of its own model, where that is given labels, and leaves the second
to the training loop. Here both belong to the optimizer's step, so that every loop that has a loss of its own has them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from textgym.importing import require
from textgym.language_models.adapters.files import ADAPTERS
from textgym.language_models.adapters.kinds import peft_type


class RankSchedule:
    """The ranks of a model's adapters: W + P diag(E) Q, pruned by E = 0 (Zhang et al., 2023, arXiv 2303.10512).

    Step t is the t-th of the optimizer. The first `tinit` steps leave all `init_r` ranks, the last `tfinal` of
    `total_step` those that remained; in between the budget falls, cubically, to a mean of `target_r`, and the ranks of
    the least importance (smoothed |weight x gradient|, times its deviation) go.

    Attributes:
        steps: of the optimizer, so far.

    Args:
        model: a model with AdaLoRA's adapters, or its trunk.
        config: their configuration.
    """

    def __init__(self, model: Any, config: Any):
        tuner = require("peft", "agents").tuners.adalora
        self.steps, self.model, config = 0, model, copy.deepcopy(config)
        # By the names under which `AdaLoraModel.update_and_allocate` looks for them.
        self.peft_config, self.trainable_adapter_name = {ADAPTERS: config}, ADAPTERS
        self.rankallocator = tuner.RankAllocator(model, config, ADAPTERS)
        self._update_and_allocate = tuner.AdaLoraModel.update_and_allocate

    @property
    def config(self) -> Any:
        """The schedule; its `rank_pattern` says which ranks are left."""
        return self.peft_config[ADAPTERS]

    def _weights(self) -> dict[str, torch.nn.Parameter]:
        return {n: p for n, p in self.model.named_parameters() if "lora_" in n and p.requires_grad}

    def orthogonality(self) -> torch.Tensor:
        """The mean over all P and Q of ||P'P - I|| and ||QQ' - I||, Frobenius norms (the paper's equation 4)."""
        grams = [p @ p.T if "lora_A" in n else p.T @ p for n, p in self._weights().items() if "lora_E" not in n]
        return torch.stack([(gram - torch.eye(len(gram), device=gram.device)).norm() for gram in grams]).mean()

    def before_step(self) -> None:
        """Add the gradient of `orth_reg_weight` times `orthogonality` to that of the loss."""
        with torch.enable_grad():
            (self.config.orth_reg_weight * self.orthogonality()).backward()

    def after_step(self) -> None:
        """Prune the ranks that the schedule leaves no room for; gradients must still be there."""
        self.steps += 1
        for parameter in self._weights().values():
            if parameter.grad is None:  # no part of the loss
                parameter.grad = torch.zeros_like(parameter)
        self._update_and_allocate(self, self.steps)

    def ranks(self) -> dict[str, int]:
        """How many ranks each module has left."""
        return {n.split(".lora_E")[0]: int(p.count_nonzero()) for n, p in self._weights().items() if "lora_E" in n}

    def tensors(self) -> dict[str, torch.Tensor]:
        """The state, for checkpoints; the same names and shapes at every step."""
        result = {"steps": torch.tensor(self.steps)}
        pattern = self.config.rank_pattern or {}
        for name, parameter in self._weights().items():
            for kind in ("exp_avg_ipt", "exp_avg_unc"):
                result[f"{kind}.{name}"] = getattr(self.rankallocator, kind).get(name, torch.zeros_like(parameter))
            if "lora_E" in name:
                result[f"rank_pattern.{name}"] = torch.tensor(pattern.get(name, [True] * len(parameter)))
        return result

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `tensors`."""
        self.steps, allocator, self.config.rank_pattern = int(tensors["steps"]), self.rankallocator, {}
        allocator.reset_ipt()
        for name, parameter in self._weights().items():
            if self.steps < self.config.total_step - self.config.tfinal:
                allocator.ipt[name] = torch.zeros_like(parameter)
                allocator.exp_avg_ipt[name] = tensors[f"exp_avg_ipt.{name}"].to(parameter.device)
                allocator.exp_avg_unc[name] = tensors[f"exp_avg_unc.{name}"].to(parameter.device)
            if "lora_E" in name:
                self.config.rank_pattern[name] = tensors[f"rank_pattern.{name}"].tolist()


def rank_schedules(config: Any, trunks: Sequence[Any]) -> list[RankSchedule]:
    """A schedule for each trunk with AdaLoRA's adapters; none for any other configuration, or None."""
    return [RankSchedule(trunk, config) for trunk in trunks] if config and peft_type(config) == "ADALORA" else []
