#!/usr/bin/env bash
# stable-baselines3 2.9.2: a schedule gets "the remaining progress, from 1 to 0", but PPO and A2C complete their last rollout, so
# that where total_timesteps is no multiple of it the progress of the last update is negative. The usual linear schedule
# `lambda progress: 3e-4 * progress` then gives a negative learning rate, which torch takes from a parameter group without a
# word (its constructors refuse one): the last update climbs the loss.
# Seen:  100 timesteps in rollouts of 64: learning rates 0.000108, -8.4e-05; largest change of a weight in the last update 8.4e-05
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q stable-baselines3==2.9.2 gymnasium==1.4.0
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from stable_baselines3 import PPO

rates, changes = [], []


class Watched(PPO):
    def train(self):
        before = [p.detach().clone() for p in self.policy.parameters()]
        super().train()
        rates.append(self.policy.optimizer.param_groups[0]["lr"])
        after = self.policy.parameters()
        changes.append(max((a - b).abs().max().item() for a, b in zip(after, before, strict=True)))


agent = Watched("MlpPolicy", "CartPole-v1", learning_rate=lambda progress: 3e-4 * progress, n_steps=64, batch_size=64,
                n_epochs=1, seed=0, device="cpu")
agent.learn(total_timesteps=100)
print(f"100 timesteps in rollouts of 64: learning rates {', '.join(f'{r:.3g}' for r in rates)}; "
      f"largest change of a weight in the last update {changes[-1]:.3g}")
assert rates[0] > 0 > rates[-1] and changes[-1] > 0
try:
    torch.optim.Adam(agent.policy.parameters(), lr=rates[-1])
except ValueError:
    pass
else:
    raise AssertionError("Adam's constructor takes a negative learning rate")
PYTHON
