"""run(config): the whole story of an experiment on one page. Read this first.

configuration -> rows -> base model -> measure -> train and measure, experience by experience -> table, curves, model
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from clmed.config import ExperimentConfig, dump, resolve
from clmed.data.cleaning import LeftOut, Searched, left_out
from clmed.data.corpus import Corpus
from clmed.data.rows import tokenizer_fingerprint
from clmed.errors import UserError
from clmed.evaluation.contamination import asked, asked_by_tasks, contaminated, whole_exams
from clmed.evaluation.drift import KLToBase
from clmed.evaluation.evaluator import RunWriter, Scores, make_benchmarks, most_tokens
from clmed.evaluation.familiarity import familiarity
from clmed.evaluation.floors import Floors
from clmed.evaluation.trackers import trackers
from clmed.lifetime import asked_to_stop, recorded, refuse_changed, versions
from clmed.lineage import find_shared, lineage, register, take_up
from clmed.planning import PhasePlan, Plan, duration
from clmed.planning.gpus import peak_of
from clmed.results.drops import drops
from clmed.results.plots import plot_runs
from clmed.results.rundir import RunDirectory, disk_errors
from clmed.results.start import Start, find_start, keep
from clmed.results.table import score_table, summary
from clmed.strategy import changing, make_strategies
from clmed.stream import Experience, make_scenario, points_inside
from clmed.training.base import build_tokens, load_base, needs_building, refuse_unknown_tokens, untrained_base
from clmed.training.checkpoint import Checkpoints, Found, refuse_damaged
from clmed.training.export import save_model
from clmed.training.launch import joined
from clmed.training.loss import seconds_per_token
from clmed.training.model import load_tokenizer
from clmed.training.precision import DivergedError, LossScaler
from clmed.training.sharding import World, first_rank_says, lost_rank_told, on_first_rank
from clmed.training.state import restore_weights
from clmed.training.structure import Structure
from clmed.training.trainer import ContinualTrainer
from clmed.training.watch import ProgressBar, TrainingLog
from clmed.validation import check
from clmed.voice import Voice


def run(config: ExperimentConfig, output: Path | None = None, overwrite: bool = False) -> RunDirectory:
    """Run an experiment and leave everything about it in one directory (`output`, by default runs/<name>).

    A run that was stopped or killed goes on from its newest checkpoint, to the same end.
    Raises UserError for what the user can mend. The directory is made when all data have been read and the base model
    is there: a mistake found before that leaves nothing behind (and an old run as it was), one found later is told in
    the directory.
    """
    check(config)
    directory = RunDirectory(output or Path("runs") / config.name)
    with joined(config.training) as world:
        voice = Voice(quiet=not world.main)
        bar = ProgressBar(voice.console)
        try:
            directory.refuse_if_taken(dump(config), overwrite)  # all ranks look before the first one writes
            with lost_rank_told(world):
                _run(config, world, directory, overwrite, voice, bar)
        finally:
            bar.close()
            voice.close()
    return directory


def _run(
    config: ExperimentConfig, world: World, directory: RunDirectory, overwrite: bool, voice: Voice, bar: ProgressBar
) -> None:
    started = time.perf_counter()
    disable_progress_bar()  # of transformers, which draws one for each file it reads or writes
    strategies = make_strategies(config)
    if not overwrite:
        refuse_changed(directory, strategies)
    searched = Searched([*asked(whole_exams(config)), *asked_by_tasks(config)])
    dropped = left_out(config, searched, voice.scanning)
    leaked = contaminated(config, searched, voice.scanning)
    with voice.status("reading and tokenising"):
        tokenizer = load_tokenizer(config)
        corpus = Corpus.of(config, tokenizer, config.training.sequence_length, dropped)
        to_build = first_rank_says(world, needs_building(config, dropped))
        load = partial(load_base, config, world, tokenizer, left_out=dropped)
        model = untrained_base(config, world, tokenizer) if to_build else load()
        refuse_unknown_tokens(model, tokenizer)
        start = find_start(config)
        if start is not None:
            _refuse_other_tokenizer(start, tokenizer)
            _refuse_changed_structure(start)
        benchmarks = make_benchmarks(
            config.evaluation,
            path_of=lambda path: resolve(config, path),
            corpus=corpus,
            tokenizer=tokenizer,
            positions=most_tokens(config.evaluation, model),
            contaminated=leaked,
            say=voice.say,
            follow=voice.follow,
        )
        scenario = make_scenario(
            config.stream,
            training=config.training,
            corpus=corpus,
            strategies=strategies,
            seed=config.seed,
            benchmarks=benchmarks,
            rank=world.rank,
            ranks=world.ranks,
            past=start.past if start is not None else (),
            before=start.experiences if start is not None else 0,
        )
        _refuse_unreached(config.training.keep_at, scenario.streams["train"], start)
        structure = Structure(model, strategies, world, config.training)
        structure.refuse_impossible([experience.phase for experience in scenario.streams["train"]])
        speed = seconds_per_token(model, scenario.streams["train"][0].batches)
    plan = _plan(config, model, scenario.streams["train"], world, speed, dropped)
    voice.say(plan.table())
    begin = (start.counters.get("tokens", 0), start.point.number) if start is not None else (0, 0)
    measured = points_inside(scenario.streams["train"], begin[0]) if config.training.keep_measured else []
    for line in corpus.packed():
        voice.say(line)

    if to_build:
        voice.say("making the base model (once; it is kept for all runs with this configuration)")
        model = load(watchers=[bar])
        structure = Structure(model, strategies, world, config.training)  # which knows now where its base lies
    if start is not None and start.weights is not None:
        weights = start.weights
        refuse_damaged(world, weights)
        on_first_rank(world, lambda: keep(weights))
        restore_weights(weights, model)
    shots = {benchmark.label: benchmark.shots for benchmark in config.evaluation.gain + config.evaluation.retention}
    checkpoints = Checkpoints(
        directory.checkpoints,
        world=world,
        keep=config.training.checkpoints_kept,
        asynchronous=config.training.asynchronous_saves,
    )
    log = TrainingLog(directory.add_training, _peak(world, config))
    writer = RunWriter(directory, shots, voice.say) if world.main else None  # Avalanche's loggers are the first rank's
    trainer = ContinualTrainer(
        model=model,
        world=world,
        corpus=corpus,
        strategies=strategies,
        structure=structure,
        watchers=[*KLToBase.of(config.watching, corpus), *([bar, log] if world.main else [])],
        metrics=[Scores()],
        loggers=[writer] if writer else [],
        record=writer.variant if writer else lambda *nothing: None,
        benchmarks=[stream for name, stream in scenario.streams.items() if name != "train"],
        checkpoints=checkpoints,
        floors=Floors(
            config.evaluation.floors,
            stop=config.evaluation.on_floor == "stop",
            directory=directory,
            say=voice.say,
        ).look,
        save_every=config.training.save_every,
        scaler=LossScaler() if config.training.precision == "fp16" else None,
        reduce_each=config.training.reduce_gradients == "micro_batch",
        keep_at=[*config.training.keep_at, *measured],
        keep_ends=config.training.share_experiences,
    )
    going_on = first_rank_says(world, world.main and not overwrite and directory.may_go_on(dump(config)))
    found = checkpoints.latest() if going_on else None
    with (
        asked_to_stop(trainer),
        recorded(config, world, directory, overwrite or going_on, found, voice, strategies),
        lost_rank_told(world),
        checkpoints,
    ):
        keys = lineage(
            config,
            world=world,
            model=model,
            tokenizer=tokenizer,
            strategies=strategies,
            stream=scenario.streams["train"],
            benchmarks=benchmarks,
            versions=versions(),
            start=start,
            left_out=dropped,
        )
        fresh = found is None
        if fresh:
            found, start = _begun_elsewhere(keys, start, trainer, world, directory, checkpoints, voice)
        on_first_rank(world, lambda: register(keys, directory, fresh=fresh))
        on_first_rank(world, lambda: directory.set_plan(plan.record(*begin)))
        if first_rank_says(world, not directory.sources()):
            known = familiarity(model, corpus, batch_tokens=config.evaluation.batch_tokens)
            on_first_rank(world, lambda: directory.set_sources(known))
        torch.manual_seed(1000 * config.seed + world.rank)  # for models with dropout
        try:
            with trackers(config, directory, world.main) as loggers:
                trainer.evaluator.loggers.extend(loggers)
                trainer.train(scenario.streams["train"], found=found, start=start)
        except DivergedError as error:
            last_good = directory.checkpoints / "last-good"
            with disk_errors(directory.path):
                save_model(trainer.model, tokenizer, last_good, world, strategies)
            raise DivergedError(f"{error} The weights before this step are in {last_good}.") from None
        with disk_errors(directory.path):
            save_model(trainer.model, tokenizer, directory.model, world, strategies)
    if world.main:
        _tell(directory, voice, time.perf_counter() - started)


def _refuse_unreached(keep_at: Sequence[int], stream: Sequence[Experience], start: Start | None) -> None:
    """A checkpoint that would be kept after the run's end is a mistake of the configuration."""
    end = start.counters.get("tokens", 0) if start is not None else 0
    end += sum(int(experience.batches.trained(domain_only=True)[-1]) for experience in stream)
    if beyond := [tokens for tokens in keep_at if tokens > end]:
        raise UserError(
            f"training.keep_at: {beyond[0]:,} lies beyond the end of this run, which is at {end:,} domain tokens; "
            "leave it out: the end is kept anyway."
        )


def _refuse_other_tokenizer(start: Start, tokenizer: PreTrainedTokenizerBase) -> None:
    """A tokenizer that is made depends on its data, which the configurations do not show."""
    other = load_tokenizer(ExperimentConfig.model_validate(start.run.config()))
    if tokenizer_fingerprint(other) != tokenizer_fingerprint(tokenizer):
        raise UserError(
            f"{start.run.path} has another tokenizer, so its weights mean other tokens: the data of "
            "model.build.tokenizer_from differ."
        )


def _refuse_changed_structure(start: Start) -> None:
    """The weights of such a run fit its own structure, which the strategies here know nothing of."""
    strategies = make_strategies(ExperimentConfig.model_validate(start.run.config()))
    if start.weights is not None and (changed := changing(strategies)):
        raise UserError(
            f"{start.run.path} changed the model's structure ({type(changed[0]).__name__}), so a stream cannot start "
            f"from it directly: write its model with `clmed export {start.run.path} --point {start.point.name} -o "
            "FOLDER`, and take that with model.path."
        )


def _begun_elsewhere(
    keys: list[str],
    start: Start | None,
    trainer: ContinualTrainer,
    world: World,
    directory: RunDirectory,
    checkpoints: Checkpoints,
    voice: Voice,
) -> tuple[Found | None, Start | None]:
    """What a fresh run need not do: the checkpoint it goes on from, or what is known of the model it starts with."""
    names = [stream.name for stream in trainer.benchmarks]
    least = 1 if start is not None or not names else 0
    before = start.counters["tokens"] if start is not None else 0
    keep_at = [tokens for tokens in trainer.keep_at if tokens > before]
    shared = first_rank_says(
        world, find_shared(keys, directory, names, least=least, keep_at=keep_at) if world.main else None
    )
    with disk_errors(directory.path):
        if shared is not None:
            on_first_rank(world, lambda: take_up(shared, directory, names))
        elif start is not None:
            known = start
            on_first_rank(world, lambda: directory.copy_points(known.run, known.point.number + 1, known.known))
    if shared is None:
        return None, start
    if shared.checkpoint is None:
        voice.say(f"the base model was measured in {shared.run.path}: its scores are taken from there")
        return None, Start.at_base(shared.run, names)
    done = ", ".join(list(dict.fromkeys(row["experience"] for row in directory.training())))
    voice.say(f"taken from {shared.run.path}, which has done the same: {done}")
    return checkpoints.latest(), start


def _peak(world: World, config: ExperimentConfig) -> float | None:
    """The peak FLOP/s of a rank's device, where it is known."""
    if world.device.type != "cuda":
        return None
    return peak_of(torch.cuda.get_device_name(world.device), config.training.precision)


def _plan(
    config: ExperimentConfig,
    model: PreTrainedModel,
    stream: list[Experience],
    world: World,
    speed: float,
    dropped: LeftOut,
) -> Plan:
    phases = []
    for experience in stream:
        mixture, batches = experience.batches.mixture, experience.batches
        phases.append(
            PhasePlan(
                name=experience.name,
                steps=mixture.steps,
                domain_tokens=int(batches.trained(domain_only=True)[-1]),
                all_tokens=int(batches.trained()[-1]),
                shares=dict(zip(mixture.sources, mixture.shares.tolist(), strict=True)),
                points=1 + len(experience.milestones),
            )
        )
    return Plan(
        model=config.model.path or "a small Llama made from scratch",
        parameters=model.num_parameters(),
        phases=phases,
        strategies=list(config.strategy),
        benchmarks=[benchmark.label for benchmark in config.evaluation.gain + config.evaluation.retention],
        ranks=world.ranks,
        seconds_per_token=speed,
        build_tokens=build_tokens(config, dropped) if needs_building(config, dropped) else 0,
    )


def _tell(directory: RunDirectory, voice: Voice, seconds: float) -> None:
    rows = directory.results()
    if rows:
        voice.say(score_table(rows))
        voice.say("\n".join(filter(None, [summary(rows), *drops(rows)])))
        figures = plot_runs([directory.path], only=["forgetting"])
        voice.say(f"\ncurves   {', '.join(map(str, figures))}")
    voice.say(f"model    {directory.model}\nresults  {directory.path} (done in {duration(seconds)})")
