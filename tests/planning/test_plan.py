"""`clmed plan` as its users run it, and the numbers that it shows."""

import math
from types import SimpleNamespace

import pytest
from scipy.optimize import minimize_scalar

from clmed import config as configs
from clmed.planning import costs, report
from clmed.planning.estimate import HOURS_PER_FAILURE, Estimate, source_sizes
from clmed.planning.gpus import GPUS, peak_of
from clmed.strategy import make_strategies
from tests.command import in_process
from tests.small import GENERAL, small_config
from tests.test_cli import clmed_with

PAPER = "experiments/llama2-13b/naive.yaml"
EXAM = ("--tokens", "exam=10M", "--tokens", "encyclopedia=750M")
STEP = ("training.tokens_per_step=655360", "training.micro_batch_size=2")  # of several micro-batches on 8 GPUs


def plan(*overrides, file=PAPER, gpu="a100-80gb", ranks=160, **settings):
    given = {"exam": 10_000_000, "encyclopedia": 750_000_000, "english": 10**9}
    chosen = {"utilisation": 0.4, "per_node": 8, "write_speed": 2e9, "given": given}
    config = configs.load(file, ["training.keep_measured=false", *STEP, *overrides])
    return Estimate(config=config, gpu=GPUS[gpu], ranks=ranks, **(chosen | settings))


def test_the_command_answers_without_heavy_imports():
    done = clmed_with(
        "plan", PAPER, "training.precision=fp16", "--gpus", "160", "--gpu", "v100-32gb", *EXAM, modules=True
    )
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
    for words in ("13,015,864,320 parameters", "2,250,000,000 domain tokens", "fits the GPU", "host memory", "disk"):
        assert words in done.stdout


def test_the_figures_of_the_paper_by_hand():
    made = plan("training.activation_checkpointing=true")
    per_token = 6 * (40 * (4 * 5120**2 + 3 * 5120 * 13824) + 32000 * 5120) + 12 * 40 * 5120 * 2048
    assert made.tokens == 2.28e9 and made.steps == math.ceil(2.28e9 / 655_360)
    assert made.flops == pytest.approx(2.28e9 * per_token)
    assert made.seconds == pytest.approx(made.flops * 4 / 3 / (160 * 312e12 * 0.4))
    assert made.energy == pytest.approx(made.seconds / 3600 * 160 * 0.4)
    assert made.checkpoint == 12 * 13_015_864_320
    assert made.checkpoints == 2 + 2 + 1  # the newest, the ends of two experiences, and the one being written
    assert plan("training.keep_at=[750M]", "training.share_experiences=false").checkpoints == 2 + 1 + 1
    assert plan("training.keep_measured=true").checkpoints == made.checkpoints + 2
    assert made.state["optimizer"] == pytest.approx(8 * 13_015_864_320 / 160, rel=0.01)
    assert made.host == pytest.approx(made.checkpoint / 20, rel=0.01)


def test_strategies_add_what_they_say():
    ewc = plan(file="experiments/llama2-13b/ewc.yaml")
    naive = plan()
    assert ewc.state["strategies"] == ewc.state["optimizer"]  # a Fisher and an anchor
    assert ewc.checkpoint / naive.checkpoint == pytest.approx(5 / 3)
    assert ewc.flops > naive.flops and ewc.tokens == naive.tokens
    separate = "ewc: {fisher_from: [english], mode: separate}"  # a Fisher and an anchor for each of two experiences
    assert plan(f"strategy={{{separate}}}").state["strategies"] == 2 * ewc.state["strategies"]
    assert plan(f"strategy={{joint: , {separate}}}").state["strategies"] == ewc.state["strategies"]  # of one
    replay = plan("strategy={replay: {ratio: 0.2, from: [english]}}")
    assert replay.tokens == pytest.approx(naive.tokens * 1.25)
    shared = plan("strategy={replay: {ratio: 0.2, from: [english]}}", "stream.0.budget=total", "stream.1.budget=total")
    assert shared.tokens == naive.tokens


def test_a_gradient_that_passes_is_in_no_checkpoint_and_frozen_trains_nothing(capfd):
    naive, agem = plan(), plan("strategy={agem: {from: [english]}}")
    assert agem.peak - naive.peak == naive.state["gradients"]
    assert (agem.checkpoint, agem.host, agem.disk) == (naive.checkpoint, naive.host, naive.disk)
    frozen = plan("strategy={frozen: {}}")
    assert (frozen.tokens, frozen.steps, frozen.flops, frozen.seconds) == (0, 0, 0, 0)
    assert frozen.state["weights"] == naive.state["weights"] == sum(frozen.state.values())
    assert in_process(capfd, "plan", PAPER, "strategy={frozen: {}}", *EXAM).code == 0


@pytest.mark.parametrize(
    "strategy",
    [
        {"replay": {"ratio": 0.3, "from": GENERAL}},
        {"replay": {"from": ["past"], "select": "surprise"}},
        {"self_synthesis": {"rows": 30, "shots_from": GENERAL}},
        {"ewc": {"fisher_from": GENERAL}},
        {"ewc": {"fisher_from": GENERAL, "mode": "separate", "rows": 7}},
        {"interleave": {"every": 5, "from": GENERAL}},
        {"joint": {"from": GENERAL, "general_epochs": 2.0}},
        {"l2": {}},
        {"agem": {"from": GENERAL}},
        {"distill": {}},
        {"distill": {"teacher": "stored", "top": 9}},
        {"der": {"from": ["past"]}},
        {"naive": {}},
        {"frozen": {}},
        {"average": {"trace": [0.5]}},
        {"merge": {}},
        {"freeze": {"layers": 1}},
        {"rewarm": {"ratio": 0.2, "from": GENERAL}},
        {"lora": {"rank": 3}},
        {"lora": {"targets": ["q_proj"], "later": "stack"}},
    ],
)
def test_a_cost_read_from_the_source_is_the_strategy_s_own(strategy):
    """`clmed plan` imports no strategy: what it works out is what the imported object says."""
    work = {"steps": 9, "step_tokens": 128, "row_tokens": 16, "past": 30.0}
    tokens = {"english": 50.0, "chinese": 70.0}
    matrices = {"self_attn.q_proj": (8, 6), "mlp.down_proj": (6, 20)}
    shape = SimpleNamespace(parameters=1000, layers=2, matrices=matrices)
    size = costs.Size(experiences=3, domain_tokens=1000.0, tokens=tokens, shape=lambda: shape, **work)
    (made,) = make_strategies(small_config(strategy))
    assert costs.of(strategy, size) == costs.Cost(**made.cost(size))


def test_replayed_tokens_are_those_of_a_real_run(tokenizer, make_model):
    from clmed.training.sharding import World
    from tests.small import make_trainer

    for strategy in ({"replay": {"ratio": 0.25, "from": GENERAL}}, {"interleave": {"every": 3, "from": GENERAL}}):
        config = small_config(strategy, evaluation={"gain": [], "retention": []})
        trainer = make_trainer(config, make_model(), tokenizer, World())
        real = sum(int(experience.batches.trained()[-1]) for experience in trainer.stream)
        planned = Estimate(
            config=config, gpu=GPUS["v100-32gb"], ranks=1, utilisation=0.4, per_node=8, write_speed=1e9, given={}
        )
        assert planned.tokens == pytest.approx(real, rel=0.06)  # a dozen steps, whole ones


WASTEFUL = ("training.activation_checkpointing=false", "training.reduce_gradients=step")


def test_what_does_not_fit_comes_with_a_way_out(capfd):
    done = in_process(capfd, "plan", PAPER, *STEP, *WASTEFUL, "--gpus", "8", *EXAM)
    assert done.code == 0 and "fits the GPU   no" in done.out
    tries = [line for line in done.out.splitlines() if line.startswith("try ")]
    assert "GiB, fits: " in tries[-1] and "activation_checkpointing=true" in tries[0]
    assert len(tries) == 2 and "still too much: " in tries[0] and "reduce_gradients=micro_batch" in tries[1]


def test_hybrid_shards_are_as_large_as_its_groups_and_offloaded_state_is_the_host_s() -> None:
    full, hybrid = plan(), plan("training.shard_ranks=8")
    assert hybrid.state == plan(ranks=8).state and hybrid.state["weights"] == pytest.approx(
        20 * full.state["weights"], rel=0.01
    )
    offloaded = plan("training.shard_ranks=8", "training.cpu_offload=true")
    assert offloaded.peak == pytest.approx(hybrid.peak - sum(hybrid.state.values()))
    assert offloaded.host == pytest.approx(hybrid.host + 8 * sum(hybrid.state.values()))


def test_sums_that_are_not_reduced_before_the_last_micro_batch() -> None:
    """The whole gradient; or, where copies of the model meet with the last one only, a shard of it."""
    size = "unreduced sums"
    whole, summed = plan("training.reduce_gradients=step", ranks=8), plan(ranks=8)
    assert summed.accumulation > 1 and size not in summed.gathering
    assert whole.gathering[size] == 4 * whole.shape.parameters
    hybrid = plan("training.shard_ranks=4", ranks=8)
    assert hybrid.gathering[size] == hybrid.state["gradients"]


def test_a_way_out_really_fits():
    made = plan(*WASTEFUL, ranks=8)
    assert not made.fits
    *_, (what, better) = report._ways_out(made)
    overrides = [item for item in what.split() if "=" in item]
    again = plan(*WASTEFUL, *overrides, ranks=better.ranks)
    assert again.fits and again.peak == better.peak


def test_a_precision_that_the_gpu_lacks_is_told(capfd):
    done = in_process(capfd, "plan", PAPER, "training.precision=bf16", "--gpu", "v100-32gb", *EXAM)
    assert "no: it does not compute in bf16" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpu", "v100"), "no device 'v100'; did you mean"),
        ((), "how many tokens encyclopedia has is not known here: say so with --tokens encyclopedia=250M"),
        (("--tokens", "exam=lots"), "--tokens exam=lots: the number of tokens must be a whole number"),
        (("--tokens", "exam"), "--tokens exam: write SOURCE=N"),
        ((*EXAM, "--tokens", "exma=3M"), "no source 'exma' in data; did you mean 'exam'?"),
        (("model.path=nobody/nothing", *EXAM), "The shape of nobody/nothing is not known"),
        (("strategy={joint: {from: [chinese]}}", *EXAM), "tokens chinese has is not known here: say so with --tokens"),
        (("strategy={freeze: {layers: 99}}", *EXAM), "freeze: the model has 40 layers, so at most 39 can be frozen"),
        (("strategy={block_expansion: {every: 41}}", *EXAM), "the model has 40 blocks, so `every` can be 40 at most"),
        (("strategy={ewc: {}}", *EXAM), "strategy 'ewc' needs the parameter 'fisher_from'"),
    ],
)
def test_mistakes(capfd, arguments, words):
    in_process(capfd, "plan", PAPER, *arguments).is_mistake(words)


def test_a_cost_that_cannot_be_worked_out_is_told(tmp_path, capfd):
    file = tmp_path / "mine.py"
    code = "from clmed.strategy import Strategy\nclass Mine(Strategy):\n    def cost(self, size):\n        return {}\n"
    file.write_text(code.replace("{}", "{'rows': self.unknown}"))
    done = in_process(capfd, "plan", PAPER, "strategy={" + f"{file}:Mine" + ": {}}", *EXAM)
    done.is_mistake(f"{file}, line 3: cost() cannot be worked out", "no attribute 'unknown'")
    file.write_text(code.replace("{}", "{'row': 1}"))
    in_process(capfd, "plan", PAPER, "strategy={" + f"{file}:Mine" + ": {}}", *EXAM).is_mistake(
        "gives 'row'; known are"
    )


def test_the_interval_is_the_best_one():
    """Against the minimum of Daly's whole-time model (2006, eq. 20), without time to restart."""
    made = plan(write_speed=2e8)
    failure, writing = HOURS_PER_FAILURE * 3600 / made.ranks, made.writing
    whole = minimize_scalar(
        lambda interval: math.expm1((interval + writing) / failure) / interval,
        bounds=(writing / 100, 100 * failure),
        method="bounded",
        options={"xatol": 1.0},
    )
    assert made.interval == pytest.approx(whole.x, rel=0.01)


def test_a_device_is_known_by_torch_s_name():
    assert peak_of("NVIDIA A100-SXM4-80GB", "bf16") == 312e12
    assert peak_of("Tesla V100-SXM2-32GB", "bf16") is None
    assert peak_of("NVIDIA H100 80GB HBM3", "fp32") == 67e12
    assert peak_of("NVIDIA GeForce RTX 2070", "fp32") is None
    assert source_sizes(["a=1.5M", "b=7"]) == {"a": 1_500_000, "b": 7}
