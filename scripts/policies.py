"""The model and the env that a command line names, for the scripts that train nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.utils import get_device

import textgym  # noqa: F401 (registers the env ids)
from scripts.command_line import env_arguments, make_env, read_saved
from textgym.arguments import Seed, check_argument
from textgym.evaluation import ModelPolicy
from textgym.language_models.devices import Device
from textgym.sb3 import TokenPolicy
from textgym.sb3.checkpoints import saved_reference
from textgym.training import TokenModel


@dataclass
class ModelArgs:
    """What to sample from, and in which env."""

    model: str = "tiny"
    """A checkpoint directory, or any model: a name, a directory or a hub id."""
    env_id: str | None = None
    """By default the one that the checkpoint was trained in, or `TextGen-v0`."""
    env_kwargs: str = "{}"
    """Arguments of the env as JSON: `'{"tokenizer": "gpt2", "max_new_tokens": 48}'`."""
    scorer: str | None = None
    """Shortcut for the env's `scorer`: a name, an import string or a JSON dict."""
    prompts: str | None = None
    """Shortcut for the env's `prompts`: a file, a name or an import string."""
    split: str | None = None
    """Shortcut for the env's `split`: `test` for held-out prompts."""
    trust: bool = False
    """Import the modules that the checkpoint's env names; otherwise they are refused unless repeated here."""
    seed: Seed = 0
    """Seeds the prompts that are drawn and the tokens that are sampled."""
    device: str = "auto"
    """Where the model runs: `auto` takes a GPU where there is one."""


@dataclass
class Loaded:
    """A model in its env.

    Attributes:
        env: a vector env in autoreset mode `"Disabled"`.
        token_model: the model, with the distribution that its checkpoint was trained with.
        env_id: of the env.
        env_kwargs: its arguments.
        reference: the name of what the checkpoint's KL is measured to; of a plain model, itself; None: not known.
    """

    env: Any
    token_model: TokenModel
    env_id: str
    env_kwargs: dict[str, Any]
    reference: str | None
    seed: int = field(default=0, repr=False)

    def policy(self, reference: str | None = None, micro_batch_size: int | None = None) -> ModelPolicy:
        """For an evaluation.

        Args:
            reference: what KL is measured to; by default the checkpoint's.
            micro_batch_size: episodes per forward pass at most.

        Raises:
            ValueError: there is no reference, or its tokens are not the env's.
        """
        if reference is not None:
            TokenPolicy.kwargs_for(self.env, reference)  # refuses a model that means other tokens by the same ids
            self.reference = reference
        if self.reference is None:
            raise ValueError("the checkpoint keeps no reference; name one with --reference")
        return ModelPolicy(
            self.env, self.token_model, self.reference, micro_batch_size=micro_batch_size, seed=self.seed
        )


def load(
    args: ModelArgs,
    num_envs: int,
    env_options: dict[str, Any] | None = None,
    dtype: str | None = None,
    **model_options: Any,
) -> Loaded:
    """Load the model and make the env.

    A checkpoint is a transformers model too, so whatever algorithm wrote it, its policy is a `TokenModel`.

    Args:
        args: the command line's.
        num_envs: rows of the env.
        env_options: further arguments of the env, which replace all others.
        dtype: `"bfloat16"` for autocast.
        **model_options: further arguments of `TokenModel`, which replace the checkpoint's.
    """
    model, saved = read_saved(args.model)
    own = env_arguments(args.env_kwargs, scorer=args.scorer, prompts=args.prompts, split=args.split)
    env, env_id, kwargs = make_env(saved, args.env_id, own, args.trust, num_envs=num_envs, **(env_options or {}))
    model_options = (saved.arguments["policy_kwargs"] if saved else {}) | model_options
    check_argument("--device", args.device, Device)
    device = get_device(args.device)
    token_model = TokenModel(**TokenPolicy.kwargs_for(env, model, dtype=dtype, **model_options)).to(device)
    torch.manual_seed(args.seed)
    reference = saved_reference(Path(model), saved) if saved else model
    return Loaded(env, token_model, env_id, kwargs, reference, args.seed)
