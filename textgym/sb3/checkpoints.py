"""Checkpoints as a directory without pickle: safetensors and JSON, written whole or not at all.

The directory is at the same time an ordinary transformers model with its tokenizer, so
`AutoModelForCausalLM.from_pretrained(path)` reads it. Beside those files stand `algorithm.json` (hyperparameters,
counters, the state of every random generator, the MDP), `training.safetensors` (value head, optimizer state) and, where
the reference has no name to load it by, `reference/`.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from textgym.language_models.loader import no_progress_bars


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


def random_state() -> dict[str, Any]:
    """The state of Python's, numpy's and torch's global generators, as JSON."""
    version, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [version, keys.tolist(), *rest],  # type: ignore[union-attr]
        "torch": torch.get_rng_state().tolist(),
        "cuda": [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` gave; CUDA generators only where the same number of devices is there."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    np.random.set_state(tuple(state["numpy"]))  # type: ignore[arg-type]
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([torch.tensor(s, dtype=torch.uint8) for s in state["cuda"]])


def save_checkpoint(path: Any, algorithm: Any) -> None:
    """Write an `EpisodicAlgorithm`; an existing checkpoint is replaced only by a whole one."""
    policy, target = algorithm.policy, checkpoint_path(path)
    tensors, param_groups = optimizer_tensors(policy.optimizer)
    tensors |= {f"value_net.{name}": tensor for name, tensor in policy.value_net.state_dict().items()}
    data = algorithm.checkpoint_data() | {"param_groups": param_groups, "random_state": random_state()}
    with atomic_directory(target) as directory, no_progress_bars():
        policy.model.save_pretrained(directory)
        algorithm.tokenizer.save_pretrained(directory)
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            directory / "training.safetensors",
        )
        if data["reference"] is None:
            algorithm.reference.save_pretrained(directory / "reference")
        (directory / "algorithm.json").write_text(json.dumps(data, indent=1), encoding="utf-8")


def restore(path: Path, algorithm: Any, data: dict[str, Any]) -> None:
    """Load optimizer and value head into an algorithm whose model was loaded from `path`."""
    tensors = load_file(path / "training.safetensors", device=str(algorithm.device))
    policy = algorithm.policy
    policy.value_net.load_state_dict({k.partition(".")[2]: v for k, v in tensors.items() if k.startswith("value_net.")})
    load_optimizer(policy.optimizer, tensors, data["param_groups"])
    algorithm.num_timesteps, algorithm._n_updates = data["num_timesteps"], data["n_updates"]
    algorithm._pending_state = {"random": data["random_state"], "env": data["env_random_state"]}
