"""A changed structure: weights move and are not copied, in every precision, sharded or not; runs and exports."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from clmed.results.rundir import RunDirectory
from clmed.shards import local
from clmed.training.sharding import World
from tests.command import TINY, in_process
from tests.forgetting import UNMEASURED
from tests.small import full_state, make_trainer, on_ranks, small_config

LORA: dict[str, Any] = {"lora": {"rank": 2}}


def addresses(model: torch.nn.Module) -> dict[str, int]:
    return {name: local(p.detach()).data_ptr() for name, p in model.named_parameters()}


@pytest.mark.parametrize("tied", [False, True])
def test_weights_keep_their_memory_and_values_under_new_names(tied: bool, make_model: Any, tokenizer: Any) -> None:
    model = make_model(1, tie_word_embeddings=tied)
    was, at = full_state(model), addresses(model)
    trainer = make_trainer(small_config(LORA, evaluation=UNMEASURED), model, tokenizer, World())
    trainer.change_structure(trainer.stream[:1], initialise=False)
    changed, new = trainer.model, 0
    assert changed.training == model.training and changed.config.tie_word_embeddings == tied
    for name, parameter in changed.named_parameters():
        if ".lora_" in name:
            assert parameter.requires_grad and parameter.isnan().all()  # whoever forgets to fill them will see
            new += 1
        else:
            plain = name.replace(".base_layer.", ".")
            assert not parameter.requires_grad and torch.equal(parameter, was.pop(plain))
            assert parameter.data_ptr() == at[plain]
    assert not was and new == 2 * 2 * 7
    assert (changed.lm_head.weight is changed.model.embed_tokens.weight) == tied


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_in_shards_with_checkpointing_and_accumulation(
    precision: str, make_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """On two ranks every change trains what it should and nothing else, in full-precision shards."""
    training = {"sequence_length": 64, "tokens_per_step": 1024, "micro_batch_size": 2, "precision": precision}
    training |= {"activation_checkpointing": True, "tokens_per_step": 512}
    stream = [{"name": "only", "data": "medical", "tokens": 1500, "optimizer": {"lr": 1e-2}}]
    methods = [LORA, {"osft": {}}, {"block_expansion": {"every": 1}}]

    def train(world: World) -> list[Any]:
        found = []
        for method in methods:
            config = small_config(method, training=training, stream=stream, evaluation=UNMEASURED)
            trainer = make_trainer(config, make_model(1), tokenizer, world)
            trainer.train(trainer.stream)
            trained = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
            assert all(local(p).dtype == torch.float32 for p in trainer.model.parameters())
            found.append((trained, full_state(trainer.model)))
        return found

    base = full_state(make_model(1))
    (lora, osft, expanded) = on_ranks(2, train, tmp_path)
    for trained, weights in (lora, osft):
        for name, weight in weights.items():
            if name in trained:
                assert weight.isfinite().all() and weight.abs().max() > 0
            else:
                assert torch.equal(weight, base[name.replace(".base_layer.", ".")])
    assert not any("lora" in name for name in base) and all("lora_" in name for name in lora[0])
    assert all(not torch.equal(osft[1][name], base[name]) for name in osft[0]) and len(osft[0]) == 2 * 7
    trained, weights = expanded
    assert {name.split(".")[2] for name in trained} == {"1", "3"}
    assert all(weights[name].abs().max() > 0 for name in trained)
    assert torch.equal(weights["model.layers.2.mlp.up_proj.weight"], base["model.layers.1.mlp.up_proj.weight"])


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of tiny.yaml with a stack of adapters, from where commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path / "cache"))  # nothing is taken from an earlier run of this test
    changes: dict[str, Any] = {
        "strategy": {"lora": {"rank": 2, "later": "stack"}},
        "evaluation": {"retention": [{"perplexity": "english"}]},
    }
    training = TINY["training"] | {"share_experiences": True}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY | changes | {"training": training}), encoding="utf-8")
    return tmp_path


def test_a_run_its_points_and_streams_that_follow(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """From the command line: what a run leaves is plain, so is each of its points, and its adapter is one of peft's."""
    done = in_process(capfd, "run", "tiny.yaml", "-o", "run")
    assert done.code == 0, done.err
    run = RunDirectory.open(tiny / "run")
    ids = torch.arange(2, 20)[None]

    def logits(folder: Path | str) -> torch.Tensor:
        with torch.no_grad():
            return AutoModelForCausalLM.from_pretrained(folder)(ids).logits

    done = in_process(capfd, "export", "run", "--point", "pretraining", "-o", "point")
    assert done.code == 0, done.err
    assert (logits("point") - logits(run.model)).abs().max() > 1e-4
    assert json.loads(Path("point/adapter/adapter_config.json").read_bytes())["r"] == 2
    settings = json.loads((run.model / "adapter" / "adapter_config.json").read_bytes())
    assert settings["r"] == 4
    base = AutoModelForCausalLM.from_pretrained(settings["base_model_name_or_path"])
    peer = PeftModel.from_pretrained(base, str(run.model / "adapter")).eval()
    with torch.no_grad():
        torch.testing.assert_close(peer(ids).logits, logits(run.model), rtol=0, atol=1e-5)

    done = in_process(capfd, "run", "tiny.yaml", "-o", "next", "from=run@pretraining")
    done.is_mistake("run changed the model's structure (LoRA)", "clmed export run --point pretraining", "model.path")
    done = in_process(capfd, "run", "tiny.yaml", "-o", "both", "strategy.block_expansion.every=2")
    done.is_mistake("both decide which weights are trained", "choose one")
    assert not Path("next").exists() and not Path("both").exists()
