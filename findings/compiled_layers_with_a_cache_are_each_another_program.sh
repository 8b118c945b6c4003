#!/usr/bin/env bash
# torch 2.13.0 with transformers 5.23.0: compiling the layers of a model one by one (`layer.compile()`) makes one program for all of
# them, as they are the same; but with a key-value cache each layer is another program, because the cache's `update` is compiled
# along with it and reads `layer_idx`. After eight programs torch gives up on that function: of twelve layers four are never compiled, and
# a decode step, whose one token is another shape, runs no compiled layer at all. Nothing is raised; a line of a log is all.
# Seen:  no cache: 1 program, 12 of 12 layers run it
#        cache:    8 programs, 8 of 12 layers of the prompt's pass run them, 0 of 12 of a decode step
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q transformers==5.23.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
programs, runs = [], []


def counting(graph, _):
    """A backend that compiles nothing, and counts the programs that it is given and how often they run."""
    programs.append(graph)
    return lambda *args: runs.append(1) or graph(*args)


def compiled_layers(with_cache):
    """Of the passes of a prompt and of one more token: all programs so far, and how many layers run one."""
    torch._dynamo.reset()
    programs.clear()
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=12, num_attention_heads=4,
                         bos_token_id=None, eos_token_id=None)
    model = LlamaForCausalLM(config).eval()
    for layer in model.model.layers:
        layer.compile(backend=counting, dynamic=True)
    cache, counts = DynamicCache(config=config) if with_cache else None, []
    for tokens in (5, 1):
        runs.clear()
        with torch.no_grad():
            model(torch.arange(2 * tokens).view(2, tokens), past_key_values=cache, use_cache=with_cache)
        counts.append((len(programs), len(runs)))
    return counts


(made, run), _ = compiled_layers(False)
(made_with, run_with), (_, run_in_step) = compiled_layers(True)
print(f"no cache: {made} program, {run} of 12 layers run it")
print(f"cache:    {made_with} programs, {run_with} of 12 layers of the prompt's pass run them, {run_in_step} of 12 of a decode step")
assert (made, run, made_with, run_with, run_in_step) == (1, 12, 8, 8, 0)
PYTHON
