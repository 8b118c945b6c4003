"""Tiny reward models with random weights, encoder- and decoder-style, and texts for them."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

from textgym.testing import make_generations

ALPHABET = "abcdefghijklmnopqrstuvwxyz .,!?|"


SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "<eos>"]


TEMPLATE = "{% for m in messages %}{{ m['role'][0] }}|{{ m['content'] }}|{% endfor %}"


BATCH = make_generations(["the film", "a", "why so"], [" was good", "", "?"])


def make_tokenizer(**special):
    backend = Tokenizer(models.WordLevel({c: i for i, c in enumerate([*SPECIAL, *ALPHABET])}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    if "cls_token" in special:
        backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def encoder(num_labels=1, **config):
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=36, num_labels=num_labels, initializer_range=0.5, **size, **config)
    tokenizer = make_tokenizer(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    return BertForSequenceClassification(config).eval(), tokenizer


def decoder(num_labels=1):
    """A reward model without a padding token, as many decoder-style ones come."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=36, n_positions=64, n_embd=16, n_layer=2, n_head=2, num_labels=num_labels)
    config.initializer_range, config.bos_token_id, config.eos_token_id = 0.5, 3, 3
    return GPT2ForSequenceClassification(config).eval(), make_tokenizer(eos_token="<eos>")


CLASSIFIERS = {"encoder": encoder, "decoder": decoder}


@torch.no_grad()
def logits(model, tokenizer, text, **kwargs):
    return model(torch.tensor([tokenizer(text, **kwargs)["input_ids"]])).logits[0]
