"""Targets: log-weights by hand, JSON, the fit of wanted means against root finding, and an error for each bad input."""

import copy
import dataclasses
import json
import math
import pickle

import pytest
import torch

from textgym.matching import RLHF, Distributional, Pointwise, Product, least_kl, make_target

INF = math.inf


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def sample(n=500, seed=0):
    """Features of a weighted sample: binary, skewed, rare and on a large scale; and its log-weights."""
    normal = torch.randn(5, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    features = {
        "a": (normal[0] > 0.8).double(),
        "b": normal[1].exp() + normal[0],
        "rare": (normal[2] > 2).double(),
        "large": -1000 + 30 * normal[3],
    }
    return features, normal[4]


def means(target, features, log_base, groups=None):
    """E_p of every feature by self-normalised weights, the mean over groups."""
    groups = torch.zeros(len(log_base)) if groups is None else groups
    log_p = log_base + target.log_weights(features)
    each = []
    for group in groups.unique():
        p = log_p[groups == group].softmax(0)
        each.append([(p @ values[groups == group]).item() for values in features.values()])
    return dict(zip(features, torch.tensor(each, dtype=torch.float64).mean(0).tolist(), strict=True))


def bisect(increasing, low, high):
    """The zero of an increasing function."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if increasing(middle) > 0 else (middle, high)
    return middle


def test_log_weights_by_hand():
    features = {"reward": tensor([2.0, -1.0, 0.0]), "b": tensor([1.0, 0.0, 0.5]), "c": tensor([3.0, 1.0, -2.0])}
    assert RLHF(0.5).log_weights(features).tolist() == [4.0, -2.0, 0.0]
    assert RLHF(2, feature="c").log_weights(features).tolist() == [1.5, 0.5, -1.0]
    assert Pointwise("b").log_weights(features).tolist() == pytest.approx([0.0, -INF, math.log(0.5)])
    assert Pointwise("b", floor=1e-3).log_weights(features).tolist() == pytest.approx(
        [0.0, math.log(1e-3), math.log(0.5)]
    )
    wanted = Distributional({"b": 0.5, "c": 1.0}, coefficients={"c": -1.0, "b": 2.0})
    assert wanted.log_weights(features).tolist() == [-1.0, -1.0, 3.0]
    product = Product([RLHF(0.5), Pointwise("b"), wanted])
    assert product.log_weights(features).tolist() == pytest.approx([3.0, -INF, 3.0 + math.log(0.5)])
    assert product.features == ("reward", "b", "c")


def test_which_targets_have_zeros():
    wanted = Distributional({"b": 0.5})
    assert [t.has_zeros for t in (RLHF(1.0), Pointwise("b"), Pointwise("b", floor=0.1), wanted)] == [0, 1, 0, 0]
    assert Product([RLHF(1.0), Pointwise("b")]).has_zeros and not Product([RLHF(1.0), Pointwise("b", 0.1)]).has_zeros


SPECS = [
    ({"name": "rlhf", "beta": 0.1}, RLHF, {"feature": "reward"}),
    ({"name": "rlhf", "beta": 2.0, "feature": "a"}, RLHF, {}),
    ({"name": "pointwise"}, Pointwise, {"feature": "reward", "floor": 0.0}),
    ({"name": "pointwise", "feature": "a", "floor": 0.01}, Pointwise, {}),
    ({"name": "distributional", "means": {"a": 0.5, "b": 2.0}}, Distributional, {}),
    ({"name": "distributional", "means": {"a": 0.5}, "coefficients": {"a": -1.5}}, Distributional, {}),
]


@pytest.mark.parametrize(("spec", "cls", "defaults"), SPECS)
def test_json_round_trip(spec, cls, defaults):
    target = make_target(json.loads(json.dumps(spec)))
    assert type(target) is cls and target.spec == spec | defaults and make_target(target) is target
    again = make_target(json.loads(json.dumps(target.spec)))
    assert again.spec == target.spec and again.features == target.features and again.fitted == target.fitted
    second = {"name": "pointwise", "feature": "c", "floor": 0.5}
    product = make_target(json.loads(json.dumps({"name": "product", "targets": [spec, second]})))
    assert type(product) is Product and product.spec == {"name": "product", "targets": [spec | defaults, second]}
    if target.fitted:
        features = {"a": tensor([0.5, 2.0, 0.0]), "reward": tensor([0.25, 1.0, 4.0]), "c": tensor([1.0, 0.0, 0.5])}
        assert torch.equal(again.log_weights(features), target.log_weights(features))


def test_a_fitted_target_goes_through_json_with_its_coefficients():
    features, log_base = sample()
    spec = {
        "name": "product",
        "targets": [{"name": "distributional", "means": {"a": 0.5}}, {"name": "rlhf", "beta": 9}],
    }
    features["reward"] = features["b"]
    target = make_target(spec)
    assert not target.fitted and "coefficients" not in target.spec["targets"][0]
    target = target.fit(features, log_base)
    again = make_target(json.loads(json.dumps(target.spec)))
    assert again.fitted and torch.equal(again.log_weights(features), target.log_weights(features))


@pytest.mark.parametrize(
    "wanted",
    [
        {"a": 0.5},
        {"a": 0.999},
        {"rare": 0.5},
        {"b": 4.0},
        {"large": -950.0},
        {"a": 0.3, "rare": 0.6},
        {"a": 0.4, "b": 0.5, "rare": 0.2, "large": -1020.0},
    ],
    ids=str,
)
def test_wanted_means_are_reached(wanted):
    features, log_base = sample()
    target = Distributional(wanted).fit(features, log_base)
    reached = means(target, features, log_base)
    for name, mean in wanted.items():
        assert reached[name] == pytest.approx(mean, abs=1e-10)
    assert set(target.coefficients) == set(wanted)


@pytest.mark.parametrize("scale", [1e-13, 1e-3, 1e6, 1e12])
def test_the_scale_of_a_feature_is_no_matter(scale):
    features, log_base = sample()
    target = Distributional({"b": 0.0})
    plain, scaled = target.fit(features, log_base), target.fit({"b": scale * features["b"]}, log_base)
    assert scaled.coefficients["b"] * scale == pytest.approx(plain.coefficients["b"], rel=1e-8)


def test_samples_without_weight_count_for_nothing():
    features, log_base = sample()
    without = log_base.masked_fill(torch.arange(500) % 3 == 0, -INF)
    kept = without > -INF
    wanted = Distributional({"a": 0.6, "b": 3.0})
    all_ = wanted.fit(features, without)
    some = wanted.fit({name: values[kept] for name, values in features.items()}, log_base[kept])
    assert all_.coefficients == pytest.approx(some.coefficients, abs=1e-10)


@pytest.mark.parametrize("base, wanted", [(0.4, 0.7), (0.018, 0.97), (1e-4, 0.999), (0.99, 0.01)])
def test_a_binary_mean_by_its_closed_form_however_far_from_the_base_rate(base, wanted):
    log_base = torch.tensor([base, 1 - base], dtype=torch.float64).log()
    target = Distributional({"a": wanted}).fit({"a": torch.tensor([1.0, 0.0])}, log_base)
    expected = math.log(wanted / (1 - wanted)) - math.log(base / (1 - base))  # the difference of the log-odds
    assert target.coefficients["a"] == pytest.approx(expected, abs=1e-10)


def test_redundant_features_with_means_that_go_together():
    features, log_base = sample()
    features["not a"] = 1 - features["a"]
    target, alone = Distributional({"a": 0.7, "not a": 0.3, "b": 3.0}), Distributional({"a": 0.7, "b": 3.0})
    target = target.fit(features, log_base)
    alone = alone.fit(features, log_base)
    reached = means(target, features, log_base)
    assert [reached[name] for name in target.features] == pytest.approx([0.7, 0.3, 3.0], abs=1e-10)
    weights = [(log_base + t.log_weights(features)).log_softmax(0) for t in (target, alone)]
    torch.testing.assert_close(*weights, atol=1e-8, rtol=0)
    assert max(map(abs, target.coefficients.values())) < 10


def test_prompts_share_the_coefficient_and_the_mean_is_over_prompts():
    features, log_base = sample(60)
    groups = torch.tensor([7] * 10 + [2] * 35 + [5] * 15)[
        torch.randperm(60, generator=torch.Generator().manual_seed(1))
    ]
    target = Distributional({"b": 1.5}).fit(features, log_base, groups)
    rows = [
        [
            (w, b)
            for w, b, g in zip(log_base.tolist(), features["b"].tolist(), groups.tolist(), strict=True)
            if g == group
        ]
        for group in (2, 5, 7)
    ]

    def excess(coefficient):
        each = []
        for row in rows:
            masses = [math.exp(w + coefficient * b) for w, b in row]
            each.append(sum(m * b for m, (_, b) in zip(masses, row, strict=True)) / sum(masses))
        return sum(each) / 3 - 1.5

    assert target.coefficients["b"] == pytest.approx(bisect(excess, -20, 20), abs=1e-9)
    assert means(target, features, log_base, groups)["b"] == pytest.approx(1.5, abs=1e-10)
    together = Distributional({"b": 1.5}).fit(features, log_base)
    assert abs(together.coefficients["b"] - target.coefficients["b"]) > 0.01


def test_several_features_over_several_prompts():
    features, log_base = sample()
    groups = torch.arange(500) ** 2 % 7  # quadratic residues: 0, 1, 2, 4, of different sizes
    target = Distributional({"a": 0.5, "b": 1.5, "large": -1010.0}).fit(features, log_base, groups)
    reached = means(target, features, log_base, groups)
    assert [reached[n] for n in target.features] == pytest.approx([0.5, 1.5, -1010.0], abs=1e-10)


@pytest.mark.parametrize("nested", [False, True])
def test_a_mean_beside_a_filter(nested):
    features, log_base = sample()
    parts = [Distributional({"a": 0.5, "b": 2.5}), Pointwise("rare")]
    product = Product([Product(parts) if nested else parts[0], RLHF(50, "large"), *parts[1 + nested :]])
    target = product.fit(features, log_base)
    log_p = log_base + target.log_weights(features)
    assert torch.equal(log_p > -INF, features["rare"] == 1)
    reached = means(target, features, log_base)
    assert [reached[name] for name in "ab"] == pytest.approx([0.5, 2.5], abs=1e-10) and target.fitted
    # nearest to a times the filter and the reward: log-weights are these, plus something linear in the features
    kept = features["rare"] == 1
    rest = target.log_weights(features)[kept] - features["large"][kept] / 50
    design = torch.stack([features["a"][kept], features["b"][kept]], -1)
    torch.testing.assert_close(design @ torch.linalg.lstsq(design, rest[:, None]).solution, rest[:, None])


INFEASIBLE = [
    ({"a": 1.5}, "the mean 1.5 of 'a' does not lie strictly within 0..1"),
    ({"b": 2.5, "a": -0.1}, "the mean -0.1 of 'a' does not lie strictly within 0..1"),
    ({"a": 1.0}, "the mean 1 of 'a' .* a mean at the end of the range is a pointwise constraint"),
    ({"a": 0.0}, "the mean 0 of 'a' .* a mean at the end of the range is a pointwise constraint"),
    ({"never": 0.5}, "the feature 'never' is 0 in all 500 samples of the reference"),
    ({"a": 0.7, "not a": 0.4}, r"has the means {'a': 0.7, 'not a': 0.4} together \(nearest found: {'a': .*choose"),
    ({"x": 0.7, "y": 0.7}, "no distribution that keeps all .* {'x': 0.7, 'y': 0.7} together"),
    (
        {"x": 0.5, "y": 0.5},
        "no distribution that keeps all .* {'x': 0.5, 'y': 0.5} together",
    ),  # p(x = y = 0) would be 0
]


@pytest.mark.parametrize(("wanted", "message"), INFEASIBLE)
def test_means_that_cannot_be(wanted, message):
    features, log_base = sample()
    ones = torch.ones(500, dtype=torch.float64)
    thirds = torch.arange(500) % 3
    features |= {
        "never": 0 * ones,
        "not a": 1 - features["a"],
        "x": (thirds == 0).double(),
        "y": (thirds == 1).double(),
    }
    target = Distributional(wanted)
    with pytest.raises(ValueError, match=message):
        target.fit(features, log_base)
    assert not target.fitted


def test_nearly_the_end_is_still_within():
    thirds = torch.arange(300) % 3
    features = {"x": (thirds == 0).double(), "y": (thirds == 1).double()}
    target = Distributional({"x": 0.5, "y": 0.4999}).fit(features, torch.zeros(300, dtype=torch.float64))
    expected = {"x": math.log(0.5 / 1e-4), "y": math.log(0.4999 / 1e-4)}  # against x = y = 0, all as likely before
    assert target.coefficients == pytest.approx(expected, abs=1e-10)


def test_a_mean_that_only_the_choice_of_prompt_could_reach():
    target = Distributional({"a": 0.7})
    with pytest.raises(ValueError, match=r"has the means {'a': 0.7} together \(nearest found: {'a': 0.5}\)"):
        target.fit({"a": tensor([0.0, 0.0, 1.0, 1.0])}, tensor([0.0] * 4), torch.tensor([0, 0, 1, 1]))


def test_a_filter_that_no_sample_passes():
    target = Product([Distributional({"a": 0.5}), Pointwise("b")])
    with pytest.raises(ValueError, match="no sample of the reference satisfies the target's other parts"):
        target.fit({"a": tensor([0.0, 1.0]), "b": tensor([0.0, 0.0])}, tensor([0.0, 0.0]))
    with pytest.raises(ValueError, match="the feature 'a' is 1 in all 1 samples"):
        target.fit({"a": tensor([0.0, 1.0]), "b": tensor([0.0, 1.0])}, tensor([0.0, 0.0]))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "rlhf", "beta": 0}, "beta is 0; it must be positive"),
        ({"name": "rlhf", "beta": -1.0}, "beta is -1.0; it must be positive"),
        ({"name": "rlhf", "beta": math.nan}, "beta is nan"),
        ({"name": "rlhf"}, "missing 1 required positional argument: 'beta'"),
        ({"name": "rlhf", "beta": 1.0, "reward": "x"}, "unexpected keyword argument 'reward'"),
        ({"name": "pointwise", "floor": -0.1}, "floor is -0.1; it must be at least 0"),
        ({"name": "rlhf", "beta": "0.5"}, "beta is '0.5'; it must be positive"),
        ({"name": "rlhf", "beta": 1.0, "feature": 3}, "feature is 3; it must be a text"),
        ({"name": "pointwise", "floor": "x"}, "floor is 'x'; it must be at least 0"),
        ({"name": "pointwise", "feature": None}, "feature is None; it must be a text"),
        ({"name": "distributional", "means": {}}, "means is {}; it must give features, by their names, a finite"),
        ({"name": "distributional", "means": [["a", 1]]}, r"means is \[\['a', 1\]\]; it must give features"),
        ({"name": "distributional", "means": {1: 0.5}}, "means is {1: 0.5}; it must give features, by their names"),
        ({"name": "distributional", "means": {"a": "x"}}, r"means\['a'\] is 'x'; it must be a finite number"),
        (
            {"name": "distributional", "means": {"a": 0.5}, "coefficients": {"a": math.inf}},
            r"coefficients\['a'\] is inf; it must be a finite number",
        ),
        ({"name": "distributional", "means": {"a": 0.5}, "coefficients": 3}, "coefficients is 3; it must give"),
        ({"name": "product", "targets": {"name": "rlhf", "beta": 1.0}}, "targets is {'name': .*}; it must be a list"),
        ({"name": "distributional", "means": {"a": math.nan}}, r"means\['a'\] is nan; it must be a finite number"),
        (
            {"name": "distributional", "means": {"a": 0.5}, "coefficients": {"b": 1.0}},
            r"coefficients are of \['b'\], means of \['a'\]",
        ),
        ({"name": "product", "targets": []}, "at least one part"),
        ({"name": "product", "targets": [{"name": "distributional", "means": {n: 0.5}} for n in "ab"]}, "at most one"),
        ({"name": "product", "targets": [{"name": "rhlf"}]}, "{'name': 'rhlf'}; accepted are"),
        ({"name": "gdc"}, r"target is {'name': 'gdc'}; accepted are .* one of \['rlhf', 'pointwise'"),
        ({"name": ["rlhf"]}, "accepted are a Target or a dict whose 'name' is one of"),
        ({"beta": 1.0}, "accepted are a Target or a dict whose 'name' is one of"),
        ("rlhf", "target is 'rlhf'; accepted are a Target or a dict"),
        (None, "target is None; accepted are a Target or a dict"),
    ],
    ids=str,
)
def test_bad_specs(spec, message):
    with pytest.raises(ValueError, match=message):
        make_target(spec)


def test_a_negative_feature_has_no_logarithm():
    with pytest.raises(ValueError, match=r"the feature 'b' of a pointwise target is -0.5; it must be >= 0"):
        Pointwise("b").log_weights({"b": tensor([1.0, -0.5])})


def test_a_fit_gives_a_new_target_and_changes_nothing():
    features, log_base = sample()
    wanted, filtered = Distributional({"a": 0.5}), Pointwise("rare", floor=0.1)
    product = Product([filtered, wanted])
    half = {name: values[:250] for name, values in features.items()}
    for open_ in (wanted, product):
        first, second = open_.fit(features, log_base), open_.fit(half, log_base[:250])
        assert first.fitted and first.spec != second.spec and not open_.fitted
        assert first.fit({}, log_base) is first  # nothing is left to fit
    assert wanted == Distributional({"a": 0.5}) and product.targets == (filtered, wanted)
    assert RLHF(0.5, "a").fit(features, log_base) == RLHF(0.5, "a") != RLHF(0.6, "a")


FROZEN = [
    RLHF(0.5),
    Pointwise("a", 0.1),
    Distributional({"a": 0.5, "b": 1.0}),
    Distributional({"a": 0.5, "b": 1.0}, {"b": -2.0, "a": 1 / 3}),
    Product([RLHF(0.5), Distributional({"a": 0.5}, {"a": 0.1})]),
]


@pytest.mark.parametrize("target", FROZEN, ids=lambda target: str(target.spec))
def test_targets_are_values(target):
    for again in (pickle.loads(pickle.dumps(target)), copy.deepcopy(target), copy.copy(target)):
        assert again == target and again.spec == target.spec and hash(again) == hash(target)
        assert type(again) is type(target) and again.features == target.features
    for field in dataclasses.fields(target):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(target, field.name, getattr(target, field.name))


def test_what_a_target_is_made_of_may_change_afterwards():
    means, coefficients, parts = {"a": 0.5}, {"a": 1.0}, [{"name": "rlhf", "beta": 1.0}]
    target, product = Distributional(means, coefficients), Product(parts)
    means["a"], coefficients["a"] = 0.9, 9.0
    parts.append(means)
    target.spec["means"]["a"] = 7.0
    product.spec["targets"].clear()
    assert target.spec == {"name": "distributional", "means": {"a": 0.5}, "coefficients": {"a": 1.0}}
    assert len(product.targets) == 1 and product.features == ("reward",)
    for mapping in (target.means, target.coefficients):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping["a"] = 2.0


def test_use_before_the_fit():
    target = Distributional({"a": 0.5})
    for each in (target, Product([RLHF(1.0, "a"), target])):
        assert not each.fitted
        with pytest.raises(RuntimeError, match="not fitted"):
            each.log_weights({"a": tensor([0.0, 1.0])})


def test_the_least_kl_of_wanted_means():
    features, _ = sample()
    for name, s in (("a", 0.8), ("a", 0.1), ("rare", 0.5)):
        base = features[name].mean().item()
        expected = s * math.log(s / base) + (1 - s) * math.log((1 - s) / (1 - base))
        assert least_kl({name: s}, features) == pytest.approx(expected, abs=1e-9)
    wanted = {"b": 3.0, "large": -990.0}
    target = Distributional(wanted).fit(features, torch.zeros(500, dtype=torch.float64))
    log_p = target.log_weights(features).log_softmax(0)
    assert least_kl(wanted, features) == pytest.approx((log_p.exp() @ log_p).item() + math.log(500), abs=1e-9)
    assert math.isnan(least_kl({"a": 1.0}, features)) and math.isnan(least_kl({"b": 3.0, "a": -1.0}, features))
    assert least_kl({"b": features["b"].mean().item()}, features) == pytest.approx(0, abs=1e-9)


def test_the_rounding_of_a_large_sample_does_not_hide_the_minimum():
    """A case where the objective, a sum over 2048, rises by its rounding in the last Newton step."""
    x = torch.zeros(2048, dtype=torch.float64)
    x[:37] = 1
    target = Distributional({"x": 48 / 2048}).fit({"x": x}, torch.zeros_like(x))
    odds = (48 / 2000) / (37 / 2011)
    assert target.coefficients["x"] == pytest.approx(math.log(odds), abs=1e-10)
