"""The model families people bring, as pico configurations: loaded in pieces, trained, measured, saved, reloaded."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from clmed.config import ModelConfig
from clmed.training.export import save_model
from clmed.training.loading import WholeOnlyError, fill, open_weights
from clmed.training.model import load_model
from clmed.training.sharding import World
from tests.small import full_state, make_trainer, on_ranks, small_config

PICO = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 256}
FAMILIES = {
    "llama-2": (LlamaConfig, {"num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    # Larger than the tokenizer, as after an extension; 577 rows do not divide by the ranks.
    "chinese-llama-2": (LlamaConfig, {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 577}),
    "smollm2": (
        LlamaConfig,
        {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 36, "rope_theta": 1e5, "tied": True},
    ),
    "qwen2": (Qwen2Config, {"num_attention_heads": 4, "num_key_value_heads": 2, "tied": True}),
    "qwen3": (Qwen3Config, {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512}),
    "mistral": (MistralConfig, {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": None}),
}
STREAM = [{"name": "only", "data": "medical", "tokens": 2000, "optimizer": {"lr": 1e-3}}]
MEASURED = {"gain": [], "retention": [{"perplexity": "english"}]}


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory):
    """Each family with random weights as its authors would publish it: bf16, in several files."""
    made = {}
    for seed, (family, (kind, own)) in enumerate(FAMILIES.items()):
        own = dict(own)
        settings = PICO | {"vocab_size": len(tokenizer), "tie_word_embeddings": own.pop("tied", False)} | own
        ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(kind(**settings, **ids)).to(torch.bfloat16)
        made[family] = tmp_path_factory.mktemp(family)
        model.save_pretrained(made[family], max_shard_size="20KB")
        assert (made[family] / "model.safetensors.index.json").exists()
    return made


def whole(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _train(folder, world, tokenizer):
    """Loaded (as the user's would be), two steps trained, measured, saved."""
    training = {"sequence_length": 64, "tokens_per_step": 1024, "micro_batch_size": 4}
    config = small_config({}, stream=STREAM, evaluation=MEASURED, training=training)
    model = load_model(ModelConfig(path=str(folder)), config.training, world)
    loaded = full_state(model)
    trainer = make_trainer(config, model, tokenizer, world, sharded=True)
    trainer.train(trainer.stream)
    save_model(model, tokenizer, folder / f"trained-{world.ranks}", world)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    return loaded, full_state(model), trainer.evaluator.get_all_metrics(), tied


@pytest.fixture(scope="module")
def one_and_two(folders, tokenizer, tmp_path_factory):
    def everything(world):
        return {family: _train(folder, world, tokenizer) for family, folder in folders.items()}

    return everything(World()), on_ranks(2, everything, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_loaded_trained_measured_saved_and_reloaded(folders, one_and_two, family):
    published = dict(whole(folders[family]).named_parameters())
    one, two = (found[family] for found in one_and_two)
    for loaded, trained, scores, tied in (one, two):
        assert tied == FAMILIES[family][1].get("tied", False)
        assert loaded.keys() == published.keys()
        assert all(torch.equal(loaded[name], weight) for name, weight in published.items())
        assert all(not torch.equal(trained[name], loaded[name]) for name in trained)
        assert len(scores) > 1
    for name, weight in one[1].items():
        torch.testing.assert_close(two[1][name], weight, rtol=0, atol=1e-5)
    for name, (_, values) in one[2].items():
        assert two[2][name][1] == pytest.approx(values, abs=1e-5), name
    for ranks, found in ((1, one), (2, two)):
        again = dict(whole(folders[family] / f"trained-{ranks}").named_parameters())
        assert all(torch.equal(again[name], weight) for name, weight in found[1].items())


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_rank_reads_and_holds_its_own_rows_only(tmp_path, kind):
    """Half of 30 million weights each: counted as they are read from the files, and as memory of the process."""
    shape = LlamaConfig(vocab_size=20_001, hidden_size=512, intermediate_size=2048, num_hidden_layers=2,
                        num_attention_heads=8, tie_word_embeddings=True)  # fmt: skip
    model = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    if kind == "bin":
        shape.save_pretrained(tmp_path)
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    else:
        model.save_pretrained(tmp_path)
    total, largest = sum(p.numel() for p in model.parameters()), max(p.numel() for p in model.parameters())
    del model

    def load(world):
        from transformers import AutoConfig

        from clmed.config import TrainingConfig
        from clmed.training import loading

        read = []

        class Counting:
            def __init__(self, weight):
                self.weight, self.shape = weight, loading._shape(weight)

            def __getitem__(self, rows):
                found = self.weight[rows]
                read.append(found.numel())
                return found

        opened = loading.open_weights
        loading.open_weights = lambda *given: {name: Counting(weight) for name, weight in opened(*given).items()}
        training = TrainingConfig(sequence_length=16, tokens_per_step=16)
        before = _private_bytes()
        made = loading.load_sharded(
            ModelConfig(path=str(tmp_path)), AutoConfig.from_pretrained(tmp_path), world, training
        )
        return sum(read), max(read), _private_bytes() - before, sum(p.to_local().numel() for p in made.parameters())

    read, most, grown, held = on_ranks(2, load, tmp_path)
    assert read == held == pytest.approx(total / 2, rel=0.001)
    assert most == -(-largest // 2 // 512) * 512
    assert grown < 4 * total * 0.5 + 20e6


def _private_bytes():
    """Memory of this process that is no file."""
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def test_files_that_cannot_be_read_in_pieces_are_read_whole_with_a_warning(tmp_path, tokenizer, caplog):
    """GPT-NeoX is published under other names than transformers gives its weights."""
    from transformers import GPTNeoXConfig

    shape = GPTNeoXConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                          intermediate_size=64, max_position_embeddings=128)  # fmt: skip
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path)

    def load(world):
        training = small_config({}).training
        return full_state(load_model(ModelConfig(path=str(tmp_path)), training, world)), caplog.messages

    weights, messages = on_ranks(1, load, tmp_path)
    assert all(torch.equal(weights[name], weight) for name, weight in whole(tmp_path).named_parameters())
    assert [m for m in messages if "every process reads the whole of" in m and "under this name" in m]


def test_what_makes_a_model_be_read_whole(tmp_path, make_model):
    model = make_model(0)
    with pytest.raises(WholeOnlyError, match=r"there is no model.safetensors and no pytorch_model.bin"):
        open_weights(ModelConfig(path=str(tmp_path)), model.config)
    (tmp_path / "model.safetensors").write_bytes(b"no such format")
    with pytest.raises(WholeOnlyError, match=r"^model.safetensors: "):
        open_weights(ModelConfig(path=str(tmp_path)), model.config)
    quantised = LlamaConfig(quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(WholeOnlyError, match="quantised"):
        open_weights(ModelConfig(path=str(tmp_path)), quantised)


def test_plain_models_are_filled_too(tmp_path, make_model):
    model, other = make_model(0), make_model(1)
    model.save_pretrained(tmp_path)
    fill(other, open_weights(ModelConfig(path=str(tmp_path)), model.config))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
