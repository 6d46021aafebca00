"""evaluate(config): the benchmarks of a run on a model outside one.

model -> benchmarks -> measure each -> table; results.jsonl and answers/ as a run writes them
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from clmed.config import BenchmarkConfig, EvaluateConfig, TrainingConfig, dump, resolve
from clmed.data.corpus import Corpus
from clmed.errors import UserError
from clmed.evaluation import explanations
from clmed.evaluation.benchmarks import load_benchmark
from clmed.evaluation.evaluator import make_benchmarks, most_tokens, told, write_measurement
from clmed.evaluation.exams import fitting_prompts
from clmed.evaluation.prompts import Prompt
from clmed.evaluation.record import record
from clmed.evaluation.scoring import longest
from clmed.lifetime import environment
from clmed.planning import duration
from clmed.results.rundir import RunDirectory
from clmed.results.table import evaluation_table
from clmed.training.launch import joined
from clmed.training.model import load_model, model_shape, pretrained_tokenizer
from clmed.training.sharding import World
from clmed.validation import check_evaluation
from clmed.voice import Voice

# Nothing was trained: the place of every score.
BEFORE_TRAINING = {
    "point": 0,
    "tokens": 0,
    "all_tokens": 0,
    "bytes": 0,
    "flops": 0.0,
    "experience": "evaluate",
    "final": True,
    "train_seconds": 0.0,
}


def evaluate(config: EvaluateConfig, output: Path | None = None, overwrite: bool = False) -> RunDirectory:
    """Measure a model on every benchmark of `config` and leave the scores and answers in a directory.

    output: by default evaluations/<model>-1, -2, … (the first that is free). Works on several ranks, as a run does.
    Raises UserError for what the user can mend; nothing is written before model and benchmarks have been read.
    """
    check_evaluation(config)
    directory = RunDirectory(output or _free(Path("evaluations"), config.name))
    positions = getattr(model_shape(config.model), "max_position_embeddings", None)
    length = min(config.sequence_length, positions or config.sequence_length)
    training = TrainingConfig(sequence_length=length, tokens_per_step=length)
    with joined(training) as world:
        voice = Voice(quiet=not world.main)
        try:
            directory.refuse_if_taken(dump(config), overwrite)
            _evaluate(config, training, world, directory, overwrite, voice)
        finally:
            voice.close()
    return directory


def _evaluate(
    config: EvaluateConfig,
    training: TrainingConfig,
    world: World,
    directory: RunDirectory,
    overwrite: bool,
    voice: Voice,
) -> None:
    started = time.perf_counter()
    disable_progress_bar()  # of transformers, which draws one for each file it reads
    with voice.status("reading model and benchmarks"):
        tokenizer = pretrained_tokenizer(config.model)
        model = load_model(config.model, training, world)
        benchmarks = make_benchmarks(
            config.evaluation,
            path_of=lambda path: resolve(config, path),
            corpus=Corpus(sources={}, paths={}, tokenizer=tokenizer, length=training.sequence_length),
            tokenizer=tokenizer,
            positions=most_tokens(config.evaluation, model),
            say=voice.say,
            follow=voice.follow,
        )
    with _recorded(config, world, directory, overwrite, voice):
        for benchmark, settings in zip(benchmarks, config.evaluation.retention, strict=True):
            measured = benchmark.measure(model)
            if world.main:
                write_measurement(directory, benchmark, measured, settings.shots, BEFORE_TRAINING)
            voice.say(told(benchmark, measured))
        if world.main:
            voice.say(evaluation_table(directory.results()))
    voice.say(f"results  {directory.path} (done in {duration(time.perf_counter() - started)})")


@contextmanager
def _recorded(
    config: EvaluateConfig, world: World, directory: RunDirectory, overwrite: bool, voice: Voice
) -> Iterator[None]:
    """Make the directory, and write there how the work inside ends."""
    if not world.main:
        yield
        return
    RunDirectory.create(directory.path, dump(config), environment(world), overwrite)
    voice.write_to(directory.log)
    try:
        yield
    except BaseException as error:
        directory.set_status("stopped", f"{type(error).__name__}: {error}")
        raise
    directory.set_status("complete")


def _free(folder: Path, name: str) -> Path:
    return next(path for number in count(1) if not (path := folder / f"{name}-{number}").exists())


def show(config: EvaluateConfig, number: int, say: Callable[[str], object]) -> None:
    """Tell what is asked in question `number` of each benchmark, to the letter; of the model no weights are read.

    `number` counts the rows of answers/….parquet from 0. Raises UserError where there is no such question.
    """
    check_evaluation(config)
    tokenizer = pretrained_tokenizer(config.model)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_shape(config.model))
    for benchmark in config.evaluation.retention:
        if benchmark.task is not None:
            from clmed.evaluation.harness.show import show_task

            local = None if benchmark.path is None else resolve(config, benchmark.path)
            show_task(benchmark, local, number, longest(model), say)
        elif benchmark.is_exam:
            _show(config, benchmark, number, tokenizer, model, say)


def _show(
    config: EvaluateConfig,
    settings: BenchmarkConfig,
    number: int,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    say: Callable[[str], object],
) -> None:
    local, shots = (None if path is None else resolve(config, path) for path in (settings.path, settings.shots_from))
    benchmark = load_benchmark(settings, local, shots)
    if number >= len(benchmark.questions):
        raise UserError(f"{settings.label} has {len(benchmark.questions)} questions; --show counts them from 0.")
    question = benchmark.questions[number]
    alone = dataclasses.replace(benchmark, questions=(question,))
    generated = benchmark.scoring in ("generate", "reason")
    if generated:
        prompts, shown = [Prompt(context=explanations.prompts(alone)[0], answers=(), continuations=())], [0]
    else:
        prompts, shown = fitting_prompts(alone, settings.shots, tokenizer, longest(model))
    tokens = len(tokenizer(prompts[0].context)["input_ids"])
    known = {key: value[0] for key, value in record(alone, prompts, shown, [tokens]).items()}
    say(
        f"{settings.label}, question {number} of {len(benchmark.questions)}: subject {known['subject']}, row "
        f"{known['index']}, {', '.join(known['categories']) or 'no categories'}; {known['shots']} shots, "
        f"{tokens} tokens, hash {known['prompt_hash']}"
    )
    say(f"----- prompt -----\n{prompts[0].context}")
    if generated:
        say(f"----- what the model writes next, at most {explanations.MOST} tokens; gold: {question.answer} -----")
        return
    say("----- answers, as they continue it -----")
    for letters, text in zip(prompts[0].answers, prompts[0].continuations, strict=True):
        say(f"{letters:<6}{json.dumps(text, ensure_ascii=False)}{'   <- gold' if letters == question.answer else ''}")
