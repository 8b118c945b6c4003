#!/usr/bin/env bash
# transformers 5.23.0: `generate(do_sample=True)` draws from the 50 likeliest tokens only, although the model's
# generation_config says top_k=None, and neither to_diff_dict() nor a warning says otherwise. So what it writes does not
# follow the model's distribution: a policy that is sampled with `generate` and scored with its full softmax has
# probability ratios that are off by the mass that was cut. top_k=0 gives the model's own distribution.
# Seen:  generation_config.top_k = None; 50 of 200 tokens possible by default, 200 of 200 with top_k=0
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q transformers==5.23.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                     bos_token_id=None, eos_token_id=None, pad_token_id=0)
model = LlamaForCausalLM(config).eval()


def possible(**options):
    out = model.generate(torch.tensor([[1]]), do_sample=True, max_new_tokens=1, output_scores=True,
                         return_dict_in_generate=True, **options)
    return int(torch.isfinite(out.scores[0]).sum())


top_k = model.generation_config.top_k
print(f"generation_config.top_k = {top_k}; {possible()} of 200 tokens possible by default, "
      f"{possible(top_k=0)} of 200 with top_k=0")
assert top_k is None and "top_k" not in model.generation_config.to_diff_dict()
assert possible() == 50 and possible(top_k=0) == 200
PYTHON
