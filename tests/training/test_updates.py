"""A gradient step: weights of tokens by hand, nothing from padding, and the same gradient however the batch is cut."""

import pytest
import torch

from agents import PPO
from tests.helpers.agents import agent, assert_same, gradients, randomize_values, stale_episodes
from textgym.training.updates import accumulate_gradients, token_weights


def test_token_weights_by_hand():
    mask = torch.tensor([[True, True, True, True], [True, False, False, False]])
    torch.testing.assert_close(token_weights(mask, "token"), torch.tensor([[0.2] * 4, [0.2, 0, 0, 0]]))
    assert token_weights(mask, "sequence").tolist() == [[0.125] * 4, [0.5, 0, 0, 0]]
    assert token_weights(mask, "sum").tolist() == [[0.5] * 4, [0.5, 0, 0, 0]]
    assert token_weights(mask, "constant").tolist() == [[0.125] * 4, [0.125, 0, 0, 0]]


def make(**kwargs):
    """A PPO agent and a rollout with advantages, whose old log-probabilities and values are not the policy's."""
    made = agent(PPO, 16, ent_coef=0.1, clip_range_vf=0.2, n_epochs=1, batch_size=None, kl_penalty="k2", **kwargs)
    randomize_values(made)
    made.max_grad_norm, made.policy.optimizer.step = 1e9, lambda: None
    made.rollout_buffer.episodes = episodes = stale_episodes(made, 16)
    made.train()  # sets what a loss reads
    made.logger.all.clear()
    return made, made.with_advantages(episodes, made.rewards(episodes))


def step(made, episodes, normalization="token"):
    """Gradient, log and log-probabilities of a PPO step on a batch."""
    batch = made.minibatch(episodes, torch.arange(len(episodes)))
    log_probs = made.gradient_step(batch, made.loss, normalization)
    log = {name: values[-1] for name, values in made.logger.all.items()}
    return gradients(made), log, log_probs


@pytest.mark.parametrize("normalization", ["token", "sequence"])
def test_micro_batches_do_not_change_a_ppo_step(normalization):
    made, episodes = make()
    whole, log, log_probs = step(made, episodes, normalization)
    assert max(g.abs().max() for g in whole.values()) > 0.1
    for size in (1, 7, 16):
        made.micro_batch_size = size
        pieces, pieces_log, pieces_log_probs = step(made, episodes, normalization)
        assert_same(whole, pieces, atol=1e-5)
        assert {n: v for n, v in pieces_log.items() if n != "train/n_updates"} == pytest.approx(
            {n: v for n, v in log.items() if n != "train/n_updates"}, rel=1e-4
        )
        torch.testing.assert_close(log_probs, pieces_log_probs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalization", ["token", "sequence"])
def test_the_order_of_the_episodes_does_not_matter(normalization):
    made, episodes = make()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    one, _, log_probs = step(made, episodes, normalization)
    other, _, permuted = step(made, episodes.select(order), normalization)
    assert_same(one, other, atol=1e-5)
    torch.testing.assert_close(log_probs[order], permuted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("on_policy", [False, True])
def test_nothing_that_stands_at_padding_matters(on_policy):
    made, episodes = make()
    names = "sampled_log_probs", "log_probs", "values", "reference_log_probs", "advantages", "returns"
    garbage = {n: getattr(episodes, n).where(episodes.mask, torch.tensor(1e4)) for n in names}
    results = []
    for batch in (episodes, episodes.replace(**garbage)):
        made._on_policy = on_policy
        made.logger.all.clear()
        results.append(step(made, batch))
    (clean, log, _), (dirty, dirty_log, _) = results
    assert (~episodes.mask).any()
    assert_same(clean, dirty, atol=0)
    log.pop("train/n_updates"), dirty_log.pop("train/n_updates")
    assert log == dirty_log and "train/entropy" in log and ("train/log_prob_mismatch" in log) == on_policy


def test_what_a_loss_says_at_padding_is_ignored():
    made, episodes = make()

    def run(at_padding):
        def loss(batch, terms):
            losses = (terms.log_probs * batch.advantages).where(batch.mask, torch.tensor(at_padding))
            return losses, {"statistic": losses}

        logged, _ = accumulate_gradients(made.token_model, episodes, loss)
        return logged, {n: p.grad.clone() for n, p in made.policy.named_parameters() if p.grad is not None}

    (logged, clean), (dirty_logged, dirty) = run(0.0), run(float("nan"))
    assert logged == dirty_logged
    assert_same(clean, dirty, atol=0)
    tokens = (made.policy.evaluate_actions(episodes.rows, episodes.actions)[1] * episodes.advantages)[episodes.mask]
    assert logged["loss"] == pytest.approx(logged["statistic"]) == pytest.approx(tokens.mean().item(), rel=1e-5)
