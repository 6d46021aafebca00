"""Self-synthesis: the same text for any number of ranks, drawn as asked, written once, and it keeps what was known."""

import json

import numpy as np
import pytest
import torch

from clmed.data.rows import document_texts
from clmed.errors import UserError
from clmed.evaluation.perplexity import perplexity
from clmed.experiment import make_strategies
from clmed.synthesis import Recipe, _continue, packed, varied, whole_documents, written
from clmed.training.sharding import World, shard
from tests.small import full_state, make_trainer, on_ranks, small_config

OPTIMIZER = {"lr": 5e-3, "warmup": 0.1}
QUIET = {"gain": [], "retention": []}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache of its own for each test, beside the rows that all share."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("clmed.synthesis.cache_dir", lambda: folder)


def trainer_of(strategy, model, tokenizer, stream, **extra):
    return make_trainer(small_config(strategy, stream=stream, evaluation=QUIET), model, tokenizer, World(), **extra)


def experience(name, data, tokens):
    return {"name": name, "data": data, "tokens": tokens, "optimizer": OPTIMIZER}


@pytest.fixture(scope="module")
def general(tokenizer, make_model):
    """The weights of a pico model that has read the English text for some hundred steps."""
    trainer = trainer_of({}, make_model(4), tokenizer, [experience("general", ["english"], 150_000)])
    trainer.train(trainer.stream)
    return full_state(trainer.model)


@pytest.fixture
def base(general, make_model):
    model = make_model(4)
    model.load_state_dict(general)
    return model


def recipe(**changes):
    settings = {"tokens": 3000, "shots": [], "top_p": 0.6, "temperature": 0.9, "clusters": 5, "seed": 0}
    return Recipe(**(settings | changes))


def test_one_rank_and_two_write_the_same(general, base, tokenizer, make_model, tmp_path, monkeypatch):
    shots = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in ("The capital is Karo.", "Karo lies")]

    def write(world, model):
        found = []
        for number, changed in enumerate(({}, {"shots": shots})):
            folder = tmp_path / f"{world.ranks}-{number}"
            monkeypatch.setattr("clmed.synthesis.cache_dir", lambda folder=folder: folder)
            found.append(written(model, tokenizer, recipe(tokens=500, **changed), most=24))
        return found

    def on_two(world):
        model = make_model(4)
        model.load_state_dict(general)
        return write(world, shard(model, world, small_config({}).training))

    one, two = write(World(), base), on_ranks(2, on_two, tmp_path)
    assert one == two
    assert one[0].texts != one[1].texts and all(len(found.texts) > 8 for found in one)
    assert not any(text == "The capital is Karo." for text in one[1].texts), "a shot is no text of the model's"


def test_texts_are_written_once_and_damage_is_seen(base, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("clmed.synthesis.cache_dir", lambda: tmp_path)
    first = written(base, tokenizer, recipe(), most=40)
    monkeypatch.setattr(base, "generate", None)
    torch.manual_seed(1)
    assert written(base, tokenizer, recipe(), most=40) == first
    (file,) = tmp_path.rglob("texts.json")
    assert json.loads(file.read_text())["texts"] == first.texts
    for changed in ({"temperature": 0.8}, {"top_p": 0.5}, {"seed": 1}, {"clusters": 4}, {"tokens": 2999}):
        with pytest.raises(TypeError):
            written(base, tokenizer, recipe(**changed), most=40)
    with torch.no_grad():
        next(base.parameters()).view(-1)[0] += 1e-3
    with pytest.raises(TypeError):
        written(base, tokenizer, recipe(), most=40)
    file.write_bytes(file.read_bytes()[:-3])
    folder = file.parent
    monkeypatch.setattr("clmed.synthesis.fingerprint", lambda value: folder.name)
    with pytest.raises(UserError, match="is damaged"):
        written(base, tokenizer, recipe(), most=40)


def test_tokens_are_drawn_from_the_most_probable_ones(base, tokenizer):
    """Each drawn token lies in the smallest set of tokens whose probability reaches top_p, at the temperature."""
    prompts = [tokenizer(text)["input_ids"] for text in ("The", "The capital of Norland is", "Karo lies", "问题：")]
    found, positions = _continue(base, tokenizer, prompts, recipe(temperature=0.7), 24, seed=3)
    drawn, ranks = 0, set()
    for prompt, row in zip(prompts, found, strict=True):
        whole = prompt + row[1:]
        with torch.no_grad():
            probabilities = (base(torch.tensor([whole])).logits[0] / 0.7).softmax(-1)
        for place in range(len(prompt), len(whole)):
            ordered, order = probabilities[place - 1].sort(descending=True)
            rank = order.tolist().index(whole[place])
            assert rank == 0 or ordered[:rank].sum() < 0.6 + 1e-5
            drawn += 1
            ranks.add(rank)
    assert drawn > 30 and len(ranks) > 2, "nothing was left to chance"
    assert positions <= len(prompts) * (max(map(len, prompts)) + 24)


def test_the_varied_texts_are_the_central_ones_of_each_cluster(tokenizer):
    """Against the definition: three kinds of text, of each in turn the one nearest to its kind's mean."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    rng = np.random.default_rng(0)
    kinds = ["river harbour", "桂枝芍药生姜", "0123 4567 89"]
    texts = ["".join(rng.permutation(list(kind))) + kind * 3 for kind in kinds for _ in range(12)]
    chosen = varied([*texts, *texts[:5], " "], tokenizer, recipe(tokens=250, clusters=3))
    kind_of = [next(index for index, kind in enumerate(kinds) if kind in text) for text in chosen]
    assert len(set(chosen)) == len(chosen) and sorted(kind_of[:3]) == [0, 1, 2]
    assert max(kind_of.count(kind) for kind in range(3)) - min(kind_of.count(kind) for kind in range(3)) <= 1
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 3)).fit_transform(texts).toarray()
    for kind in range(3):
        own = vectors[kind * 12 : kind * 12 + 12]
        distances = np.linalg.norm(own - own.mean(axis=0), axis=1)
        nearest = [texts[kind * 12 + index] for index in np.argsort(distances)]
        mine = [text for text, of in zip(chosen, kind_of, strict=True) if of == kind]
        assert mine == nearest[: len(mine)]
    rows = packed(chosen, tokenizer, 50, 5)
    assert len(rows) == 5 and (rows.tokens == 50).all()


def test_a_model_that_says_nothing_new_is_told(tokenizer):
    with pytest.raises(UserError, match="fewer rows, or for a higher temperature"):
        varied(["the same"] * 100, tokenizer, recipe(tokens=1000))


def test_shots_are_whole_documents_of_the_train_part(tokenizer, make_model):
    trainer = trainer_of({}, make_model(), tokenizer, [experience("one", ["medical"], 2000)])
    corpus = trainer.corpus
    source, path = corpus.sources["english"], corpus.paths["english"]
    own = set(document_texts("english", source, path, "train"))
    shots = whole_documents(corpus.rows("english"))
    assert len(shots) > 100 and all(shot[-1] == tokenizer.eos_token_id for shot in shots)
    assert {tokenizer.decode(shot, skip_special_tokens=True) for shot in shots} <= own


def loss_on(trainer, source):
    rows = trainer.corpus.rows(source, "heldout")
    nats, tokens = perplexity(trainer.model, [rows.data[i] for i in range(len(rows))], batch_tokens=4096)
    return nats / tokens


def test_it_keeps_what_the_base_knew(general, tokenizer, make_model):
    """After Chinese text, the held-out English loss: lower than of naive training, without any English at hand."""
    losses, rows = {}, {}
    for name, strategy in {"naive": {}, "synthesis": {"self_synthesis": {"ratio": 0.3, "rows": 60}}}.items():
        model = make_model(4)
        model.load_state_dict(general)
        trainer = trainer_of(strategy, model, tokenizer, [experience("new", ["chinese"], 30_000)])
        before = loss_on(trainer, "english")
        trainer.train(trainer.stream)
        losses[name] = loss_on(trainer, "english") - before
        rows[name] = trainer.stream[0].batches
    assert losses["synthesis"] < 0.5 * losses["naive"]
    trained = dict(zip(rows["synthesis"].mixture.sources, rows["synthesis"].mixture.shares, strict=True))
    assert trained["self_synthesis"] == pytest.approx(0.3)


@pytest.mark.parametrize("wrong", [{"ratio": 1.0}, {"rows": 0}, {"top_p": 0.0}, {"temperature": 0.0}, {"clusters": 0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(UserError, match="self_synthesis needs"):
        make_strategies(small_config({"self_synthesis": wrong}))
