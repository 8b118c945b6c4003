"""Continuous actions: a vector near a token's embedding stands for the token."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from textgym.arguments import Count, check_argument
from textgym.mdp import BoolArray, IntArray, TextMDP
from textgym.scorers.base import FloatArray
from textgym.wrappers.episodes import task_of

Metric = Literal["l2", "cosine"]


class EmbeddingActions(gym.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """Actions are vectors, `Box(-1, 1, (d,), float32)`; the token is the allowed one whose embedding is nearest.

    So agents for continuous control, such as stable-baselines3's DDPG, TD3 and SAC, write texts (the idea of
    Dulac-Arnold et al. 2015, "Deep reinforcement learning in large discrete action spaces", arXiv 1512.07679, with one
    neighbour). Of tokens that are equally near the one with the lowest id is taken, so of equal embeddings only the
    first can be chosen; tokens that the env forbids now are left out.

    Embeddings are multiplied by one factor, so that their largest coordinate is 1 in magnitude; under `"l2"` their mean
    is subtracted first. Neither changes which embedding is nearest to which.

    Args:
        env: a TextGym env.
        embeddings: (V, d) numbers, one row per token; or anything that `textgym.language_models.load_model` accepts,
            for the first V rows of its input embedding.
        metric: `"l2"`, Euclidean distance, or `"cosine"`, the angle; a zero vector is then equally near to all.
        dimensions: keep this many principal components of the embeddings, the directions of most variance (under
            `"cosine"`, of the largest squared length); None keeps all d. Agents learn faster with few.

    Attributes:
        embeddings: (V, d) float64, as the actions are compared with them.

    Raises:
        ValueError: another env, embeddings of another shape or that are not finite or all equal, more dimensions than
            they have, an unknown metric, or under `"cosine"` an allowed token whose embedding is zero.
        gymnasium.error.InvalidAction: (when stepping) an action of another shape, or that is not finite.
    """

    def __init__(self, env: gym.Env[Any, Any], embeddings: Any, metric: Metric = "l2", dimensions: int | None = None):
        arguments = {"embeddings": embeddings, "metric": metric, "dimensions": dimensions}
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, **arguments)
        gym.ActionWrapper.__init__(self, env)
        self._mdp = task_of(env).mdp
        self.embeddings = embedding_matrix(embeddings, metric, dimensions, self._mdp)
        self._offsets = (self.embeddings**2).sum(-1) / 2 if metric == "l2" else np.zeros(len(self.embeddings))
        self.action_space = action_space(self.embeddings)

    def action(self, action: Any) -> Any:
        """(d,) -> the token's id."""
        given = check_actions(action, self.embeddings.shape[1:])
        base: Any = self.env.unwrapped
        allowed = base.action_masks() if self._mdp.restricted else None
        return int(nearest(given, self.embeddings, self._offsets, allowed))


class VectorEmbeddingActions(VectorWrapper, RecordConstructorArgs):
    """`EmbeddingActions` for the native vector env: actions are (N, d) float32.

    Args:
        env: a TextGym vector env, of `gym.make_vec`.
        embeddings: see `EmbeddingActions`.
        metric: see `EmbeddingActions`.
        dimensions: see `EmbeddingActions`.

    Attributes:
        embeddings: (V, d) float64, as the actions are compared with them.

    Raises:
        ValueError: as `EmbeddingActions`.
        gymnasium.error.InvalidAction: as `EmbeddingActions`.
    """

    def __init__(self, env: VectorEnv, embeddings: Any, metric: Metric = "l2", dimensions: int | None = None):
        arguments = {"embeddings": embeddings, "metric": metric, "dimensions": dimensions}
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, **arguments)
        VectorWrapper.__init__(self, env)
        self._mdp = task_of(env).mdp
        self.embeddings = embedding_matrix(embeddings, metric, dimensions, self._mdp)
        self._offsets = (self.embeddings**2).sum(-1) / 2 if metric == "l2" else np.zeros(len(self.embeddings))
        self.single_action_space = action_space(self.embeddings)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def step(self, actions: Any) -> tuple[IntArray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step with the tokens that are nearest to the actions, (N, d)."""
        given = check_actions(actions, (self.num_envs, self.embeddings.shape[1]))
        base: Any = self.env.unwrapped
        allowed = base.action_masks() if self._mdp.restricted else None
        return self.env.step(nearest(given, self.embeddings, self._offsets, allowed))


def nearest(actions: FloatArray, embeddings: FloatArray, offsets: FloatArray, allowed: BoolArray | None) -> IntArray:
    """The tokens with the largest a . e - offset: (..., d) -> (...); of equal ones that with the lowest id.

    With |e|^2 / 2 as offsets these are the nearest ones, since |a - e|^2 / 2 = |a|^2 / 2 - (a . e - |e|^2 / 2).

    Args:
        actions: (..., d), finite.
        embeddings: (V, d); of one length, where angles are compared.
        offsets: (V,)
        allowed: (..., V) True where the token may be taken; None allows all.
    """
    nearness = actions @ embeddings.T - offsets  # (..., V)
    if allowed is not None:
        nearness = np.where(allowed, nearness, -np.inf)
    return nearness.argmax(-1)


def embedding_matrix(given: Any, metric: Metric, dimensions: int | None, mdp: TextMDP) -> FloatArray:
    """The embeddings as actions are compared with them, (V, d) float64; see `EmbeddingActions`."""
    check_argument("metric", metric, Metric)
    check_argument("dimensions", dimensions, Count | None)
    matrix = _read(given, mdp)
    if metric == "l2":
        matrix = matrix - matrix.mean(0)
    if dimensions is not None:
        if dimensions > min(matrix.shape):
            raise ValueError(f"dimensions is {dimensions}; the embeddings, {matrix.shape}, have {min(matrix.shape)}")
        u, sizes, _ = np.linalg.svd(matrix, full_matrices=False)
        matrix = u[:, :dimensions] * sizes[:dimensions]
    if metric == "cosine":
        lengths = np.linalg.norm(matrix, axis=-1, keepdims=True)
        if (zero := np.flatnonzero(mdp.allowed & (lengths[:, 0] == 0))).size:
            raise ValueError(f"the embedding of token {zero[0]} is zero, which has no angle; choose metric 'l2'")
        matrix = matrix / np.where(lengths == 0, 1, lengths)
    if (largest := np.abs(matrix).max()) == 0:
        raise ValueError("all embeddings are equal, so that no action can tell one token from another")
    return matrix / largest


def _read(given: Any, mdp: TextMDP) -> FloatArray:
    """(V, d) float64, finite, of numbers or of a model."""
    if isinstance(given, str | Path) or hasattr(given, "get_input_embeddings"):
        from textgym.language_models import load_model

        rows = load_model(given).get_input_embeddings().weight[: mdp.vocab_size].detach()
        given = rows.cpu().double().numpy()
    try:
        matrix = np.array(given, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"embeddings are {given!r}; they must be numbers, (V, d), or a model") from error
    if matrix.ndim != 2 or len(matrix) != mdp.vocab_size or not matrix.shape[1]:
        raise ValueError(
            f"embeddings have shape {matrix.shape}; the env has {mdp.vocab_size} tokens and wants a row for each, "
            f"({mdp.vocab_size}, d)"
        )
    if not np.isfinite(matrix).all():
        raise ValueError(f"the embedding of token {int(np.argwhere(~np.isfinite(matrix))[0, 0])} is not finite")
    return matrix


def action_space(embeddings: FloatArray) -> spaces.Box:
    """`Box(-1, 1, (d,), float32)`."""
    return spaces.Box(-1.0, 1.0, embeddings.shape[1:], np.float32)


def check_actions(actions: Any, shape: tuple[int, ...]) -> FloatArray:
    """Actions as float64, or an `InvalidAction`."""
    array = np.asarray(actions)
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise InvalidAction(f"an action is {shape} numbers, not {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise InvalidAction(f"an action is finite numbers, not {actions!r}")
    return array.astype(np.float64)
