"""The arguments of `load`: each is applied, or refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.utils import get_system_info

from textgym.arguments import arguments_of
from textgym.importing import did_you_mean
from textgym.sb3.policy import POLICY_ARGUMENTS
from textgym.training.state import package_versions

OWN = ("policy", "env", "device", "_init_setup_model")
"""Arguments of constructors that `load` has itself."""


def given_arguments(
    cls: type, env: Any, custom_objects: dict[str, Any] | None, force_reset: bool, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The constructor's arguments that a call of `load` gives.

    Raises:
        TypeError: there is no such argument.
        ValueError: one is the checkpoint's, belongs to an env id where an env is given, or is given twice.
    """
    if not force_reset:
        raise ValueError("force_reset is False, but every rollout begins with a reset of the env")
    known = [name for name in arguments_of(cls) if name not in OWN]
    if twice := sorted(set(kwargs) & set(custom_objects or {})):
        raise ValueError(f"{twice[0]} is given twice, in custom_objects and as an argument")
    given = kwargs | (custom_objects or {})
    for name in given:
        if name not in known:
            raise TypeError(f"load() of {cls.__name__} takes no argument {name!r}{did_you_mean(name, known)}")
        if name in ("model", "peft", "lora"):
            raise ValueError(f"load() takes no {name}; the checkpoint brings its own")
        if name in ("n_envs", "num_generations") and not isinstance(env, str):
            raise ValueError(f"{name} is for an env id; the env that is given has its own")
    accepted = (*POLICY_ARGUMENTS, "optimizer_class", "optimizer_kwargs")
    for name in given.get("policy_kwargs") or {}:
        if name not in accepted:
            raise TypeError(f"policy_kwargs of load() has no {name!r}{did_you_mean(name, accepted)}")
    return given


def print_versions(saved: Mapping[str, str]) -> None:
    """Print SB3's description of this system, and the versions of packages in a checkpoint and here."""
    print("== CURRENT SYSTEM INFO ==")
    get_system_info()
    print("== SAVED MODEL SYSTEM INFO ==")
    for name, version in saved.items():
        print(f"{name}: {version} (here {package_versions().get(name)})")
