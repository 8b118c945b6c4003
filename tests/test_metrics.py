"""distinct-n and self-BLEU against hand values."""

import math
import sys
import time

import numpy as np
import pytest

from textgym.metrics import distinct_n, evenly_spaced, self_bleu


@pytest.mark.parametrize(
    ("ids", "n", "expected"),
    [
        ([[1, 2, 3]], 1, 1.0),
        ([[1, 1, 1, 1]], 1, 1 / 4),
        ([[1, 1, 1, 1]], 2, 1 / 3),
        ([[1, 2], [1, 2]], 1, 2 / 4),
        ([[1, 2], [1, 2]], 2, 1 / 2),
        ([[1, 2, 1], [2, 1, 2]], 2, 2 / 4),  # 12 21, 21 12
        ([[1, 2], [3]], 2, 1.0),  # no n-gram reaches from one text into the next
        ([[1], []], 2, 0.0),
        ([], 1, 0.0),
    ],
)
def test_distinct_n(ids, n, expected):
    assert distinct_n(ids, n) == pytest.approx(expected)


def test_the_bootstrap_gives_no_interval_for_distinct_n():
    """Resamples repeat texts, so the interval of their quantiles lies below the mean of samples of this size."""
    generator = np.random.default_rng(0)
    chances = 1 / np.arange(1, 51) ** 1.5  # as of a trained policy: half of all tokens are of two kinds
    samples = generator.choice(50, (100, 64, 8), p=chances / chances.sum())  # of 64 texts of 8 tokens
    mean = np.mean([distinct_n(sample.tolist(), 2) for sample in samples])
    for sample in samples[:10]:
        resampled = [distinct_n(sample[generator.integers(64, size=64)].tolist(), 2) for _ in range(40)]
        assert np.quantile(resampled, 0.975) < mean


def test_distinct_n_refuses_n_below_1():
    with pytest.raises(ValueError, match="n is 0"):
        distinct_n([[1]], 0)


def test_equal_texts_have_self_bleu_1():
    assert self_bleu(["a good film with a plot"] * 3) == pytest.approx(1)


def test_texts_without_a_common_word_have_nearly_0():
    assert self_bleu(["a b c d e f", "g h i j k l", "m n o p q r"]) < 0.05


def test_self_bleu_by_hand():
    # "a b c d" and "a b c e": precisions 3/4, 2/3, 1/2 and 0/1; exponential smoothing makes the last 1/2.
    expected = (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)
    assert self_bleu(["a b c d", "a b c e"]) == pytest.approx(expected)


def test_self_bleu_has_a_brevity_penalty():
    # "a b" in "a b c d" is all right but short; "a b c d" has precisions 2/4, 1/3 and, smoothed, (1/2)/2 and (1/4)/1.
    short = math.exp(1 - 4 / 2)
    long = (2 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** (1 / 4)
    assert self_bleu(["a b", "a b c d"]) == pytest.approx((short + long) / 2)


def test_self_bleu_scores_evenly_spaced_texts():
    texts = ["x y z w", "a b c d", "p q r s", "t u v w", "a b c e"]
    assert self_bleu(texts, max_references=1) == pytest.approx(self_bleu([texts[0], texts[4]]))
    assert evenly_spaced(list(range(9)), 5) == [0, 2, 4, 6, 8]
    assert evenly_spaced([1, 2], 5) == [1, 2]


def test_self_bleu_is_cheap():
    texts = [" ".join(f"w{(i * j) % 97}" for j in range(25)) for i in range(256)]
    start = time.process_time()
    self_bleu(texts)
    assert time.process_time() - start < 2


def test_self_bleu_refuses_one_text():
    with pytest.raises(ValueError, match="1 texts"):
        self_bleu(["alone"])


def test_missing_sacrebleu_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ImportError, match=r"textgym\[agents\]"):
        self_bleu(["a b", "c d"])
