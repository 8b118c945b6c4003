"""A features extractor with which stable-baselines3's stock `MlpPolicy` agents can learn from token ids."""

from __future__ import annotations

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from textgym.mdp import model_inputs


class TokenFeatures(BaseFeaturesExtractor):
    """An embedding and a GRU over the tokens so far; stock policies read ids as magnitudes without it.

    Use it as `PPO("MlpPolicy", env, policy_kwargs={"features_extractor_class": TokenFeatures})`.

    Args:
        observation_space: `Box(0, V, (P + T,), int64)`, where V is the pad id.
        features_dim: width of the embedding and of the GRU.
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 64):
        super().__init__(observation_space, features_dim)
        self.pad_id = int(observation_space.high.flat[0])
        self.embedding = nn.Embedding(self.pad_id + 1, features_dim, padding_idx=self.pad_id)
        self.gru = nn.GRU(features_dim, features_dim, batch_first=True)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(N, P + T) ids, as floats or integers -> (N, features_dim)."""
        inputs = model_inputs(observations.long(), self.pad_id)
        ids = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, self.pad_id)  # (N, L), empty cells first
        return self.gru(self.embedding(ids))[0][:, -1]
