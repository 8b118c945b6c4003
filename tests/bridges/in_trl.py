# /// script
# dependencies = ["trl==1.16.0"]
# ///
"""Real TRL trainings on an env id; run by test_in_environments.py, where TRL is installed."""

import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.chat_template_utils import qwen3_chat_template

from tests.helpers.docs import blocks, page, section
from textgym.bridges.trl import TRLTask
from textgym.language_models import load_model
from textgym.language_models.loader import resolve


def trained(bridge, model, tmp_path, trainer=GRPOTrainer, config=GRPOConfig, max_steps=3, **kwargs):
    """A short training, and what its reward function was given and returned."""
    set_seed(0)
    seen = []

    def rewards(**given):
        seen.append((given, bridge.reward_func(**given)))
        return seen[-1][1]

    args = config(
        output_dir=str(tmp_path),
        max_steps=max_steps,
        per_device_train_batch_size=16,
        num_generations=8,
        learning_rate=1e-4,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        gradient_checkpointing=False,
        **bridge.config,
    )
    made = trainer(
        model=resolve(model) if isinstance(model, str) else model,
        reward_funcs=rewards,
        args=args,
        processing_class=bridge.processing_class,
        **{"train_dataset": bridge.dataset("train")} | kwargs,
    )
    made.train()
    return made, seen


def hand_rewards(env, seen):
    """The env's returns for the same prompts and tokens, and those that TRL was given."""
    by_hand, by_trl = [], []
    for given, rewards in seen:
        by_trl += rewards
        for prompt, tokens in zip(given["prompts"], given["completion_ids"], strict=True):
            env.reset(options={"prompt": prompt})
            total = 0.0
            for token in tokens:
                _, reward, ended, _, _ = env.step(token)
                total += reward
            assert ended
            by_hand.append(total)
    return by_hand, by_trl


@pytest.mark.parametrize(("trainer", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_the_rewards_of_a_training_are_the_envs(trainer, config, tmp_path):
    made, seen = trained(TRLTask("TextGen-v0"), "tiny", tmp_path, trainer, config)
    by_hand, by_trl = hand_rewards(gym.make("TextGen-v0", split="train"), seen)
    assert len(by_trl) == 48 and np.allclose(by_hand, by_trl, rtol=1e-12)
    logged = [line["reward"] for line in made.state.log_history if "reward" in line]
    assert np.allclose(logged, np.reshape(by_hand, (3, 16)).mean(1), atol=1e-6)


def test_masks_are_kept_and_columns_arrive(tmp_path):
    """Every text is an episode of an env that permits ten digits and the end, or the bridge would have refused it."""
    bridge = TRLTask("TextGenArithmetic-v0", level=1)
    made, seen = trained(bridge, "tiny-tasks", tmp_path, eval_dataset=bridge.dataset("test").select(range(8)))
    by_hand, by_trl = hand_rewards(gym.make("TextGenArithmetic-v0", level=1), seen)
    assert by_hand == by_trl and 0 < np.mean(by_hand) < 1
    assert 0 <= made.evaluate()["eval_reward"] <= 1  # of the other split


def test_without_the_settings_the_first_forbidden_token_is_an_error(tmp_path):
    bridge = TRLTask("TextGenArithmetic-v0", level=1)
    model = load_model("tiny-tasks")
    torch.nn.init.normal_(model.get_input_embeddings().weight)  # it writes anything
    settings = {"config": lambda **kwargs: GRPOConfig(**kwargs | {"generation_kwargs": {}})}
    with pytest.raises(ValueError, match="is forbidden there"):
        trained(bridge, model, tmp_path, **settings)


def test_trl_trains_on_log_probs_of_forbidden_tokens_too(tmp_path):
    """What the page warns of: TRL samples under the masks, but its log-probabilities are those of the whole vocabulary.

    Where three tokens are permitted, no distribution that an agent could sample from has more entropy than log 3.
    """
    bridge = TRLTask("TextGen-v0", allowed_tokens=[300, 301, 2])
    made, _ = trained(bridge, "tiny", tmp_path, max_steps=1)
    assert made.state.log_history[0]["entropy"] > 2 * np.log(3)


class Scripted(GRPOTrainer):
    """Rollouts whose texts are given: the first of each group submits nothing, the others a tool call each."""

    def _generate_single_turn(self, prompt_ids, *_, **__):
        texts = [next(self.script) if self.begins else "Done." for _ in prompt_ids]
        self.begins = False  # until the next batch, the model only comments on what the tool has said
        return [[*self.processing_class(text)["input_ids"], self.processing_class.eos_token_id] for text in texts], None


def test_an_environment_is_paid_for_what_the_tool_was_given(tmp_path):
    bridge = TRLTask("TextGen-v0", max_prompt_tokens=32, max_new_tokens=8)
    tokenizer = bridge.processing_class
    tokenizer.chat_template, tokenizer.eos_token = qwen3_chat_template, "<|eos|>"
    texts = [" is great", " was awful", " is fun and great", ""]
    call = '<tool_call>\n{{"name": "submit", "arguments": {{"text": "{}"}}}}\n</tool_call>'
    args = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=256,
        report_to=[],
        use_cpu=True,
        logging_steps=1,
    )
    trainer = Scripted(
        model=resolve("tiny"),
        args=args,
        train_dataset=bridge.dataset("train", conversational=True),
        processing_class=tokenizer,
        environment_factory=bridge.environment_factory(reward_without_text=-1.0),
    )
    trainer.script = iter([call.format(text) if text else "I say nothing." for text in texts * 2])
    trainer.begins, paid = True, []
    environments = trainer._calculate_rewards
    trainer._calculate_rewards = lambda *a: paid.append(environments(*a)) or paid[-1]
    trainer.train()
    env, expected = gym.make("TextGen-v0", max_prompt_tokens=32, max_new_tokens=8, split="train").unwrapped, []
    for environment, text in zip(trainer.environments, texts * 2, strict=True):
        row = env.task.encode_parts(environment._prompt["prompt"], text)
        env.reset(options={"prompt": environment._prompt["prompt"]})
        for token in row[32:][row[32:] != env.mdp.pad_id]:
            _, reward, *_ = env.step(int(token))
        expected.append(reward if text else -1.0)
    assert paid[0][:, 0].tolist() == pytest.approx(expected) and len({*expected}) > 3


def test_the_section_of_the_page_is_a_program_that_learns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    set_seed(0)
    exec("\n".join(blocks(section(page("bridges"), "TRL"))), {})
    line = capsys.readouterr().out.splitlines()[-1]
    before, after = map(float, re.findall(r"\d\.\d+", line))
    with capsys.disabled():
        print(line)
    assert after > before + 0.1
