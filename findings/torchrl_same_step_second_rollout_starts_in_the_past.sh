#!/usr/bin/env bash
# torchrl 0.14.1: a `GymWrapper` around a vector env in autoreset mode SAME_STEP gives wrong first observations from the second
# rollout on. Where the last step before `reset()` ended an episode, as at the end of every default rollout, the reset returns
# the observations of that step, while the envs themselves begin anew: the first transition leads from one episode into another.
# Seen:  starts at episodes [23, 21, 22] steps [0, 2, 2] then [[24, 1], [25, 1], [26, 1]]
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q gymnasium==1.4.0 torchrl==0.14.1 tensordict==0.14.3
"$folder/venv/bin/python" - <<'PYTHON'
import gymnasium as gym
import numpy as np
from torchrl.envs import GymWrapper


class Clock(gym.Env):
    """Observes (number of the episode, steps in it); the first env's episodes have 2 steps, the second's 3, ..."""

    observation_space, action_space = gym.spaces.Box(0, 1e6, (2,), np.float32), gym.spaces.Discrete(2)
    episodes = 0

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        Clock.episodes += 1
        self.state = np.array([Clock.episodes, 0], np.float32)
        return self.state.copy(), {}

    def step(self, action):
        self.state[1] += 1
        return self.state.copy(), 0.0, bool(self.state[1] == self.length), False, {}


def wrong_starts(mode):
    fns = [lambda length=length: Clock(length) for length in (2, 3, 4)]
    env, wrong = GymWrapper(gym.vector.SyncVectorEnv(fns, autoreset_mode=mode)), 0
    for _ in range(3):
        rollout = env.rollout(10)
        before, after = rollout["observation"][:, 0], rollout["next", "observation"][:, 0]
        wrong += int((before[:, 0] != after[:, 0]).sum())
        print(mode, "starts at episodes", before[:, 0].tolist(), "steps", before[:, 1].tolist(), "then", after.tolist())
    return wrong


assert wrong_starts("Disabled") == 0
assert wrong_starts("SameStep") > 0
PYTHON
