"""What an env is about: MDP, tokenizer, prompts and scorer, built from the arguments that both envs take."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Self

import numpy as np

from textgym.arguments import Count, accepts, check_argument
from textgym.importing import did_you_mean
from textgym.mdp import BoolArray, IntArray, TextMDP, first_observation
from textgym.prompt_sources import with_arguments
from textgym.prompt_table import PromptTable
from textgym.prompts import Prompt
from textgym.scorers import Generations, Scorer, Scores, make_scorer
from textgym.scorers.base import refuse_unscored
from textgym.scorers.trainer import Trainer
from textgym.tokenizers import Tokenizer, make_tokenizer
from textgym.turns import Partner, make_partner


@dataclass(frozen=True)
class TextTask:
    """The parts of an env that do not change as it runs, and what its scorer and a training tell each other."""

    mdp: TextMDP
    tokenizer: Tokenizer
    prompts: PromptTable
    scorer: Scorer
    trainer: Trainer = field(default_factory=Trainer)
    partner: Partner | None = None
    max_turn_tokens: int | None = None

    def score(
        self, observations: IntArray, prompt_ids: IntArray, rows: IntArray, lengths: IntArray, ended: BoolArray
    ) -> Scores:
        """Score n rows, each after its newest token; see `Generations` for the arguments.

        Raises:
            ScorerError: a scorer failed, or nothing applies to a row.
        """
        parts = self.mdp, self.tokenizer, self.prompts
        generations = Generations(*parts, observations, prompt_ids, rows, lengths, ended, self.trainer)
        start = perf_counter()
        scores = self.scorer.evaluate(generations)
        self.trainer.seconds += perf_counter() - start
        refuse_unscored(self.scorer.name, scores.rewards, generations)
        return scores

    def answer(self, prompt_id: int, turns: Sequence[str], room: int) -> list[int]:
        """The partner's answer to the last of the turns, as token ids; an EOS id alone where the episode is over.

        It is over, too, where the answer would not leave the policy a cell: an answer stands whole or not at all.

        Args:
            prompt_id: whose columns the partner sees.
            turns: see `Partner`.
            room: empty cells of the row.

        Raises:
            TypeError: the answer is neither a text nor None.
            ValueError: it is empty, or has an EOS id within.
        """
        assert self.partner is not None
        columns = {name: values[0] for name, values in self.prompts.columns(np.array([prompt_id])).items()}
        answer = self.partner(columns, tuple(turns))
        if answer is None:
            return [self.mdp.eos_token_ids[0]]
        if not isinstance(answer, str):
            raise TypeError(f"the partner answered {answer!r} to {turns[-1]!r}; it must be a text, or None for the end")
        tokens = self.tokenizer.encode(answer)
        if not tokens or self.mdp.is_eos[tokens].any():
            raise ValueError(f"the partner answered {answer!r}, the tokens {tokens}; some are wanted, and no EOS id")
        return tokens if len(tokens) < room else [self.mdp.eos_token_ids[0]]

    def decode(self, observation: Any) -> str:
        """The text of an observation, prompt and completion, special tokens left out; (P + T,) int64."""
        return self.tokenizer.decode(self._token_ids(observation))

    def decode_parts(self, observation: Any) -> tuple[str, str]:
        """The text of an observation, (P + T,) int64, in two parts, prompt and completion; see `Tokenizer`'s."""
        row, width = np.asarray(observation), self.mdp.max_prompt_tokens
        parts = self.tokenizer.decode_parts([self._token_ids(row[:width])], [self._token_ids(row[width:])])
        return parts[0][0], parts[1][0]

    def encode_parts(self, prompt: str, completion: str) -> IntArray:
        """The finished episode in which a completion is written: the inverse of `decode_parts`, (P + T,) int64.

        The prompt has the token ids that it has at the start of an episode, and the completion those that follow them
        in the text of both, or its own where that text is split into tokens across the seam. EOS is added, unless the
        completion ends with one or has T tokens, which end an episode by length.

        Raises:
            ValueError: an episode has several turns; the prompt has more than P tokens or the completion more than T;
                the tokenizer cannot encode them, or not apart from one another; a token of the completion ends the
                episode before its last one, or is forbidden there.
        """
        self.mdp.refuse_turns("encode_parts")
        row = first_observation(self.mdp, self.prompts.encode(Prompt(prompt, {}), "the prompt").token_ids.tolist())
        before, whole = self.tokenizer.encode(prompt), self.tokenizer.encode(prompt + completion)
        tokens = whole[len(before) :] if whole[: len(before)] == before else self.tokenizer.encode(completion)
        if (text := self.tokenizer.decode([*before, *tokens])) != self.tokenizer.decode(whole):
            raise ValueError(
                f"the completion {completion!r} cannot be written behind the prompt {prompt!r}: they would read "
                f"{text!r}; let the prompt end, and the completion begin, where a word does"
            )
        limit, is_eos = self.mdp.max_new_tokens, self.mdp.is_eos
        if len(tokens) < limit and not (tokens and is_eos[tokens[-1]]):
            tokens = [*tokens, self.mdp.eos_token_ids[0]]
        if len(tokens) > limit:
            raise ValueError(
                f"the completion {completion!r} has {len(tokens)} tokens, more than max_new_tokens={limit}"
            )
        places = np.arange(len(tokens))
        if (early := is_eos[tokens[:-1]]).any():
            raise ValueError(f"token {early.argmax()} of the completion {completion!r} ends the episode before its end")
        if not (permitted := self.mdp.permits(places, tokens)).all():
            raise ValueError(
                f"the env forbids token {(place := int(permitted.argmin()))} of the completion {completion!r}, id "
                f"{tokens[place]} (min_new_tokens, banned_tokens and allowed_tokens say what is permitted)"
            )
        row[self.mdp.max_prompt_tokens + places] = tokens
        return row

    def _token_ids(self, cells: Any) -> list[int]:
        cells = np.asarray(cells)
        return cells[cells != self.mdp.pad_id].tolist()


def make_task(
    tokenizer: Any = "tiny",
    prompts: Any = "reviews",
    scorer: Any = "sentiment",
    max_prompt_tokens: int = 16,
    max_new_tokens: int = 32,
    min_new_tokens: int = 0,
    banned_tokens: Sequence[int] = (),
    allowed_tokens: Sequence[int] | None = None,
    eos_token_ids: Sequence[int] | None = None,
    truncate_prompts: bool = False,
    level: int | None = None,
    split: str | None = None,
    partner: Any = None,
    eot_token_ids: Sequence[int] = (),
    max_turn_tokens: int | None = None,
) -> TextTask:
    """Build a task; the arguments are those of the envs, see `TextGenerationEnv`."""
    sizes = {
        "max_prompt_tokens": max_prompt_tokens,
        "max_new_tokens": max_new_tokens,
        "min_new_tokens": min_new_tokens,
    }
    for name, size in sizes.items():
        check_argument(name, size, int)
    check_argument("truncate_prompts", truncate_prompts, bool)
    text_tokenizer = make_tokenizer(tokenizer)
    if eos_token_ids is None:
        eos_token_ids = text_tokenizer.eos_token_ids
    elif len(token_ids("eos_token_ids", eos_token_ids)) == 0:
        raise ValueError("eos_token_ids is empty; name the ids that end a text, or None for the tokenizer's")
    answers = make_partner(partner)
    eot = token_ids("eot_token_ids", eot_token_ids)
    if (answers is None) != (not eot):
        raise ValueError(
            f"partner is {partner!r} and eot_token_ids {eot_token_ids!r}; an episode of several turns needs both, "
            "whoever answers and what a turn ends with"
        )
    if max_turn_tokens is not None:
        check_argument("max_turn_tokens", max_turn_tokens, Count)
        if answers is None:
            raise ValueError(f"max_turn_tokens is {max_turn_tokens}, but without a partner there are no turns")
    mdp = TextMDP(
        vocab_size=text_tokenizer.vocab_size,
        eos_token_ids=token_ids("eos_token_ids", eos_token_ids),
        bos_token_id=text_tokenizer.bos_token_id,
        banned_tokens=token_ids("banned_tokens", banned_tokens),
        allowed_tokens=None if allowed_tokens is None else token_ids("allowed_tokens", allowed_tokens),
        eot_token_ids=eot,
        **{name: int(size) for name, size in sizes.items()},
    )
    built_scorer = make_scorer(scorer)
    source = with_arguments(prompts, level=level, split=split)
    table = PromptTable(source, text_tokenizer, mdp, truncate_prompts)
    return TextTask(mdp, text_tokenizer, table, built_scorer, Trainer(), answers, max_turn_tokens)


def token_ids(name: str, given: Any) -> tuple[int, ...]:
    """Token ids that a user gave, as Python integers.

    Raises:
        ValueError: something else than integers; `name` names the argument.
    """
    listed: list[Any] = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [None]
    if not all(accepts(int, i) for i in listed):
        raise ValueError(f"{name} is {given!r}; it must be a list of token ids, which are integers")
    return tuple(map(int, listed))


class NamedArguments:
    """A class whose `__init__` hands arguments on to its bases; a name that none of them knows is refused.

    The chain ends with `make_task`, unless a class on the way names all that it takes.

    Raises:
        TypeError: there is no such argument.
    """

    # In __new__, because it sees the call of the outermost class; copies and pickles call it without arguments.
    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the names, and make the object."""
        known: list[str] = []
        constructors = [vars(owner)["__init__"] for owner in cls.__mro__[:-1] if "__init__" in vars(owner)]
        for function in [*constructors, make_task]:
            parameters = list(inspect.signature(function).parameters.values())
            known += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
        known = sorted({*known} - {"self"})
        for name in kwargs:
            if name not in known:
                hint = did_you_mean(name, known)
                unexpected = f"got an unexpected keyword argument {name!r}"  # Python's words, which TorchRL looks for
                raise TypeError(f"{cls.__name__} {unexpected}{hint or ';'} it takes {', '.join(known)}")
        return super().__new__(cls)
