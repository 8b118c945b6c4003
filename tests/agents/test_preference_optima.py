"""What DPO, IPO, f-DPO, contrastive learning and SFT end at, and the gradients on the way, against enumeration."""

import math
from fractions import Fraction

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from agents import DPO, SFT, ContrastiveLM, OnlineDPO
from textgym.exact import TokenTree
from textgym.matching import make_divergence
from textgym.training.preference_losses import implicit_rewards, preference_loss

SLOPES = {
    "reverse_kl": lambda u: u.log(),
    "forward_kl": lambda u: 1 - 1 / u,
    "jensen_shannon": lambda u: (2 * u / (1 + u)).log(),
    "squared_hellinger": lambda u: 1 - u**-0.5,
    "chi2_forward": lambda u: 1 - u**-2,
    "alpha": lambda u: (u**-0.7 - 1) / -0.7,
}
"""f'(u), each 0 at 1, by hand; that of alpha = 0.3."""
INVERSES = {
    "reverse_kl": (math.inf, lambda v: v.exp()),
    "forward_kl": (1, lambda v: 1 / (1 - v)),
    "jensen_shannon": (math.log(2), lambda v: v.exp() / (2 - v.exp())),
    "squared_hellinger": (1, lambda v: (1 - v) ** -2),
    "chi2_forward": (1, lambda v: (1 - v) ** -0.5),
    "alpha": (1 / 0.7, lambda v: (1 - 0.7 * v) ** (-1 / 0.7)),
}
"""The supremum of f', and its inverse function."""
ALPHA = {"f_alpha_divergence_coef": 0.3}


class Toy:
    """Two tokens, two actions: six texts that are not empty, the empty one being practically impossible.

    A text's reward is log 2 if it has a token 1, else 0, so that Bradley-Terry's probabilities are 1/2 and 2/3, and six
    copies of every pair of texts have them exactly.
    """

    def __init__(self, n=8, k=4):
        logits = np.random.default_rng(0).normal(size=(3, 3))
        logits[0, -1] = -40.0
        task = {"num_tokens": 2, "max_new_tokens": 2, "reference_logits": logits}
        self.env = gym.make_vec("TextGenToy-v0", num_envs=n, num_generations=k, autoreset_mode="Disabled", **task)
        self.tree = TokenTree.of(self.env)
        self.log_a = self.tree.log_probs(logits)  # (7,)
        self.rewards = (self.tree.outcomes == 1).any(-1).double() * math.log(2)
        self.texts = [" ".join(str(t) for t in row.tolist() if t < 2) for row in self.tree.outcomes]
        self.full = [i for i, text in enumerate(self.texts) if text]

    def probability(self, i, j):
        """Bradley-Terry's probability that text i is preferred to text j."""
        first, second = (2 if "1" in self.texts[k] else 1 for k in (i, j))
        return Fraction(first, first + second)

    def row(self, i, j):
        """Text i is preferred to text j."""
        return {"prompt": "", "chosen": self.texts[i], "rejected": self.texts[j]}

    def pairs(self):
        """Rows whose relative frequencies are those of uniform pairs with Bradley-Terry's labels."""
        rows = []
        for i in self.full:
            for j in self.full:
                if i != j:
                    copies = 6 * self.probability(i, j)
                    assert copies.denominator == 1
                    rows += [self.row(i, j)] * int(copies)
        return rows

    def distance(self, agent, log_p):
        """The total variation between the agent's policy and a distribution over outcomes, (7,) log-probabilities."""
        log_pi = self.tree.log_probs(agent.policy.model.table.detach())
        return (log_pi.exp() - torch.as_tensor(log_p).exp()).abs().sum().item() / 2


def toy_agent(toy, cls, dataset=None, **kwargs):
    kwargs |= {} if dataset is None else {"dataset": dataset, "batch_size": 10**6}
    return cls("TokenPolicy", toy.env, seed=0, device="cpu", max_grad_norm=math.inf, **kwargs)


def trained(made, steps=80):
    """The agent, after so many steps on all data at a learning rate that falls to 0."""
    tokens = int(made.data.episodes(range(len(made.data)), "cpu").mask.sum())
    return made.learn(steps * tokens)


FALLING = {"learning_rate": lambda progress: 0.2 * progress}


def dpo(toy, **kwargs):
    return toy_agent(toy, DPO, toy.pairs(), **(FALLING | kwargs))


def optimum(toy, name, beta):
    """The policy with beta f'(pi / a) = r - lambda for all texts, lambda by bisection; (7,) log-probabilities."""
    largest, inverse = INVERSES[name]
    low, high = toy.rewards.max() - beta * min(largest, 100), toy.rewards.max() + 100 * beta
    for _ in range(200):  # the mass falls as lambda grows
        middle = (low + high) / 2
        if (toy.log_a.exp() * inverse((toy.rewards - middle) / beta)).sum() > 1:
            low = middle
        else:
            high = middle
    return toy.log_a + inverse((toy.rewards - high) / beta).log()


@pytest.mark.parametrize("name", SLOPES)
def test_the_optimum_under_bradley_terry_is_that_of_the_reward(name):
    toy, beta = Toy(), 0.4
    exact = optimum(toy, name, beta)
    slopes = beta * SLOPES[name]((exact - toy.log_a).exp())  # what was solved
    assert torch.allclose(slopes - slopes[0], toy.rewards - toy.rewards[0], atol=1e-6)
    if name == "reverse_kl":  # the textbook's: a exp(r / beta) / Z
        assert torch.allclose(exact, (toy.log_a + toy.rewards / beta).log_softmax(0), atol=1e-9)
    assert exact.exp().sum().item() == pytest.approx(1, abs=1e-6)
    made = trained(dpo(toy, beta=beta, f_divergence_type=name, **(ALPHA if name == "alpha" else {})))
    assert toy.distance(dpo(toy), exact) > 0.15  # at the start
    assert toy.distance(made, exact) <= 0.02
    others = [optimum(toy, other, beta) for other in SLOPES if other != name]
    assert toy.distance(made, exact) < min(toy.distance(made, other) for other in others) / 2


def ipo_log_ratios(toy, tau, eps=0.0):
    """g with the least mean of (g(w) - g(l) - 1 / (2 tau))^2 over the pairs: a linear least-squares problem."""
    design, wanted = [], []
    for i in toy.full:
        for j in toy.full:
            if i != j:
                share = float((1 - eps) * toy.probability(i, j) + eps * toy.probability(j, i))
                row = torch.zeros(len(toy.texts), dtype=torch.float64)
                row[i], row[j] = 1, -1
                design.append(row * share**0.5)
                wanted.append(share**0.5 / (2 * tau))
    wanted = torch.tensor(wanted, dtype=torch.float64)[:, None]
    return torch.linalg.lstsq(torch.stack(design), wanted, driver="gelsd").solution[:, 0]


@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_the_optimum_of_ipo_is_that_of_least_squares(eps):
    toy, beta = Toy(), 0.2
    exact = (toy.log_a + ipo_log_ratios(toy, beta, eps)).log_softmax(0)
    made = trained(dpo(toy, beta=beta, loss_type="ipo", label_smoothing=eps))
    assert toy.distance(dpo(toy), exact) > 0.1 and toy.distance(made, exact) <= 0.02
    assert toy.distance(made, optimum(toy, "reverse_kl", beta)) > 0.05


def test_label_smoothing_shrinks_the_margins_as_flipped_labels_do():
    """With Bradley-Terry's p it is least where the margin is the logit of (1 - eps) p + eps (1 - p)."""
    toy, beta, eps = Toy(), 0.4, 0.2
    better = (1 - eps) * 2 / 3 + eps / 3  # the probability of a label, of two texts with different rewards
    rewards = toy.rewards.sign() * math.log(better / (1 - better))
    made = trained(dpo(toy, beta=beta, label_smoothing=eps))
    assert toy.distance(made, (toy.log_a + rewards / beta).log_softmax(0)) <= 0.02
    assert toy.distance(made, optimum(toy, "reverse_kl", beta)) > 0.05


OPTIONS = [
    *({"f_divergence_type": name} | (ALPHA if name == "alpha" else {}) for name in SLOPES),
    {"label_smoothing": 0.2},
    {"loss_type": "ipo"},
    {"loss_type": "ipo", "label_smoothing": 0.3, "f_divergence_type": "jensen_shannon"},
]


def by_formula(log_ratios, beta, loss_type="sigmoid", label_smoothing=0.0, f_divergence_type="reverse_kl", **alpha):
    """The loss of pairs from log(pi / a) of their texts, (n, 2) -> (n,)."""
    slopes = SLOPES[f_divergence_type](log_ratios.exp())
    h = slopes[:, 0] - slopes[:, 1]
    if loss_type == "sigmoid":
        one, other = -logsigmoid(beta * h), -logsigmoid(-beta * h)
    else:
        one, other = (h - 1 / (2 * beta)) ** 2, (-h - 1 / (2 * beta)) ** 2
    return (1 - label_smoothing) * one + label_smoothing * other


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_gradient_is_that_of_the_enumerated_loss(options):
    """The sum over all pairs with their probabilities, differentiated in float64, away from the reference."""
    toy, beta = Toy(), 0.3
    made = dpo(toy, beta=beta, learning_rate=0.0, **options)
    table = made.policy.model.table
    with torch.no_grad():
        table.add_(0.5 * torch.randn(table.shape, generator=torch.Generator().manual_seed(1)))
    made.learn(1)
    exact = table.detach().double().requires_grad_()
    log_ratios = toy.tree.log_probs(exact) - toy.log_a
    pairs = [(i, j) for i in toy.full for j in toy.full if i != j]
    shares = torch.tensor([float(toy.probability(i, j)) for i, j in pairs], dtype=torch.float64)
    loss = (by_formula(log_ratios[torch.tensor(pairs)], beta, **options) * shares).sum() / shares.sum()
    (wanted,) = torch.autograd.grad(loss, exact)
    assert wanted.norm() > 1e-3
    torch.testing.assert_close(table.grad.double(), wanted, atol=2e-5 * float(wanted.norm()), rtol=1e-4)
    assert made.logger.name_to_value["train/loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_losses_by_hand():
    """log(pi / a) of 0.7 and -0.2: the reward margin is 0.1 * 0.9 = 0.09."""
    log_ratios = torch.tensor([0.7, -0.2], dtype=torch.float64)

    def value(loss_type="sigmoid", eps=0.0, divergence="reverse_kl"):
        rewards = implicit_rewards(log_ratios, make_divergence(divergence), 0.1)
        return preference_loss(rewards[:1] - rewards[1:], loss_type, 0.1, eps).item()

    assert value() == pytest.approx(0.649159, abs=1e-6)  # log(1 + e^-0.09)
    assert value(eps=0.1) == pytest.approx(0.658159, abs=1e-6)  # 0.9 * 0.649159 + 0.1 * 0.739159
    assert value("ipo") == pytest.approx(16.81, abs=1e-9)  # (0.9 - 5)^2
    # f' = 1 - 1/u: 0.1 * (e^0.2 - e^-0.7) = 0.0724817
    assert value(divergence="forward_kl") == pytest.approx(math.log1p(math.exp(-0.0724817)), abs=1e-6)
    # f' = log(2u / (1 + u)): 0.1 * (0.7 + 0.2 - log(1 + e^0.7) + log(1 + e^-0.2)) = 0.0394952
    assert value(divergence="jensen_shannon") == pytest.approx(math.log1p(math.exp(-0.0394952)), abs=1e-6)


def test_the_online_gradient_is_that_of_the_enumerated_pairs():
    """Pairs x, y ~ pi with r(x) > r(y), divided by their number; thirty rollouts within five standard errors."""
    toy = Toy(n=512, k=32)
    made = toy_agent(toy, OnlineDPO, beta=0.3, learning_rate=0.0)
    table = made.policy.model.table
    with torch.no_grad():
        table.add_(0.5 * torch.randn(table.shape, generator=torch.Generator().manual_seed(1)))
    returns = toy.tree.scores(toy.env)["reward"].double()
    exact = table.detach().double().requires_grad_()
    log_pi = toy.tree.log_probs(exact)
    drawn = (log_pi[:, None] + log_pi).exp().detach() * (returns[:, None] > returns)  # (X, X)
    rewards = 0.3 * (log_pi - toy.log_a)
    loss = (-logsigmoid(rewards[:, None] - rewards) * drawn).sum() / drawn.sum()
    (wanted,) = torch.autograd.grad(loss, exact)
    gradients = []
    for _ in range(30):
        made.learn(1, reset_num_timesteps=False)
        gradients.append(table.grad.double().clone())
    gradients = torch.stack(gradients)
    errors = gradients.std(0) / len(gradients) ** 0.5
    deviations = (gradients.mean(0) - wanted).abs() / errors
    deviations[0, -1] = 0  # the empty text, which is never sampled
    assert deviations.max() < 5 and wanted.norm() > 10 * errors.norm()


def test_sft_becomes_the_distribution_of_the_texts():
    toy = Toy()
    counts = dict(zip(toy.full, (5, 4, 3, 2, 1, 1), strict=True))
    rejected = toy.texts[toy.full[0]], toy.texts[toy.full[1]]
    rows = [
        {"chosen": toy.texts[i], "rejected": next(text for text in rejected if text != toy.texts[i])}
        for i, count in counts.items()
        for _ in range(count)
    ]
    made = trained(toy_agent(toy, SFT, rows, **FALLING))
    exact = torch.full((7,), -math.inf, dtype=torch.float64)
    for i, count in counts.items():
        exact[i] = math.log(count / 16)
    assert toy.distance(made, exact) <= 0.02
    lengths = toy.tree.lengths
    entropy = -sum(count * math.log(count / 16) for count in counts.values())
    assert made.logger.name_to_value["train/loss"] == pytest.approx(
        entropy / sum(count * lengths[i].item() for i, count in counts.items()), abs=0.01
    )  # nats per token


def test_the_contrastive_optimum_under_bradley_terry_is_a_softmax_of_the_reward():
    toy, beta = Toy(), 0.5
    exact = (torch.where(toy.log_a < -30, -math.inf, toy.rewards) / beta).log_softmax(0)
    several = [[toy.row(i, j) for j in toy.full if j != i] for i in toy.full]
    luce = [row for i, rows in enumerate(several) for _ in range(1 + ("1" in toy.texts[toy.full[i]])) for row in rows]
    for rows, groups in ((sorted(toy.pairs(), key=lambda row: row["rejected"]), 90), (luce, 10)):
        made = toy_agent(toy, ContrastiveLM, rows, beta=beta, **FALLING)
        assert len(made.data) == groups and toy.distance(made, exact) > 0.1
        assert toy.distance(trained(made), exact) <= 0.02


def luce(log_pi, beta, groups):
    """-log softmax of the first of each list of texts."""
    return torch.stack([-(beta * log_pi[group]).log_softmax(0)[0] for group in groups])


@pytest.mark.parametrize("average", [False, True])
def test_the_contrastive_gradient_is_that_of_the_enumerated_loss(average):
    toy, beta = Toy(), 0.7
    groups = [[1, 2, 3, 4], [5, 1], [6, 3, 2]]
    rows = [toy.row(first, other) for first, *rest in groups for other in rest]
    made = toy_agent(toy, ContrastiveLM, rows, beta=beta, average_log_prob=average, learning_rate=0.0)
    made.learn(1)
    table = made.policy.model.table
    exact = table.detach().double().requires_grad_()
    log_pi = toy.tree.log_probs(exact)
    loss = luce(log_pi / toy.tree.lengths if average else log_pi, beta, groups).mean()
    (wanted,) = torch.autograd.grad(loss, exact)
    torch.testing.assert_close(table.grad.double(), wanted, atol=1e-6, rtol=1e-4)
    log = made.logger.name_to_value
    assert log["train/loss"] == pytest.approx(loss.item(), abs=1e-6)
    scores = beta * (log_pi / toy.tree.lengths if average else log_pi).detach()
    margins = torch.stack([scores[first] - scores[other] for first, *rest in groups for other in rest])
    assert log["rewards/margins"] == pytest.approx(margins.mean().item(), abs=1e-6)
    assert log["rewards/accuracies"] == (margins > 0).double().mean().item()
