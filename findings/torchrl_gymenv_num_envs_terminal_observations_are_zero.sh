#!/usr/bin/env bash
# torchrl 0.14.1: `GymEnv(name, num_envs=n)` makes Gymnasium's vector env in autoreset mode NEXT_STEP and reads it as one that
# resets in the same step: the next observation of every step that ends an episode is all zeros. (`GymWrapper` refuses that
# mode; only `GymEnv` does not look.) Where 0 is an observation like any other, such as a token id, nothing tells it apart.
# Seen:  CartPole-v1: 37 episodes ended, 37 next observations there are all 0
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q gymnasium==1.4.0 torchrl==0.14.1 tensordict==0.14.3
cat > "$folder/ends.py" <<'PYTHON'
from torchrl.envs import GymEnv

if __name__ == "__main__":  # the envs are processes
    env = GymEnv("CartPole-v1", num_envs=4)
    rollout = env.rollout(200, break_when_any_done=False)
    env.close()
    ended = rollout["next", "done"][..., 0]
    zero = (rollout["next", "observation"] == 0).all(-1)
    print(f"CartPole-v1: {ended.sum()} episodes ended, {(zero & ended).sum()} next observations there are all 0")
    assert ended.sum() > 10 and zero[ended].all() and not zero[~ended].any()
PYTHON
"$folder/venv/bin/python" "$folder/ends.py"
