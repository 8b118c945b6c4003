#!/usr/bin/env bash
# gymnasium 1.4.0: the wrapper `NumpyToTorch` converts reset options, and takes a string for an iterable: the env receives the
# text of a generator object in its place, without an error. An env whose options name a prompt or a level by a string starts
# from nonsense under this wrapper.
# Seen:  the env received {'prompt': '<generator object _iterable_array_conversion.<locals>.<genexpr> at 0x...>'}
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q "gymnasium[array-api]==1.4.0"
"$folder/venv/bin/python" - <<'PYTHON'
import gymnasium as gym
import numpy as np
from gymnasium.wrappers import NumpyToTorch


class Env(gym.Env):
    observation_space, action_space = gym.spaces.Box(0, 1, (2,), np.float32), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.received = options
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, True, False, {}


env = NumpyToTorch(Env())
env.reset(options={"prompt": "The film was"})
received = env.unwrapped.received
print("the env received", received)
assert received["prompt"].startswith("<generator object")
PYTHON
