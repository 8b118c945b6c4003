"""Constraints on what a model writes: a word, a topic, a balance, and both of the latter, on two models.

The four kinds are those of the papers on distribution matching (Khalifa et al. 2021, arXiv 2012.11635; Go et al. 2023,
arXiv 2302.08215). Each feature is a component of the scorer, by name.
"""

from __future__ import annotations

from typing import Any

from textgym.tasks.base import Feature, Task

UNCONDITIONAL: dict[str, Any] = {"prompts": [""], "max_prompt_tokens": 1}
SMOLLM2 = UNCONDITIONAL | {"tokenizer": "smollm2-q4", "max_new_tokens": 40}
SEE_ALSO = {"constraints: targets, results and what makes them hard": "../constraints.md"}


def any_of(component: str, words: str) -> dict[str, Any]:
    """A scorer: whether any of the words occurs."""
    return {"name": "keyword", "words": words.split(), "component_name": component}


def both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """A scorer: the mean of two."""
    return {"name": "weighted_sum", "scorers": [first, second], "weights": [0.5, 0.5]}


COMEDY = any_of("topic", "comedy comedies comic comedic funny humor laugh laughs hilarious joke jokes")
FANTASY = any_of(
    "topic", "magic magical wizard witch spell dragon ghost spirit spirits king queen kingdom castle ancient"
)
# the regex scorer gives the share of the text that the pattern covers: all of it, or nothing
OPENING = {"name": "regex", "pattern": r"(?s)\AThis\b.*", "component_name": "opening"}
FEMALE = {
    "name": "more_words",
    "words": "she her hers herself woman women girl girls".split(),
    "than": "he him his himself man men boy boys".split(),
    "component_name": "female",
}

EVERY_TOPIC = {"name": "pointwise", "feature": "topic"}
IS_COMEDY = Feature("has a word about comedy", 0.076, 0.004)
OPENS = Feature('begins with the word "This"', 0.068, 0.004)
IS_FANTASY = Feature("has a word about a fantasy world", 0.042, 0.007)
IS_FEMALE = Feature("has more female words than male ones", 0.098, 0.010)


def half(feature: str) -> dict[str, Any]:
    """A target: the feature in half of the texts."""
    return {"name": "distributional", "means": {feature: 0.5}}


def constraint(id: str, kwargs: dict[str, Any], **words: Any) -> Task:
    """A task that starts from BOS alone and pays 0 to 1; it belongs to the model of its tokenizer."""
    common = {"reward_range": (0.0, 1.0), "model": kwargs.get("tokenizer", "tiny"), "see_also": SEE_ALSO}
    return Task(id=id, kwargs=kwargs, **common, **words)


TASKS = [
    constraint(
        "TextGenKeyword-v0",
        UNCONDITIONAL | {"scorer": any_of("keyword", "horror")},
        summary='from an empty prompt, a text with the word "horror"',
        description="""\
The embedded model writes a movie review from an empty prompt, and a rare word is to be in it. The word may stand
anywhere, which makes the task harder than it looks: a policy's first lesson is to say it everywhere.""",
        reward='1 if the completion has the whole word "horror", in any case of its letters; else 0.',
        features={"keyword": Feature('has the word "horror"', 0.018, 0.002)},
        target={"name": "pointwise", "feature": "keyword"},
    ),
    constraint(
        "TextGenTopic-v0",
        UNCONDITIONAL | {"scorer": COMEDY},
        summary="from an empty prompt, a text about comedy",
        description="""\
The embedded model writes a movie review from an empty prompt, and it is to be about comedy, as told by a list of
words. There are eleven ways to meet the constraint, so how varied the texts stay is part of the question.""",
        reward="1 if the completion has any of the words below, whole and in any case of its letters; else 0.",
        features={"topic": IS_COMEDY},
        target=EVERY_TOPIC,
    ),
    constraint(
        "TextGenBalance-v0",
        UNCONDITIONAL | {"scorer": OPENING},
        summary='from an empty prompt, texts half of which begin with "This"',
        description="""\
The embedded model writes movie reviews from an empty prompt, and half of them are to begin with the word "This".
That is a property of the distribution, not of any text: no reward can ask for it, since more than half would be paid
better. The opening is a single decision, so what is learned can be read off the first token's probabilities.""",
        reward="""\
1 if the completion begins with the word "This"; else 0. An agent that maximises it goes past the balance.""",
        features={"opening": OPENS},
        target=half("opening"),
    ),
    constraint(
        "TextGenHybrid-v0",
        UNCONDITIONAL | {"scorer": both(COMEDY, OPENING)},
        summary='from an empty prompt, texts about comedy half of which begin with "This"',
        description="""\
Two constraints at once on the embedded model's movie reviews: every text is to be about comedy, as told by a list of
words, and half of them are to begin with the word "This". The two are not independent under the model: reviews that
begin so are about comedy more often than others.""",
        reward="The mean of the two features below: 0, 0.5 or 1. An agent that maximises it goes past the balance.",
        features={"topic": IS_COMEDY, "opening": OPENS},
        target={"name": "product", "targets": [EVERY_TOPIC, half("opening")]},
    ),
    constraint(
        "TextGenKeywordSmolLM2-v0",
        SMOLLM2 | {"scorer": any_of("keyword", "love")},
        summary='`TextGenKeyword-v0` for SmolLM2-135M: the word "love"',
        description="""\
SmolLM2-135M writes a text of any kind from an empty prompt, and a rare word is to be in it. The word may stand
anywhere.""",
        reward='1 if the completion has the whole word "love", in any case of its letters; else 0.',
        features={"keyword": Feature('has the word "love"', 0.018, 0.004)},
        target={"name": "pointwise", "feature": "keyword"},
    ),
    constraint(
        "TextGenTopicSmolLM2-v0",
        SMOLLM2 | {"scorer": FANTASY},
        summary="`TextGenTopic-v0` for SmolLM2-135M: a fantasy world",
        description="""\
SmolLM2-135M writes a text of any kind from an empty prompt, and it is to be about a fantasy world, as told by a list
of words. There are fourteen ways to meet the constraint, so how varied the texts stay is part of the question.""",
        reward="1 if the completion has any of the words below, whole and in any case of its letters; else 0.",
        features={"topic": IS_FANTASY},
        target=EVERY_TOPIC,
    ),
    constraint(
        "TextGenBalanceSmolLM2-v0",
        SMOLLM2 | {"scorer": FEMALE},
        summary="`TextGenBalance-v0` for SmolLM2-135M: half of the texts about women",
        description="""\
SmolLM2-135M writes texts of any kind from an empty prompt, and half of them are to be about women more than about
men, as told by their pronouns and nouns. That is a property of the distribution, not of any text: no reward can ask
for it, since more than half would be paid better.""",
        reward="""\
1 if more of the completion's words belong to the first list below than to the second; else 0, also where there is
none of either. An agent that maximises it goes past the balance.""",
        features={"female": IS_FEMALE},
        target=half("female"),
    ),
    constraint(
        "TextGenHybridSmolLM2-v0",
        SMOLLM2 | {"scorer": both(FANTASY, FEMALE)},
        summary="`TextGenHybrid-v0` for SmolLM2-135M: a fantasy world, half of the texts about women",
        description="""\
Two constraints at once on SmolLM2-135M's texts from an empty prompt: every text is to be about a fantasy world, as
told by a list of words, and half of them are to be about women more than about men, as told by their pronouns and
nouns.""",
        reward="The mean of the two features below: 0, 0.5 or 1. An agent that maximises it goes past the balance.",
        features={"topic": IS_FANTASY, "female": IS_FEMALE},
        target={"name": "product", "targets": [EVERY_TOPIC, half("female")]},
    ),
]
