"""The benchmark of starting up: what importing costs, and how long help and a first token take."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TRAIN = Path(__file__).parents[1] / "train.py"
LIBRARIES = "import torch, transformers, stable_baselines3"
FIRST_TOKEN = """
import gymnasium as gym, textgym
from agents import REINFORCE
env = gym.make_vec("TextGen-v0", num_envs=16, num_generations=4, autoreset_mode="Disabled")
agent = REINFORCE("TokenPolicy", env, kl_coef=0.0, device="cpu")
agent.predict(env.reset(seed=0)[0])
"""
PROGRAMS: dict[str, list[str]] = {
    "gymnasium": ["-c", "import gymnasium"],
    "textgym": ["-c", "import textgym"],
    "libraries": ["-c", LIBRARIES],
    "libraries_and_model_class": ["-c", f"{LIBRARIES}; from transformers import LlamaForCausalLM"],
    "first_token": ["-c", FIRST_TOKEN],
    "help": [str(TRAIN), "ppo", "--help"],
}


def startup(repeats: int = 5) -> Iterator[dict[str, Any]]:
    """Process CPU seconds of some programs, interpreter start included.

    `import gymnasium` and `import textgym`; the import of torch, transformers and stable-baselines3, without and with
    a model class, as transformers imports what its models need only then; a program until its first tokens are drawn,
    and the help of `scripts/train.py`.

    Args:
        repeats: fresh processes of each, in turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(repeats + 1):  # the first of each fills the disk cache and is not counted
        for name, words in PROGRAMS.items():
            start = children()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(children() - start)
    medians = {name: round(statistics.median(measured[1:]), 3) for name, measured in seconds.items()}
    yield {"benchmark": "startup", **medians, "repeats": repeats}


def children() -> float:
    """CPU seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
