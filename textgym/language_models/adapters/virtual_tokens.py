"""Prompt tuning and prefix tuning: virtual tokens before every row, in the model's own forward pass.

Whatever follows a token sees of it only its keys and values. Those of virtual tokens are the same for every row: prefix
tuning learns them; prompt tuning learns embeddings, of which one pass over the virtual tokens makes keys and values. So
they are written into a cache before the first real token, and training, cached decoding, shared prompts and trees of
answers go on from there. A model has them whoever calls it, `generate` included; `disable_adapters()` takes them away.

Left out: peft's own forward pass, which throws a given cache away (prefix tuning) or puts the virtual tokens in again
at every step (prompt tuning). The logits of a new model are compared with its logits once.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModelForCausalLM
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import DynamicCache

from textgym.language_models.adapters.files import ADAPTERS
from textgym.language_models.adapters.kinds import peft_type

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

KeysAndValues = list[tuple[torch.Tensor, torch.Tensor]]
"""Of each layer, (1, heads, K, head size)."""


class VirtualTokens(nn.Module, BaseTunerLayer):
    """K virtual tokens, a module of a model's trunk, which they precede in every forward pass.

    Attributes:
        prompt_embeddings: (K, H) embeddings, or (K, 2 layers heads size) keys and values; named as in peft's file.

    Args:
        config: peft's, with what it reads off the model.
        prompt_embeddings: see above.
    """

    def __init__(self, config: PeftConfig, prompt_embeddings: nn.Parameter):
        super().__init__()
        self.config, self.prompt_embeddings, self._running = config, prompt_embeddings, False

    def enable_adapters(self, enabled: bool) -> None:
        """Whether they are there; nothing of them is trained meanwhile, as peft has it for every kind."""
        self._disable_adapters = not enabled
        self.requires_grad_(enabled)

    def into_cache(self, trunk: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As a hook, give the trunk's forward pass a cache that begins with them, and move positions and masks on."""
        if self.disable_adapters or self._running:
            return None
        kwargs = dict(zip(inspect.signature(trunk.forward).parameters, args, strict=False)) | kwargs
        inputs = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
        if kwargs.get("past_key_values") is None:
            kwargs["past_key_values"] = DynamicCache()
        if kwargs["past_key_values"].get_seq_length() == 0:
            put_in_front(kwargs["past_key_values"], self.keys_and_values(trunk), len(inputs))
        for name in ("position_ids", "cache_position"):
            if kwargs.get(name) is not None:
                kwargs[name] = kwargs[name] + len(self.prompt_embeddings)
        if (mask := kwargs.get("attention_mask")) is not None:  # (B, L), or added to scores, (B, 1, L, L')
            seen = 0 if mask.ndim == 4 and mask.dtype != torch.bool else 1
            kwargs["attention_mask"] = nn.functional.pad(mask, (len(self.prompt_embeddings), 0), value=seen)
        return (), kwargs

    def keys_and_values(self, trunk: nn.Module) -> KeysAndValues:
        """Of the virtual tokens, with gradient."""
        weight = self.prompt_embeddings
        if peft_type(self.config) == "PREFIX_TUNING":
            parts = weight.view(len(weight), self.config.num_layers, 2, self.config.num_attention_heads, -1)
            return [(part[None, 0], part[None, 1]) for part in parts.permute(1, 2, 3, 0, 4)]
        cache, positions = DynamicCache(), torch.arange(len(weight), device=weight.device)[None]
        self._running = True
        try:
            trunk(inputs_embeds=weight[None], position_ids=positions, past_key_values=cache, use_cache=True)
        finally:
            self._running = False
        return [(layer.keys, layer.values) for layer in cache.layers]


def put_in_front(cache: Any, prefix: KeysAndValues, n: int) -> None:
    """Write what all `n` rows begin with into an empty cache, transformers' or one of ours."""
    if hasattr(cache, "begin"):
        cache.begin(prefix)
        return
    for number, (keys, values) in enumerate(prefix):
        cache.update(keys.expand(n, -1, -1, -1), values.expand(n, -1, -1, -1), number)


ERRORS = ValueError, TypeError, RuntimeError, AttributeError, KeyError, IndexError
"""What models and peft raise where they do not go together."""


@torch.no_grad()
def install(
    model: PreTrainedModel,
    config: PeftConfig,
    prompt_embeddings: nn.Parameter | None = None,
    expected: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> None:
    """Freeze a model and make virtual tokens a part of it, as if transformers had loaded them.

    Args:
        model: without adapters.
        config: peft's, with what it reads off the model.
        prompt_embeddings: see `VirtualTokens`; None takes zeros, for weights that are still to be read.
        expected: token ids (1, L), and the logits (1, L, V) that the model must then have.

    Raises:
        ValueError: they are not of the model's size, it cannot begin with a cache, or has other logits.
    """
    hook = None
    try:
        if prompt_embeddings is None:
            parts = 2 * config.num_layers if peft_type(config) == "PREFIX_TUNING" else 1
            prompt_embeddings = nn.Parameter(torch.zeros(config.num_virtual_tokens, parts * config.token_dim))
        tokens = VirtualTokens(config, prompt_embeddings).to(model.device, model.dtype)
        hook = model.base_model.register_forward_pre_hook(tokens.into_cache, with_kwargs=True)
        ids, logits = expected or (torch.zeros(1, 1, dtype=torch.long, device=model.device), None)
        found = model(input_ids=ids).logits
        if logits is not None and not (found - logits).abs().max() <= 1e-3 * logits.abs().max():
            raise ValueError(f"peft's own forward pass has other logits, by {float((found - logits).abs().max()):.2g}")
    except ERRORS as error:
        if hook is not None:
            hook.remove()
        raise ValueError(" ".join(str(error).split())) from error
    model.requires_grad_(False)  # as injected adapters do
    model.base_model.add_module("virtual_tokens", tokens)
    model.peft_config, model._hf_peft_config_loaded = {ADAPTERS: config}, True


@torch.no_grad()
def add_virtual_tokens(model: PreTrainedModel, config: PeftConfig) -> None:
    """Add new virtual tokens to a model, in place; they do not start as the identity.

    Raises:
        ValueError: peft has other logits for this model, or none; or there is no text for them to start from.
    """
    start = text_embeddings(model, config) if getattr(config, "prompt_tuning_init", None) == "TEXT" else None
    if start is not None:
        config.prompt_tuning_init = "RANDOM"  # peft would look for our tokenizers on the hub
    try:
        made: Any = PeftModelForCausalLM(model, config, ADAPTERS).eval()
        weight = made.prompt_encoder[ADAPTERS].embedding.weight
        if start is not None:
            weight.copy_(start)
        ids = torch.tensor([[0, model.get_input_embeddings().weight.shape[0] - 1]], device=model.device)
        logits = made(input_ids=ids).logits[:, -2:]
    except ERRORS as error:
        raise ValueError(" ".join(str(error).split())) from error
    install(model, config, weight, (ids, logits))


def text_embeddings(model: PreTrainedModel, config: PeftConfig) -> torch.Tensor:
    """The embeddings (K, H) of a text's tokens, the first K of them, or again and again, as peft has it."""
    from textgym.language_models.loader import load_tokenizer

    ids = load_tokenizer(config.tokenizer_name_or_path)(config.prompt_tuning_init_text)["input_ids"]
    if not ids:
        raise ValueError(f"prompt_tuning_init_text={config.prompt_tuning_init_text!r} has no token")
    ids = (ids * config.num_virtual_tokens)[: config.num_virtual_tokens]
    return model.get_input_embeddings()(torch.tensor(ids, device=model.device))
