"""scripts/shaped_ppo.py: it trains, saves what it trained, and says how far from optimal that is."""

import gymnasium as gym
import pytest
import torch
import tyro

from scripts.shaped_ppo import Args, main, make_agent
from textgym.training import TokenModel


def parsed(line):
    return tyro.cli(Args, args=line.split())


def test_a_short_training_is_saved_and_told(tmp_path, capsys):
    line = "--total-timesteps 300 --n-envs 16 --num-generations 4 --episodes 16 --frontier 12 --frontier-prompts 4"
    evaluation = main(parsed(f"{line} --device cpu --seed 3 --out {tmp_path}"))
    assert evaluation.episodes == 16 and "PPO, seed 3" in capsys.readouterr().out
    mdp = gym.make("TextGen-v0").get_wrapper_attr("mdp")
    saved, begun = (TokenModel(mdp, model).state_dict() for model in (str(tmp_path / "seed-3"), "tiny"))
    changed = [name for name, weight in saved.items() if not torch.equal(weight, begun[name])]
    assert changed


def test_the_rate_falls_to_a_tenth_over_the_last_two_fifths():
    agent = make_agent(parsed("--n-envs 8 --device cpu --learning-rate 2"))
    rates = [agent.lr_schedule(remaining) for remaining in (1.0, 0.4, 0.2, 0.0)]
    assert rates == pytest.approx([2.0, 2.0, 1.1, 0.2])


def test_the_price_of_a_nat_falls_by_the_same_factor_in_each_step_until_the_last_fifth():
    agent = make_agent(parsed("--n-envs 8 --device cpu --first-kl-coef 0.8 --kl-coef 0.2"))
    assert [agent.kl_coef(left) for left in (1.0, 0.6, 0.2, 0.0)] == pytest.approx([0.8, 0.4, 0.2, 0.2])
