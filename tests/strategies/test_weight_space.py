"""Average, soup, ema and merge against closed forms on recorded weights; edits after a measurement take effect."""

import pytest
import torch
from clmed.strategies.merge import Merge, elected_mean, largest
from clmed.strategies.soup import ends_part

from clmed.shards import clone_shards
from clmed.training.sharding import World
from tests.forgetting import losses_after_two
from tests.small import GENERAL, full_state, make_trainer, on_ranks, small_config

QUIET = {"gain": [], "retention": []}
ENGLISH = {"gain": [], "retention": [{"perplexity": "english"}]}


class Record:
    """The whole weights after each step's update (before strategies edit them), after its edits, and at each end."""

    supports_distributed = True

    def __init__(self):
        self.updated, self.edited, self.ends = [], [], []

    def before_training_exp(self, trainer, **kwargs):
        self.start = full_state(trainer.model)

    def after_update(self, trainer, **kwargs):
        self.updated.append(full_state(trainer.model))

    def after_training_iteration(self, trainer, **kwargs):
        self.edited.append(full_state(trainer.model))

    def after_training_exp(self, trainer, **kwargs):
        self.ends.append(full_state(trainer.model))


def trained(strategy, tokenizer, make_model, experiences=2, **changes):
    changes = {"evaluation": QUIET} | changes
    trainer = make_trainer(small_config(strategy, **changes), make_model(2), tokenizer, World())
    record = Record()
    trainer.plugins.insert(len(config_strategies(trainer)), record)
    trainer.train(trainer.stream[:experiences])
    return record


def config_strategies(trainer):
    from clmed.strategy import Strategy

    return [plugin for plugin in trainer.plugins if isinstance(plugin, Strategy)]


@pytest.fixture(scope="module")
def naive(tokenizer, make_model):
    return trained({}, tokenizer, make_model)


@pytest.fixture(scope="module")
def base(make_model):
    return full_state(make_model(2))


def close(one, other, atol=1e-6):
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=0, atol=atol)


def line(old, new, alpha):
    return {name: (1 - alpha) * old[name] + alpha * new[name] for name in old}


def test_average_is_the_point_on_the_line(naive, base, tokenizer, make_model):
    found = trained({"average": {"alpha": 0.3}}, tokenizer, make_model)
    close(found.ends[0], line(base, naive.ends[0], 0.3))
    close(found.ends[1], line(found.ends[0], found.updated[-1], 0.3))
    towards_base = trained({"average": {"alpha": 0.3, "towards": "base"}}, tokenizer, make_model)
    close(towards_base.ends[1], line(base, towards_base.updated[-1], 0.3))


def test_average_traces_several_alphas_as_if_each_had_been_the_run_s_own(tokenizer, make_model):
    def scores(alpha, trace):
        found = []
        config = small_config({"average": {"alpha": alpha, "trace": trace}}, evaluation=ENGLISH)
        trainer = make_trainer(
            config,
            make_model(2),
            tokenizer,
            World(),
            record=lambda trainer, benchmark, measured, what: found.append(
                (trainer.point, benchmark.name, what, measured.scores[0]["score"])
            ),
        )
        trainer.train(trainer.stream)
        (own,) = (values for name, (_, values) in trainer.evaluator.get_all_metrics().items() if "nats" in name)
        return found, own

    traced, own = scores(0.5, [0.0, 0.5, 1.0])
    assert [(point, what) for point, _, what, _ in traced] == [
        (point, {"alpha": alpha}) for point in (1, 2) for alpha in (0.0, 0.5, 1.0)
    ]
    score = {(point, what["alpha"]): value for point, _, what, value in traced}
    assert score[1, 0.0] == own[0] and score[2, 0.0] == own[1], "alpha 0 is the model before"
    assert score[1, 0.5] == own[1] and score[2, 0.5] == own[2], "its own alpha"
    _, naive_scores = scores(1.0, [])
    assert score[1, 1.0] == naive_scores[1] and len({*own, *score.values()}) >= 5


def test_measure_edit_measure_on_two_ranks(tokenizer, make_model, tmp_path):
    """After a forward-only pass an edit of shards that FSDP still holds gathered would be ignored."""

    def scores(world):
        found = []
        config = small_config({"average": {"trace": [1.0, 0.0, 0.5]}, "ema": {"decay": 0.5}}, evaluation=ENGLISH)
        trainer = make_trainer(
            config, make_model(2), tokenizer, world, record=lambda *told: found.append(told[2].scores[0]["score"])
        )
        trainer.train(trainer.stream)
        return found

    two, one = on_ranks(2, scores, tmp_path), scores(World())
    assert len(one) == 6 and len({round(value, 4) for value in one}) >= 5
    assert two == pytest.approx(one, abs=1e-5)


def test_soup_averages_at_its_moments_and_at_the_end(base, tokenizer, make_model):
    found = trained({"soup": {"every": 0.3, "alpha": 0.6}}, tokenizer, make_model, experiences=1)
    steps = len(found.updated)
    moments = {round(0.3 * steps), round(0.6 * steps), round(0.9 * steps), steps}
    for step, (updated, edited) in enumerate(zip(found.updated, found.edited, strict=True), start=1):
        close(edited, line(base, updated, 0.6) if step in moments else updated)


@pytest.mark.parametrize("steps", [1, 7, 10, 97])
def test_soup_s_parts_end_where_they_are_counted_one_by_one(steps):
    for every in (1.0, 0.9, 0.5, 0.3, 0.25, 0.1, 0.07, 0.013, 0.001):
        ends = {round(part * every * steps) for part in range(1, int(1 / every) + 1)} | {steps}
        found = {step for step in range(1, steps + 1) if ends_part(step, steps, every)}
        assert found == ends - {0}, every
    assert all(ends_part(step, steps, 5e-324) for step in range(1, steps + 1))


def test_one_soup_is_the_average(naive, base, tokenizer, make_model):
    found = trained({"soup": {"every": 1.0, "alpha": 0.3}}, tokenizer, make_model, experiences=1)
    close(found.ends[0], line(base, naive.ends[0], 0.3))


def test_ema_is_the_weighted_mean_of_all_steps(naive, base, tokenizer, make_model):
    found = trained({"ema": {"decay": 0.8}}, tokenizer, make_model, experiences=1)
    steps = len(found.updated)
    close(found.updated[-1], naive.updated[steps - 1])  # training itself is as ever
    expected = {name: 0.8**steps * weight for name, weight in base.items()}
    for step, weights in enumerate(found.updated, start=1):
        for name in expected:
            expected[name] = expected[name] + 0.2 * 0.8 ** (steps - step) * weights[name]
    close(found.ends[0], expected)


def by_hand(changes, method):
    """One place at a time."""
    merged = torch.zeros_like(changes[0])
    for place in range(merged.numel()):
        values = [change.flatten()[place].item() for change in changes]
        if method == "magmax":
            merged.view(-1)[place] = max(values, key=abs)
        else:
            sign = 1 if sum(values) > 0 else -1
            agreeing = [value for value in values if value * sign > 0]
            merged.view(-1)[place] = sum(agreeing) / len(agreeing) if agreeing else 0.0
    return merged


@pytest.mark.parametrize(("method", "merge"), [("magmax", largest), ("ties", elected_mean)])
def test_merges_place_by_place(method, merge):
    changes = torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(0))
    changes = changes * (changes.abs() > 0.5)  # trimmed
    torch.testing.assert_close(merge(changes), by_hand(list(changes), method))


@pytest.mark.parametrize("method", ["magmax", "ties"])
def test_merge_of_the_stream_s_changes(method, naive, base, tokenizer, make_model):
    """Training goes on from the unmerged weights, so the changes are those of naive training."""
    found = trained({"merge": {"method": method, "scale": 0.7, "density": 0.4}}, tokenizer, make_model)
    close(found.updated[-1], naive.updated[-1])
    for name in ("model.layers.0.mlp.up_proj.weight", "model.norm.weight"):
        changes = [end[name] - base[name] for end in naive.ends]
        if method == "ties":
            changes = [change * (change.abs() >= trimmed(change, 0.4)) for change in changes]
        torch.testing.assert_close(found.ends[1][name], base[name] + 0.7 * by_hand(changes, method), rtol=0, atol=1e-6)


def trimmed(change, density):
    return sorted(change.abs().flatten().tolist(), reverse=True)[int(density * change.numel()) - 1]


def test_replay_ewc_and_average_act_in_order(tokenizer, make_model):
    """The Fisher's anchor is of the trained weights, before the average after it in the order moves them."""
    both = {
        "replay": {"ratio": 0.25, "from": [*GENERAL, "past"], "memory": 20},
        "ewc": {"strength": 100.0, "fisher_from": GENERAL, "rows": 6},
    }
    without = trained(both, tokenizer, make_model, experiences=1)
    config = small_config(both | {"average": {"alpha": 0.4}}, evaluation=QUIET)
    trainer = make_trainer(config, make_model(2), tokenizer, World())
    _, ewc, average = config_strategies(trainer)
    record = Record()
    trainer.plugins.insert(3, record)
    trainer.train(trainer.stream)
    close(record.ends[0], line(full_state(make_model(2)), without.ends[0], 0.4))
    close(record.ends[1], line(average.anchor, record.updated[-1], 0.4))
    ((_, anchor),) = ewc.penalties
    close(anchor, without.ends[0])


def test_a_merge_keeps_more_of_the_first_experience(tokenizer, make_model):
    """The direction of MagMax: over two experiences it forgets less of the first than naive training, and learns."""
    methods, stream = {"naive": {}, "merge": {"merge": {}}}, {"sources": ("medical", "chinese"), "lr": 5e-3}
    losses = losses_after_two(methods, make_model, tokenizer, tokens=(20_000, 20_000), **stream)
    (naive, _), (merge, (before, after, end)) = losses["naive"], losses["merge"]
    assert merge[:2] == pytest.approx(naive[:2]), "the first experience is naive training"
    assert merge[2] - merge[1] < 0.6 * (naive[2] - naive[1]) and naive[2] - naive[1] > 0.3, losses
    assert end < after < before, "the second is learnt"


def test_a_merge_goes_back_to_the_weights_that_trained(tokenizer, make_model):
    model = make_model(0)
    trainer = type("Trainer", (), {"model": model})()
    merge = Merge(method="magmax", scale=0.0)
    merge.before_train_dataset_adaptation(trainer)
    first = clone_shards(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    merge.after_training_exp(trainer)
    close(first, full_state(model))
    merge.before_train_dataset_adaptation(trainer)
    close({name: weight + 1.0 for name, weight in first.items()}, full_state(model))


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"average": {"alpha": 1.5}}, "from 0"),
        ({"average": {"trace": [0.5, 2]}}, "from 0"),
        ({"soup": {"every": 0}}, "above 0"),
        ({"ema": {"decay": 1}}, "below 1"),
        ({"merge": {"density": 0}}, "above 0"),
        ({"merge": {"scale": -5}}, "`scale` of at least 0"),
    ],
)
def test_values_that_mean_nothing_are_refused(strategy, message, tokenizer, make_model):
    from clmed.errors import UserError

    with pytest.raises(UserError, match=message):
        trained(strategy, tokenizer, make_model)
