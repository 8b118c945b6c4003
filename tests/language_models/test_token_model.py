"""The language model as a policy of tokens: the same numbers in sampling and training, masks, memory, value heads."""

import numpy as np
import pytest
import torch

from tests.conftest import small_gpt2, small_llama
from tests.helpers.models import small
from tests.helpers.policies import MDP, agent_of, close, give_values, plain_batch, policy, random_episodes, vector_env
from textgym.language_models.log_probs import LOGITS_PER_CHUNK
from textgym.mdp import TextMDP, first_observation
from textgym.tokenizers import character_tokenizer

WIDE = TextMDP(vocab_size=5, max_prompt_tokens=9, max_new_tokens=6, eos_token_ids=(4,), bos_token_id=4)


@pytest.mark.parametrize("model", [small_llama, small_gpt2])
@pytest.mark.parametrize("restrictions", [{}, {"min_new_tokens": 2, "banned_tokens": [1]}])
def test_sampling_and_training_log_probs_agree(model, restrictions):
    made = agent_of(model(), **restrictions)
    episodes = made.sample_episodes(64)
    made.policy.set_training_mode(True)  # GPT-2's dropout must stay off
    _, log_probs, _ = made.policy.evaluate_actions(episodes.rows, episodes.actions)
    assert episodes.lengths.float().std() > 0.5  # ragged
    torch.testing.assert_close(log_probs[episodes.mask], episodes.log_probs[episodes.mask], atol=1e-4, rtol=0)
    assert (log_probs[~episodes.mask] == 0).all()


@pytest.mark.parametrize("make", [small_llama, small_gpt2])
@torch.no_grad()
def test_padding_order_and_company_of_an_episode_change_nothing(make):
    rows, actions = random_episodes()
    made, wide = give_values(policy(make())), give_values(policy(make(), WIDE))
    expected = plain_batch(made, made.model, rows)
    close(torch.stack(made.evaluate_actions(rows, actions)), expected, 1e-5)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    close(torch.stack(made.evaluate_actions(rows[order], actions[order])), expected[:, order], 1e-5)
    for i in range(len(rows)):
        close(torch.stack(made.evaluate_actions(rows[i : i + 1], actions[i : i + 1]))[:, 0], expected[:, i], 1e-5)
    padded = torch.nn.functional.pad(rows, (6, 0), value=MDP.pad_id)
    close(torch.stack(wide.evaluate_actions(padded, actions)), expected, 1e-5)
    states = torch.nn.functional.pad(rows[:, :3], (0, 6), value=MDP.pad_id)  # the first state of each episode
    values, log_probs, entropies = made.evaluate_actions(states, actions[:, 0])
    close(torch.stack([values[:, 0], log_probs, entropies]), expected[:, :, 0], 1e-5)


@torch.no_grad()
def test_logits_beyond_the_vocabulary_do_not_exist():
    """The model embeds 8 tokens, the tokenizer has 5; the other three would be nearly certain."""

    def greedy_for_nothing(seed):
        model = small_llama(vocab_size=8, seed=seed)
        model.lm_head = torch.nn.Linear(32, 8)  # with a bias
        model.lm_head.bias[:] = torch.tensor([0.0] * 5 + [20.0] * 3)
        return model

    made, reference = agent_of(greedy_for_nothing(0)), greedy_for_nothing(1)
    made.reference.model = reference
    episodes = made.sample_episodes(32)
    assert episodes.actions[episodes.mask].max() < 5
    close(episodes.log_probs, plain_batch(made.policy, made.policy.model, episodes.rows)[1], 1e-4)
    close(episodes.reference_log_probs, plain_batch(made.policy, reference, episodes.rows)[1], 1e-4)
    obs = torch.from_numpy(vector_env(4).reset(seed=0)[0])
    assert made.policy.get_distribution(obs).distribution.probs.shape == (4, 5)


@torch.no_grad()
def test_the_first_of_several_eos_ids_ends_an_episode():
    made = agent_of(eos_token_ids=[1, 4])
    episodes = made.sample_episodes(96)
    ends = (episodes.actions == 1) | (episodes.actions == 4)
    first = torch.where(ends.any(-1), ends.int().argmax(-1) + 1, 6)
    assert torch.equal(episodes.lengths, first) and {1, 4} <= set(episodes.actions[ends].tolist())
    close(episodes.log_probs, plain_batch(made.policy, made.policy.model, episodes.rows)[1], 1e-4)


@torch.no_grad()
def test_a_pad_token_that_is_the_eos_token_is_a_token_like_others():
    tokenizer = character_tokenizer("abcd").to_pretrained()
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 4
    model = small_llama(pad_token_id=4, eos_token_id=4, bos_token_id=4)
    torch.nn.init.normal_(model.get_input_embeddings().weight[4])  # a padding index starts at 0
    made = agent_of(model, tokenizer=tokenizer, prompts=["", "a", "<eos>b", "b<eos>"])
    episodes = made.sample_episodes(64)
    assert (episodes.rows[:, :3] == 4).any(-1).float().mean() > 0.5 and (episodes.actions == 4).any()
    close(episodes.log_probs, plain_batch(made.policy, made.policy.model, episodes.rows)[1], 1e-4)
    terms = made.policy.evaluate_actions(episodes.rows, episodes.actions)
    close(torch.stack(terms), plain_batch(made.policy, made.policy.model, episodes.rows), 1e-5)


@torch.no_grad()
def test_ended_rows_get_zeros_and_a_uniform_distribution():
    made = give_values(policy())
    rows, _ = random_episodes(4)  # all of them have ended
    for live in ([], [1, 3]):
        rows[live, 4:] = MDP.pad_id
        rows[live, 3] = 2
        ended = torch.tensor([i not in live for i in range(4)])
        assert all((term[ended] == 0).all() for term in made(rows))
        assert (made.predict_values(rows)[ended] == 0).all()
        assert np.array_equal(made.predict(rows.numpy(), deterministic=True)[0][ended.numpy()], [0] * int(ended.sum()))
        close(made.get_distribution(rows).distribution.probs[ended], torch.full((int(ended.sum()), 5), 0.2), 1e-6)
    assert (made(rows)[2][live] < 0).all() and (made.predict_values(rows)[live] != 0).all()


@pytest.mark.parametrize("make", [small_llama, small_gpt2])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["stored", "recomputed"])
@pytest.mark.parametrize("chunk", [2**25, 20], ids=["whole", "chunks"])
def test_gradients_are_those_of_a_plain_forward_however_memory_is_saved(make, checkpointing, chunk, monkeypatch):
    monkeypatch.setitem(LOGITS_PER_CHUNK, "cpu", chunk)
    made, truth = policy(make(), gradient_checkpointing=checkpointing), make()
    give_values(made).train(True)  # dropout, which GPT-2 is configured with, must stay off
    rows, actions = random_episodes()
    weights = torch.randn(3, *actions.shape, generator=torch.Generator().manual_seed(0))
    sizes, layers = [], []
    made.model.lm_head.register_forward_hook(lambda m, a, output: sizes.append(output.numel()))
    first_layer = next(m for m in made.model.modules() if type(m).__name__ in ("LlamaDecoderLayer", "GPT2Block"))
    first_layer.mlp.register_forward_pre_hook(lambda *args: layers.append(1))
    terms = torch.stack(made.evaluate_actions(rows, actions))
    forward_passes = len(layers)
    (weights * terms).sum().backward()
    expected = plain_batch(made, truth, rows)
    (weights * expected).sum().backward()
    close(terms, expected, 1e-5)
    for (name, a), b in zip(made.model.named_parameters(), truth.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4, msg=name)
    tokens = int((actions != MDP.pad_id).sum())
    assert max(sizes) == min(chunk, 5 * tokens) and len(layers) == forward_passes * (1 + checkpointing)
    assert sum(sizes) == 5 * tokens * (2 if chunk == 20 else 1)  # every chunk again in the backward pass


@pytest.mark.parametrize("without_gradient", [False, True])
def test_chunks_change_no_value_and_no_gradient(without_gradient, monkeypatch):
    rows, actions = random_episodes()
    results = []
    for chunk in (2**25, 20, 1):  # 1 is less than a row of logits
        monkeypatch.setitem(LOGITS_PER_CHUNK, "cpu", chunk)
        made = give_values(policy(temperature=0.7, top_k=3))
        if without_gradient:
            results.append(made.token_model.terms_under(made.model, rows, actions))
        else:
            terms = torch.stack(made.evaluate_actions(rows, actions))
            (terms.sum() / (actions != MDP.pad_id).sum()).backward()
            results.append([terms.detach(), *(p.grad for p in made.parameters())])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}, {"dtype": "bfloat16"}], ids=str)
@torch.no_grad()
def test_a_policy_in_training_mode_decodes_as_in_evaluation_mode(options):
    made, rows = policy(**options), torch.from_numpy(np.stack([first_observation(MDP, p) for p in ([0, 1], [2, 3])]))
    made.train(True)
    for t in range(3):
        rows[:, 3 + t] = torch.tensor([1, 0])
        got = made.get_distribution(rows).distribution.logits
        for row, log_probs in zip(rows, got, strict=True):
            with made.token_model.autocast():
                expected = made.model(row[row != 5][None], use_cache=False).logits[0, -1].float().log_softmax(-1)
            close(log_probs, expected, 1e-4 if made.token_model.dtype == "float32" else 0.05)
    assert made.training


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [("Adam", {}), ("Adam", {"fused": True}), ("AdamW", {"foreach": True}), ("SGD", {"fused": True}), ("RMSprop", {})],
    ids=str,
)
def test_decoding_follows_every_optimizer(optimizer, options, dtype):
    made = policy(optimizer_class=getattr(torch.optim, optimizer), optimizer_kwargs=options, dtype=dtype)
    rows, actions = random_episodes()
    states = rows.clone()
    states[:, 3:] = MDP.pad_id
    before = made.get_distribution(states).distribution.logits
    made.optimizer.zero_grad()
    made.evaluate_actions(rows, actions)[1].sum().backward()
    for group in made.optimizer.param_groups:
        group["lr"] = 0.02
    made.optimizer.step()
    after = made.get_distribution(states).distribution.logits
    with torch.no_grad(), made.token_model.autocast():
        expected = torch.stack([made.model(r[r != 5][None], use_cache=False).logits[0, -1].float() for r in states])
    close(after, expected.log_softmax(-1), 1e-4 if dtype is None else 0.05)
    assert (before - after).abs().max() > 0.1


def test_masked_tokens_are_never_sampled_and_have_no_probability():
    made = agent_of(min_new_tokens=3, banned_tokens=[2])
    episodes = made.sample_episodes(64)
    assert not (episodes.actions == 2).any()
    assert episodes.lengths.min() >= 3 + 0 and (episodes.actions[:, :3] < 4).all()
    obs, _ = vector_env(2, min_new_tokens=3, banned_tokens=[2]).reset(seed=0)
    probs = made.policy.get_distribution(torch.from_numpy(obs)).distribution.probs
    assert (probs[:, [2, 4]] == 0).all() and torch.allclose(probs.sum(-1), torch.ones(2))


def test_deterministic_is_the_most_likely_token():
    made = agent_of()
    obs, _ = vector_env(8).reset(seed=0)
    best = made.policy.get_distribution(torch.from_numpy(obs)).distribution.probs.argmax(-1)
    for _ in range(3):
        assert np.array_equal(made.predict(obs, deterministic=True)[0], best.numpy())
    assert len({tuple(made.predict(obs, deterministic=False)[0]) for _ in range(20)}) > 1
    assert made.predict(obs[0], deterministic=True)[0].shape == ()


def test_decoding_notices_changed_weights():
    made = agent_of()
    obs = torch.from_numpy(vector_env(4).reset(seed=0)[0])
    before = made.policy.get_distribution(obs).distribution.probs
    with torch.no_grad():
        made.policy.model.lm_head.weight.mul_(-1.0)
    after = made.policy.get_distribution(obs).distribution.probs
    assert (before - after).abs().max() > 0.01


def test_a_separate_value_function_leaves_the_policy_alone():
    rows, actions = random_episodes()
    for kind in ("shared", "separate"):
        made = policy(value_function=kind)
        values, log_probs, _ = made.evaluate_actions(rows, actions)
        assert (values == 0).all()
        with torch.no_grad():
            close(log_probs, plain_batch(made, made.model, rows)[1], 1e-5)
        give_values(made)
        made.evaluate_actions(rows, actions)[0].square().sum().backward()
        reached = [p.grad is not None and bool(p.grad.any()) for p in made.model.base_model.parameters()]
        assert any(reached) == (kind == "shared")
    assert all(p.grad.any() for p in made.token_model.value_trunk.parameters())


@torch.no_grad()
def test_a_separate_value_function_is_decoded_with_its_own_trunk():
    made = give_values(policy(value_function="separate"))
    for p in made.token_model.value_trunk.parameters():
        p.mul_(1.3)
    trunk = small_llama()
    trunk.base_model.load_state_dict(made.token_model.value_trunk.state_dict())
    rows, actions = random_episodes()
    values = plain_batch(made, trunk, rows)[0]
    close(made.evaluate_actions(rows, actions)[0], values, 1e-5)
    for t in range(6):  # decode all episodes together
        states = rows.clone()
        states[:, 3 + t :] = MDP.pad_id
        live = torch.from_numpy(~MDP.ended(states.numpy()))
        _, decoded, _ = made(states)
        close(decoded[live, 0], values[live, t], 1e-4)
        # of values up to 6, summed in another order
        close(made.evaluate_actions(states, actions[:, t].clamp(max=4))[0][live, 0], values[live, t], 2e-5)


@pytest.mark.parametrize("name", ["Bloom", "Falcon"])  # they build their own masks, of two dimensions
def test_a_model_that_cannot_be_decoded_with_a_cache_is_refused_at_once(name):
    with pytest.raises(ValueError, match=f"{name}ForCausalLM.*cache"):
        policy(small(name, 5, alibi=True))
