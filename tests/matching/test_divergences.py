"""Divergences against their formulas in decimals of many digits; D_f by summation against direct formulas."""

import math
from decimal import Decimal, localcontext
from typing import get_args

import pytest
import torch

from tests.helpers.brute_force import FINITE_ON_ZEROS, INF, NAMES, direct
from textgym.matching import DivergenceName, make_divergence
from textgym.matching.divergences import DIVERGENCES as rows

HALF = Decimal("0.5")
DIVERGENCES = [*NAMES, ("alpha", 0.5)]
LOG_T = [-700.0, -350.5, -40.0, -3.0, -1.0, -0.1, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 0.1, 1.0, 3.0, 40.0, 350.5, 700.0]
SLOPE_AT_ONE = {"forward_kl": -1.0, "reverse_kl": 1.0}
"""f'(1), 0 for the others."""


def test_every_name_has_a_row_and_a_formula():
    assert set(get_args(DivergenceName)) == {*rows, "alpha"} == {name for name, _ in NAMES}


def amari(a):
    if a == 0:
        return lambda t: t - 1 - t.ln()
    if a == 1:
        return lambda t: t * t.ln() - t + 1
    return lambda t: (t**a - a * t - 1 + a) / (a * (a - 1))


def formula(name, alpha):
    """f(t), of decimals."""
    return {
        "forward_kl": lambda t: -t.ln(),
        "reverse_kl": lambda t: t * t.ln(),
        "jensen_shannon": lambda t: t * t.ln() - (1 + t) * ((1 + t) / 2).ln(),
        "total_variation": lambda t: HALF * abs(t - 1),
        "chi2_forward": lambda t: (1 - t) ** 2 / t,
        "chi2_reverse": lambda t: (t - 1) ** 2,
        "squared_hellinger": lambda t: (1 - t.sqrt()) ** 2,
        "alpha": None if alpha is None else amari(Decimal(repr(alpha))),
    }[name]


def as_float(exact):
    return math.copysign(INF, exact) if abs(exact) > Decimal("1.79e308") else float(exact)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def distribution(seed, zeros=(), size=12):
    """Log-probabilities (X,), with none at some outcomes."""
    logits = 2 * torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits[list(zeros)] = -INF
    return logits.log_softmax(0)


@pytest.mark.parametrize(("name", "alpha"), DIVERGENCES)
def test_f_is_its_formula(name, alpha):
    with localcontext(prec=60):
        expected = [as_float(formula(name, alpha)(Decimal(s).exp())) for s in LOG_T]
    values = make_divergence(name, alpha).terms(tensor(LOG_T), tensor([0.0] * len(LOG_T))).tolist()  # at p = 1
    assert values == pytest.approx(expected, rel=1e-11, abs=1e-15)
    assert values[LOG_T.index(0)] == 0


@pytest.mark.parametrize(("name", "alpha"), DIVERGENCES)
def test_pseudo_rewards_are_finite_differences(name, alpha):
    f, expected = formula(name, alpha), []
    with localcontext(prec=400):  # the smallest t is 1e-304, and its step 1e-30 of it

        def slope(t):
            step = t * Decimal("1e-30")
            return (f(t + step) - f(t - step)) / (2 * step)

        for s in LOG_T:
            expected.append(as_float(slope(Decimal(1)) - slope(Decimal(s).exp())))
    values = make_divergence(name, alpha).pseudo_reward(tensor(LOG_T)).tolist()
    assert values == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("name", "alpha"), DIVERGENCES)
def test_pseudo_rewards_where_the_target_has_no_mass(name, alpha):
    divergence = make_divergence(name, alpha)
    with localcontext(prec=60):
        t = Decimal(10) ** 30
        slope = float(formula(name, alpha)(t) / t)  # f(t) / t -> f'(inf)
    assert divergence.finite_on_zeros == ((name, alpha) in [*FINITE_ON_ZEROS, ("alpha", 0.5)]) == (slope < 5)
    if divergence.finite_on_zeros:
        assert divergence.slope_at_infinity == pytest.approx(slope, abs=1e-13)
    else:
        assert divergence.slope_at_infinity == INF
    limit = SLOPE_AT_ONE.get(name, 0.0) - divergence.slope_at_infinity
    assert divergence.pseudo_reward(tensor(INF)).item() == limit


@pytest.mark.parametrize(("name", "alpha"), [*DIVERGENCES, ("alpha", 0.99)])
def test_weighted_pseudo_rewards_also_where_one_factor_leaves_the_range_of_floats(name, alpha):
    # at order 1 in the middle: the forward KL's, the chi-square's, the squared Hellinger distance's, alpha = 0.3's
    log_weights = [0.5, -0.5, -700.0, -800.0, -800.0, -800.0, -700.0, -1600.0, -800.0]
    log_t = [-0.3, 2.0, -700.0, -799.0, -401.0, -1602.0, -1001.0, -1605.0, -100.0]
    with localcontext(prec=60):
        exact = {
            "forward_kl": lambda t: 1 / t - 1,
            "reverse_kl": lambda t: -t.ln(),
            "jensen_shannon": lambda t: ((1 + 1 / t) / 2).ln(),
            "total_variation": lambda t: HALF.copy_sign(1 - t),
            "chi2_forward": lambda t: 1 / t**2 - 1,
            "chi2_reverse": lambda t: 2 * (1 - t),
            "squared_hellinger": lambda t: 1 / t.sqrt() - 1,
            "alpha": lambda t: (
                {0: 1 / t - 1, 1: -t.ln()}.get(alpha) or (t ** Decimal(repr(alpha - 1)) - 1) / Decimal(repr(1 - alpha))
            ),
        }[name]
        expected = [
            as_float(Decimal(w).exp() * exact(Decimal(s).exp())) for w, s in zip(log_weights, log_t, strict=True)
        ]
    values = make_divergence(name, alpha).weighted_pseudo_reward(tensor(log_weights), tensor(log_t)).tolist()
    assert values == pytest.approx(expected, rel=1e-10, abs=1e-100)


@pytest.mark.parametrize(("name", "alpha"), DIVERGENCES)
def test_exact_values(name, alpha):
    divergence = make_divergence(name, alpha)
    cases = {"none": ((), ()), "p": ((), (0, 5)), "pi": ((3, 5), ()), "both": ((3, 5), (0, 5))}
    for seed, (where, (of_pi, of_p)) in enumerate(cases.items()):
        log_pi, log_p = distribution(2 * seed, of_pi), distribution(2 * seed + 1, of_p)
        value = divergence.exact(log_pi, log_p).item()
        infinite = where in ("p", "both") and not divergence.finite_on_zeros
        infinite |= where in ("pi", "both") and (name in ("forward_kl", "chi2_forward") or alpha == 0)
        if infinite:
            assert value == INF
        else:
            pairs = [(a, b) for a, b in zip(log_pi.exp().tolist(), log_p.exp().tolist(), strict=True) if a + b]
            assert value == pytest.approx(direct(name, alpha, *zip(*pairs, strict=True)), rel=1e-12)
            assert value > 0.01


@pytest.mark.parametrize(("name", "alpha"), DIVERGENCES)
def test_exact_values_beyond_the_range_of_floats(name, alpha):
    masses = [(0.75, -1.0), (-300.0, -200.0), (0.2, -800.0), (-800.0, 0.1), (-2000.0, -1500.0)]  # below 0: logs
    a, b = (tensor([math.log(m) if m > 0 else m for m in column]) for column in zip(*masses, strict=True))
    with localcontext(prec=60):
        f = formula(name, alpha)
        pairs = [(Decimal(x).exp(), Decimal(y).exp()) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        expected = as_float(sum(p * f(pi / p) for pi, p in pairs))
    a.requires_grad_()
    value = make_divergence(name, alpha).exact(a, b)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.grad(value, a)[0].isfinite().all() or expected == INF


@pytest.mark.parametrize(("name", "alpha"), DIVERGENCES)
def test_exact_is_zero_only_where_the_two_are_equal(name, alpha):
    divergence = make_divergence(name, alpha)
    for seed in range(50):
        log_p = distribution(seed, zeros=(1,) if seed % 2 else ())
        assert divergence.exact(log_p, log_p).item() == 0
        near = (log_p + 1e-3 * distribution(seed + 1000)).log_softmax(0)
        assert 0 < divergence.exact(near, log_p).item() < 1e-2
        assert divergence.exact(distribution(seed + 2000), log_p).item() > 1e-2


def test_alpha_runs_from_one_kl_to_the_other_by_way_of_hellinger():
    log_pi, log_p = distribution(1), distribution(2)
    for alpha, name, factor in ((0, "forward_kl", 1), (0.5, "squared_hellinger", 2), (1, "reverse_kl", 1)):
        expected = factor * make_divergence(name).exact(log_pi, log_p).item()
        assert make_divergence("alpha", alpha).exact(log_pi, log_p).item() == pytest.approx(expected, rel=1e-12)
    for near, end in ((1e-7, 0), (1 - 1e-7, 1)):
        expected = make_divergence("alpha", end).exact(log_pi, log_p).item()
        assert make_divergence("alpha", near).exact(log_pi, log_p).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("kl",), "divergence is 'kl'; accepted are .*'forward_kl'.*'squared_hellinger', 'alpha'"),
        ((None,), "divergence is None; accepted are"),
        (("alpha",), r"needs alpha in \[0, 1\], not None"),
        (("alpha", 1.5), r"needs alpha in \[0, 1\], not 1.5"),
        (("alpha", -0.1), r"needs alpha in \[0, 1\], not -0.1"),
        (("alpha", math.nan), r"needs alpha in \[0, 1\], not nan"),
        (("forward_kl", 0.5), "alpha=0.5 belongs to the divergence 'alpha', not to 'forward_kl'"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_divergence(*arguments)
