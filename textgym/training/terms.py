"""What a model says of whole episodes: a micro-batch at a time, without gradient unless they meet in one loss."""

from __future__ import annotations

from typing import Any

import torch

from textgym.language_models.log_probs import TokenTerms
from textgym.language_models.token_model import TokenModel
from textgym.training.episodes import Episodes


def terms_of_group(token_model: TokenModel, episodes: Episodes, entropy_gradient: bool = True) -> TokenTerms:
    """The policy's terms of episodes that meet in one loss, with gradient, by passes over episodes of similar length.

    Args:
        token_model: the policy's model.
        episodes: B finished episodes.
        entropy_gradient: see `TokenModel.evaluate_episodes`.

    Returns:
        (B, T) float32 each, 0 at padding.
    """
    parts = episodes.micro_batches(None, token_model.shares_prompts())
    terms = [token_model.evaluate_episodes(episodes.rows[i], episodes.actions[i], entropy_gradient) for i in parts]
    order = torch.cat(parts).argsort()
    return TokenTerms(*(torch.cat(part)[order] for part in zip(*terms, strict=True)))


@torch.no_grad()
def with_training_terms(token_model: TokenModel, episodes: Episodes, micro_batch_size: int | None) -> Episodes:
    """The episodes with `log_probs` and `values` as the training forward gives them, whatever actor sampled them.

    Args:
        token_model: the policy's model, unchanged by this.
        episodes: E finished episodes.
        micro_batch_size: episodes per forward pass at most.
    """
    values, log_probs = torch.zeros_like(episodes.values), torch.zeros_like(episodes.log_probs)
    for index in episodes.micro_batches(micro_batch_size, token_model.shares_prompts()):
        terms = token_model.evaluate_episodes(episodes.rows[index], episodes.actions[index], entropy_gradient=False)
        values[index], log_probs[index] = terms.values, terms.log_probs
    return episodes.replace(values=values, log_probs=log_probs)


def log_probs_under(
    token_model: TokenModel, model: Any, episodes: Episodes, micro_batch_size: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the episodes' tokens and log-normalizers under another model, each (E, T), 0 at padding.

    Args:
        token_model: says how logits become a distribution; it is not truncated here (`TokenModel.terms_under`).
        model: the other causal LM, such as the reference.
        episodes: E finished episodes.
        micro_batch_size: episodes per forward pass at most.
    """
    log_probs, log_normalizers = torch.zeros_like(episodes.log_probs), torch.zeros_like(episodes.log_probs)
    for index in episodes.micro_batches(micro_batch_size, token_model.shares_prompts(model)):
        terms = token_model.terms_under(model, episodes.rows[index], episodes.actions[index])
        log_probs[index], log_normalizers[index] = terms.log_probs, terms.log_normalizers
    return log_probs, log_normalizers
