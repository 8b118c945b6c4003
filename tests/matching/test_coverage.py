"""What 95% intervals of estimates hold: of enumerated policies half way to a target, and as training leaves them."""

import math

import gymnasium as gym
import pytest
import torch

import textgym  # noqa: F401 (registers the toy)
from textgym.exact import TokenTree
from textgym.matching import (
    RLHF,
    Distributional,
    LogPartition,
    Pointwise,
    WeightedSample,
    estimate,
    make_divergence,
)

DIVERGENCES = {"kl_p_pi": "forward_kl", "kl_pi_p": "reverse_kl", "tv": "total_variation", "js": "jensen_shannon"}
TARGETS = ["rlhf", "pointwise", "distributional"]
POLICIES = ["half way", "trained"]


class Toy:
    """TextGenToy-v0's reference, a target, and a policy: half way between the two, or as training leaves it.

    The logits of the trained policy are those of the target, but for noise; and it has all but lost one first token.
    """

    def __init__(self, target, policy="half way"):
        env = gym.make("TextGenToy-v0")
        tree, reference = TokenTree.of(env), env.unwrapped.reference_logits
        one, length = (tree.outcomes == 1).any(-1).double(), tree.lengths.double()
        features = {"reward": tree.scores(env)["reward"], "one": one, "length": length}
        made = {
            "rlhf": RLHF(0.5),
            "pointwise": Pointwise("one"),
            "distributional": Distributional({"one": 0.5, "length": 2.5}),
        }[target]
        self.log_a = tree.log_probs(reference)
        self.log_weights = made.fit(features, self.log_a).log_weights(features)
        best, log_z = tree.policy_of(self.log_a + self.log_weights)
        self.log_p, logits = tree.log_probs(best), best.clamp(min=-20)
        if policy == "half way":
            logits = (tree.log_policy(reference) + logits) / 2
        else:
            logits = logits + 0.1 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).double()
            logits[0, 2] -= 4.0
        self.log_pi, self.features = tree.log_probs(logits), features
        self.exact = {n: make_divergence(d).exact(self.log_pi, self.log_p).item() for n, d in DIVERGENCES.items()}
        self.exact |= {"js": self.exact["js"] / 2, "log_z": log_z.item()}
        self.exact["kl_to_reference"] = make_divergence("reverse_kl").exact(self.log_pi, self.log_a).item()
        self.exact |= {name: (self.log_pi.exp() @ values).item() for name, values in features.items()}
        if target == "pointwise" and policy == "half way":
            self.exact["mass_outside"] = self.log_pi.exp()[self.log_p == -math.inf].sum().item()

    def log_q(self, proposal):
        mixture = torch.logaddexp(self.log_pi, self.log_a) - math.log(2)
        return {"mixture": mixture, "policy": self.log_pi, "reference": self.log_a}[proposal]

    def draw(self, n, proposal, generator):
        log_q = self.log_q(proposal)
        x = torch.multinomial(log_q.exp(), n, replacement=True, generator=generator)
        parts = (t[x] for t in (self.log_pi, self.log_a, log_q, self.log_weights))
        features = {name: values[x] for name, values in self.features.items()}
        return WeightedSample(*parts, features, torch.zeros(n, dtype=torch.int64))

    def partition(self, sizes, generator):
        partition = LogPartition(1)
        for proposal, n in sizes.items():
            sample = self.draw(n, proposal, generator)
            partition.add(sample.prompts, sample.log_p - sample.log_q)
        return partition.log_z, partition.standard_errors

    def covered(self, proposal, earlier, repetitions, n=2000, seed=0):
        """The share of intervals that hold the exact value, of those that are there.

        Args:
            proposal: what samples come from.
            earlier: samples that estimate Z, by what they come from; none where the sample itself does.
            repetitions: of everything.
            n: samples of a rollout.
            seed: of the sampling.
        """
        generator, held = torch.Generator().manual_seed(seed), {name: [] for name in self.exact}
        for _ in range(repetitions):
            got = estimate(self.draw(n, proposal, generator), *(self.partition(earlier, generator) if earlier else ()))
            for name, value in self.exact.items():
                low, high = got[name].interval()
                if not math.isnan(low):
                    held[name].append(low <= value <= high)
        finite = (
            name for name, value in self.exact.items() if math.isfinite(value)
        )  # no sample shows what is infinite
        return {name: sum(x) / len(x) for name in finite if len(x := held[name]) > 0.9 * repetitions}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("target", TARGETS)
def test_intervals_hold_the_exact_values(target, policy):
    """Z from 2,000 samples of the reference and 2,000 of the mixture before, as training has it."""
    toy = Toy(target, policy)
    shares = toy.covered("mixture", {"reference": 2000, "mixture": 2000}, repetitions=100)
    assert len(shares) >= 8 - (target == "pointwise")
    assert all(0.9 <= share <= 0.99 for share in shares.values()), shares


@pytest.mark.slow
@pytest.mark.parametrize("earlier", [{}, {"reference": 2000, "mixture": 2000}])
@pytest.mark.parametrize("proposal", ["mixture", "policy"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("target", TARGETS)
def test_intervals_hold_the_exact_values_in_the_long_run(target, policy, proposal, earlier):
    shares = Toy(target, policy).covered(proposal, earlier, repetitions=500, seed=1)
    assert all(0.9 <= share <= 0.99 for share in shares.values()), shares


class Lost:
    """40 outcomes, of which all but one are right to 5%; that one has 1% of p and 1e-6 of pi."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        p, noise = torch.rand(40, generator=generator).double() + 0.2, torch.randn(40, generator=generator).double()
        p[0] = 0
        p = p / p.sum() * 0.99
        pi = p * (0.05 * noise).exp()
        p[0], pi[0] = 0.01, 1e-6
        self.log_p, self.log_pi, self.generator = p.log(), (pi / pi.sum()).log(), generator

    def estimates(self, proposal):
        """From 2,048 samples of the policy, or of its mixture with a reference that is p; Z is known."""
        mixture = torch.logaddexp(self.log_pi, self.log_p) - math.log(2)
        log_q = self.log_pi if proposal == "policy" else mixture
        x, zeros = torch.multinomial(log_q.exp(), 2048, True, generator=self.generator), torch.zeros(2048)
        sample = WeightedSample(self.log_pi[x], self.log_p[x], log_q[x], zeros.double(), {}, zeros.long())
        return estimate(sample, torch.zeros(1).double(), torch.zeros(1).double())


@pytest.mark.parametrize("proposal", ["policy", "mixture"])
def test_bounded_distances_are_covered_whatever_the_policy_has_lost(proposal):
    lost, counts = Lost(), {"tv": 0, "js": 0}
    for _ in range(100):
        got = lost.estimates(proposal)
        assert 0 <= got["js"].low <= got["js"].value <= got["js"].high <= math.log(2)
        for name in counts:
            exact = make_divergence(DIVERGENCES[name]).exact(lost.log_pi, lost.log_p).item()
            low, high = got[name].interval()
            counts[name] += low <= exact / (1 + (name == "js")) <= high
    assert all(90 <= count <= 99 for count in counts.values()), counts


def test_a_sample_says_where_it_is_blind():
    """KL(p || pi) is .09, nearly all of it from the outcome that the policy has lost; its own samples read .001."""
    lost = Lost()
    exact = make_divergence("forward_kl").exact(lost.log_pi, lost.log_p).item()
    blind, seeing = (lost.estimates(proposal) for proposal in ("policy", "mixture"))
    assert blind["kl_p_pi"].value < 0.1 * exact and blind["kl_p_pi"].standard_error == math.inf
    assert blind["kl_p_pi"].low <= exact <= blind["kl_p_pi"].high == math.inf
    assert blind["mass_seen"].value == pytest.approx(0.99, abs=0.003)
    low, high = seeing["kl_p_pi"].interval()
    assert low <= exact <= high < 3 * exact and seeing["mass_seen"].low <= 1 <= seeing["mass_seen"].high


def test_bounded_numbers_keep_their_range():
    """Also where pi's mass is nearly all outside, or the sample is small and Z far off."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        n = 20
        log_pi, log_a, log_q, log_w = 3 * torch.randn(4, n, generator=generator).double() - 3
        log_w[torch.rand(n, generator=generator) < 0.5] = -math.inf
        sample = WeightedSample(log_pi, log_a, log_q, log_w, {}, torch.zeros(n, dtype=torch.int64))
        got = estimate(sample, torch.randn(1, generator=generator).double(), torch.ones(1).double())
        for name, most in (("js", math.log(2)), ("tv", 1.0), ("mass_outside", 1.0)):
            assert 0 <= got[name].value <= most and not got[name].low < 0 and not got[name].high > most
        assert not got["kl_p_pi"].low < 0 and not got["kl_to_reference"].low < 0


def test_samples_of_a_group_do_not_count_as_independent():
    """Each sample twice says no more than each once."""
    toy, generator = Toy("rlhf"), torch.Generator().manual_seed(0)
    once = toy.draw(500, "mixture", generator)
    index = torch.arange(500).repeat_interleave(2)
    tensors = {n: getattr(once, n)[index] for n in ("log_pi", "log_a", "log_q", "log_weights", "prompts")}
    twice = WeightedSample(**tensors, features={n: x[index] for n, x in once.features.items()})
    found, grouped, naive = estimate(once), estimate(twice, group=2), estimate(twice)
    for name in ("kl_p_pi", "js", "reward"):
        assert grouped[name] == pytest.approx(found[name])
        assert naive[name].standard_error < 0.8 * found[name].standard_error
    with pytest.raises(ValueError, match="1000 samples cannot be parted into groups of group=3"):
        estimate(twice, group=3)
