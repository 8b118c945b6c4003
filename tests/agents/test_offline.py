"""SFT and the contrastive language model, and what all agents that learn from a data set do with it."""

import json

import pytest
import torch

from agents import DPO, SFT, ContrastiveLM
from tests.conftest import CHARACTERS, PAIRS, share_of_a, small_agent

OFFLINE = [DPO, SFT, ContrastiveLM]


@pytest.mark.parametrize("cls", OFFLINE)
def test_minibatches_are_epochs_each_in_an_order_of_its_own(cls):
    made, epochs = small_agent(cls, dataset=PAIRS, batch_size=5), []
    groups = len(made.data)
    assert groups == 16
    for _ in range(2):
        rows = []
        for part in [5] * (groups // 5) + [groups % 5]:
            made.learn(1, reset_num_timesteps=False)
            episodes = made.rollout_buffer.episodes
            assert len(episodes.prompt_ids.unique()) == part and episodes.rewards.sum() == part
            assert episodes.rewards.sum(-1)[0] == 1  # the chosen text stands first
            rows += episodes.rows.tolist()
        epochs.append(rows)
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(made.data.rows.tolist()) and epochs[0] != epochs[1]
    assert made.logger.name_to_value["train/epoch"] == 2
    assert made.num_timesteps == sum((made.mdp.pad_id != torch.tensor(rows)[:, 3:]).sum() for rows in epochs)


def test_the_negatives_of_a_text_are_one_group():
    rows = [{"prompt": "a", "chosen": "b", "rejected": text} for text in ("c", "dd", "a")]
    rows += [{"prompt": "ab", "chosen": "b", "rejected": "c"}] * 2  # a row that is repeated weighs twice
    made = small_agent(ContrastiveLM, dataset=rows)
    assert made.data.starts.tolist() == [0, 4, 6, 8] and made.data.chosen.nonzero()[0].tolist() == [0, 4, 6]
    episodes = made.data.episodes([2, 0], "cpu")
    assert episodes.prompt_ids.tolist() == [0, 0, 1, 1, 1, 1]
    texts = [made.task.decode_parts(row.numpy()) for row in episodes.rows]
    assert texts == [("ab", "b"), ("ab", "c"), ("a", "b"), ("a", "c"), ("a", "dd"), ("a", "a")]


def test_micro_batches_never_cut_a_group():
    rows = [{"prompt": "ab", "chosen": "a", "rejected": text} for text in ("b", "c", "d")] + PAIRS
    episodes = small_agent(ContrastiveLM, dataset=rows).data.episodes(range(17), "cpu")
    sizes = episodes.prompt_ids.bincount().tolist()
    assert sizes == [4] + [2] * 16
    for size in (1, 2, 3, 5, 100):
        parts = episodes.whole_groups(size)
        assert torch.cat(parts).sort().values.tolist() == list(range(len(episodes)))
        for part in parts:
            groups = episodes.prompt_ids[part].unique().tolist()
            assert len(part) == sum(sizes[g] for g in groups) and (len(part) <= size or len(groups) == 1)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"chosen": "abcdabc", "rejected": "a"}, "the completion 'abcdabc' has 7 tokens, more than max_new_tokens=6"),
        ({"chosen": "a", "rejected": "abcdabc"}, "the completion 'abcdabc' has 7 tokens"),
        ({"prompt": "abcd"}, "the prompt, 'abcd', has 4 tokens, more than max_prompt_tokens=3"),
        ({"chosen": "xyz"}, "the tokenizer cannot encode 'axyz'"),
        ({"chosen": "a", "rejected": "a<eos>"}, "chosen and rejected have the same token ids: 'a'"),
        ({"chosen": "b<eos>c"}, "token 1 of the completion 'b<eos>c' ends the episode before its end"),
        ({"chosen": "a", "rejected": "a"}, "chosen and rejected are the same text"),
        ({"chosen": " "}, "chosen is blank"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["rows", "file"])
def test_a_text_that_the_env_could_not_write_is_named_by_its_row(tmp_path, row, words, kind):
    rows = [*PAIRS[:3], {"prompt": "a", "chosen": "c", "rejected": "d"} | row, *PAIRS[3:]]
    source, place = rows, "row 3 of the dataset: "
    if kind == "file":
        source = str(tmp_path / "pairs.jsonl")
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        place = f"line 4 of '{source}': "
    with pytest.raises(ValueError, match="^" + place + words):
        small_agent(DPO, dataset=source)


def test_ties_are_left_out_with_a_warning_and_alone_are_refused():
    ties = [row | {"tie": True} for row in PAIRS[:2]]
    with pytest.warns(
        UserWarning, match="2 of the 18 rows of the dataset are ties, from which DPO learns nothing; they"
    ):
        made = small_agent(DPO, dataset=[*PAIRS, *ties])
    assert len(made.data) == 16
    with pytest.raises(ValueError, match="2 of the 2 rows of the dataset are ties, from which SFT learns nothing"):
        small_agent(SFT, dataset=ties)


def test_sft_reads_texts_as_it_reads_the_chosen_ones(tmp_path):
    texts = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in PAIRS]
    expected = small_agent(SFT, dataset=PAIRS).data.rows.tolist()
    assert small_agent(SFT, dataset=texts).data.rows.tolist() == expected
    assert small_agent(SFT, dataset=iter(texts)).data.rows.tolist() == expected
    whole = small_agent(SFT, dataset=[{"text": "ab"}, {"text": "c"}])
    assert [whole.task.decode_parts(row) for row in whole.data.rows] == [("", "ab"), ("", "c")]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*texts, {"prompt": "a", "completion": "xyz"}]))
    with pytest.raises(ValueError, match=f"^line 17 of '{file}': the tokenizer cannot encode 'axyz'"):
        small_agent(SFT, dataset=str(file))
    with pytest.raises(ValueError, match="row 0 of the dataset: it lacks the column 'completion'; its columns are"):
        small_agent(SFT, dataset=[{"messages": []}])


@pytest.mark.parametrize("cls", OFFLINE)
def test_a_checkpoint_is_evaluated_without_data_and_trained_with_them(tmp_path, cls):
    made = small_agent(cls, dataset=PAIRS, learning_rate=1e-2, batch_size=4)
    made.learn(100)
    made.save(tmp_path / "m")
    loaded = cls.load(tmp_path / "m", made.env, device="cpu")
    for a, b in zip(made.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert loaded.batch_size == 4 and len(loaded.sample_episodes(8)) == 8
    with pytest.raises(ValueError, match=f"{cls.__name__} has nothing to learn from; pass dataset="):
        loaded.learn(10)
    assert cls.load(tmp_path / "m", device="cpu").num_timesteps == made.num_timesteps  # without an env
    cls.load(tmp_path / "m", made.env, device="cpu", dataset=PAIRS).learn(10, reset_num_timesteps=False)


@pytest.mark.parametrize("cls", OFFLINE)
def test_arguments_without_a_meaning_are_no_arguments(cls):
    names = ["gamma", "episodes_per_update"] + ["reference"] * (cls is not DPO)
    for name in names:
        with pytest.raises(TypeError, match=f"^{cls.__name__} has no argument '{name}'"):
            small_agent(cls, dataset=PAIRS, **{name: 1})
    assert (small_agent(cls, dataset=PAIRS).reference is None) == (cls is not DPO)


def test_conversations_are_read_with_the_tokenizers_template():
    rows = [{"prompt": [{"role": "user", "content": "a"}], "chosen": [], "rejected": []}]
    with pytest.raises(ValueError, match="row 0 of the dataset: .*no chat template"):
        small_agent(DPO, dataset=rows)


@pytest.mark.parametrize(("cls", "kwargs"), [(SFT, {}), (ContrastiveLM, {"beta": 0.5})])
def test_they_learn(cls, kwargs):
    """Texts of a are chosen over texts without."""
    generator = torch.Generator().manual_seed(0)
    texts = ["".join("bcd"[i] for i in torch.randint(3, (6,), generator=generator)) for _ in range(60)]
    prompts = CHARACTERS["prompts"]
    rows = [{"prompt": prompts[i % 4], "chosen": "a" * (3 + i % 3), "rejected": text} for i, text in enumerate(texts)]
    made = small_agent(cls, n=16, scorer=share_of_a, dataset=rows, batch_size=8, learning_rate=3e-3, **kwargs)
    before = made.sample_episodes(256).rewards.sum(-1).mean()
    made.learn(2_000)
    assert made.sample_episodes(256).rewards.sum(-1).mean() > before + 0.15
