"""What the exact solutions are compared with: loops over itertools, and formulas written out."""

import math
from itertools import product

import torch

INF = math.inf
SIZES = [(1, 1), (1, 4), (2, 1), (2, 3), (3, 3), (4, 2)]
"""K and L."""

NAMES = [
    ("forward_kl", None),
    ("reverse_kl", None),
    ("jensen_shannon", None),
    ("total_variation", None),
    ("chi2_forward", None),
    ("chi2_reverse", None),
    ("squared_hellinger", None),
    ("alpha", 0.0),
    ("alpha", 0.3),
    ("alpha", 1.0),
]
"""Divergences, and alpha."""

FINITE_ON_ZEROS = [n for n in NAMES if n[0] not in ("reverse_kl", "chi2_reverse") and n != ("alpha", 1.0)]


def contexts_of(k, n):
    return [c for d in range(n) for c in product(range(k), repeat=d)]


def outcomes_of(k, n):
    return [(*c, k) for c in contexts_of(k, n)] + list(product(range(k), repeat=n))


def random_table(tree, seed):
    shape = (tree.num_contexts, tree.num_tokens + 1)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_outcomes(tree, seed):
    return torch.randn(tree.num_outcomes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def looped_log_probs(k, n, logits):
    """(X,) log pi(x) of all outcomes, a token at a time."""
    rows = dict(zip(contexts_of(k, n), logits.tolist(), strict=True))

    def log_prob(x):
        steps = ((rows[x[:i]], action) for i, action in enumerate(x))
        return sum(row[action] - math.log(sum(map(math.exp, row))) for row, action in steps)

    return torch.tensor([log_prob(x) for x in outcomes_of(k, n)], dtype=torch.float64)


def below(k, n):
    """(S, X) True where an outcome begins with a context."""
    return torch.tensor([[x[: len(c)] == c for x in outcomes_of(k, n)] for c in contexts_of(k, n)])


def direct(name, alpha, pi, p):
    """D(pi || p) by its own formula, from two lists of probabilities."""
    pairs = list(zip(pi, p, strict=True))

    def kl(pairs):
        return sum(a * math.log(a / b) for a, b in pairs if a > 0)

    if name == "forward_kl" or alpha == 0:
        return kl([(b, a) for a, b in pairs])
    if name == "reverse_kl" or alpha == 1:
        return kl(pairs)
    return {
        "jensen_shannon": lambda: kl([(a, (a + b) / 2) for a, b in pairs]) + kl([(b, (a + b) / 2) for a, b in pairs]),
        "total_variation": lambda: sum(abs(a - b) for a, b in pairs) / 2,
        "chi2_forward": lambda: sum((a - b) ** 2 / a for a, b in pairs),
        "chi2_reverse": lambda: sum((a - b) ** 2 / b for a, b in pairs),
        "squared_hellinger": lambda: sum((a**0.5 - b**0.5) ** 2 for a, b in pairs),
        "alpha": lambda: (sum(a**alpha * b ** (1 - alpha) for a, b in pairs) - 1) / (alpha * (alpha - 1)),
    }[name]()
