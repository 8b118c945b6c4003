"""The training core knows no RL library: it works where none is installed."""

import os
import subprocess
import sys

WITHOUT_RL_LIBRARIES = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("stable_baselines3", "sb3_contrib", "ray", "torchrl", "trl"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
import gymnasium as gym, torch
import textgym
from textgym.training import Episodes, Reference, TokenModel, accumulate_gradients, apply_gradients
from textgym.training.losses import policy_gradient_loss

toy = gym.make_vec("TextGenToy-v0", num_envs=8, autoreset_mode="Disabled")
mdp = toy.unwrapped.mdp
torch.manual_seed(0)
model = TokenModel(mdp, toy.unwrapped.reference_model())
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
model.follow(optimizer)
obs, _ = toy.reset(seed=0)
log_probs, rewards = torch.zeros(8, mdp.max_new_tokens), torch.zeros(8, mdp.max_new_tokens)
live = torch.ones(8, dtype=torch.bool)
for t in range(mdp.max_new_tokens):
    actions, _, chosen = model(torch.from_numpy(obs))
    log_probs[:, t] = chosen * live
    obs, reward, ended, _, _ = toy.step(actions.numpy())
    rewards[:, t] = torch.from_numpy(reward)
    live &= ~torch.from_numpy(ended)
    if not live.any():
        break
rows = torch.from_numpy(obs)
mask = rows[:, 1:] != mdp.pad_id
zeros = torch.zeros(mask.shape)
episodes = Episodes(rows, mask, (rows != mdp.pad_id).sum(-1) - 1, torch.zeros(8, dtype=torch.int64), zeros[:, :1],
                    rewards, log_probs, log_probs, zeros, zeros, zeros, rewards, zeros)
reference = Reference(model, None, given=False)
assert torch.allclose(reference.log_probs(episodes, None)[0], log_probs, atol=1e-5)
before = model.model.table.detach().clone()
logged, again = accumulate_gradients(
    model, episodes, lambda batch, terms: (policy_gradient_loss(terms.log_probs, batch.advantages), {})
)
assert torch.allclose(again, log_probs, atol=1e-5)
assert apply_gradients(model, optimizer, 1.0) > 0
assert (model.model.table - before).abs().max() > 0
assert not any(name.startswith("stable_baselines3") for name in sys.modules)
print("trained")
"""


def test_training_works_without_any_rl_library():
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_RL_LIBRARIES], capture_output=True, text=True, env=environment, cwd=os.getcwd()
    )
    assert result.returncode == 0 and result.stdout.strip() == "trained", result.stderr
