#!/usr/bin/env bash
# ray 2.60.0: with `gym_env_vectorize_mode="vector_entry_point"` RLlib steps an env's own vector env, and takes it for one that
# resets a row in the step after its end (autoreset mode NEXT_STEP) without a look at `metadata["autoreset_mode"]`. Of an env
# that resets in the same step, it drops the first step of every episode but a row's first one, reward included; episodes of
# one step vanish; and every last observation is another episode's.
# Seen:  the env ended 16 episodes, of 26 steps; RLlib saw 12, of 17 steps; 12 of their last observations are another episode's
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q "ray[rllib]==2.60.0"
"$folder/venv/bin/python" - <<'PYTHON'
import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner


class Clock(VectorEnv):
    """Observes (number of the episode, steps in it); row i's episodes have i + 1 steps; each step is paid 1."""

    def __init__(self, num_envs):
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs, self.episodes, self.lengths = num_envs, 0, []
        self.single_observation_space = gym.spaces.Box(0, 1e6, (2,), np.float32)
        self.single_action_space = gym.spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def begin(self, rows):
        for row in rows:
            self.episodes += 1
            self.state[row] = self.episodes, 0

    def reset(self, *, seed=None, options=None):
        self.state = np.zeros((self.num_envs, 2), np.float32)
        self.begin(range(self.num_envs))
        return self.state.copy(), {}

    def step(self, actions):
        self.state[:, 1] += 1
        ended = self.state[:, 1] == np.arange(self.num_envs) + 1
        self.lengths += self.state[ended, 1].astype(int).tolist()
        info = {"final_obs": self.state.copy(), "_final_obs": ended.copy()} if ended.any() else {}
        self.begin(np.flatnonzero(ended))
        return self.state.copy(), np.ones(self.num_envs), ended, np.zeros(self.num_envs, bool), info


gym.register("Clock-v0", vector_entry_point=Clock)
config = PPOConfig().environment("Clock-v0")
config.env_runners(num_envs_per_env_runner=3, gym_env_vectorize_mode="vector_entry_point")
runner = SingleAgentEnvRunner(config=config)
episodes = runner.sample(num_episodes=12, random_actions=True)
env, steps = runner.env.unwrapped, sum(map(len, episodes))
other = sum(e.get_observations(-1)[0] != e.get_observations(0)[0] for e in episodes)
print(f"the env ended {len(env.lengths)} episodes, of {sum(env.lengths)} steps; RLlib saw {len(episodes)}, of {steps} steps;", end=" ")
print(f"{other} of their last observations are another episode's")
assert len(env.lengths) > len(episodes) and other == len(episodes)
PYTHON
