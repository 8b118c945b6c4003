"""Prompt search: the policy writes the prompt of a frozen language model, and is paid for the model's response."""

from __future__ import annotations

import hashlib
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textgym.arguments import Count, NonNegative, Seed, check_argument
from textgym.importing import did_you_mean
from textgym.mdp import TextMDP
from textgym.prompt_table import PromptTable
from textgym.scorers.base import FloatArray, Generations, Scorer, ScorerError, Scores, errors_of
from textgym.scorers.composition import refuse_duplicates
from textgym.scorers.language_model import LanguageModel
from textgym.scorers.registry import make_scorer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from textgym.tokenizers import Tokenizer


class Respond(Scorer):
    """Another scorer's verdict on what a frozen language model answers to the completion.

    The policy's actions are the model's input: its completion, put into a template, is the model's prompt. The inner
    scorer sees the model's response as the completion, beside the env's own prompt and its columns, and never what the
    policy wrote. So a sentiment word in the completion pays nothing unless the model takes it up.

    The same input gets the same response, whatever stands beside it in the batch: a response is greedy, or drawn with
    random numbers that its input and the seed determine. (What floating point does to another batch may still decide
    between two tokens of equal probability.) The responses can be read as an extra of the training
    (`env.unwrapped.task.trainer.extras`), the column `NAME/response`.

    Args:
        scorer: judges the response; anything that `make_scorer` accepts. Its components stay visible in `info`.
        model: the frozen model, anything that `textgym.language_models.load_model` accepts.
        tokenizer: anything that `textgym.tokenizers.make_tokenizer` accepts; None is the model's own.
        template: the model's input; `{completion}`, `{prompt}` and the `{NAME}` of any of the prompts' columns are
            replaced, and a brace is written twice, as in Python's `str.format`.
        chat: make of that input a user's message, in the chat template of the model's tokenizer.
        max_new_tokens: the longest response.
        temperature: logits are divided by it; 0 takes the likeliest token.
        seed: of the random numbers.
        device: where the model runs; None is the CPU, or where a loaded model is.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; None is float32, or what a loaded model has.
        batch_size: responses that are decoded at a time.
        name: the component's name in `info`.

    Range: that of the inner scorer.

    Cost: decoding one response per different input, with a key-value cache; and the inner scorer.

    Source: RLPrompt (Deng et al. 2022, arXiv 2205.12548).

    Example: `{"name": "respond", "scorer": "exact_match", "model": "tiny", "template": "{completion} {question}"}`

    Raises:
        ValueError: there is no such model, tokenizer, dtype or device, or the model cannot be decoded; a template that
            is none or has no completion in it; an argument of another type or range; an inner scorer that pays per
            token, or has a component of this name.
        ScorerError: when asked, an input and its response are longer than the model reads, or the prompts lack a
            column.
        ImportError: torch or transformers is missing.
    """

    def __init__(
        self,
        scorer: Any,
        model: str | Path | PreTrainedModel = "tiny",
        *,
        tokenizer: str | Path | Tokenizer | None = None,
        template: str = "{completion}",
        chat: bool = False,
        max_new_tokens: Count = 32,
        temperature: NonNegative = 0.0,
        seed: Seed = 0,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_size: int = 32,
        name: str = "respond",
    ):
        check_argument(f"scorer {name!r}: chat", chat, bool)
        check_argument(f"scorer {name!r}: max_new_tokens", max_new_tokens, Count)
        check_argument(f"scorer {name!r}: temperature", temperature, NonNegative)
        check_argument(f"scorer {name!r}: seed", seed, Seed)
        self.name, self.template, self.chat = name, template, chat
        self.temperature, self.seed = temperature, seed
        self._fields = _fields_of(name, template)
        self.scorer = make_scorer(scorer)
        if self.scorer.per_token:
            raise ValueError(f"scorer {name!r}: {self.scorer.name!r} pays per token; it must judge a whole response")
        refuse_duplicates(name, self.component_names)
        self.responder = LanguageModel(name, model, tokenizer, device, dtype, batch_size)
        from textgym.language_models.decoder import check_decoding

        coder = self.responder.tokenizer
        with errors_of(name):
            self._mdp = TextMDP(coder.vocab_size, 1, max_new_tokens, coder.eos_token_ids, coder.bos_token_id)
            check_decoding(self.responder.model, self._mdp)
            if chat:
                coder.apply_chat_template([{"role": "user", "content": "a"}])

    @property
    def component_names(self) -> tuple[str, ...]:
        """This one's name, then the inner scorer's components."""
        return (self.name, *self.scorer.component_names)

    def score(self, generations: Generations) -> FloatArray:
        """(n,) values."""
        return self.evaluate(generations).rewards

    def evaluate(self, generations: Generations) -> Scores:
        """The inner scorer's values of the responses, under this one's name as well."""
        ended = np.flatnonzero(generations.ended)
        values = np.zeros((1 + len(self.scorer.component_names), len(generations)))
        if ended.size:
            answered = self.answered(generations.select(ended))
            generations.trainer.log_extra(f"{self.name}/response", answered.completions)
            inner = self.scorer.evaluate(answered)
            values[:, ended] = [inner.rewards, *(inner.components[name] for name in self.scorer.component_names)]
        return Scores(values[0], dict(zip(self.component_names, values, strict=True)))

    def answered(self, generations: Generations) -> Generations:
        """What the inner scorer sees: the same prompts, and the model's responses to the completions.

        Raises:
            ScorerError: an input and its response are longer than the model reads, the prompts lack a column, or an
                empty input meets a tokenizer without a begin token.
        """
        from textgym.language_models.responses import respond

        inputs = self._inputs(generations)
        try:
            token_ids = {text: self._encode(text) for text in dict.fromkeys(inputs)}
        except ValueError as error:
            raise ScorerError(str(error)) from error
        longest = self._mdp.max_new_tokens - 1  # the last token is not read
        lengths = [len(token_ids[text]) + longest for text in inputs]
        self.responder.check_lengths(generations, lengths, "tokens with the longest response")
        responses = respond(
            self.responder.model,
            list(token_ids.values()),
            self._mdp,
            temperature=self.temperature,
            seeds=[_number(self.seed, text) for text in token_ids],
            batch_size=self.responder.batch_size,
        )
        response_of = dict(zip(token_ids, responses, strict=True))
        return self._with_completions(generations, [response_of[text] for text in inputs])

    def _inputs(self, generations: Generations) -> list[str]:
        """The template filled for each row."""
        known = {**generations.columns, "prompt": generations.prompts, "completion": generations.completions}
        for field in self._fields:
            if field not in known:
                raise ScorerError(
                    f"scorer {self.name!r}: the template {self.template!r} names {field!r}, which is no column of the "
                    f"prompts; there are {list(known)}{did_you_mean(field, known)}"
                )
        rows = zip(*(known[field] for field in self._fields), strict=True)
        return [self.template.format(**dict(zip(self._fields, row, strict=True))) for row in rows]

    def _encode(self, text: str) -> list[int]:
        if not self.chat:
            return self.responder.context(text)
        coder = self.responder.tokenizer
        return coder.encode(coder.apply_chat_template([{"role": "user", "content": text}]))

    def _with_completions(self, generations: Generations, completions: list[list[int]]) -> Generations:
        """Rows with other completions, token ids of the model's tokenizer, in which the prompts are written as well."""
        coder, start = self.responder.tokenizer, self._mdp.bos_token_id
        ids, numbering = np.unique(generations.prompt_ids, return_inverse=True)
        columns = generations.table.columns(ids)
        contents: list[Any] = generations.table.contents(ids)
        if coder.pretrained is None or not coder.pretrained.chat_template:
            contents = generations.table.texts(ids)
        prompts = [
            {"prompt": content, **{name: values[i] for name, values in columns.items()}}
            for i, content in enumerate(contents)
        ]
        texts = [c if isinstance(c, str) else coder.apply_chat_template(c) for c in contents]
        longest = max(1, *(len(coder.encode(text)) for text in texts))
        start = coder.eos_token_ids[0] if start is None else start  # stands for an empty prompt, and reads as none
        mdp = TextMDP(self._mdp.vocab_size, longest, self._mdp.max_new_tokens, self._mdp.eos_token_ids, start)
        table = PromptTable(prompts, coder, mdp)
        observations = table.observations(numbering).astype(np.int64)
        for row, written in zip(observations, completions, strict=True):
            row[longest : longest + len(written)] = written
        lengths = mdp.completion_lengths(observations)
        every = np.ones(len(completions), bool)
        return Generations(
            mdp, coder, table, observations, numbering, generations.rows, lengths, every, generations.trainer
        )


def _fields_of(name: str, template: Any) -> list[str]:
    """The names that a template's braces hold."""
    check_argument(f"scorer {name!r}: template", template, str)
    try:
        parts = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"scorer {name!r}: template is {template!r}: {error}") from error
    for field, form, conversion in parts:
        if not field.isidentifier() or form or conversion:  # type: ignore[union-attr]
            raise ValueError(
                f"scorer {name!r}: template is {template!r}; in its braces stand plain names, as {{prompt}}"
            )
    fields = list(dict.fromkeys(str(field) for field, _, _ in parts))
    if "completion" not in fields:
        raise ValueError(
            f"scorer {name!r}: template is {template!r}; it must have {{completion}} in it, or the policy has no say"
        )
    return fields


def _number(seed: int, text: str) -> int:
    """A seed for each text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{text}".encode(), digest_size=8).digest(), "big")
