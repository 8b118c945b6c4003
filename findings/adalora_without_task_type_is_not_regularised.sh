#!/usr/bin/env bash
# peft 0.21.2: AdaLoRA's orthogonality term is added in `AdaLoraModel.forward`, which the plain `PeftModel` does not call. So
# `get_peft_model(model, AdaLoraConfig(...))` without `task_type` trains without the term, silently, whatever
# `orth_reg_weight` is; with `task_type="CAUSAL_LM"` the same call has it.
# Seen:  loss without adapters 4.184; AdaLoRA, task_type=None: 4.184; task_type="CAUSAL_LM": 5.168
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q transformers==5.23.0 peft==0.21.2
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM

ids = torch.arange(8)[None]


def base():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                         bos_token_id=None, eos_token_id=None)
    return LlamaForCausalLM(config).eval()


def loss(task_type):
    config = peft.AdaLoraConfig(task_type=task_type, total_step=10, init_r=4, target_r=2, target_modules="all-linear")
    return peft.get_peft_model(base(), config).eval()(ids, labels=ids).loss.item()


plain, without, with_it = base()(ids, labels=ids).loss.item(), loss(None), loss("CAUSAL_LM")
print(f'loss without adapters {plain:.3f}; AdaLoRA, task_type=None: {without:.3f}; task_type="CAUSAL_LM": {with_it:.3f}')
assert abs(without - plain) < 1e-6 and with_it > plain + 0.5
PYTHON
