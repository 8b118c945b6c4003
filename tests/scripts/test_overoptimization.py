"""`scripts/overoptimization.py`: fits and stops by hand, exact paths against the frontier, the script."""

import math

import numpy as np
import pytest
import torch

from scripts.experiments.overoptimization import Fit, Path, Problem, judged
from scripts.overoptimization import Args, main
from textgym.exact import expectation, kl, optimum_within


@pytest.fixture(scope="module")
def problem():
    return Problem.make(prompts=3, length=2)


@pytest.mark.parametrize(
    ("method", "peak"), [("RL", math.exp(2 * (0.8 / 0.5 - 1))), ("best-of-n", (0.8 / 0.5 / 2) ** 2)]
)
def test_the_forms_are_recovered(method, peak):
    """The forms are highest where log d = alpha / beta - 1, and where d = alpha / (2 beta)."""
    d = np.linspace(0.1, 3, 20)
    gain = d * (0.8 - 0.5 * (np.log(d) if method == "RL" else d))
    fit = Fit.of(d**2, gain, method)
    assert fit == pytest.approx((0.8, 0.5, 1.0)) and fit.peak(method) == pytest.approx(peak)
    assert Fit(0.8, -0.1, 1.0).peak(method) == math.inf
    other = "RL" if method == "best-of-n" else "best-of-n"
    assert Fit.of(d**2, gain, other).r2 < 0.999


def test_stops_by_hand():
    d = np.array([0.5, 0.8, 1.0, 1.4, 2.0, 2.6])
    gain = d * (0.8 - 0.3 * d)  # highest at d = 4/3
    path = Path(d**2, d, 0.1 + gain, np.array([0.0, 1.0, 3.0, 2.0, 1.0, 0.0]))
    found = judged(path, 0.1, "best-of-n")
    assert found["peak"] == pytest.approx(gain[3]) and found["peak_kl"] == pytest.approx(1.4**2)
    assert found["r2"] == pytest.approx(1) and found["end"] == pytest.approx(gain[5])
    assert found["second_proxy"] == pytest.approx(gain[2])
    assert found["extrapolated"] == pytest.approx(gain[3])  # of (4/3)^2 the nearest KL is 1.4^2


def test_a_path_without_a_fault_is_the_frontier(problem):
    path = problem.path("RL", problem.gold, -problem.gold)
    for at in (5, 30, 50):
        best = optimum_within(path.kl[at], problem.log_a, problem.gold)
        assert path.gold[at] == pytest.approx(best.reward, abs=1e-6)
    assert path.proxy.tolist() == path.gold.tolist() and path.other.tolist() == (-path.gold).tolist()
    of_n = problem.path("best-of-n", problem.gold, problem.gold)
    bound = [math.log(2**i) - 1 + 2.0**-i for i in range(1, 13)]
    assert (of_n.kl <= np.array(bound) + 1e-9).all() and (np.diff(of_n.gold) >= -1e-9).all()


def test_proxies(problem):
    words = problem.features[:, 1:7].sum(-1)
    assert words.max() == 2 and problem.features[words == 2][:, 7:].sum(-1).eq(1).all()  # one pair in two words
    gaussian = problem.proxy("gaussian", 0, 10, 0.3) - problem.gold
    assert gaussian.std().item() == pytest.approx(0.3, rel=0.2)
    heavy = problem.proxy("heavy-tailed", 0, 10, 0.3) - problem.gold
    assert heavy.abs().max() > 2 * gaussian.abs().max()
    # of very many labels the regression is that on all texts, weighed by the reference
    learned = problem.proxy("learned", 0, 100_000, 0.3)
    mass = problem.log_a.exp() / 3
    weighed = mass.sum(0)[:, None] * problem.features
    right = torch.linalg.lstsq(
        problem.features.T @ weighed + 1e-5 * torch.eye(43),
        (problem.features.T @ (mass * problem.gold).sum(0))[:, None],
    ).solution
    difference = (problem.features @ right)[:, 0] - learned[0]
    assert (mass.sum(0) * difference.square()).sum().sqrt() < 0.02


def test_the_script(tmp_path, capsys):
    table = main(Args(prompts=2, length=2, proxies=2, labels=20, out=tmp_path))
    assert table.row_count == 6 and (tmp_path / "overoptimization.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("learned", "heavy-tailed", "best-of-n", "second proxy"))


def test_the_start_is_the_reference(problem):
    assert problem.start == pytest.approx(expectation(problem.log_a, problem.gold).mean().item())
    assert kl(problem.log_a, problem.log_a).abs().max() == 0
