#!/usr/bin/env bash
# peft 0.21.2: with `LoraConfig(kasa_config=KasaConfig())`, `model.disable_adapter()` does not give the base model back, not
# even before any training: KaSA cuts the smallest singular values out of the frozen weights in place. RLHF code that takes
# "the policy with its adapter off" for its frozen reference then measures KL to another model. Plain LoRA gives the base back.
# Seen:  largest difference of logits with the adapter off from the base model: LoRA 0.00, KaSA 7.78
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q transformers==5.23.0 peft==0.21.2
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import peft
import torch
from peft.tuners.lora import KasaConfig
from transformers import LlamaConfig, LlamaForCausalLM

ids = torch.arange(8)[None]


def gap(**lora):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                         num_attention_heads=4, initializer_range=0.5, bos_token_id=None, eos_token_id=None)
    base = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        expected = base(ids).logits
        model = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules="all-linear", **lora)).eval()
        with model.disable_adapter():
            return (model(ids).logits - expected).abs().max().item()


plain, kasa = gap(), gap(kasa_config=KasaConfig())
print(f"largest difference of logits with the adapter off from the base model: LoRA {plain:.2f}, KaSA {kasa:.2f}")
assert plain == 0 and kasa > 1
PYTHON
