"""A-GEM against the closed form, in one process and on shards; its direction; its memory."""

import pytest
import torch
from clmed.strategies.agem import AGEM
from transformers import OPTConfig, OPTForCausalLM

from clmed.errors import UserError
from clmed.training.sharding import World
from tests.small import GENERAL, full_state, make_trainer, on_ranks, small_config

QUIET = {"gain": [], "retention": []}
MEMORY = {"agem": {"from": [*GENERAL, "past"], "memory": 40, "rows": 6}}


def trainer_for(strategy, tokenizer, make_model, world=World(), **changes):  # noqa: B008 (frozen)
    return make_trainer(small_config(strategy, evaluation=QUIET, **changes), make_model(2), tokenizer, world)


class Watch:
    """Whole gradients before and after the strategy at each step, and what it logged."""

    supports_distributed = True

    def __init__(self):
        self.before, self.after, self.memory, self.conflicts = [], [], [], []

    @staticmethod
    def flat(trainer):
        grads = [p.grad for p in trainer.model.parameters()]
        return torch.cat([(g.full_tensor() if hasattr(g, "full_tensor") else g).flatten().clone() for g in grads])

    def watch(self, trainer):
        (agem,) = (plugin for plugin in trainer.plugins if isinstance(plugin, AGEM))
        step, window = agem.after_backward, trainer.window_gradient

        def after_backward(trainer, **kwargs):
            before = self.flat(trainer)
            step(trainer)
            if "agem_conflict" in trainer.log:
                self.before.append(before)
                self.after.append(self.flat(trainer))
                self.conflicts.append(trainer.log["agem_conflict"])

        def window_gradient(rows):
            window(rows)
            self.memory.append(self.flat(trainer))

        agem.after_backward, trainer.window_gradient = after_backward, window_gradient


def _projected(world, tokenizer, make_model):
    """In the second experience a memory of the first: at so high a rate its loss rises."""
    training = {"sequence_length": 64, "tokens_per_step": 512, "micro_batch_size": 3}
    stream = [
        {"name": "general", "data": ["english"], "tokens": 6000, "optimizer": {"lr": 1e-2}},
        {"name": "exam", "data": ["exam"], "tokens": 4000, "optimizer": {"lr": 1e-2}},
    ]
    given = {"agem": {"from": ["past"], "memory": 40, "rows": 6}}
    trainer = trainer_for(given, tokenizer, make_model, world, training=training, stream=stream)
    watch = Watch()
    watch.watch(trainer)
    trainer.train(trainer.stream)
    return watch.before, watch.memory, watch.after, watch.conflicts, full_state(trainer.model)


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_projection_is_the_closed_form(ranks, tokenizer, make_model, tmp_path):
    if ranks == 1:
        found = _projected(World(), tokenizer, make_model)
    else:
        found = on_ranks(2, lambda world: _projected(world, tokenizer, make_model), tmp_path)
    before, memory, after, conflicts, _ = found
    assert {0.0, 1.0} == set(conflicts), "both cases must come up"
    for g, r, projected, conflict in zip(before, memory, after, conflicts, strict=True):
        product = torch.dot(g.double(), r.double())
        assert conflict == float(product < 0)
        closed = g - (product / r.double().square().sum()).float() * r if conflict else g
        torch.testing.assert_close(projected, closed, rtol=1e-5, atol=1e-7)
        if conflict:
            assert abs(torch.dot(projected.double(), r.double())) < 1e-5 * g.norm() * r.norm()


def test_the_memory_s_gradient_is_that_of_its_rows(tokenizer, make_model):
    """By hand: the mean token loss of the window's rows, as one batch of a plain model."""
    trainer = trainer_for(MEMORY, tokenizer, make_model)
    trainer.experience = trainer.stream[0]
    trainer.make_optimizer()
    (agem,) = (plugin for plugin in trainer.plugins if isinstance(plugin, AGEM))
    window = trainer.stream[0].batches.beside(agem.memories[0], 6)[3]
    before = trainer.flops
    trainer.window_gradient(window)
    assert trainer.flops - before == pytest.approx(
        trainer.flops_per_token * sum(b["input_ids"].numel() for b in window)
    )
    model = make_model(2)
    (rows,) = window
    labels = rows["labels"]
    model(
        input_ids=rows["input_ids"], position_ids=rows["position_ids"], labels=labels, use_cache=False
    ).loss.backward()
    assert (labels[:, 0] == -100).all() and len(labels) == 6
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter.grad, dict(model.named_parameters())[name].grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("ranks", [1, 2])
def test_its_activations_are_checkpointed_as_a_step_s_are(ranks, tokenizer, tmp_path):
    """The blocks' forward is done again in the backward, and what comes out is the same, bit for bit, without dropout.

    In OPT it is the blocks themselves that drop out.
    """

    def gradient(world, checkpointing):
        torch.manual_seed(3)
        shape = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2, "dropout": 0.5}
        model = OPTForCausalLM(OPTConfig(vocab_size=len(tokenizer), num_attention_heads=2, **shape))
        training = {"sequence_length": 64, "tokens_per_step": 512, "activation_checkpointing": checkpointing}
        config = small_config(MEMORY, evaluation=QUIET, training=training)
        trainer = make_trainer(config, model, tokenizer, world)
        forwards = []
        trainer.model.model.decoder.layers[1].fc1.register_forward_hook(lambda *_: forwards.append(1))
        trainer.experience = trainer.stream[0]
        trainer.make_optimizer()
        (agem,) = (plugin for plugin in trainer.plugins if isinstance(plugin, AGEM))
        trainer.window_gradient(trainer.stream[0].batches.beside(agem.memories[0], 6)[3])
        assert all(module.training and "forward" not in vars(module) for module in trainer.model.modules())
        return Watch.flat(trainer), len(forwards)

    def both(world):
        return [gradient(world, checkpointing) for checkpointing in (False, True)]

    plain, checkpointed = both(World()) if ranks == 1 else on_ranks(2, both, tmp_path)
    assert (plain[1], checkpointed[1]) == (1, 2)
    assert torch.equal(plain[0], checkpointed[0]) and plain[0].abs().max() > 0


def test_the_memory_grows_with_the_past_and_reads_train_parts(tokenizer, make_model):
    trainer = trainer_for({"agem": {"from": ["past"], "memory": 10}}, tokenizer, make_model)
    (agem,) = (plugin for plugin in trainer.plugins if isinstance(plugin, AGEM))
    assert list(agem.memories) == [1] and len(agem.memories[1]) == 10
    train = {tuple(row) for row in trainer.corpus.rows("medical").data["input_ids"][:].tolist()}
    assert {tuple(row) for row in agem.memories[1].data["input_ids"][:].tolist()} <= train
    trainer.train([trainer.stream[0]])  # nothing to remember yet: naive
    naive = trainer_for({}, tokenizer, make_model)
    naive.train([naive.stream[0]])
    assert all(torch.equal(p, q) for p, q in zip(trainer.model.parameters(), naive.model.parameters(), strict=True))


def test_bad_parameters_are_refused():
    for wrong in ({"memory": 0}, {"rows": 0}, {"from_": []}):
        with pytest.raises(UserError, match="agem needs"):
            AGEM(**{"from_": GENERAL, **wrong})
