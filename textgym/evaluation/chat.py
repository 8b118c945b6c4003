"""A conversation with a language model: every reply is an episode, whose prompt is all that was said before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from textgym.mdp import IntArray


class Conversation:
    """Turns of a user and of a model. The tokenizer's chat template makes a prompt of them.

    Attributes:
        messages: what was said so far, as `{"role", "content"}`; may be set.

    Args:
        env: a TextGym vector env of one row, in autoreset mode `"Disabled"`; its `max_prompt_tokens` bounds the
            conversation, its `max_new_tokens` a reply.
        choose: the policy, (1, P + T) observations to (1,) actions.
    """

    def __init__(self, env: Any, choose: Callable[[IntArray], IntArray]):
        self.messages: list[dict[str, str]] = []
        env.unwrapped.mdp.refuse_turns("a conversation in the terminal")
        self._env, self._choose = env, choose

    def reply(self, text: str) -> Iterator[str]:
        """Send a message; the reply comes in pieces, as it is written. Both are kept once the reply is complete.

        Raises:
            ValueError: the tokenizer has no chat template, or the conversation is longer than `max_prompt_tokens`.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        rows, _ = self._env.reset(options={"prompts": [messages]})
        task, ended, shown, written = self._env.unwrapped.task, False, "", ""
        while not ended:
            rows, _, terminations, truncations, _ = self._env.step(self._choose(rows))
            ended, written = bool((terminations | truncations)[0]), task.decode_parts(rows[0])[1]
            # A token may be a part of a character; what follows a replacement character is not handed out yet.
            ready = written if ended else written.rstrip("\N{REPLACEMENT CHARACTER}")
            yield ready[len(shown) :]
            shown = ready
        self.messages = [*messages, {"role": "assistant", "content": written}]
