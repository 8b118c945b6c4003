"""The losses of TRL's trainers as functions of enumerated batches (`textgym.exact.Batch`); needs TRL.

A real trainer is made, and its own methods do everything from the rewards on: `_generate_and_score_completions` makes
advantages, `_compute_loss` the loss. Only what generates texts and what evaluates the model is replaced, by the batch.
"""

from __future__ import annotations

import tempfile
from typing import Any, Literal

import gymnasium as gym
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from textgym.exact import Batch, Objective
from textgym.exact.gradients import Loss

REFERENCE = "the reference"


def trl_loss(algorithm: Literal["GRPO", "RLOO"], objective: Objective, group_size: int, **config: Any) -> Loss:
    """The loss of a trainer of TRL.

    Args:
        algorithm: whose trainer.
        objective: its tree and penalty.
        group_size: `num_generations`.
        **config: further arguments of the trainer's config.

    Raises:
        ImportError: TRL is not installed.
    """
    import datasets
    import trl

    tree = objective.tree
    env: Any = gym.make("TextGenToy-v0", num_tokens=tree.num_tokens, max_new_tokens=tree.max_new_tokens).unwrapped
    words = Tokenizer(models.WordLevel({str(i): i for i in range(tree.num_tokens)} | {"eos": tree.num_tokens}, "eos"))
    base = getattr(trl, f"{algorithm}Trainer")
    trainer: Any = _fed(base)(
        model=env.reference_model(),
        reward_funcs=lambda completions, **_: trainer.batch.rewards.sum(-1).tolist(),
        args=getattr(trl, f"{algorithm}Config")(
            output_dir=tempfile.gettempdir(),
            report_to="none",
            use_cpu=True,
            bf16=False,
            num_generations=group_size,
            per_device_train_batch_size=group_size,
            num_iterations=2,  # so that the old log-probabilities are kept
            max_completion_length=tree.max_new_tokens,
            beta=0.0,  # set below, because the trainer would load the reference from the hub
            **config,
        ),
        train_dataset=datasets.Dataset.from_dict({"prompt": ["0"]}),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, eos_token="eos", pad_token="eos"),
    )
    trainer.beta, trainer.ref_model = objective.beta, REFERENCE
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()

    def loss(batch: Batch) -> torch.Tensor:
        trainer.batch = batch
        inputs = trainer._generate_and_score_completions([{"prompt": "0"}] * len(batch.actions))
        return trainer._compute_loss(trainer.model, inputs)

    return loss


def _fed(base: Any) -> Any:
    """A trainer that reads `batch` where it would generate texts and evaluate models."""

    class Fed(base):  # type: ignore[misc]
        batch: Batch

        def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
            completions = [row[mask].tolist() for row, mask in zip(self.batch.actions, self.batch.mask, strict=True)]
            ids, texts = [[0]] * len(completions), [""] * len(completions)
            if base.__name__ == "RLOOTrainer":
                return ids, completions, texts
            return ids, completions, None, texts, None, {}, None, []

        def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
            sampled = self.batch.log_probs if torch.is_grad_enabled() else self.batch.old_log_probs
            log_probs = self.batch.reference_log_probs if model is REFERENCE else sampled
            log_probs = log_probs[:, : int(self.batch.mask.sum(-1).max())]
            return log_probs, torch.zeros_like(log_probs), None

    return Fed
