"""Checkpoints as a directory without pickle: safetensors and JSON, written whole or not at all.

The directory is at the same time an ordinary transformers model with its tokenizer, so
`AutoModelForCausalLM.from_pretrained(path)` reads it. Beside those files stand `algorithm.json` (hyperparameters,
counters, the state of every random generator, the MDP), `training.safetensors` (values, optimizer state) and, where the
reference has no name to load it by, `reference/`. With LoRA the model is peft's adapter files, and `base/` holds the
model beneath where it has no name.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule
from stable_baselines3.common.vec_env import VecEnv

from textgym.importing import require
from textgym.language_models.adapters import load_adapters, save_adapters
from textgym.language_models.loader import adapter_base, load_model, no_progress_bars
from textgym.matching import Target
from textgym.mdp import TextMDP

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from textgym.sb3.episodic import EpisodicAlgorithm


VALUE_MODULES = ("value_net.", "value_trunk.")
POLICY_ARGUMENTS = ("value_function", "temperature", "top_k", "top_p", "gradient_checkpointing")


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        yield new
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)


def checkpoint_path(path: Any) -> Path:
    """Where a checkpoint lives; SB3's callbacks ask for `name.zip`, which here is the directory `name`."""
    path = Path(path)
    return path.with_suffix("") if path.suffix == ".zip" else path


def read_json(path: Path) -> dict[str, Any]:
    """`algorithm.json` of a checkpoint directory.

    Raises:
        FileNotFoundError: `path` is no checkpoint.
    """
    file = path / "algorithm.json"
    if not file.is_file():
        raise FileNotFoundError(f"{str(path)!r} is no TextGym checkpoint: it has no algorithm.json")
    return json.loads(file.read_text(encoding="utf-8"))


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
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        prefix, _, rest = key.partition(".")
        if prefix == "optimizer":
            index, name = rest.split(".")
            state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": param_groups})


def random_state(env: VecEnv) -> dict[str, Any]:
    """The state of Python's, numpy's and torch's global generators and of the env's, as JSON.

    Between rollouts, which begin with a reset, the generator is all of an env's state. It is None for several envs.
    """
    version, keys, *rest = np.random.get_state(legacy=True)
    generators = {id(g): g for g in env.get_attr("np_random")}
    return {
        "python": random.getstate(),
        "numpy": [version, keys.tolist(), *rest],  # type: ignore[union-attr]
        "torch": torch.get_rng_state().tolist(),
        "cuda": [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
        "env": next(iter(generators.values())).bit_generator.state if len(generators) == 1 else None,
    }


def set_random_state(env: VecEnv, state: dict[str, Any]) -> None:
    """Restore what `random_state` gave; CUDA generators only where the same number of devices is there."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    np.random.set_state(tuple(state["numpy"]))  # type: ignore[arg-type]
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([torch.tensor(s, dtype=torch.uint8) for s in state["cuda"]])
    if state["env"] is not None:
        env.get_attr("np_random")[0].bit_generator.state = state["env"]


def env_spec(env: VecEnv) -> tuple[str | None, dict[str, Any] | None]:
    """The env's id, and those of its arguments that make the task; None where they are not JSON."""
    spec = env.get_attr("spec")[0]
    if spec is None:
        return None, None
    batch = ("num_envs", "vectorization_mode", "autoreset_mode", "num_generations", "render_mode")
    try:
        return spec.id, json.loads(json.dumps({name: v for name, v in spec.kwargs.items() if name not in batch}))
    except TypeError:
        return spec.id, None


def num_generations(env: VecEnv) -> int:
    """How many rows of the env share a prompt; 1 where it does not say."""
    spec = env.get_attr("spec")[0]
    return 1 if spec is None else spec.kwargs.get("num_generations", 1)


def save_checkpoint(path: Any, algorithm: EpisodicAlgorithm) -> None:
    """Write an algorithm; an existing checkpoint is replaced only by a whole one.

    Raises:
        ValueError: the algorithm has no env, which holds the tokenizer.
    """
    policy, token_model, env = algorithm.policy, algorithm.policy.token_model, algorithm.env
    if env is None:
        raise ValueError("an algorithm without an env cannot be saved; pass env= to load()")
    tensors, param_groups = optimizer_tensors(policy.optimizer)
    tensors |= {name: t for name, t in token_model.state_dict().items() if name.startswith(VALUE_MODULES)}
    tensors |= {f"extra.{name}": tensor for name, tensor in algorithm.extra_tensors().items()}
    env_id, env_kwargs = env_spec(env)
    names = algorithm.hyperparameters()
    reference = algorithm.reference.model if algorithm.reference is not None else None
    data = {
        "algorithm": type(algorithm).__name__,
        "arguments": {name: plain(getattr(algorithm, name)) for name in names}
        | {"dtype": token_model.dtype, "n_envs": algorithm.n_envs, "num_generations": num_generations(env)}
        | {"policy_kwargs": {n: v for n, v in algorithm.policy_kwargs.items() if n in POLICY_ARGUMENTS}},
        "mdp": dataclasses.asdict(algorithm.mdp),
        "reference": algorithm.reference_source if isinstance(algorithm.reference_source, str) else None,
        "adapters": token_model.lora is not None,
        "reference_kept": "model" if reference is not None else "adapters off" if algorithm.reference else "none",
        "env_id": env_id,
        "env_kwargs": env_kwargs,
        "schedules": [n for n in names if plain(value := getattr(algorithm, n)) is None and value],
        "num_timesteps": algorithm.num_timesteps,
        "n_updates": algorithm._n_updates,
        "optimizer": type(policy.optimizer).__name__,
        "param_groups": param_groups,
        "random_state": random_state(env),
    }
    with atomic_directory(checkpoint_path(path)) as directory, no_progress_bars():
        if token_model.lora is None:
            policy.model.save_pretrained(directory)
        else:
            save_adapters(policy.model, directory)
            if not isinstance(algorithm.policy_kwargs["model"], str):
                save_base(policy.model, directory / "base")
        env.get_attr("tokenizer")[0].to_pretrained().save_pretrained(directory)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(tensors, directory / "training.safetensors")
        if data["reference"] is None and reference is not None:
            reference.save_pretrained(directory / "reference")
        (directory / "algorithm.json").write_text(json.dumps(data, indent=1), encoding="utf-8")


def plain(value: Any) -> Any:
    """A hyperparameter as JSON: a target's spec, the number of a constant schedule, None for another function."""
    if isinstance(value, FloatSchedule) and isinstance(value.value_schedule, ConstantSchedule):
        return value.value_schedule.val
    if isinstance(value, Target):
        return value.spec
    return None if callable(value) else value


def save_base(model: PreTrainedModel, directory: Path) -> None:
    """Write a model without the adapters that were added to it."""
    weights = {n.replace(".base_layer.", "."): t for n, t in model.state_dict().items() if ".lora_" not in n}
    with torch.device("meta"):
        empty = type(model)(model.config)
    empty.save_pretrained(directory, state_dict=weights)


def load_checkpoint(
    cls: type[EpisodicAlgorithm], path: Any, env: Any, device: torch.device | str, kwargs: dict[str, Any]
) -> EpisodicAlgorithm:
    """Read an algorithm; see `EpisodicAlgorithm.load`."""
    path = checkpoint_path(path)
    data = read_json(path)
    if data["algorithm"] != cls.__name__:
        raise ValueError(f"{str(path)!r} holds a {data['algorithm']}, not a {cls.__name__}")
    arguments = data["arguments"] | kwargs
    arguments["policy_kwargs"] = data["arguments"]["policy_kwargs"] | (kwargs.get("policy_kwargs") or {})
    for name in ("learning_rate", "clip_range", "clip_range_vf"):
        if arguments.get(name, 0) is None and name in data["schedules"]:
            raise ValueError(f"the checkpoint's {name} was a function, which is not saved; pass {name}=")
    values = [given["policy_kwargs"].get("value_function", "shared") for given in (data["arguments"], arguments)]
    if values[0] != values[1]:
        raise ValueError(f"the checkpoint's value_function is {values[0]!r}, which {values[1]!r} cannot replace")
    fields: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in data["mdp"].items()}
    mdp, lora = TextMDP(**fields), None
    if data["adapters"]:
        lora = require("peft", "agents").LoraConfig.from_pretrained(str(path))
    base = str(path) if lora is None else adapter_base(path / "adapter_config.json")
    model = base if lora is not None and not Path(base).is_dir() else load_model(base)  # a name is kept
    made = cls("TokenPolicy", env, model, lora=lora, device=device, _init_setup_model=False, **arguments)
    if env is None:  # what the constructor reads off an env
        made.policy_kwargs |= {"mdp": mdp, "model": model, "lora": lora, "dtype": arguments["dtype"]}
        made.observation_space, made.action_space = mdp.observation_space, mdp.action_space
        made.n_envs = arguments["n_envs"]
    elif made.policy_kwargs["mdp"] != mdp:
        raise ValueError(f"the env's MDP is not the checkpoint's: {made.policy_kwargs['mdp']} != {mdp}")
    if "reference" not in kwargs:
        restore_reference(made, path, data)
    made._setup_model()
    if type(made.policy.optimizer).__name__ != data["optimizer"]:
        raise ValueError(
            f"the checkpoint's optimizer is {data['optimizer']}; pass policy_kwargs={{'optimizer_class': ...}}"
        )
    tensors = load_file(path / "training.safetensors", device=str(made.device))
    if lora is not None:
        load_adapters(made.policy.model, path)
    value_weights = {name: t for name, t in tensors.items() if name.startswith(VALUE_MODULES)}
    made.token_model.load_state_dict(made.token_model.state_dict() | value_weights)
    load_optimizer(made.policy.optimizer, tensors, data["param_groups"])
    made.load_extra_tensors({n.removeprefix("extra."): t for n, t in tensors.items() if n.startswith("extra.")})
    made.num_timesteps, made._n_updates = data["num_timesteps"], data["n_updates"]
    made._pending_state = data["random_state"]
    return made


def restore_reference(made: EpisodicAlgorithm, path: Path, data: dict[str, Any]) -> None:
    """Give an algorithm, before its set-up, the reference that the saved one had, or that it needs by now."""
    kept, source = data["reference_kept"], saved_reference(path, data)
    if kept == "adapters off" or (kept == "none" and (data["adapters"] or not made.needs_reference())):
        made.reference_source = data["reference"]  # the name is kept for the next checkpoint
        return
    if source is None:
        raise ValueError("the checkpoint holds no reference, because its training needed none; pass reference=")
    # Weights are read now: the next checkpoint may replace the folder that they are in.
    made.reference_source = source if data["reference"] else load_model(source)
    made._reference_given = True


def saved_reference(path: Path, data: dict[str, Any]) -> str | None:
    """What `load_model` makes a checkpoint's reference from; None where it has none."""
    folders = [folder for folder in (path / "reference", path / "base") if folder.is_dir()]
    return data["reference"] or (str(folders[0]) if folders else None)
