#!/usr/bin/env bash
# transformers 5.23.0 with peft 0.21.2: a DoRA adapter that peft itself wrote and that `PeftModel.from_pretrained` reads
# exactly becomes another model through transformers' own `model.load_adapter(folder)`: the trained magnitude vectors are not
# found, so the freshly initialised ones stay. Nothing is raised; a load report on stderr is all. Plain LoRA is exact.
# Seen:  plain LoRA: load_adapter off by 0.0; DoRA: load_adapter off by 3.8, PeftModel by 0.0, the adapter itself moves 9.9
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q transformers==5.23.0 peft==0.21.2
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder" 2>/dev/null <<'PYTHON'
import sys

import peft
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

folder, ids = sys.argv[1], torch.arange(8)[None]
torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                     initializer_range=0.5, bos_token_id=None, eos_token_id=None)
LlamaForCausalLM(config).save_pretrained(f"{folder}/base")


def base():
    return AutoModelForCausalLM.from_pretrained(f"{folder}/base", dtype=torch.float32).eval()


def gaps(**lora):
    """How far the two ways of loading are from the trained model, and how far that is from its base."""
    model = peft.get_peft_model(base(), peft.LoraConfig(r=4, target_modules="all-linear", **lora)).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
        trained = model(ids).logits
        model.save_pretrained(f"{folder}/adapter")
        loaded = base()
        loaded.load_adapter(f"{folder}/adapter")
        again = peft.PeftModel.from_pretrained(base(), f"{folder}/adapter").eval()
        results = loaded.eval()(ids).logits, again(ids).logits, base()(ids).logits
    return [(result - trained).abs().max().item() for result in results]


plain, dora = gaps(), gaps(use_dora=True)
print(f"plain LoRA: load_adapter off by {plain[0]:.1f}; DoRA: load_adapter off by {dora[0]:.1f}, PeftModel by "
      f"{dora[1]:.1f}, the adapter itself moves {dora[2]:.1f}")
assert plain[0] == plain[1] == 0 and dora[1] == 0 and dora[0] > 1
PYTHON
