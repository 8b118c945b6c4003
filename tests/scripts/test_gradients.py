"""scripts/gradients.py: the losses are those that agents train on, and the page's tables are what is measured."""

import importlib.util
import json

import gymnasium as gym
import pytest
import torch
import tyro

from agents import GRPO, PPO, REINFORCE, RLOO
from scripts.experiments import loss_cases
from scripts.experiments.gradients import Judge, toy_objective
from scripts.experiments.loss_tables import cell, tables
from scripts.experiments.losses import agent_loss, top_p
from scripts.experiments.torchrl_losses import torchrl_critic_loss, torchrl_group_loss
from scripts.experiments.trl_losses import trl_loss
from scripts.gradients import Args, main
from tests.helpers.docs import page
from textgym.exact import Batch, expected_gradient

needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed")

needs_torchrl = pytest.mark.skipif(importlib.util.find_spec("torchrl") is None, reason="TorchRL is not installed")


@pytest.fixture(scope="module")
def objective():
    return toy_objective(2, 3, 0.5)


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (RLOO, {"reward_to_go": True, "loss_normalization": "sum"}),
        (GRPO, {"kl_penalty": "k3", "loss_normalization": "sequence", "clip_range_high": 0.28}),
        (PPO, {"gae_lambda": 0.9, "batch_size": None, "n_epochs": 1}),
        (REINFORCE, {"keep_best": 1}),
    ],
    ids=["RLOO", "GRPO", "PPO", "RAFT"],
)
def test_the_loss_of_an_agent_is_what_it_trains_on(objective, cls, kwargs):
    """One update of a real agent on a rollout of its own, and the loss of the same episodes by the same table."""
    env = gym.make_vec(
        "TextGenToy-v0", num_envs=8, num_generations=4, autoreset_mode="Disabled", num_tokens=2, max_new_tokens=3
    )
    agent = cls("TokenPolicy", env, kl_coef=0.5, max_grad_norm=1e9, seed=0, device="cpu", **kwargs)
    with torch.no_grad():
        agent.policy.model.table.add_(0.5 * torch.randn(7, 3, generator=torch.Generator().manual_seed(0)))
    episodes = agent.sample_episodes(8)
    # all prompts of the toy are the same, so an id per group stands for two prompts
    episodes = episodes.replace(prompt_ids=torch.arange(8) // 4)
    agent.rollout_buffer.episodes, agent.policy.optimizer.step = episodes, lambda: None
    agent._on_policy = False
    agent._logger = _Nothing()
    agent.train()
    trained = agent.policy.model.table.grad

    tree, parameters = objective.tree, agent.policy.model.table.detach().double().requires_grad_()
    batch = Batch(
        actions=episodes.actions,
        mask=episodes.mask,
        log_probs=tree.along(tree.log_policy(parameters), episodes.actions),
        old_log_probs=episodes.log_probs.double(),
        reference_log_probs=episodes.reference_log_probs.double(),
        rewards=episodes.rewards.double(),
        values=episodes.values.double(),
        groups=episodes.prompt_ids,
    )
    loss = agent_loss(cls, objective, 4, perfect_critic=True, **kwargs)(batch)
    torch.testing.assert_close(torch.autograd.grad(loss, parameters)[0].float(), trained, atol=1e-5, rtol=1e-4)
    assert trained.abs().max() > 1e-2


class _Nothing:
    def record(self, *args, **kwargs):
        pass

    record_mean = record


@pytest.mark.parametrize(("baseline", "length"), [("leave_one_out", 1.0), ("mean", 2 / 3), ("none", 1.0)])
def test_reward_to_go_has_the_exact_gradient(objective, baseline, length):
    """Of all groups of three texts of one to three tokens; the mean, which contains the episode, shrinks it."""
    loss = agent_loss(REINFORCE, objective, 3, loss_normalization="sum", reward_to_go=True, baseline=baseline)
    policy = Judge(objective).policy
    found = expected_gradient(objective, loss, policy, 3).mean
    torch.testing.assert_close(found, -length * objective.gradient(policy), atol=1e-7, rtol=1e-5)


def test_nucleus_by_hand():
    log_pi = torch.tensor([[0.54, 0.36, 0.1], [0.05, 0.85, 0.1]]).log()
    torch.testing.assert_close(top_p(log_pi).exp(), torch.tensor([[0.6, 0.4, 0.0], [0.0, 1.0, 0.0]]))


def test_faults_are_found():
    """What is right has the objective's gradient and comes to rest at its optimum; each fault misses one of the two."""
    objective = toy_objective(2, 2, 0.5)
    found = {case.name: Judge(objective).measure(case) for case in loss_cases.faults(objective, 2)}
    for name, measured in found.items():
        unbiased = measured.cosine > 1 - 1e-6 and abs(measured.ratio - 1) < 1e-6
        arrives = measured.distance is not None and measured.distance < 1e-3
        assert unbiased == name.startswith("right"), name
        assert arrives or not unbiased or "gamma" in name, name
        assert arrives == (measured.below is not None and measured.regret < 1e-3), name


def test_on_a_transformer_a_penalty_in_the_reward_leads_to_the_optimum_and_one_in_the_loss_does_not():
    found = {case.name: Judge(of).measure(case) for of, case in loss_cases.transformer(2) if "RLOO" in case.name}
    assert len(found) == 3
    for name, measured in found.items():
        assert (measured.distance < 1e-3) == name.endswith("| reward"), name


@needs_trl
def test_the_rloo_of_trl_is_ours(objective):
    losses = agent_loss(RLOO, objective, 3, loss_normalization="sum"), trl_loss("RLOO", objective, 3)
    found = (expected_gradient(objective, loss, Judge(objective).policy, 3).mean for loss in losses)
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-4)


@needs_torchrl
@pytest.mark.parametrize("perfect", [True, False])
def test_the_clipped_loss_of_torchrl_is_ours(objective, perfect):
    kwargs = {"gae_lambda": 0.9, "normalize_advantage": False}
    losses = (
        agent_loss(PPO, objective, 1, perfect, **kwargs),
        torchrl_critic_loss("ClipPPOLoss", objective, perfect, 0.9),
    )
    found = (expected_gradient(objective, loss, Judge(objective).policy).mean for loss in losses)
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-4)


@needs_torchrl
def test_a_token_of_torchrl_is_charged_for_its_own_kl_alone(objective):
    """By hand: with `KLComputation` a token is paid r - beta (log pi - log a), the KL that of itself."""
    old, reference = torch.tensor([[-0.2, 0, 0], [-1.0, -0.5, -0.1]]).double(), torch.full((2, 3), -0.7).double()
    mask = torch.tensor([[True, False, False], [True, True, True]])
    rewards = torch.tensor([[0.0, 0, 0], [0, 1, 0]]).double()
    log_probs = (old * mask).requires_grad_()
    groups, actions = torch.zeros(2, dtype=torch.int64), torch.tensor([[2, 0, 0], [0, 1, 2]])
    batch = Batch(actions, mask, log_probs, old * mask, reference * mask, rewards, 0 * rewards, groups)
    loss = torchrl_group_loss(objective, 2, kl="reward")(batch)
    (found,) = torch.autograd.grad(loss, log_probs)
    paid = (rewards.sum(-1, keepdim=True) - 0.5 * (old - reference))[mask]  # (4,)
    torch.testing.assert_close(found[mask], -(paid - paid.mean()) / paid.std() / 4, atol=1e-6, rtol=1e-5)


def test_a_small_number_keeps_its_sign():
    assert cell({"cosine": -0.0004, "cosine_error": 0.001}, "cosine") == "-0.0004 ± 0.0010"
    assert (cell({"noise": -0.0004}, "noise"), cell({"rests": False}, "distance"), cell({}, "kl")) == (
        "0.000",
        "none",
        "",
    )


def test_the_page_has_what_is_measured(tmp_path, capsys):
    """A table that takes a second, number by number."""
    copy, numbers = tmp_path / "losses.md", tmp_path / "new" / "losses.json"
    copy.write_text(page("losses"), encoding="utf-8")
    line = f"--tables alone --json {numbers} --page {copy} --plot {tmp_path / 'plots' / 'losses.png'}"
    main(tyro.cli(Args, args=line.split()))
    assert copy.read_text(encoding="utf-8") == page("losses")
    rows = json.loads(numbers.read_text(encoding="utf-8"))["rows"]
    assert tables(rows)["alone"] in page("losses")
    assert (tmp_path / "plots" / "losses.png").stat().st_size > 10_000
    assert "alone: plain k3: cosine 0.991" in capsys.readouterr().out
