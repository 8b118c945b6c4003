"""f-DPG on the toy: agents whose every number is known, and the comparison of their gradients with the exact ones."""

import dataclasses

import gymnasium as gym
import torch

from agents import DistributionMatching
from tests.conftest import CHARACTERS
from tests.helpers.agents import Log
from tests.helpers.agents import agent as small_agent
from tests.helpers.checkpoints import updates
from textgym.exact import TokenTree, gradient
from textgym.matching import LogPartition, make_divergence, make_target
from textgym.scorers.composition import WeightedSum
from textgym.training.updates import accumulate_gradients

SHORT = {**CHARACTERS, "max_new_tokens": 3}
TARGETS = {
    "rlhf": {"name": "rlhf", "beta": 0.5},
    "dense": {"name": "pointwise", "feature": "has1"},
    "sparse": {"name": "pointwise", "feature": "has11"},
    "distributional": {"name": "distributional", "means": {"has1": 0.8, "has2": 0.3}},
}
NAMES = [
    ("forward_kl", None),
    ("reverse_kl", None),
    ("jensen_shannon", None),
    ("total_variation", None),
    ("chi2_forward", None),
    ("chi2_reverse", None),
    ("squared_hellinger", None),
    ("alpha", 0.3),
]
FINITE_ON_ZEROS = [d for d in NAMES if d[0] not in ("reverse_kl", "chi2_reverse")]


def has1(completion_ids):
    return [float(1 in ids) for ids in completion_ids]


def has2(completion_ids):
    return [float(2 in ids) for ids in completion_ids]


def has11(completion_ids):
    return [float(list(ids).count(1) >= 2) for ids in completion_ids]


def toy(n, k=3, length=3, features=(has1, has2, has11)):
    """The toy with its default reward, and with features to make targets of."""
    weights = {token: weight for token, weight in {"1": 1.0, "3": -0.5}.items() if int(token) < k}
    parts = [{"name": "token_counts", "weights": weights}, *features]
    task = {"num_tokens": k, "max_new_tokens": length, "scorer": WeightedSum(parts, [1] + [0] * len(features))}
    return gym.make_vec("TextGenToy-v0", num_envs=n, autoreset_mode="Disabled", **task)


def matching(n=64, target="rlhf", divergence=("jensen_shannon", None), env=None, **kwargs):
    """An agent on the toy, whose log keeps every value."""
    name, alpha = divergence
    kwargs = {"seed": 0, "device": "cpu", "target": TARGETS[target] if isinstance(target, str) else target, **kwargs}
    agent = DistributionMatching("TokenPolicy", env or toy(n), divergence=name, alpha=alpha, **kwargs)
    agent.set_logger(Log())
    return agent


def some_a(completions):
    return [float("a" in text) for text in completions]


def conditional(n=8, env=SHORT, scorer=some_a, k=4, **kwargs):
    """An agent on several prompts."""
    kwargs = {"target": {"name": "pointwise"}, "initial_episodes": 64, **kwargs}
    return small_agent(DistributionMatching, n=n, env=env, scorer=scorer, k=k, **kwargs)


def run(agent, n):
    """n updates."""
    agent.learn(10**9, callback=updates(n), reset_num_timesteps=False)


class Exact:
    """What an agent on the toy estimates. A distributional target is fitted to all outcomes, not to a sample."""

    def __init__(self, agent):
        self.agent, env = agent, agent.env.venv
        self.tree = TokenTree.of(env)
        self.features = self.tree.scores(env)
        self.log_a = self.tree.log_probs(agent.reference.model.table)
        unfitted = make_target({k: v for k, v in agent.target.spec.items() if k != "coefficients"})
        self.target = unfitted.fit(self.features, self.log_a)
        log_masses = self.log_a + self.target.log_weights(self.features)
        self.log_z = log_masses.logsumexp(0)
        self.log_p = log_masses - self.log_z

    @property
    def log_pi(self):
        """Log-probabilities of all outcomes under the policy as it is now, (X,)."""
        return self.tree.log_probs(self.agent.policy.model.table.detach())

    def distance(self, divergence="total_variation", alpha=None):
        """D_f(pi || p)."""
        return make_divergence(divergence, alpha).exact(self.log_pi, self.log_p).item()

    def gradient(self, divergence, alpha=None):
        """Of D_f(pi || p) with respect to the table of logits, (S, K + 1)."""
        table = self.agent.policy.model.table.detach()
        return gradient(self.tree, make_divergence(divergence, alpha), table, self.log_p)


class KnownPartition(LogPartition):
    """Z as it is given; samples change nothing."""

    def __init__(self, log_z):
        super().__init__(len(log_z))
        self.counts[:], self.log_sums[:] = 1, log_z

    def add(self, prompt_ids, log_ratios):
        """Nothing."""


def perturb(agent, scale=0.5):
    """Make the policy neither reference nor target, and give the agent the exact target and Z."""
    with torch.no_grad():
        table = agent.policy.model.table
        table.add_(scale * torch.randn(table.shape, generator=generator()))
        if agent.baseline == "value":
            agent.policy.token_model.value_net.weight.normal_(generator=generator())
    exact = Exact(agent)
    agent.target, agent.partition = exact.target, KnownPartition([exact.log_z.item()])
    return exact


def generator():
    return torch.Generator().manual_seed(1)


def rollout(agent):
    """A rollout of the agent: episodes, and what it knows of them."""
    callback = agent._setup_learn(1)[1]
    agent.collect_rollouts(agent.env, callback, agent.rollout_buffer, agent.n_steps)
    return agent.rollout_buffer.episodes, agent.sample


def stochastic_gradients(agent, episodes, sample, batches=200, group=None):
    """Gradients of the loss with respect to the table of logits on parts of a rollout, (batches, S, K + 1).

    With `group`, so many episodes in a row stand for one prompt of several equal ones.
    """
    table, gradients = agent.policy.model.table, []
    for index in torch.arange(len(episodes)).chunk(batches):
        part = select(sample, index)
        if group is not None:
            part = dataclasses.replace(part, prompts=torch.arange(len(index)) // group)
            agent.partition = KnownPartition([agent.partition.log_z[0].item()] * (len(index) // group))
        batch = agent.with_advantages(episodes.select(index), part)
        accumulate_gradients(agent.token_model, batch, agent.loss, normalization="sum")
        gradients.append(table.grad.double())
    return torch.stack(gradients)


def select(sample, index):
    values = {f.name: getattr(sample, f.name) for f in dataclasses.fields(sample)}
    features = {name: value[index] for name, value in values.pop("features").items()}
    return type(sample)(**{name: value[index] for name, value in values.items()}, features=features)


def assert_unbiased(gradients, exact):
    """The mean of stochastic gradients is within 5 standard errors of the exact one, each (..., S, K + 1).

    At contexts of depth <= 1, and along 20 fixed random projections: deep contexts are hardly ever visited.
    """
    projections = torch.randn(20, exact.numel(), generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def coordinates(table):
        return torch.cat([table[..., : exact.shape[1], :].flatten(-2), table.flatten(-2) @ projections.T], -1)

    values = coordinates(gradients)  # (batches, coordinates)
    errors = values.std(0) / len(values) ** 0.5
    deviations = ((values.mean(0) - coordinates(exact)) / errors).abs()
    assert deviations.max() <= 5, f"off by {deviations.max():.1f} standard errors"
