"""From a stable-baselines3 algorithm to a checkpoint and back; `textgym.training.state` says what a checkpoint is.

Beside the transformers model stands, where the reference has no name to load it by, `reference/`. With adapters
the model is peft's files, and `base/` holds the model beneath, unless that is on the hub.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule
from stable_baselines3.common.vec_env import VecEnv

from textgym.arguments import plain_numbers
from textgym.language_models.adapters import remember_base, save_model
from textgym.language_models.loader import hub_id, load_model, no_progress_bars, resolve
from textgym.matching import Target
from textgym.sb3.model_files import (
    BESIDE_THE_MODEL,
    finite,
    load_tensors_beside,
    mdp_of,
    read_adapters,
    read_model,
    tensors_beside,
)
from textgym.sb3.policy import POLICY_ARGUMENTS
from textgym.sb3.progress import count_on
from textgym.sb3.vec_env import wrappers_of
from textgym.training.state import (
    TENSORS,
    Progress,
    TrainingState,
    checkpoint_path,
    new_checkpoint,
    problems_of,
    read_state,
    read_tensors,
)

if TYPE_CHECKING:
    from textgym.sb3.episodic import EpisodicAlgorithm

OF_THE_ENV = ("dtype", "n_envs", "num_generations", "policy_kwargs")


@dataclass(frozen=True, kw_only=True)
class AgentState(TrainingState):
    """The state of an `EpisodicAlgorithm`.

    Attributes:
        mdp: fields of the `TextMDP`.
        wrappers: classes of what was around the env, the outermost first, which a checkpoint names and does not hold.
        adapters: whether adapters are trained.
        reference: the name that `load_model` makes the reference from; None where it has none.
        reference_kept: `"model"`, `"adapters off"` or `"none"`: what the reference was.
        optimizer: name of its class.
        param_groups: its hyperparameters.
    """

    mdp: dict[str, Any]
    wrappers: list[str]
    adapters: bool
    reference: str | None
    reference_kept: str
    optimizer: str
    param_groups: list[Any]

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """As `TrainingState`'s; the arguments of the policy must be there, which scripts read too."""
        state = super().from_json(data)
        if not isinstance(state.arguments.get("policy_kwargs"), dict):
            raise ValueError("the argument 'policy_kwargs' must be an object of a policy's arguments")
        return state


def read_agent_state(path: Any) -> AgentState:
    """The state in a checkpoint of an `EpisodicAlgorithm`, whose files are checked."""
    return read_state(checkpoint_path(path), AgentState)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """An optimizer's state as flat tensors `optimizer.<parameter>.<name>`, and its parameter groups as JSON."""
    state = optimizer.state_dict()
    tensors = {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, entry in state["state"].items()
        for name, value in entry.items()
    }
    return tensors, state["param_groups"]


def load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], param_groups: list[dict[str, Any]]
) -> None:
    """The inverse of `optimizer_tensors`.

    Raises:
        ValueError: the tensors are of other parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.removeprefix("optimizer.").split(".")
        if int(index) >= len(parameters) or (tensor.ndim and tensor.shape != parameters[int(index)].shape):
            raise ValueError(f"the tensor {key!r} does not fit the model's parameters")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": param_groups})


def env_spec(env: VecEnv) -> tuple[str | None, dict[str, Any] | None]:
    """The env's id, and those of its arguments that make the task; None where they are not JSON."""
    spec = env.get_attr("spec")[0]
    if spec is None:
        return None, None
    batch = ("num_envs", "vectorization_mode", "autoreset_mode", "num_generations", "render_mode")
    try:
        kwargs = {name: v for name, v in spec.kwargs.items() if name not in batch}
        return spec.id, json.loads(json.dumps(plain_numbers(kwargs)))
    except TypeError:
        return spec.id, None


def num_generations(env: VecEnv) -> int:
    """How many rows of the env share a prompt; 1 where it does not say."""
    return env.get_attr("num_generations")[0] if env.has_attr("num_generations") else 1


def common_state(algorithm: Any, progress: Progress) -> dict[str, Any]:
    """The fields of a `TrainingState` that every algorithm with `hyperparameters()` has."""
    values = {name: getattr(algorithm, name) for name in algorithm.hyperparameters()}
    env_id, env_kwargs = env_spec(algorithm.env)
    return vars(progress) | {
        "algorithm": type(algorithm).__name__,
        "arguments": {name: plain(value) for name, value in values.items()},
        "functions": [name for name, value in values.items() if value is not None and plain(value) is None],
        "env_id": env_id,
        "env_kwargs": env_kwargs,
    }


def plain(value: Any) -> Any:
    """A hyperparameter as JSON: a target's spec, the number of a constant schedule, None for another function."""
    if isinstance(value, FloatSchedule) and isinstance(value.value_schedule, ConstantSchedule):
        return value.value_schedule.val
    if isinstance(value, Target):
        return value.spec
    return None if callable(value) else value


def save_checkpoint(path: Any, algorithm: EpisodicAlgorithm, progress: Progress) -> None:
    """Write an algorithm; an existing checkpoint is replaced only by a whole one.

    Raises:
        OSError: it could not be written.
    """
    policy, token_model, env = algorithm.policy, algorithm.policy.token_model, algorithm.env
    assert env is not None
    reference = algorithm.reference.model if algorithm.reference is not None else None
    tensors, param_groups = optimizer_tensors(policy.optimizer)
    tensors |= tensors_beside(token_model)
    tensors |= {f"extra.{name}": tensor for name, tensor in algorithm.extra_tensors().items()}
    common = common_state(algorithm, progress)
    common["arguments"] |= {
        "dtype": token_model.dtype,
        "n_envs": algorithm.n_envs,
        "num_generations": num_generations(env),
        "policy_kwargs": {n: v for n, v in algorithm.policy_kwargs.items() if n in POLICY_ARGUMENTS},
    }
    state = AgentState(
        **common,
        mdp=dataclasses.asdict(algorithm.mdp),
        wrappers=wrappers_of(env),
        adapters=token_model.peft is not None,
        reference=algorithm.reference_source if isinstance(algorithm.reference_source, str) else None,
        reference_kept="model" if reference is not None else "adapters off" if algorithm.reference else "none",
        optimizer=type(policy.optimizer).__name__,
        param_groups=param_groups,
    )
    with no_progress_bars(), new_checkpoint(path, state, tensors) as folder:
        save_model(policy.model, folder, hub_id(algorithm.policy_kwargs["model"], policy.model))
        env.get_attr("tokenizer")[0].to_pretrained().save_pretrained(folder)
        if state.reference is None and reference is not None:
            (folder / "reference").mkdir()
            save_model(reference, folder / "reference")
    remember_base(policy.model, checkpoint_path(path))


def load_checkpoint(
    cls: type[EpisodicAlgorithm], path: Any, env: Any, device: torch.device | str, given: dict[str, Any]
) -> EpisodicAlgorithm:
    """Read an algorithm; see `EpisodicAlgorithm.load`."""
    path = checkpoint_path(path)
    state = read_state(path, AgentState, cls.__name__)
    with problems_of(path, state.file):
        check_arguments(state, (*cls.hyperparameters(), *OF_THE_ENV))
        arguments = state.arguments | given
        arguments["policy_kwargs"] = state.arguments["policy_kwargs"] | (given.get("policy_kwargs") or {})
        check_functions(state, arguments)
        values = [one["policy_kwargs"].get("value_function", "shared") for one in (state.arguments, arguments)]
        if values[0] != values[1]:
            raise ValueError(f"the checkpoint's value_function is {values[0]!r}, which {values[1]!r} cannot replace")
        mdp = mdp_of(state.mdp)
    model, peft = read_model(path, state.adapters)
    with problems_of(path, state.file):
        made = cls("TokenPolicy", env, model, peft=peft, device=device, _init_setup_model=False, **arguments)
        if env is None:  # what the constructor reads off an env
            made.policy_kwargs |= {"mdp": mdp, "model": model, "peft": peft, "dtype": arguments["dtype"]}
            made.observation_space, made.action_space = mdp.observation_space, mdp.action_space
            made.n_envs = arguments["n_envs"]
        elif made.policy_kwargs["mdp"] != mdp:
            raise ValueError(f"the env's MDP is not the checkpoint's: {made.policy_kwargs['mdp']} != {mdp}")
        if "reference" not in given:
            restore_reference(made, path, state)
        made._setup_model()
        if type(made.policy.optimizer).__name__ != state.optimizer:
            raise ValueError(
                f"the checkpoint's optimizer is {state.optimizer}; pass policy_kwargs={{'optimizer_class': ...}}"
            )
    if peft is not None:
        read_adapters(path, made.policy.model)
    remember_base(made.policy.model, path)
    take_tensors(made, path, state)
    for group in made.policy.optimizer.param_groups:
        group |= (given.get("policy_kwargs") or {}).get("optimizer_kwargs") or {}
    count_on(made, state)
    made._iterations = state.iterations
    made._pending = Progress(**{f.name: getattr(state, f.name) for f in dataclasses.fields(Progress)})
    return made


def check_arguments(state: TrainingState, expected: tuple[str, ...]) -> None:
    """Refuse a state with other arguments than those that its algorithm keeps, with a ValueError."""
    if unequal := sorted(set(expected) ^ set(state.arguments)):
        problem = "is missing" if unequal[0] in expected else f"is not one of {state.algorithm}"
        raise ValueError(f"the argument {unequal[0]!r} {problem}")


def check_functions(state: TrainingState, arguments: Mapping[str, Any]) -> None:
    """Refuse to go on without an argument that was a function, with a ValueError that asks for it."""
    for name in state.functions:
        if arguments.get(name) is None:
            raise ValueError(f"the checkpoint's {name} was a function, which is not saved; pass {name}=")


def take_tensors(made: EpisodicAlgorithm, path: Path, state: AgentState) -> None:
    """Give an algorithm, which was just made, the checkpoint's tensors beside the model's."""
    tensors = read_tensors(path, state, made.device)
    with problems_of(path, TENSORS):
        beside = {name: tensor for name, tensor in tensors.items() if name.startswith(BESIDE_THE_MODEL)}
        load_tensors_beside(made.token_model, beside)
        extra = {name.removeprefix("extra."): t for name, t in tensors.items() if name.startswith("extra.")}
        made.load_extra_tensors(extra)
        rest = {name: t for name, t in tensors.items() if name not in beside and not name.startswith("extra.")}
        if unknown := [name for name in rest if not name.startswith("optimizer.")]:
            raise ValueError(f"the tensor {unknown[0]!r} does not belong there")
        load_optimizer(made.policy.optimizer, rest, state.param_groups)


def restore_reference(made: EpisodicAlgorithm, path: Path, state: AgentState) -> None:
    """Give an algorithm, before its set-up, the reference that the saved one had, or that it needs by now."""
    kept, source = state.reference_kept, saved_reference(path, state)
    if kept == "adapters off" or (kept == "none" and (state.adapters or not made.needs_reference())):
        made.reference_source = state.reference  # the name is kept for the next checkpoint
        return
    if source is None:
        raise ValueError("the checkpoint holds no reference, because its training needed none; pass reference=")
    if state.reference:
        try:
            resolve(source)
        except OSError as error:
            raise FileNotFoundError(
                f"its reference is gone: {error}; name another with reference= (--reference)"
            ) from error
    with problems_of(path, "reference/model.safetensors"):
        # Weights are read now: the next checkpoint may replace the folder that they are in.
        made.reference_source = source if state.reference else finite(load_model(source))
    made._reference_given = True


def saved_reference(path: Path, state: AgentState) -> str | None:
    """What `load_model` makes a checkpoint's reference from; None where it has none."""
    folders = [folder for folder in (path / "reference", path / "base") if folder.is_dir()]
    return state.reference or (str(folders[0]) if folders else None)
