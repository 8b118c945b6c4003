"""`make_scorer`: a scorer from a name, a JSON dict, an import string, a function or an object.

Names and dicts keep an env's spec JSON, and work from a command line. A new scorer is a file and a row of `SCORERS`:
`textgym.scorers` takes the names that it exports from there.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from textgym.importing import did_you_mean, import_string
from textgym.scorers.base import Scorer

SCORERS = {
    "bleu": "textgym.scorers.overlap:BLEU",
    "chrf": "textgym.scorers.overlap:ChrF",
    "classifier": "textgym.scorers.classifier:Classifier",
    "compiles": "textgym.scorers.formats:Compiles",
    "contrast": "textgym.scorers.likelihood:Contrast",
    "cosine_length": "textgym.scorers.lengths:CosineLength",
    "countdown": "textgym.scorers.countdown:Countdown",
    "cross_encoder": "textgym.scorers.cross_encoder:CrossEncoder",
    "exact_match": "textgym.scorers.answers:ExactMatch",
    "function": "textgym.scorers.functions:FunctionScorer",
    "json": "textgym.scorers.formats:ValidJSON",
    "judge": "textgym.scorers.judge:Judge",
    "keyword": "textgym.scorers.text:Keyword",
    "length": "textgym.scorers.text:Length",
    "log_prob": "textgym.scorers.log_prob:LogProb",
    "more_words": "textgym.scorers.text:MoreWords",
    "mutual_information": "textgym.scorers.likelihood:MutualInformation",
    "numeric_match": "textgym.scorers.answers:NumericMatch",
    "overlong": "textgym.scorers.lengths:Overlong",
    "perplexity": "textgym.scorers.likelihood:Perplexity",
    "readability": "textgym.scorers.readability:Readability",
    "reasoning_gym": "textgym.scorers.reasoning:ReasoningGym",
    "regex": "textgym.scorers.text:Regex",
    "remote": "textgym.scorers.remote:Remote",
    "repetition": "textgym.scorers.repetition:Repetition",
    "respond": "textgym.scorers.respond:Respond",
    "reward_model": "textgym.scorers.reward_model:RewardModel",
    "rouge": "textgym.scorers.overlap:ROUGE",
    "sentiment": "textgym.scorers.sentiment:Sentiment",
    "similarity": "textgym.scorers.similarity:Similarity",
    "tags": "textgym.scorers.formats:Tags",
    "threshold": "textgym.scorers.composition:Threshold",
    "token_counts": "textgym.scorers.text:TokenCounts",
    "weighted_sum": "textgym.scorers.composition:WeightedSum",
    "word_frequencies": "textgym.scorers.word_frequencies:WordFrequencies",
}
"""Name -> class, as an import string, so that naming a scorer imports no other one."""

RESERVED = {
    "reward": "a log's rollout/reward is the return",
    **dict.fromkeys(("cache_mib", "kl_to_reference", "kl_to_reference_k3"), "agents log it under rollout/"),
    **dict.fromkeys(("ep_rew_mean", "ep_len_mean", "success_rate"), "stable-baselines3 logs it under rollout/"),
    **dict.fromkeys(("eos", "prompt_id", "action_mask"), "the env reports it in info"),
    **dict.fromkeys(("final_obs", "final_info", "final_observation", "episode"), "Gymnasium reports it in info"),
    **dict.fromkeys(("unshaped_return", "credits"), "wrappers report it in info"),
    **dict.fromkeys(("terminal_observation", "TimeLimit.truncated"), "stable-baselines3 reads it in info"),
}
"""Names that no component may have, and why: it would hide what stands there already, or be hidden by it."""

ACCEPTED = (
    f"one of {sorted(SCORERS)}, an import string 'module:attribute', a dict with one of these as its 'name' and the "
    "scorer's arguments, a function or a textgym.Scorer"
)

RENAME = 'choose another with name=... ("component_name" in a JSON dict)'


def make_scorer(spec: Any) -> Scorer:
    """Build a scorer.

    Args:
        spec: one of

            - a `Scorer`, which is returned itself;
            - a function, called as TRL calls reward functions (see `FunctionScorer`);
            - a name: `"sentiment"`;
            - an import string: `"my_module:brevity"`, a function, a `Scorer` subclass or an instance;
            - a dict: `{"name": "keyword", "words": ["good"]}`, where `"name"` is a name or an import string, and the
              other keys are arguments of the class. `"component_name"` is its argument `name`, the name in `info`.

    Raises:
        ValueError: nothing of these, arguments that the class does not take, or a component's name that is no text, is
            empty, begins with an underscore or is one of `RESERVED`.
    """
    scorer = _make(spec)
    for component in scorer.component_names:
        if problem := name_problem(component):
            raise ValueError(f"a scorer's component cannot be named {component!r}: {problem}; {RENAME}")
    return scorer


def scorer_class(name: str) -> type[Scorer]:
    """The class of a row of `SCORERS`."""
    module, _, attribute = SCORERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def name_problem(component: Any) -> str | None:
    """Why a component cannot have a name; None if it can."""
    if not isinstance(component, str) or not component:
        return "a name is a text of at least one character"
    if component.startswith("_"):
        return "Gymnasium's vector envs keep such names for their masks"
    return RESERVED.get(component)


def _make(spec: Any) -> Scorer:
    if isinstance(spec, Scorer):
        return spec
    if isinstance(spec, str):
        return _build(spec, {})
    if isinstance(spec, Mapping):
        kwargs = dict(spec)
        name = kwargs.pop("name", None)
        if not isinstance(name, str):
            raise ValueError(f"the scorer {dict(spec)!r} has no 'name'; it must be {ACCEPTED}")
        return _build(name, kwargs)
    if callable(spec):
        return _from_object(spec, getattr(spec, "__name__", type(spec).__name__), {})
    raise ValueError(f"a scorer cannot be {spec!r} ({type(spec).__name__}); accepted are {ACCEPTED}")


def _build(name: str, kwargs: dict[str, Any]) -> Scorer:
    if ":" in name:
        return _from_object(import_string(name, what="scorer"), name, kwargs)
    if name not in SCORERS:
        hint = did_you_mean(name, SCORERS)
        raise ValueError(
            f"unknown scorer {name!r}{hint}; a function of your own is 'module:function'; accepted are {ACCEPTED}"
        )
    return _construct(scorer_class(name), name, kwargs)


def _from_object(found: Any, name: str, kwargs: dict[str, Any]) -> Scorer:
    """A scorer from what a user passed or an import string named."""
    if inspect.isclass(found):
        if not issubclass(found, Scorer):
            raise ValueError(f"the class {name!r} is no textgym.Scorer; pass a function, or subclass Scorer")
        return _construct(found, name, kwargs)
    if isinstance(found, Scorer):
        if kwargs:
            raise ValueError(f"scorer {name!r} is built already, and takes no arguments, but got {sorted(kwargs)}")
        return found
    if not callable(found):
        raise ValueError(f"scorer {name!r} is {found!r}; it must be a function or a textgym.Scorer")
    if "function" in kwargs:
        raise ValueError(f"scorer {name!r} is a function already; leave out the argument 'function'")
    return _construct(scorer_class("function"), name, {"function": found, **kwargs})


def _construct(cls: type[Scorer], name: str, kwargs: dict[str, Any]) -> Scorer:
    """`cls(**kwargs)`, with arguments checked first, so that an error inside the constructor stays itself."""
    parameters = {("component_name" if p == "name" else p): v for p, v in inspect.signature(cls).parameters.items()}
    named = {p: v for p, v in parameters.items() if v.kind not in (v.VAR_POSITIONAL, v.VAR_KEYWORD)}
    accepts_any = any(v.kind is v.VAR_KEYWORD for v in parameters.values())
    for argument in kwargs:
        if argument not in named and not accepts_any:
            raise ValueError(
                f"scorer {name!r} takes no argument {argument!r}{did_you_mean(str(argument), named)}; accepted are "
                f"{list(named)}"
            )
    if missing := [p for p, v in named.items() if v.default is v.empty and p not in kwargs]:
        raise ValueError(f"scorer {name!r} needs the arguments {missing}; accepted are {list(named)}")
    return cls(**{("name" if argument == "component_name" else argument): value for argument, value in kwargs.items()})
