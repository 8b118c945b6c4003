"""The state of every random generator that a training draws from, as JSON."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

BIT_GENERATORS = {cls.__name__: cls for cls in np.random.BitGenerator.__subclasses__()}


def random_state(generators: Sequence[np.random.Generator]) -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global generators, and of others, such as those of envs.

    Args:
        generators: one that occurs several times is kept once.
    """
    version, internal, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": [version, _hex(np.array(internal, np.uint32)), gauss],
        "numpy": [name, _hex(np.asarray(keys)), *rest],
        "torch": _hex(torch.get_rng_state().numpy()),
        "cuda": [_hex(state.numpy()) for state in cuda],
        "generators": [generator.bit_generator.state for generator in _distinct(generators)],
    }


def set_random_state(state: dict[str, Any], generators: Sequence[np.random.Generator]) -> None:
    """Restore what `random_state` gave.

    CUDA's generators are restored only where there are as many devices, the others' only where there are as many of
    them: a training may go on on another machine, or with other envs.
    """
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(_array(internal, np.uint32).tolist()), gauss))
    np.random.set_state(_numpy_state(state["numpy"]))
    torch.set_rng_state(_tensor(state["torch"]))
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_tensor(one) for one in state["cuda"]])
    distinct = _distinct(generators)
    if len(distinct) == len(state["generators"]):
        for generator, one in zip(distinct, state["generators"], strict=True):
            generator.bit_generator.state = one


def check_random_state(state: dict[str, Any]) -> None:
    """Refuse what `random_state` cannot have given, by setting generators that nobody uses.

    Raises:
        ValueError: it says which of the generators.
    """
    if set(state) != (names := {"python", "numpy", "torch", "cuda", "generators"}):
        raise ValueError(f"the random state is of {sorted(state)}, not of {sorted(names)}")
    for name, value in state.items():
        try:
            if name == "python":
                if not isinstance(value[2], float | None):
                    raise TypeError(f"{value[2]!r} is no number")
                random.Random().setstate((value[0], tuple(_array(value[1], np.uint32).tolist()), value[2]))
            elif name == "numpy":
                np.random.RandomState().set_state(_numpy_state(value))
            elif name == "torch":
                torch.Generator().set_state(_tensor(value))
            elif name == "cuda":
                [_tensor(one) for one in value]
            else:
                for one in value:
                    BIT_GENERATORS[one["bit_generator"]]().state = one
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
            raise ValueError(f"the random state of {name} is none: {error}") from error


def _distinct(generators: Sequence[np.random.Generator]) -> list[np.random.Generator]:
    return list({id(generator): generator for generator in generators}.values())


def _hex(array: np.ndarray) -> str:
    return array.tobytes().hex()


def _array(text: str, dtype: type) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), dtype)


def _tensor(text: str) -> torch.Tensor:
    return torch.from_numpy(_array(text, np.uint8).copy())


def _numpy_state(state: list[Any]) -> tuple[Any, ...]:
    name, keys, *rest = state
    return name, _array(keys, np.uint32), *rest
