"""How varied a sample of texts is: distinct-n and self-BLEU, as pure functions.

A policy that is trained for reward alone tends to collapse onto a few texts; the reward does not show it, these do.
Both numbers depend on the size of the sample, so compare only samples with the same number of texts. One sample gives
no interval for them. To draw its texts again (the bootstrap) repeats some, so that all resamples are less varied than
the sample. To leave out one at a time (the jackknife) fails where a policy has collapsed: most samples lack its rare
texts. Tables over seeds have Student's interval over the seeds' values, each of a sample of its own.

Left out: anything that needs a model (perplexity, embedding distances).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from textgym.importing import require

T = TypeVar("T")


def distinct_n(token_id_lists: Sequence[Sequence[int]], n: int) -> float:
    """Share of different n-grams among all n-grams of the whole sample (Li et al. 2016, arXiv:1510.03055).

    n-grams never reach over the end of a text; texts shorter than n have none.

    Args:
        token_id_lists: one list of token ids per text.
        n: length of the n-grams.

    Returns:
        a number in (0, 1]: 1 where no n-gram occurs twice. 0 where there is no n-gram at all.

    Raises:
        ValueError: `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}; an n-gram has at least one token")
    ngrams = [tuple(ids[i : i + n]) for ids in token_id_lists for i in range(len(ids) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def self_bleu(texts: Sequence[str], max_references: int = 63) -> float:
    """Mean BLEU-4 of a text with the others as its references (Texygen, Zhu et al. 2018, arXiv:1802.01886).

    BLEU is sacrebleu's sentence BLEU with its defaults (13a tokens, exponential smoothing, effective order). Every text
    against every other costs quadratic time, so of a larger sample only `max_references + 1` texts count, evenly spaced
    from the first to the last; each of these is compared with the rest of them. More references mean a higher value.

    Args:
        texts: at least two.
        max_references: the most references that a text is compared with.

    Returns:
        a number in [0, 1]; 1 means that all texts are equal, so lower is more varied.

    Raises:
        ValueError: fewer than two texts, or `max_references` below 1.
        ImportError: sacrebleu is missing.
    """
    if len(texts) < 2 or max_references < 1:
        raise ValueError(f"self-BLEU of {len(texts)} texts with max_references={max_references}: it needs 2 and 1")
    require("sacrebleu", "agents")
    from sacrebleu.metrics import BLEU

    bleu, chosen = BLEU(effective_order=True), evenly_spaced(texts, max_references + 1)
    scores = [bleu.sentence_score(text, chosen[:i] + chosen[i + 1 :]).score for i, text in enumerate(chosen)]
    return min(sum(scores) / len(scores) / 100, 1.0)


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, from the first to the last; all of them where there are no more than that."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[0]]
    return [items[i * (len(items) - 1) // (count - 1)] for i in range(count)]
