"""The files of a policy: a transformers model, its adapters, its value head; and policies without an algorithm."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from textgym.language_models import adapters
from textgym.language_models.loader import load_model, no_progress_bars
from textgym.language_models.token_model import TokenModel
from textgym.mdp import TextMDP
from textgym.training.state import (
    TENSORS,
    SavedState,
    check_names,
    checkpoint_path,
    new_checkpoint,
    problems_of,
    read_state,
    read_tensors,
)

if TYPE_CHECKING:
    from textgym.sb3.policy import TokenPolicy

VALUE_MODULES = ("value_net.", "value_trunk.")
BESIDE_THE_MODEL = (*VALUE_MODULES, "ranks.")


def tensors_beside(token_model: TokenModel) -> dict[str, torch.Tensor]:
    """What a policy learns beside its language model: the value head, and the state of AdaLoRA's schedules."""
    values = {name: t for name, t in token_model.state_dict().items() if name.startswith(BESIDE_THE_MODEL)}
    schedules = enumerate(schedule.tensors() for schedule in token_model.ranks)
    return values | {f"ranks.{i}.{name}": t for i, tensors in schedules for name, t in tensors.items()}


def load_tensors_beside(token_model: TokenModel, tensors: dict[str, torch.Tensor]) -> None:
    """The inverse of `tensors_beside`; a ValueError where they are of another value head or other adapters."""
    check_names(tensors, tensors_beside(token_model))
    for i, schedule in enumerate(token_model.ranks):
        prefix = f"ranks.{i}."
        schedule.load_tensors({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    token_model.load_state_dict({n: t for n, t in tensors.items() if not n.startswith("ranks.")}, strict=False)


def read_values(token_model: TokenModel, path: Path, state: SavedState) -> None:
    """Give a model, which was made with the checkpoint's arguments, its value head.

    Raises:
        CheckpointError: it does not fit.
    """
    saved, own = read_tensors(path, state, token_model.device), token_model.state_dict()
    values, expected = ({n: t for n, t in all_.items() if n.startswith(VALUE_MODULES)} for all_ in (saved, own))
    with problems_of(path, TENSORS):
        check_names(values, expected)
        token_model.load_state_dict(values, strict=False)


def finite(model: Any) -> Any:
    """The model itself; a ValueError where a weight is not finite."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"the tensor {name!r} has values that are not finite")
    return model


def read_model(path: Path, with_adapters: bool) -> tuple[Any, Any]:
    """What a policy's model is made from, and the adapters' config; the id of a base model on the hub is kept.

    Raises:
        CheckpointError: weights are missing, do not fit the model's config, or are not finite.
    """
    if not with_adapters:
        with problems_of(path, "model.safetensors"):
            return finite(load_model(str(path))), None
    with problems_of(path, "adapter_config.json"):
        config, base = adapters.read_config(path), adapters.adapter_base(path)
    with problems_of(path, "base/model.safetensors"):
        return (finite(load_model(base)) if Path(base).is_dir() else base), config


def read_adapters(path: Path, model: Any) -> None:
    """Give a model, which has new adapters, the saved ones.

    Raises:
        CheckpointError: they do not fit.
    """
    with problems_of(path, "adapter_model.safetensors"):
        adapters.read_adapters(model, path)
        finite(model)


def mdp_of(fields: dict[str, Any]) -> TextMDP:
    """A `TextMDP` from its JSON, which must give every field."""
    if missing := {f.name for f in dataclasses.fields(TextMDP)} - set(fields):
        raise ValueError(f"the MDP's {min(missing)!r} is missing")
    return TextMDP(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class PolicyState(SavedState):
    """A `TokenPolicy` without an algorithm.

    Attributes:
        policy: name of its class.
        mdp: fields of the `TextMDP`.
        adapters: whether adapters are trained.
        arguments: further ones of its constructor.
    """

    file: ClassVar[str] = "policy.json"
    named_by: ClassVar[str] = "policy"
    policy: str
    mdp: dict[str, Any]
    adapters: bool
    arguments: dict[str, Any]


def save_policy(policy: TokenPolicy, path: Any) -> None:
    """Write a policy; see `TokenPolicy.save`."""
    state = PolicyState(
        policy=type(policy).__name__,
        mdp=dataclasses.asdict(policy.token_model.mdp),
        adapters=policy.token_model.peft is not None,
        arguments=policy.arguments,
    )
    with no_progress_bars(), new_checkpoint(path, state, tensors_beside(policy.token_model)) as folder:
        adapters.save_model(policy.model, folder)


def load_policy(cls: type[TokenPolicy], path: Any, device: torch.device) -> TokenPolicy:
    """Read a policy; see `TokenPolicy.load`."""
    path = checkpoint_path(path)
    state = read_state(path, PolicyState, cls.__name__)
    with problems_of(path, state.file):
        mdp = mdp_of(state.mdp)
    model, peft = read_model(path, state.adapters)
    with problems_of(path, state.file):
        spaces = mdp.observation_space, mdp.action_space
        policy = cls(*spaces, lambda _: 0.0, mdp=mdp, model=model, peft=peft, **state.arguments)
    if peft is not None:
        read_adapters(path, policy.model)
    tensors = read_tensors(path, state)
    with problems_of(path, TENSORS):
        load_tensors_beside(policy.token_model, tensors)
    return policy.to(device)
