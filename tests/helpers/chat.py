"""A small tokenizer with a chat template."""

import tokenizers
from transformers import PreTrainedTokenizerFast

TURNS = "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }};{% endfor %}"
TEMPLATE = TURNS + "{% if add_generation_prompt %}a:{% endif %}"
"""`u:a question;a:` for one message of a user."""


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Characters of `abcdu:;` and EOS, ids 0 to 7."""
    vocab = {character: i for i, character in enumerate("abcdu:;")} | {"<eos>": 7}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<eos>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    backend.decoder = tokenizers.decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", chat_template=TEMPLATE)
