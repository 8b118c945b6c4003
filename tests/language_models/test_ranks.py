"""AdaLoRA's schedule and its orthogonality term are peft's; pruned adapters are read as they are."""

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import small_llama
from textgym.language_models import load_model
from textgym.language_models.adapters import save_model
from textgym.language_models.token_model import TokenModel
from textgym.mdp import TextMDP

MDP = TextMDP(vocab_size=5, max_prompt_tokens=3, max_new_tokens=6, eos_token_ids=(4,), bos_token_id=4)
IDS = torch.tensor([[0, 3, 4, 1, 2], [2, 2, 1, 0, 3]])
SETTINGS = {"total_step": 12, "tinit": 2, "tfinal": 4, "init_r": 4, "target_r": 2, "orth_reg_weight": 0.3}
CONFIG = {"peft_type": "ADALORA", **SETTINGS}


def by_peft(steps):
    """A model that peft's own loop trained, as its documentation has it."""
    torch.manual_seed(1)
    base = small_llama()
    torch.manual_seed(2)
    config = peft.AdaLoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", **SETTINGS)
    model = peft.get_peft_model(base, config)  # without a task_type its forward pass would leave the term out
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for step in range(1, steps + 1):
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    return model


def ours(steps, made=None, start=0):
    """A model whose optimizer is followed, and which knows nothing of adapters otherwise."""
    if made is None:
        base = small_llama()
        torch.manual_seed(2)
        made = TokenModel(MDP, base, peft=CONFIG)
    optimizer = torch.optim.Adam([p for p in made.model.parameters() if p.requires_grad], lr=0.05)
    made.follow(optimizer)
    for _ in range(start, steps):
        made.model(IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return made


def weights(model):
    return {n.removeprefix("base_model.model."): p for n, p in model.named_parameters() if "lora_" in n}


@pytest.mark.parametrize("steps", [1, 5, 8, 15])
def test_steps_are_those_of_peft(steps):
    theirs, model = by_peft(steps), ours(steps)
    for name, expected in weights(theirs).items():
        torch.testing.assert_close(weights(model.model)[name], expected, atol=1e-6, rtol=0)
    schedule, config = model.ranks[0], theirs.peft_config["default"]
    assert schedule.config.rank_pattern == config.rank_pattern and schedule.steps == steps
    ranks = schedule.ranks()
    assert len(ranks) == 14 and sum(ranks.values()) == {1: 56, 5: 31, 8: 28, 15: 28}[steps]


def test_orthogonality_by_hand():
    """Two modules, one Q not zero: ||Q Q' - I|| = ||diag(4, 1) - I|| = 3 there, sqrt(2) in the other three."""
    config = CONFIG | {"init_r": 2, "target_r": 1, "target_modules": ["q_proj"]}
    made = TokenModel(MDP, small_llama(), peft=config)
    with torch.no_grad():
        for n, p in weights(made.model).items():
            if "lora_A" in n or "lora_B" in n:
                p.zero_()
        first = next(p for n, p in weights(made.model).items() if "lora_A" in n)
        first[0, 3], first[1, 0] = 2, 1
    schedule = made.ranks[0]
    assert schedule.orthogonality().item() == pytest.approx((3 + 3 * 2**0.5) / 4)
    schedule.before_step()  # d 0.3 / 4 |x^2 - 1| / dx at x = 2
    assert first.grad[0, 3].item() == pytest.approx(0.3 / 4 * 4) and first.grad[1, 0].item() == 0


def test_a_weight_that_is_no_part_of_the_loss_is_no_error():
    made = TokenModel(MDP, small_llama(), peft=CONFIG)
    optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=0.1)
    made.follow(optimizer)
    for _ in range(4):
        made.model(IDS[:, :2]).logits[:, 0].sum().backward()  # keys and queries have no say in the first token
        optimizer.step()
        optimizer.zero_grad()
    assert sum(made.ranks[0].ranks().values()) < 56


def test_the_state_brings_a_schedule_back():
    for steps in (3, 6, 9):
        model = ours(steps)
        tensors = {n: t.clone() for n, t in model.ranks[0].tensors().items()}
        other = TokenModel(MDP, small_llama(), peft=CONFIG)
        other.model.load_state_dict(model.model.state_dict())
        other.ranks[0].load_tensors(tensors)
        first, second = ours(15, model, steps), ours(15, other, steps)
        for name, expected in weights(first.model).items():
            assert torch.equal(weights(second.model)[name], expected)
        assert first.ranks[0].ranks() == second.ranks[0].ranks()


def test_pruned_adapters_are_read_as_peft_reads_them(tmp_path):
    """peft leaves pruned ranks out of its file; ours, where training may bring them back, has them as zeros."""
    small_llama().save_pretrained(tmp_path / "model")
    theirs = by_peft(15)
    theirs.peft_config["default"].base_model_name_or_path = str(tmp_path / "model")
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    save_model(ours(15).model, tmp_path / "ours")
    with torch.no_grad():
        expected = theirs.eval()(IDS).logits
        assert (expected - small_llama()(IDS).logits).abs().max() > 0.1
        base = load_model(tmp_path / "ours" / "base")
        for model in (
            load_model(tmp_path / "theirs"),
            load_model(tmp_path / "ours"),
            AutoModelForCausalLM.from_pretrained(tmp_path / "ours"),
            peft.PeftModel.from_pretrained(base, str(tmp_path / "ours")),
        ):
            torch.testing.assert_close(model(IDS).logits, expected, atol=1e-6, rtol=0)
