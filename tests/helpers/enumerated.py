"""Stochastic gradients of an agent's loss beside the expected one, on a toy of fifteen texts."""

from functools import cached_property

import gymnasium as gym
import torch

from textgym.exact import TokenTree
from textgym.language_models.log_probs import TokenTerms
from textgym.training import Episodes
from textgym.training.updates import token_weights

TOY = {"num_tokens": 2, "max_new_tokens": 3}


class Enumerated:
    """All texts of the toy (X = 15, T = 3), a policy pi, the reference a, and what the episodes are drawn from, q.

    Args:
        cls: the agent.
        on_policy: whether q is pi.
        **kwargs: the agent's.
    """

    def __init__(self, cls, on_policy=True, **kwargs):
        env = gym.make_vec("TextGenToy-v0", num_envs=8, num_generations=8, autoreset_mode="Disabled", **TOY)
        self.agent = cls("TokenPolicy", env, **{"loss_normalization": "sum", "seed": 0, "device": "cpu", **kwargs})
        self.tree, generator = TokenTree.of(env), torch.Generator().manual_seed(5)
        reference = torch.tensor(env.unwrapped.reference_logits)
        noise = torch.randn(2, *reference.shape, dtype=torch.float64, generator=generator)
        self.logits = (reference + noise[0]).requires_grad_()
        self.q_logits = self.logits.detach() + (0 if on_policy else 0.7) * noise[1]
        self.reference_logits = reference
        self.pi, self.q, self.a = (self.along(x) for x in (self.logits, self.q_logits, reference))  # log, (X, T)
        self.mask = self.tree.outcomes != self.tree.pad_id
        self.probs = self.q.sum(-1).exp()  # (X,)
        rewards = self.along(torch.randn(reference.shape, dtype=torch.float64, generator=generator), normalize=False)
        prompt = torch.from_numpy(env.unwrapped.task.prompts.observations([0])[:, :1]).long()
        self.episodes = Episodes.sampled(
            self.tree.pad_id,
            rows=torch.cat([prompt.expand(len(rewards), 1), self.tree.outcomes], 1),
            prompt_ids=torch.zeros(len(rewards), dtype=torch.int64),
            components=torch.zeros(len(rewards), 1),
            rewards=rewards,
            sampled_log_probs=self.q,
            values=torch.zeros_like(rewards),
        ).replace(reference_log_probs=self.a)

    def along(self, logits, normalize=True):
        """Log-probabilities of the texts' tokens, (X, T); or what any table of states and tokens says of them."""
        return self.tree.along(self.tree.log_policy(logits) if normalize else logits, self.tree.outcomes)

    @property
    def rewards(self):
        """What each text is paid, (X,)."""
        return self.episodes.rewards.sum(-1)

    def text_log_probs(self):
        """log pi(x) with gradient, (X,)."""
        return self.tree.log_probs(self.logits)

    def gradient(self, value):
        return torch.autograd.grad(value, self.logits, retain_graph=True)[0].flatten()

    def expected(self, weights):
        """sum over x of q(x) sum_t weights_t(x) grad log pi(x_t | s_t); weights are (X, T) or (X,)."""
        weights = weights if weights.ndim == 2 else weights[:, None]
        return self.gradient((self.probs[:, None] * weights.detach() * self.pi).sum())

    def ascent(self, episodes, repeats=1):
        """What the agent's steps ascend, (repeats, logits): minus the gradients of its losses.

        Args:
            episodes: of one rollout; or of several, one behind the other, each a prompt of its own.
            repeats: how many.
        """
        made = self.agent
        rewards = made.rewards(episodes)
        batch = made.with_advantages(episodes, rewards)
        batch = batch.select(made.trained_on(batch, rewards))
        texts, rollout = self.tree.index(batch.actions), batch.prompt_ids if repeats > 1 else batch.prompt_ids * 0
        log_probs = self.pi.detach()[texts].requires_grad_()
        losses, _ = made.loss(batch, TokenTerms(log_probs, *[torch.zeros_like(log_probs)] * 3))
        loss = (losses * token_weights(batch.mask, made.loss_normalization))[batch.mask].sum() * repeats
        (gradient,) = torch.autograd.grad(loss, log_probs)  # (B, T)
        by_text = gradient.new_zeros(repeats, *self.q.shape).index_put((rollout, texts), gradient, accumulate=True)
        return -by_text.flatten(1) @ self.jacobian

    @cached_property
    def jacobian(self):
        """The derivatives of all log pi(x_t | s_t) by the logits, (X T, logits)."""
        return torch.stack([self.gradient(value) for value in self.pi.flatten()])

    def samples(self, repeats=200, n=64):
        """Stochastic gradients of `n` episodes each, (repeats, logits); for losses that compare within prompts only."""
        index = torch.multinomial(self.probs, repeats * n, replacement=True, generator=torch.Generator().manual_seed(7))
        rollouts = self.episodes.select(index).replace(prompt_ids=torch.arange(repeats).repeat_interleave(n))
        return self.ascent(rollouts, repeats)


def check_mean(samples, expected):
    """The mean of the samples is the expected one within 5 standard errors, which are small enough to see it.

    Along 20 fixed random directions: what belongs to rare texts alone is hardly ever sampled.
    """
    directions = torch.randn(len(expected), 20, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    samples, expected = samples.double() @ directions, expected @ directions
    errors = samples.std(0) / len(samples) ** 0.5
    assert (expected.abs() > 20 * errors).any()
    assert ((samples.mean(0) - expected).abs() <= 5 * errors).all()


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a, b, dim=0).item()
