"""Estimates against exact values on enumerated distributions: values, standard errors, and what intervals cover."""

import math

import numpy as np
import pytest
import torch

import textgym  # noqa: F401 (registers the toy)
from textgym.matching import (
    LogPartition,
    WeightedSample,
    effective_sample_size,
    estimate,
)
from textgym.matching.estimates import functionals

INF = math.inf


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


class World:
    """Prompts with 30 outcomes each, a policy, a reference, a proposal and a target, all enumerated: (C, 30) each."""

    def __init__(self, prompts=1, zeros=True, seed=0):
        normal = torch.randn(5, prompts, 30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.log_pi, self.log_a, self.log_q = (0.7 * normal[:3]).log_softmax(-1)
        self.log_weights, self.x = 0.7 * normal[3] + torch.arange(prompts)[:, None], normal[4]
        if zeros:
            self.log_weights[:, ::4] = -INF
        self.log_z = (self.log_a + self.log_weights).logsumexp(-1)  # (C,)

    def exact(self):
        """Each number by its definition, the mean over prompts."""
        numbers = []
        for c in range(len(self.log_z)):
            pi, a, q, log_w, x = (
                t[c].numpy() for t in (self.log_pi.exp(), self.log_a.exp(), self.log_q.exp(), self.log_weights, self.x)
            )
            masses = a * np.exp(log_w)
            p = masses / masses.sum()
            numbers.append(
                {
                    "kl_p_pi": kl(p, pi),
                    "kl_pi_p": kl(pi, p),
                    "mass_outside": pi[p == 0].sum(),
                    "mass_seen": 1.0,
                    "tv": np.abs(pi - p).sum() / 2,
                    "js": (kl(p, (p + pi) / 2) + kl(pi, (p + pi) / 2)) / 2,
                    "kl_p_q": kl(p, q),
                    "kl_to_reference": kl(pi, a),
                    "log_z": np.log(masses.sum()),
                    "x": pi @ x,
                }
            )
        return {name: np.mean([n[name] for n in numbers]) for name in numbers[0]}

    def draw(self, n, generator, log_q=None):
        """n samples of the proposal, of prompts at random."""
        c = torch.randint(len(self.log_z), (n,), generator=generator)
        log_q = self.log_q if log_q is None else log_q
        i = torch.multinomial(log_q[c].exp(), 1, generator=generator)[:, 0]
        parts = (t[c, i] for t in (self.log_pi, self.log_a, log_q, self.log_weights))
        return WeightedSample(*parts, {"x": self.x[c, i]}, c)


def kl(a, b):
    if (b[a > 0] == 0).any():
        return INF
    return (a[a > 0] * np.log(a[a > 0] / b[a > 0])).sum()


def ratios(sample):
    return sample.log_p - sample.log_q


def partition_of(number, *samples):
    partition = LogPartition(number)
    for sample in samples:
        partition.add(sample.prompts, ratios(sample))
    return partition


SETTINGS = [(1, True, False), (1, False, False), (1, False, True), (3, True, False), (3, True, True)]


@pytest.mark.parametrize(("prompts", "zeros", "known"), SETTINGS)
def test_large_samples_come_near_the_exact_values(prompts, zeros, known):
    world, generator = World(prompts, zeros), torch.Generator().manual_seed(0)
    arguments = [world.log_z] if known else []
    got, expected = estimate(world.draw(200_000, generator), *arguments), world.exact()
    assert got.keys() == expected.keys() | {"effective_sample_size"}
    for name, value in expected.items():
        if math.isinf(value):
            assert got[name].value == INF and math.isnan(got[name].standard_error)
        else:
            assert got[name].standard_error < 0.02
            assert abs(got[name].value - value) <= 5 * got[name].standard_error + 1e-10, name


@pytest.mark.parametrize(("prompts", "zeros", "known"), SETTINGS)
def test_standard_errors_are_the_spread_over_repetitions(prompts, zeros, known):
    world, generator = World(prompts, zeros), torch.Generator().manual_seed(1)
    repetitions = []
    for _ in range(300):
        arguments = ()
        if known:  # as uncertain as what it is used with
            partition = partition_of(prompts, world.draw(600, generator, world.log_a))
            arguments = partition.log_z, partition.standard_errors
        repetitions.append(estimate(world.draw(600, generator), *arguments))
    for name, exact in world.exact().items():
        if math.isinf(exact):
            continue
        values, errors, *_ = np.array([repetition[name] for repetition in repetitions]).T
        # the standard deviation of 300 values is known to 1 / sqrt(600) = 4%
        assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.2), name
        assert abs(values.mean() - exact) <= 0.5 * errors.mean() + 1e-12  # 5 / sqrt(300) = 0.29, and what bias is left


def test_a_known_z_has_no_error_unless_it_is_given():
    world, generator = World(zeros=False), torch.Generator().manual_seed(2)
    sample = world.draw(500, generator)
    exactly = estimate(sample, world.log_z)
    roughly = estimate(sample, world.log_z, tensor([0.1]))
    assert exactly["log_z"][:2] == pytest.approx((world.log_z.item(), 0.0), abs=1e-15)
    assert roughly["log_z"].standard_error == pytest.approx(0.1)
    # KL(p || pi) = E_p log(P / pi) - log Z, so that an error of log Z goes straight into it
    variance = roughly["kl_p_pi"].standard_error ** 2 - exactly["kl_p_pi"].standard_error ** 2
    assert variance == pytest.approx(0.1**2, rel=1e-6)
    assert all(roughly[name].value == exactly[name].value for name in exactly)


def test_at_the_target_everything_is_zero_without_noise():
    world = World(zeros=False)
    world.log_pi = (world.log_a + world.log_weights).log_softmax(-1)
    sample = world.draw(100, torch.Generator().manual_seed(0))
    got = estimate(sample, world.log_z)
    for name in ("kl_p_pi", "kl_pi_p", "tv", "js", "mass_outside"):
        assert got[name][:2] == pytest.approx((0, 0), abs=1e-12)


@pytest.mark.parametrize("zeros", [False, True])
def test_weights_of_all_outcomes_give_the_exact_values(zeros):
    world = World(prompts=3, zeros=zeros)
    world.log_pi[:, 1], world.log_a[:, 2] = -300.0, -60.0  # what the policy has lost, and what the reference hardly has
    world.log_pi, world.log_a = world.log_pi.log_softmax(-1), world.log_a.log_softmax(-1)
    world.log_z = (world.log_a + world.log_weights).logsumexp(-1)
    prompts = torch.arange(3).repeat_interleave(30)
    flat = (t.flatten() for t in (world.log_pi, world.log_a, world.log_q, world.log_weights))
    sample = WeightedSample(*flat, {"x": world.x.flatten()}, prompts)
    got = functionals(sample, world.log_q.exp().flatten() / 3, world.log_z)
    for name, value in world.exact().items():
        assert got[name].item() == pytest.approx(value, rel=1e-9), name


def test_prompts_whose_z_is_zero_are_left_out():
    world, generator = World(prompts=3), torch.Generator().manual_seed(3)
    world.log_weights[1] = -INF
    sample = world.draw(900, generator)
    kept = sample.prompts != 1
    names = "log_pi", "log_a", "log_q", "log_weights", "prompts"
    without = WeightedSample(**{n: getattr(sample, n)[kept] for n in names}, features={"x": sample.features["x"][kept]})
    partition = partition_of(3, sample)
    for arguments in ((), (partition.log_z, partition.standard_errors)):
        got, expected = estimate(sample, *arguments), estimate(without, *arguments)
        for name in ("kl_p_pi", "mass_outside", "tv", "js", "kl_p_q", "log_z"):
            assert math.isfinite(got[name].value)
            assert got[name].value == pytest.approx(expected[name].value, rel=1e-12)
            # the same sum of squares over n (n - 1) of the kept samples, where the share of the kept ones is 1
            assert got[name].standard_error == pytest.approx(expected[name].standard_error, rel=2e-3)
        for name in ("x", "kl_to_reference"):
            assert got[name].value != pytest.approx(expected[name].value, rel=1e-3)
    elsewhere = estimate(without, tensor([partition.log_z[0].item(), math.nan, partition.log_z[2].item()]))
    assert elsewhere["tv"].value == pytest.approx(expected["tv"].value)


def test_no_sample_with_a_positive_p():
    world = World()
    world.log_weights[:] = -INF
    sample = world.draw(50, torch.Generator().manual_seed(4))
    for arguments in ((), (tensor([-INF]), tensor([math.nan])), (tensor([math.nan]),)):
        got = estimate(sample, *arguments)
        for name in ("kl_p_pi", "kl_pi_p", "mass_outside", "tv", "js", "kl_p_q", "log_z"):
            assert math.isnan(got[name].value) and math.isnan(got[name].standard_error)
        w = (sample.log_pi - sample.log_q).exp().numpy()
        assert got["x"].value == pytest.approx(w @ sample.features["x"].numpy() / w.sum())
        assert math.isfinite(got["x"].standard_error) and math.isfinite(got["kl_to_reference"].standard_error)
        assert got["effective_sample_size"].value == 0


def test_samples_that_neither_the_policy_nor_the_target_can_draw():
    world = World()
    sample = world.draw(200, torch.Generator().manual_seed(5))
    impossible, nearly = sample.log_pi.clone(), sample.log_pi.clone()
    outside = torch.isneginf(sample.log_weights)
    impossible[outside], nearly[outside] = -INF, -80.0
    got, expected = (estimate(WeightedSample(t, *parts(sample))) for t in (impossible, nearly))
    for name in ("kl_p_pi", "tv", "js", "mass_outside", "kl_to_reference", "x"):
        assert got[name] == pytest.approx(expected[name], abs=1e-12, nan_ok=True)
    assert got["mass_outside"].value == 0 and math.isfinite(got["kl_pi_p"].value)


def parts(sample):
    return sample.log_a, sample.log_q, sample.log_weights, sample.features, sample.prompts


def test_one_sample_has_no_standard_error():
    got = estimate(World(zeros=False).draw(1, torch.Generator().manual_seed(0)))
    assert math.isfinite(got["kl_p_pi"].value) and all(math.isnan(e.standard_error) for e in got.values())


def test_effective_sample_size_by_hand():
    assert effective_sample_size(tensor([-3.0, -3.0, -3.0])) == pytest.approx(3)
    assert effective_sample_size(tensor([1.0, 2.0, 3.0]).log() + 1000) == pytest.approx(36 / 14)
    assert effective_sample_size(tensor([5.0, -INF, -INF])) == pytest.approx(1)
    assert effective_sample_size(tensor([-INF, -INF])) == 0
    world = World()
    sample = world.draw(100, torch.Generator().manual_seed(0))
    w = ratios(sample).exp()
    assert estimate(sample)["effective_sample_size"].value == pytest.approx((w.sum() ** 2 / (w**2).sum()).item())


def test_the_running_mean_is_the_mean_of_everything():
    rng, partition, seen = np.random.default_rng(0), LogPartition(3), [[], [], []]
    for size in (1, 7, 30):
        prompts, values = rng.integers(0, 2, size), rng.normal(0, 3, size)
        values[rng.random(size) < 0.3] = -INF
        partition.add(torch.from_numpy(prompts), torch.from_numpy(values))
        for prompt, value in zip(prompts, values, strict=True):
            seen[prompt].append(math.exp(value))
    for prompt in (0, 1):
        r = np.array(seen[prompt])
        assert 0 < (r == 0).sum() < len(r) == partition.counts[prompt]
        assert partition.log_z[prompt].item() == pytest.approx(np.log(r.mean()), rel=1e-12)
        error = r.std(ddof=1) / math.sqrt(len(r)) / r.mean()
        assert partition.standard_errors[prompt].item() == pytest.approx(error, rel=1e-9)
    assert partition.log_z[2].isnan() and partition.standard_errors[2].isnan()


def test_ratios_beyond_the_range_of_floats():
    partition = LogPartition(2)
    partition.add(torch.tensor([0, 0, 1, 1]), tensor([-5000.0, -5000.0 + math.log(3), 5000.0, -INF]))
    assert partition.log_z.tolist() == pytest.approx([-5000 + math.log(2), 5000 - math.log(2)])
    assert partition.standard_errors.tolist() == pytest.approx([0.5, 1.0])  # of 1, 3 and of 1, 0: s / sqrt(2) / mean


def test_before_any_positive_ratio():
    partition = LogPartition(2)
    partition.add(torch.tensor([0, 0]), tensor([-INF, -INF]))
    assert partition.log_z[0] == -INF and partition.standard_errors[0].isnan()
    partition.add(torch.tensor([1]), tensor([0.5]))
    assert partition.log_z[1] == 0.5 and partition.standard_errors[1].isnan()  # one sample says nothing of its spread


def test_z_is_unbiased_while_the_proposal_changes():
    world, generator, estimated = World(), torch.Generator().manual_seed(6), []
    for _ in range(400):
        partition = LogPartition(1)
        for log_q, n in ((world.log_a, 5), (world.log_q, 20), (world.log_pi, 10)):
            sample = world.draw(n, generator, log_q)
            partition.add(sample.prompts, ratios(sample))
        estimated.append(math.exp(partition.log_z.item()))
    exact = math.exp(world.log_z.item())
    error = np.std(estimated, ddof=1) / math.sqrt(len(estimated))
    assert abs(np.mean(estimated) - exact) < 5 * error and error < 0.02 * exact


def test_a_partition_goes_on_from_its_tensors():
    world, generator = World(prompts=3), torch.Generator().manual_seed(7)
    first, second = (world.draw(50, generator) for _ in range(2))
    whole, resumed = partition_of(3, first, second), LogPartition(3)
    tensors = partition_of(3, first).tensors()
    resumed.load({name: t.clone() for name, t in tensors.items()})
    resumed.add(second.prompts, ratios(second))
    for name, t in whole.tensors().items():
        assert torch.equal(resumed.tensors()[name], t) and not torch.equal(tensors[name], t)
    with pytest.raises(ValueError, match="Z was estimated for 3 prompts, the env has 4"):
        LogPartition(4).load(tensors)
