"""f-DPG as an algorithm: Z of each prompt, its proposals, its report and what it logs."""

import dataclasses
import itertools
import math

import gymnasium as gym
import pytest
import torch

from agents import REINFORCE, DistributionMatching
from tests.conftest import CHARACTERS, small_llama
from tests.helpers.agents import agent as small_agent
from tests.helpers.checkpoints import parameters
from tests.helpers.toy_matching import SHORT, Exact, conditional, has1, matching, perturb, rollout, run, some_a, toy
from textgym.exact import gradient
from textgym.matching import RLHF, Distributional

LETTERS = "abcd"
EOS = 4


def never_after_cad(prompts, completions):
    return [float(p != "cad" and "a" in c) for p, c in zip(prompts, completions, strict=True)]


def exact_z(prompt, model, satisfied):
    """The model's probability that a completion of a prompt is satisfied, by a loop over all completions."""
    context = [LETTERS.index(letter) for letter in prompt] or [EOS]

    def probability(tokens):
        logits = model(torch.tensor([context + tokens])).logits[0, len(context) - 1 : -1]
        return logits.double().softmax(-1)[range(len(tokens)), tokens].prod().item()

    ended = [[*tokens, EOS] for length in range(3) for tokens in itertools.product(range(4), repeat=length)]
    full = [list(tokens) for tokens in itertools.product(range(4), repeat=3)]
    texts = ["".join(LETTERS[i] for i in tokens if i != EOS) for tokens in ended + full]
    kept = satisfied(texts)
    return sum(probability(tokens) for tokens, keep in zip(ended + full, kept, strict=True) if keep)


# Z and the target


@torch.no_grad()
def test_every_prompt_has_its_own_z():
    agent = conditional(n=64, initial_episodes=4000)
    rollout(agent)
    exact = torch.tensor([exact_z(prompt, small_llama(), some_a) for prompt in CHARACTERS["prompts"]])
    assert exact.max() / exact.min() > 1.5
    errors = agent.partition.standard_errors  # relative
    assert errors.max() < 0.2
    assert ((agent.partition.log_z.exp() / exact - 1).abs() < 4 * errors).all()


@pytest.mark.parametrize(("n", "k", "wanted"), [(2, 2, 10), (8, 4, 10), (64, 4, 200)])
def test_all_prompts_get_the_same_number_of_samples(n, k, wanted):
    prompts = ["", "a", "b", "ab", "cad"]
    agent = conditional(n=n, k=k, env={**SHORT, "prompts": prompts}, baseline="none", initial_episodes=wanted)
    agent.start()
    assert agent.partition.counts.tolist() == [wanted // 5] * 5


def test_a_prompt_waits_until_its_z_is_known():
    agent = conditional(n=32, scorer=never_after_cad)
    episodes, sample = rollout(agent)
    assert torch.isneginf(agent.partition.log_z).tolist() == [False, False, False, True]
    waiting = sample.prompts == 3
    assert 0 < waiting.sum() < 32
    for baseline in ("none", "leave_one_out", "value"):
        agent.baseline = baseline
        trained = agent.with_advantages(episodes.replace(values=episodes.mask.float()), sample)
        assert not trained.advantages[waiting].any() and not trained.returns[waiting].any()
        assert trained.advantages[~waiting].any()
    run(agent, 2)
    assert agent._n_updates == 2 and torch.isneginf(agent.partition.log_z)[3]
    report = agent.report(32)
    assert all(math.isfinite(report[name].value) for name in ("kl_p_pi", "tv", "js", "log_z", "kl_to_reference"))


def test_no_step_is_taken_while_nothing_is_known():
    agent = conditional(n=32, scorer=never_after_cad, initial_episodes=1000)
    agent.start()
    agent.partition.log_sums[:] = -math.inf
    rollout(agent)
    agent.partition.log_sums[:] = -math.inf
    before = parameters(agent)
    agent.train()
    assert agent._n_updates == 0 and all(torch.equal(before[n], p) for n, p in parameters(agent).items())


def test_other_envs_than_vector_envs():
    env = gym.make("TextGenToy-v0", num_tokens=2, max_new_tokens=2, scorer=has1)
    agent = DistributionMatching(
        "TokenPolicy", env, target={"name": "pointwise"}, proposal="on_policy", baseline="none", initial_episodes=30
    )
    run(agent, 1)
    assert agent.partition.counts.tolist() == [31] and agent.features(agent.sample_episodes(1)).keys() == {
        "has1",
        "reward",
    }


def test_the_default_target_is_rlhf():
    agent = DistributionMatching("TokenPolicy", toy(4))
    assert agent.target.spec == {"name": "rlhf", "beta": 0.1, "feature": "reward"}


def test_one_target_serves_two_agents_and_each_fits_its_own_coefficients():
    wanted = Distributional({"reward": 1.0})
    fitted = []
    for weights in ({"1": 1.0}, {"1": 2.0}):
        scorer = {"name": "token_counts", "weights": weights}
        env = gym.make_vec("TextGenToy-v0", num_envs=64, autoreset_mode="Disabled", scorer=scorer)
        agent = matching(target=wanted, env=env, initial_episodes=512)
        agent.start()
        assert agent.target.fitted and agent.target.means == wanted.means
        fitted.append(agent.target.coefficients["reward"])
    assert abs(fitted[0] - fitted[1]) > 0.05 and not wanted.fitted


def test_another_target_starts_its_own_z():
    agent = matching(64, "dense", initial_episodes=512)
    run(agent, 1)
    agent.set_target({"name": "distributional", "means": {"has1": 0.5}})
    assert not agent.target.fitted and agent.partition.counts.tolist() == [0]
    agent.start()
    exact = Exact(agent)
    assert agent.target.fitted and agent.partition.counts.tolist() == [512]
    assert agent.partition.log_z.item() == pytest.approx(exact.log_z.item(), abs=0.3)
    run(agent, 1)
    for target, message in (({"name": "pointwise", "feature": "has9"}, "'has9'"), ({"name": "rlhf"}, "'beta'")):
        with pytest.raises(ValueError, match=message):
            agent.set_target(target)
    agent = matching(64, "rlhf", ("reverse_kl", None))
    with pytest.raises(ValueError, match="infinite where the target is 0"):
        agent.set_target({"name": "pointwise", "feature": "has1"})
    assert agent.target == RLHF(0.5)


# Proposals


def test_the_adaptive_proposal_keeps_the_policy_nearest_to_the_target():
    agent = matching(256, proposal="adaptive", learning_rate=0.05, initial_episodes=2048)
    for _ in range(6):
        table = agent.policy.model.table.detach().clone()
        proposal = agent._proposal.model.table.clone()
        run(agent, 1)
        better = agent.logger.all["target/kl_p_pi"][-1] < agent.logger.all["target/kl_p_q"][-1]
        assert torch.equal(agent._proposal.model.table, table if better else proposal)
    assert not torch.equal(agent._proposal.model.table, agent.reference.model.table)


def test_reverse_kl_to_rlhf_is_the_policy_gradient_with_a_kl_penalty():
    beta = 0.5
    agent = matching(64, {"name": "rlhf", "beta": beta}, ("reverse_kl", None), proposal="on_policy", cap=None)
    exact = perturb(agent)
    episodes, sample = rollout(agent)
    penalised = small_agent(REINFORCE, n=4, kl_coef=beta)
    theirs = penalised.with_advantages(episodes, penalised.rewards(episodes)).advantages
    torch.testing.assert_close(beta * agent.with_advantages(episodes, sample).advantages, theirs, atol=1e-5, rtol=0)

    logits = agent.policy.model.table.detach().double().requires_grad_()
    reference = agent.reference.model.table
    objective = exact.tree.expectation(logits, exact.features["reward"]) - beta * exact.tree.kl(logits, reference)
    ascent = torch.autograd.grad(objective, logits)[0]
    torch.testing.assert_close(
        ascent, -beta * gradient(exact.tree, agent.f_divergence, logits, exact.log_p), atol=1e-10, rtol=0
    )


# What is reported


@pytest.mark.parametrize("target", ["rlhf", "dense"])
def test_the_report_is_near_the_exact_numbers(target):
    agent = matching(4096, target, cap=0.6, initial_episodes=4096)
    perturb(agent)
    report, exact = agent.report(4096), Exact(agent)
    pi, log_t = exact.log_pi.exp(), exact.log_pi - exact.log_p
    rewards = torch.nn.functional.softplus(-log_t) - math.log(2)
    wanted = {
        "kl_p_pi": exact.distance("forward_kl"),
        "kl_pi_p": exact.distance("reverse_kl") if target == "rlhf" else math.inf,
        "tv": exact.distance(),
        "js": exact.distance("jensen_shannon") / 2,
        "mass_outside": pi[torch.isneginf(exact.log_p)].sum().item(),
        "kl_to_reference": exact.tree.kl(agent.policy.model.table.detach(), agent.reference.model.table).item(),
        "log_z": exact.log_z.item(),
        "length": (pi @ exact.tree.lengths.double()).item(),
        "entropy": (-(pi @ exact.log_pi) / (pi @ exact.tree.lengths.double())).item(),
        "cap_rate": pi[rewards.abs() > 0.6].sum().item(),
        **{name: (pi @ values).item() for name, values in exact.features.items()},
    }
    for name, value in wanted.items():
        estimate = report.pop(name)
        if name in ("log_z", "kl_pi_p", "mass_outside") and value in (exact.log_z.item(), math.inf, 0.0):
            assert estimate.value == pytest.approx(value, abs=1e-12)  # known or infinite, without any error
        else:
            assert 0 < estimate.standard_error < 0.1, name
            assert abs(estimate.value - value) < 5 * estimate.standard_error, name
    assert 0 < report["effective_sample_size"].value < 2 * 4096  # of the policy's and the reference's
    assert report["distinct_1"].value < report["distinct_2"].value < report["distinct_3"].value <= 1
    assert 0 < report["self_bleu"].value <= 1
    seen = report.pop("mass_seen")
    assert abs(seen.value - 1) < 5 * seen.standard_error < 0.5
    assert report.keys() == {"kl_p_q", "effective_sample_size", "distinct_1", "distinct_2", "distinct_3", "self_bleu"}


def test_a_report_before_training_shows_the_reference():
    report = matching(256, "dense", initial_episodes=1024).report(256)
    assert report["kl_to_reference"].value == pytest.approx(0, abs=1e-6)
    satisfied = report["has1"]  # p = a b / Z, so TV = 1 - Z and KL(p || a) = -log Z
    assert abs(report["tv"].value - (1 - math.exp(report["log_z"].value))) < 5 * satisfied.standard_error
    assert report["kl_p_pi"].value == pytest.approx(-report["log_z"].value, abs=1e-6)
    assert report["mass_outside"].value == pytest.approx(1 - satisfied.value, abs=1e-9)


def test_what_is_logged():
    agent = matching(64, "dense", baseline="value")
    run(agent, 2)
    logged = agent.logger.all
    scorer = {"token_counts", "has1", "has2", "has11", "reward", "length", "kl_to_reference"}
    estimates = {"kl_p_pi", "kl_p_q", "mass_outside", "tv", "js", "log_z"}
    names = {f"rollout/{name}" for name in scorer} | {f"target/{name}" for name in estimates}
    assert {*names, *(f"{name}_se" for name in names), "target/kl_pi_p", "target/effective_sample_size"} <= set(logged)
    assert {f"train/{n}" for n in ("cap_rate", "loss", "grad_norm", "value_loss", "log_prob_mismatch")} <= set(logged)
    assert max(logged["train/log_prob_mismatch"]) < 1e-5


@pytest.mark.parametrize("divergence", ["forward_kl", "chi2_forward", "squared_hellinger", "jensen_shannon"])
def test_texts_that_the_policy_has_lost_beyond_the_range_of_floats_weigh_what_they_should(divergence):
    agent = matching(64, "dense", (divergence, None), baseline="none")
    episodes, sample = rollout(agent)
    log_r = sample.log_p - agent.partition.log_z[0] - sample.log_q  # p / q; the target has zeros
    lost = dataclasses.replace(sample, log_pi=torch.full_like(sample.log_pi, -1000.0))
    advantages = agent.with_advantages(episodes, lost).advantages[:, 0].double()
    # (pi / q)(1/t - 1) -> p / q, (pi / q) / t^2 -> infinity, which the cap bounds; the rest vanishes with pi / q
    possible = torch.where(log_r > -math.inf, agent.cap, 0.0)
    expected = {"forward_kl": log_r.exp().clamp(max=10), "chi2_forward": possible}.get(divergence, 0 * possible)
    torch.testing.assert_close(advantages, expected.double(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("cap", [0.5, 2.0, None])
def test_capped_weights_are_counted(cap):
    agent = matching(512, divergence=("forward_kl", None), baseline="none", cap=cap)
    perturb(agent)
    episodes, sample = rollout(agent)
    log_p = sample.log_p - agent.partition.log_z[0]
    weighted = log_p.sub(sample.log_q).exp() - sample.log_pi.sub(sample.log_q).exp()  # (pi / q)(p / pi - 1)
    advantages = agent.with_advantages(episodes, sample).advantages[:, 0]
    torch.testing.assert_close(advantages, weighted.clamp(-(cap or 1e9), cap or 1e9).float(), atol=1e-5, rtol=1e-5)
    if cap is None:
        assert "train/cap_rate" not in agent.logger.all
    else:
        capped = (weighted.abs() > cap).double().mean().item()
        assert capped > 0 and agent.logger.all["train/cap_rate"][-1] == capped
