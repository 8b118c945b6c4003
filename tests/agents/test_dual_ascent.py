"""Dual ascent against exact numbers on the toy: its coefficients, and the means where p is out of reach."""

import pytest
import torch

from agents import DistributionMatching, DualAscent
from tests.helpers.toy_matching import TARGETS, Exact, matching, run, toy
from textgym.matching import Distributional
from textgym.sb3.callbacks import Decay

MEANS = TARGETS["distributional"]["means"]
WRONG = {**TARGETS["distributional"], "coefficients": {"has1": 0.0, "has2": 0.0}}
UPDATES = 150


def trained(target, ascent=True, frozen=False):
    agent = matching(256, target, ("reverse_kl", None), proposal="on_policy")
    if frozen:  # the first token alone is learned, so no policy is p
        agent.policy.model.table.register_hook(lambda g: torch.cat([g[:1], torch.zeros_like(g[1:])]))
    callbacks = [DualAscent(agent.reference_episodes(), step=0.3)] if ascent else []
    agent.learn(10**9, callback=[Decay(UPDATES, 0.3), *callbacks])
    return agent, Exact(agent)


def means(exact):
    return {name: (exact.log_pi.exp() * exact.features[name]).sum().item() for name in MEANS}


def test_it_finds_the_exact_coefficients_and_the_policy_the_exact_target():
    agent, exact = trained(WRONG)
    found = agent.target.coefficients
    assert found == pytest.approx(exact.target.coefficients, abs=0.1)
    assert exact.distance() <= 0.02
    assert means(exact) == pytest.approx(MEANS, abs=0.02)
    z = (exact.log_a + agent.target.log_weights(exact.features)).logsumexp(0).exp().item()
    assert agent.partition.log_z.exp().item() == pytest.approx(z, rel=0.05)
    logged = {name: agent.logger.all[f"target/lambda_{name}"][-1] for name in MEANS}
    assert logged == pytest.approx(found, abs=0.03)  # one step before


@pytest.mark.slow
def test_a_policy_that_cannot_be_p_gets_the_means_all_the_same():
    _, without = trained(TARGETS["distributional"], ascent=False, frozen=True)
    assert abs(means(without)["has1"] - MEANS["has1"]) > 0.05
    agent, exact = trained(TARGETS["distributional"], frozen=True)
    assert exact.distance() > 0.05
    assert means(exact) == pytest.approx(MEANS, abs=0.02)
    # stationary in what can be learned: the gradient of the Lagrangian KL(pi || a) - <lambda, E_pi phi - mu>
    table, reference = agent.policy.model.table.detach().double().requires_grad_(), agent.reference.model.table
    lagrangian = exact.tree.kl(table, reference) - sum(
        value * exact.tree.expectation(table, exact.features[name]) for name, value in agent.target.coefficients.items()
    )
    assert torch.autograd.grad(lagrangian, table)[0][0].abs().max() < 0.02


def test_the_distributional_part_of_a_product_is_moved():
    balance = {"name": "distributional", "means": {"has2": 0.3}}
    agent = matching(
        32, {"name": "product", "targets": [{"name": "pointwise", "floor": 0.1, "feature": "has1"}, balance]}
    )
    callback = DualAscent(agent.reference_episodes())
    run(agent, 1)
    fitted = dict(agent.target.targets[1].coefficients)
    agent.learn(96, callback=callback, reset_num_timesteps=False)
    moved = agent.target.targets[1].coefficients["has2"] - fitted["has2"]
    assert 0 < abs(moved) < 1


def test_the_target_that_the_agent_was_given_stays_as_it_was(tmp_path):
    given = Distributional(MEANS, {"has1": 0.5, "has2": -0.5})
    agents = [matching(32, given, proposal="on_policy") for _ in range(2)]
    agents[0].learn(96, callback=DualAscent(agents[0].reference_episodes()), reset_num_timesteps=False)
    assert given == Distributional(MEANS, {"has1": 0.5, "has2": -0.5}) and agents[1].target is given
    assert agents[0].target.means == given.means and agents[0].target != given
    agents[0].save(tmp_path / "moved")  # with the target of now
    assert DistributionMatching.load(tmp_path / "moved", toy(32), device="cpu").target == agents[0].target


def test_one_callback_serves_two_agents():
    agents = [matching(32, "distributional") for _ in range(2)]
    callback = DualAscent(agents[0].reference_episodes())
    agents[0].learn(96, callback=callback)
    first = agents[0].target
    agents[1].start(callback.episodes)
    fitted = agents[1].target
    agents[1].learn(96, callback=callback)
    assert fitted != agents[1].target != first and agents[0].target is first


def test_errors():
    agent = matching(8, initial_episodes=8)
    episodes = agent.reference_episodes()
    with pytest.raises(ValueError, match="step is 0; it must be positive"):
        DualAscent(episodes, step=0)
    with pytest.raises(ValueError, match="the agent has none"):
        agent.learn(8, callback=DualAscent(episodes))
