"""bfloat16 copies of matrices against the autocast forward they stand for."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import small_gpt2, small_llama
from textgym.language_models.decoder import Decoder
from textgym.language_models.forward import hidden_states, logits_of
from textgym.language_models.precision import AutocastCopy, lower_frozen_matrices
from textgym.mdp import TextMDP, first_observation

MDP = TextMDP(vocab_size=5, max_prompt_tokens=3, max_new_tokens=6, eos_token_ids=(4,))
MODELS = [small_llama, small_gpt2]  # untied and tied heads, nn.Linear and Conv1D
IDS = torch.tensor([[4, 0, 1, 3, 2, 0], [1, 1, 2, 0, 3, 4]])


@torch.no_grad()
def autocast_logits(model, ids=IDS):
    with torch.autocast("cpu", torch.bfloat16):
        return logits_of(model, hidden_states(model, ids), 5)


@pytest.mark.parametrize("make", MODELS)
def test_a_copy_computes_what_autocast_computes(make):
    model = make()
    assert torch.equal(autocast_logits(AutocastCopy(model).model), autocast_logits(model))
    with torch.no_grad():
        assert not torch.equal(model(IDS).logits, autocast_logits(model))  # bfloat16 is at work


@pytest.mark.parametrize("make", [*MODELS, lambda: small_llama(attn_implementation="eager")])
def test_a_copy_decodes_to_the_numbers_of_an_autocast_forward(make):
    """Both round the same products to bfloat16; float32 sums in another order (2**-24) seldom move such a rounding.

    The tolerance is that of three roundings (2**-8 each) in the same direction; a wrong key moves logits by their size.
    """
    model, rng = make(), np.random.default_rng(0)
    rows = np.stack([first_observation(MDP, rng.integers(0, 5, 1 + i % 3)) for i in range(6)])
    decoder = Decoder(AutocastCopy(model).model, MDP)
    for t in range(5):
        with torch.autocast("cpu", torch.bfloat16):
            logits = decoder.logits(torch.from_numpy(rows))
        expected = torch.stack([autocast_logits(model, torch.from_numpy(r[r != 5])[None])[0, -1] for r in rows])
        torch.testing.assert_close(logits, expected, atol=3 * 2**-8 * expected.abs().max().item(), rtol=0)
        rows[: 6 - t, 3 + t] = rng.integers(0, 4, 6 - t)  # ever fewer rows grow, so that they become ragged
        rows[6 - t :, 3 + t :] = 5


@pytest.mark.parametrize("make", MODELS)
def test_a_copy_shares_what_stays_float32_and_follows_the_rest(make):
    model = make()
    copied = AutocastCopy(model)
    originals = dict(model.named_parameters(remove_duplicate=False))
    lowered = {n for n, p in copied.model.named_parameters(remove_duplicate=False) if p is not originals[n]}
    matrices = {f"{n}.weight" for n, m in model.named_modules() if type(m).__name__ in ("Linear", "Conv1D")}
    assert lowered == matrices and "lm_head.weight" in lowered
    dtypes = {n: p.dtype for n, p in copied.model.named_parameters(remove_duplicate=False)}
    assert {dtypes[n] for n in lowered} == {torch.bfloat16} and {dtypes[n] for n in set(dtypes) - lowered} == {
        torch.float32
    }
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(-0.7)
    copied.refresh()
    assert torch.equal(autocast_logits(copied.model), autocast_logits(model))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("make", MODELS)
def test_lowering_frozen_matrices_changes_no_number_of_autocast(make):
    model = make()
    expected, first = (
        autocast_logits(model),
        model.base_model.get_submodule("h.0" if make is small_gpt2 else "layers.0"),
    )
    model.requires_grad_(False)
    first.requires_grad_(True)  # what is trained stays float32
    lower_frozen_matrices(model)
    assert torch.equal(autocast_logits(model), expected)
    assert {p.dtype for p in first.parameters()} == {torch.float32}
    assert model.get_input_embeddings().weight.dtype == torch.float32
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == (make is small_gpt2)
    second = model.base_model.get_submodule("h.1" if make is small_gpt2 else "layers.1")
    kinds = {type(m).__name__: m.weight.dtype for m in second.modules() if getattr(m, "weight", None) is not None}
    assert {torch.bfloat16} == {kinds.pop(n) for n in ("Linear", "Conv1D") if n in kinds} and set(kinds.values()) == {
        torch.float32
    }


def test_a_copy_of_lowered_matrices_shares_them():
    model = small_llama().requires_grad_(False)
    lower_frozen_matrices(model)
    assert all(a is b for a, b in zip(model.parameters(), AutocastCopy(model).model.parameters(), strict=True))
    assert copy.deepcopy(model).lm_head.weight.dtype == torch.bfloat16 and isinstance(model.lm_head, nn.Linear)
