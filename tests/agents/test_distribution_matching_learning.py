"""f-DPG reaches its targets: exact distances of the trained policy on the toy."""

import pytest

from tests.helpers.toy_matching import FINITE_ON_ZEROS, NAMES, TARGETS, Exact, matching, toy
from textgym.sb3.callbacks import Decay


def assert_learns(target, divergence, updates, rate, env, **kwargs):
    agent = matching(target=target, divergence=divergence, env=env, **kwargs)
    agent.learn(10**9, callback=Decay(updates, rate))
    exact = Exact(agent)
    assert agent._n_updates == updates
    assert exact.distance() <= (0.03 if divergence[0].startswith("chi2") else 0.02)
    fitted = (exact.log_a + agent.target.log_weights(exact.features)).logsumexp(0)
    assert agent.partition.log_z.exp().item() == pytest.approx(fitted.exp().item(), rel=0.02)
    return agent, exact


@pytest.mark.parametrize(
    ("divergence", "target"),
    [
        (("forward_kl", None), "sparse"),
        (("reverse_kl", None), "rlhf"),
        (("jensen_shannon", None), "dense"),
        (("total_variation", None), "distributional"),
        (("chi2_forward", None), "rlhf"),
        (("chi2_reverse", None), "distributional"),
        (("squared_hellinger", None), "sparse"),
        (("alpha", 0.3), "distributional"),
    ],
)
def test_a_hundred_updates_reach_the_target(divergence, target):
    agent, exact = assert_learns(target, divergence, 100, 0.3, toy(256), initial_episodes=8192)
    for name, mean in getattr(agent.target, "means", {}).items():
        reached = (exact.log_pi.exp() * exact.features[name]).sum().item()
        assert reached == pytest.approx(mean, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("target", "divergence"),
    [(t, d) for t in TARGETS for d in (FINITE_ON_ZEROS if t in ("dense", "sparse") else NAMES)],
)
def test_every_divergence_reaches_every_target(target, divergence, seed):
    assert_learns(target, divergence, 600, 0.1, toy(256, k=4, length=4), seed=seed, initial_episodes=16384)
