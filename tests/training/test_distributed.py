"""Two processes with half of the rows each train as one process with all of them."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from agents.offline import OfflineAlgorithm
from tests.helpers.two_processes import AGENTS, ROWS, make_agent, one_step, reward_model_steps
from textgym.training import Episodes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, by agent: a list of both."""
    out = tmp_path_factory.mktemp("two")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--module"]
    done = subprocess.run(
        [*launcher, "tests.helpers.two_processes", str(out)], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    names = [*AGENTS, "reward model", "unseeded"]
    return {name: [torch.load(out / f"{name}-{i}.pt", weights_only=False) for i in (0, 1)] for name in names}


def same(a, b):
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Episodes))


@pytest.mark.parametrize("name", AGENTS)
def test_both_end_with_the_same_policy(two, name):
    first, second = two[name]
    assert first["parameters"].keys() == second["parameters"].keys()
    assert all(torch.equal(value, second["parameters"][key]) for key, value in first["parameters"].items())
    assert first["num_timesteps"] == second["num_timesteps"]
    assert first["logged"] == second["logged"]
    assert all(torch.equal(value, second["kept"][key]) for key, value in first["kept"].items())


@pytest.mark.parametrize("name", [name for name, (cls, _) in AGENTS.items() if not issubclass(cls, OfflineAlgorithm)])
def test_each_sampled_its_own_half(two, name):
    episodes, others = (found["episodes"] for found in two[name])
    assert same(episodes, others) and len(episodes) == 2 * ROWS
    assert not torch.equal(episodes.rows[:ROWS], episodes.rows[ROWS:])
    assert two[name][0]["num_timesteps"] == episodes.mask.sum()


@pytest.mark.parametrize("name", AGENTS)
def test_one_process_with_all_rows_ends_with_the_same_policy(two, name, monkeypatch):
    found = two[name][0]
    agent = make_agent(name, 2 * ROWS)
    before = {key: p.detach().clone() for key, p in agent.policy.named_parameters()}
    if "episodes" in found:
        monkeypatch.setattr(agent, "with_terms", lambda episodes: found["episodes"])
    if "partition" in found:
        agent.partition.load(found["partition"])
    alone = one_step(agent)
    for key, value in alone["parameters"].items():
        assert torch.allclose(value, found["parameters"][key], rtol=0, atol=1e-6), key
    assert any(not torch.equal(value, before[key]) for key, value in alone["parameters"].items())
    assert alone["logged"] == pytest.approx(found["logged"], rel=1e-4, abs=1e-6)


def test_a_reward_model_of_two_processes_is_that_of_one(two):
    (first, second), alone = two["reward model"], reward_model_steps()
    assert first["num_tokens"] == second["num_tokens"] == alone["num_tokens"]
    for key, value in alone["parameters"].items():
        assert torch.equal(first["parameters"][key], second["parameters"][key])
        assert torch.allclose(value, first["parameters"][key], rtol=0, atol=1e-6), key


def test_processes_that_drew_other_weights_train_those_of_the_first(two):
    first, second = two["unseeded"]
    assert {name.partition(".")[0] for name in first} == {"policy", "reference"}
    assert all(torch.equal(value, second[key]) for key, value in first.items())
