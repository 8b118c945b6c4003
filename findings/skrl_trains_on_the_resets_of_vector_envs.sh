#!/usr/bin/env bash
# skrl 2.1.1: Gymnasium's vector envs reset a row in the step after its end (autoreset mode NEXT_STEP, the default of
# `gym.make_vec`). skrl does not know of it: it hands this step, whose action was ignored and whose reward is 0, to the agent as
# a transition from the finished episode's last observation to the next one's first, and PPO trains on it.
# Seen:  CartPole-v1: 2384 transitions, 129 from an observation in which the episode had ended
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q gymnasium==1.4.0 skrl==2.1.1
cd "$folder"  # skrl writes its runs here
"$folder/venv/bin/python" - <<'PYTHON'
import gymnasium as gym
import torch
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.trainers.torch import SequentialTrainer


class Policy(CategoricalMixin, Model):
    def __init__(self, env):
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device=env.device)
        CategoricalMixin.__init__(self)
        self.layer = torch.nn.Linear(4, 2)

    def compute(self, inputs, role=""):
        return self.layer(inputs["observations"]), {}


class Value(DeterministicMixin, Model):
    def __init__(self, env):
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device=env.device)
        DeterministicMixin.__init__(self)
        self.layer = torch.nn.Linear(4, 1)

    def compute(self, inputs, role=""):
        return self.layer(inputs["observations"]), {}


env = wrap_env(gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync"))
memory = RandomMemory(memory_size=300, num_envs=8, device=env.device)
agent = PPO(
    models={"policy": Policy(env), "value": Value(env)},
    memory=memory,
    observation_space=env.observation_space,
    action_space=env.action_space,
    device=env.device,
    cfg=PPO_CFG(rollouts=300),
)
settings = {"timesteps": 299, "headless": True, "disable_progressbar": True}  # no update before we look at the memory
SequentialTrainer(env=env, agents=agent, cfg=settings).train()
ended = memory.get_tensor_by_name("terminated")[:298, :, 0]
after = memory.get_tensor_by_name("observations")[1:299]
dead = ended & ((after[..., 0].abs() > 2.4) | (after[..., 2].abs() > 0.2094))  # CartPole's bounds of an episode
rewards = memory.get_tensor_by_name("rewards")[1:299, :, 0]
print(f"CartPole-v1: {ended.numel()} transitions, {int(dead.sum())} from an observation in which the episode had ended")
assert dead.sum() == ended.sum() > 20 and not rewards[dead].any()
PYTHON
