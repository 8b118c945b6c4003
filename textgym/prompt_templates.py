"""How a question and the examples before it are written: as one text, or as the turns of a chat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

from textgym.importing import did_you_mean
from textgym.prompts import Messages, Prompt, copied, is_begun

TEMPLATES: dict[str, str | Messages] = {
    "plain": "{prompt} {reference}\n",
    "qa": "Question: {prompt}\nAnswer: {reference}\n\n",
    "chat": [{"role": "user", "content": "{prompt}"}, {"role": "assistant", "content": "{reference}"}],
}
"""Templates by name."""
ANSWER = "reference"
"""The field of the answer: an example shows it, a question ends before it."""

Pieces = list[tuple[str, str | None]]
"""Literal text, and the field that follows it, or None at the end."""


class Template:
    """Writes examples and a question.

    One template says both: an example is all of it, with the fields filled in, and a question is what stands before
    `{reference}`. Spaces right before that field are left to the completion, because tokenizers put a space and the
    word behind it into one token.

    Attributes:
        is_chat: whether it writes chats.
        has_answer: whether it has the field `{reference}`.

    Args:
        template: a name of `TEMPLATES`; or a text with fields such as `{prompt}` and those of other columns, as
            `str.format` reads them; or a list of chat messages with such contents, the last of them the assistant's
            where it has `{reference}`. A prompt that is a chat takes the place of the message `{prompt}`. A message of
            the system's stands once, at the front.
        instruction: what stands before everything: in a text a paragraph, in a chat the system's message; as it is.
        column: the prompts' column with the answer, a text or a list of texts, of which the first is shown.
        columns: the columns that the prompts have.

    Raises:
        ValueError: nothing of these, or a field that is no column.
    """

    def __init__(
        self,
        template: str | Sequence[Mapping[str, str]],
        instruction: str | None = None,
        column: str = ANSWER,
        columns: Iterable[str] = (ANSWER,),
    ):
        given = TEMPLATES.get(template, template) if isinstance(template, str) else template
        self.is_chat = not isinstance(given, str)
        self._instruction, self._column = instruction, column
        turns = _messages(given) if not isinstance(given, str) else [("", given)]
        self._turns: list[tuple[str, Pieces]] = [(role, _pieces(text)) for role, text in turns]
        fields = [field for _, pieces in self._turns for _, field in pieces if field is not None]
        self.has_answer = ANSWER in fields
        if not fields:
            hint = did_you_mean(template, TEMPLATES) if isinstance(template, str) else ""
            raise ValueError(
                f"template {template!r} has no field such as {{prompt}}{hint or ';'} those with a name are "
                f"{sorted(TEMPLATES)}"
            )
        known = ["prompt", ANSWER, *(name for name in columns if name not in (ANSWER, column))]
        if wrong := [field for field in fields if field not in known]:
            hint = did_you_mean(wrong[0], known) or ";"
            raise ValueError(f"template {given!r} has the field {{{wrong[0]}}}{hint} fields are {known}")
        last = self._turns[-1]
        if self.is_chat and self.has_answer and (last[0] != "assistant" or fields.index(ANSWER) < len(fields) - 1):
            raise ValueError(f"template {given!r}: {{{ANSWER}}} stands once, in the last message, the assistant's")

    def ask(self, examples: Sequence[Prompt], question: Prompt) -> str | Messages:
        """The prompt: the examples with their answers, in this order, and then the question.

        Raises:
            ValueError: an example has no answer, or lacks a column; or a chat is to be written as a text, goes on with
                an assistant's message where it is to be an example, or has one of the system's beside the instruction.
        """
        shown = [turn for example in examples for turn in self._filled(example, whole=True)]
        asked = self._filled(question, whole=False)
        if not self.is_chat:
            texts = [turn["content"] for turn in shown + asked]
            return "".join(texts if self._instruction is None else [f"{self._instruction}\n\n", *texts])
        first = [turn for turn in asked if turn["role"] == "system"]
        if self._instruction is not None:
            if first:
                raise ValueError(f"an instruction is given, but there is a message of the system's, too: {first[0]!r}")
            first = [{"role": "system", "content": self._instruction}]
        return first + [turn for turn in shown + asked if turn["role"] != "system"]

    def _filled(self, prompt: Prompt, whole: bool) -> Messages:
        """The turns of a prompt, up to its answer or with it; a text is a turn without a role."""
        filled: Messages = []
        for role, pieces in self._turns:
            if not isinstance(prompt.content, str) and pieces == [("", "prompt")] and self.is_chat:
                if whole and is_begun(prompt.content):
                    raise ValueError(f"a chat that ends with the assistant's message is no example: {prompt.content!r}")
                filled += copied(prompt.content)
                continue
            text = ""
            for literal, field in pieces:
                text += literal
                if field == ANSWER and not whole:
                    text = text.rstrip(" ")
                    return [*filled, {"role": role, "content": text}] if text else filled
                text += "" if field is None else self._value(prompt, field)
            filled.append({"role": role, "content": text})
        return filled

    def _value(self, prompt: Prompt, field: str) -> str:
        if field == "prompt":
            if not isinstance(prompt.content, str):
                raise ValueError(
                    f"a prompt is a chat, {prompt.content!r}; it fits a template of messages that has it as one of its "
                    "own, such as 'chat'"
                )
            return prompt.content
        if field != ANSWER:
            if field not in prompt.columns:
                raise ValueError(f"the prompt {prompt.content!r} has no column {field!r}, which the template asks for")
            return str(prompt.columns[field])
        value = prompt.columns.get(self._column)
        first = value[0] if isinstance(value, list | tuple) and value else value
        if not isinstance(first, str):
            raise ValueError(
                f"the example {prompt.content!r} has {value!r} in the column {self._column!r}; an answer is a text, or "
                "a list of texts of which the first is shown"
            )
        return first


def _messages(template: Any) -> list[tuple[str, str]]:
    """Role and content of each message of a template."""
    is_list = isinstance(template, Sequence) and len(template) > 0
    if not is_list or not all(
        isinstance(m, Mapping) and set(m) == {"role", "content"} and all(isinstance(v, str) for v in m.values())
        for m in template
    ):
        raise ValueError(
            f"template {template!r} is neither a text nor a list of messages, each with a role and a text as content"
        )
    return [(message["role"], message["content"]) for message in template]


def _pieces(text: str) -> Pieces:
    """A text with fields, in pieces."""
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"template {text!r}: {error}; a brace by itself is written twice, {{{{ or }}}}") from error
    if wrong := [field for _, field, form, conversion in parsed if form or conversion]:
        raise ValueError(f"template {text!r} has the field {{{wrong[0]}}} with a format; a field is a name alone")
    return [(literal, field) for literal, field, _, _ in parsed]
