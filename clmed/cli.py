"""The clmed command. Every heavy import is inside its command, so that help and validation answer at once."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from clmed import __version__
from clmed.errors import LostRankError, StoppedError, UserError
from clmed.results_commands import compare, diagnose, report, watch
from clmed.strategy_commands import strategies
from clmed.sweep_commands import sweep, tune

FILE = click.Path(path_type=Path)
ORDER = "clmed.order"


class InOrder(click.Command):
    """A command that remembers in which order its options were written."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse twice: click keeps the order to itself."""
        *_, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[ORDER] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="clmed")
def commands() -> None:
    """Adapt a pretrained language model to a domain, step by step, and see what each step gained and what it cost.

    One YAML file is one experiment: data, a stream of experiences (training phases), strategies against forgetting, and
    the benchmarks that are measured before the first and after every experience.

    \b
    A first session (MiniWorld, minutes on a laptop):
      clmed strategies                             what there is against forgetting
      clmed validate experiments/replay.yaml       find mistakes before any work starts
      clmed data inspect experiments/replay.yaml   what its data hold
      clmed plan experiments/replay.yaml           what it needs, and whether that fits
      clmed run experiments/naive.yaml             train and measure; writes runs/naive/
      clmed run experiments/replay.yaml
      clmed watch runs/replay                      follow it, from another terminal
      clmed compare runs/naive runs/replay         the two in a table, with intervals
      clmed diagnose runs/naive                    what went wrong, and a change to try
      clmed plot runs/naive runs/replay            the two in a figure
      clmed report runs/naive runs/replay          all about them in one web page

    \b
    On several processes (FSDP):
      torchrun --nproc_per_node 8 -m clmed run experiment.yaml
    """


for _command in (strategies, sweep, tune, compare, diagnose, report, watch):
    commands.add_command(_command)


@commands.command()
@click.argument("file", type=FILE)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("-o", "--output", type=FILE, help="The run's directory; runs/<name> by default.")
@click.option("--overwrite", is_flag=True, help="Delete what is in the directory first.")
def run(file: Path, overrides: tuple[str, ...], output: Path | None, overwrite: bool) -> None:
    """Run the experiment in FILE.

    KEY=VALUE replaces a value of the file: keys are joined with dots, an item of a list is named by its number or its
    `name`, and the value is YAML.

    \b
    Examples:
      clmed run experiments/replay.yaml
      clmed run experiments/replay.yaml name=replay-10 strategy.replay.ratio=0.1 seed=1
      clmed run experiments/ewc.yaml stream.0.tokens=1M "strategy.ewc.fisher_from=[english_texts]"
    """
    from clmed import validation

    config = validation.load(file, overrides)
    # Before torch is imported: OpenMP threads that spin while they wait make two threads beside any other busy process
    # many times slower. Without spinning an idle machine loses some 15 %.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")

    from clmed import experiment

    experiment.run(config, output, overwrite)


@commands.command()
@click.argument("file", type=FILE)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="How many, all nodes together.")
@click.option("--gpu", default="a100-80gb", show_default=True, help="Which: v100-32gb, a100-40gb, h100-80gb, ...")
@click.option(
    "--utilisation",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.4,
    show_default=True,
    help="The share of the GPU's peak that training reaches.",
)
@click.option("--gpus-per-node", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--host-memory", type=click.FloatRange(min=0, min_open=True), help="GiB of a node.")
@click.option(
    "--write-speed",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="GB/s to where checkpoints go, all nodes together.",
)
@click.option("--tokens", multiple=True, metavar="SOURCE=N", help="Tokens of a source, such as wiki=250M; may repeat.")
def plan(
    file: Path,
    overrides: tuple[str, ...],
    gpus: int,
    gpu: str,
    utilisation: float,
    gpus_per_node: int,
    host_memory: float | None,
    write_speed: float,
    tokens: tuple[str, ...],
) -> None:
    """Say what the experiment in FILE needs: tokens, FLOPs, memory by component, disk, time, energy, and if it fits.

    Nothing is loaded or downloaded: the model's sizes come from its config.json (a folder, the Hugging Face cache, or
    built in for the models of the paper and SmolLM2-135M) or its GGUF file. docs/planning.md has the formulas and a
    worked example.

    \b
    Examples:
      clmed plan experiments/replay.yaml --gpu a100-40gb
      clmed plan paper.yaml --gpus 160 --gpu v100-32gb --utilisation 0.4 --host-memory 512
      clmed plan paper.yaml training.micro_batch_size=2 --gpus 16 --gpu h100-80gb --tokens encyclopedia=250M
    """
    from rich.console import Console

    from clmed import config
    from clmed.planning import estimate, report
    from clmed.planning.gpus import find

    made = estimate.Estimate(
        config=config.load(file, overrides),
        gpu=find(gpu),
        ranks=gpus,
        utilisation=utilisation,
        per_node=gpus_per_node,
        write_speed=write_speed * 1e9,
        given=estimate.source_sizes(tokens),
    )
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(
        report.report(made, host_memory * report.GIB if host_memory else None)
    )


@commands.command(cls=InOrder)
@click.argument("model")
@click.option("--benchmark", multiple=True, metavar="NAME", help="What to measure: see above. May repeat.")
@click.option("--perplexity", multiple=True, metavar="FILE", help="All text of a file (column `text`). May repeat.")
@click.option("--path", multiple=True, help="Its file or folder, or another hub id; by default its hub id.")
@click.option("--subset", multiple=True, help="The hub id's subset.")
@click.option("--split", multiple=True, help="What is asked, if not the usual split.")
@click.option("--shots", multiple=True, type=int, help="Questions shown with their answers; 0 by default.")
@click.option("--shots-from", multiple=True, help="Their file, where the benchmark has no dev part of its own.")
@click.option("--scoring", multiple=True, help="letter or text: what is compared; by default as its authors do.")
@click.option("--questions", multiple=True, help="A sample of so many, the same one every time.")
@click.option("--only", multiple=True, metavar="SUBJECT", help="Ask this subject or category; may repeat.")
@click.option("--without", multiple=True, metavar="SUBJECT", help="Leave this subject or category out; may repeat.")
@click.option("--columns", multiple=True, metavar="YAML", help="For multiple_choice: how your file is to be read.")
@click.option("--of", multiple=True, help="For cases: the exam whose cases are asked.")
@click.option("--longer-than", multiple=True, type=int, help="For cases: the least number of characters of a stem.")
@click.option("--name", multiple=True, help="The name under which it is written.")
@click.option(
    "--show", type=click.IntRange(min=0), help="Print question N (from 0) exactly as it is asked; no weights."
)
@click.option("--sequence-length", default="1024", show_default=True, help="Tokens of a row of text (perplexity).")
@click.option("--batch-tokens", default="16k", show_default=True, help="Most tokens of a batch.")
@click.option("-o", "--output", type=FILE, help="The directory; evaluations/<model>-1, -2, … by default.")
@click.option("--overwrite", is_flag=True, help="Delete what is in the directory first.")
@click.pass_context
def evaluate(
    context: click.Context,
    model: str,
    show: int | None,
    sequence_length: str,
    batch_tokens: str,
    output: Path | None,
    overwrite: bool,
    **values: tuple[Any, ...],
) -> None:
    """Measure MODEL on benchmarks, outside a run: a hub id, a folder, a .gguf file, or the directory of a run.

    Benchmarks: cmexam, medqa, medmcqa, pubmedqa, cases (medicine); mmlu, cmmlu, ceval, arc_easy, piqa (general);
    multiple_choice (your own file); lm_eval/NAME, any task of lm-evaluation-harness where that is installed.
    docs/benchmarks.md says what each reads and how it is averaged. Options after a --benchmark belong to it, options
    before the first one to all.

    The table shows beside each score what can be had without reading the questions. results.jsonl and answers/ are
    written as a run writes them.

    \b
    Examples:
      clmed evaluate meta-llama/Llama-2-13b-hf --benchmark mmlu --shots 5 --benchmark cmexam --path data/cmexam/test.csv
      clmed evaluate runs/replay --shots 5 --benchmark mmlu --path data/mmlu --benchmark cmmlu --path data/cmmlu
      clmed evaluate model.gguf --benchmark arc_easy --path arc.jsonl --questions 500 --perplexity wiki.jsonl
      clmed evaluate gpt2 --benchmark multiple_choice --path ward.csv --columns '{choices: [a, b], answer: key}'
      clmed evaluate gpt2 --benchmark lm_eval/hellaswag --benchmark lm_eval/gsm8k --shots 8 --questions 200
      clmed evaluate gpt2 --benchmark mmlu --path data/mmlu --shots 5 --show 3
      clmed evaluate gpt2 --benchmark mmlu --only health --name health --benchmark mmlu --without health
      torchrun --nproc_per_node 8 -m clmed evaluate meta-llama/Llama-2-13b-hf --benchmark mmlu --shots 5
    """
    from clmed.benchmark_options import evaluation

    config = evaluation(model, context.meta[ORDER], values, sequence_length=sequence_length, batch_tokens=batch_tokens)
    os.environ.setdefault("GOMP_SPINCOUNT", "0")  # as for `run`

    from clmed import evaluate as work

    if show is not None:
        work.show(config, show, click.echo)
    else:
        work.evaluate(config, output, overwrite)


@commands.command()
@click.argument("runs", nargs=-1, type=FILE, metavar="RUN...")
@click.option("-o", "--output", type=FILE, help="The folder; RUN/figures, for several runs figures/, by default.")
@click.option("--only", metavar="NAME,...", help="Only these figures.")
@click.option("--format", "formats", metavar="NAME,...", default="png,svg", help="png, svg or pdf; png,svg by default.")
def plot(runs: tuple[Path, ...], output: Path | None, only: str | None, formats: str) -> None:
    """Draw the figures of one run, or of several in comparison.

    \b
    forgetting   each benchmark's score over the domain tokens; with three seeds or more the 95 % band
    plane        gain and retention of each method, the Pareto front, and what needs no method (two methods or more)
    heatmap      the change by category and subject, worst first
    training     the loss of each source, and the learning rate
    mixture      the share of each source

    RUN is the folder of a run, or a folder that holds runs. Runs that differ in their seeds only are one method. What
    the runs do not allow is left out, and runs that are still going, were killed or are damaged are marked. A figure's
    panels are as wide as a column in print (3.3 in) and keep their size there.

    \b
    Examples:
      clmed plot runs/naive
      clmed plot runs/naive runs/replay runs/ewc -o figures
      clmed plot runs -o figures
      clmed plot runs/trivial-* runs/replay-* --only plane,forgetting --format pdf
    """
    from functools import partial

    from clmed.results import plots

    tell = partial(click.echo, err=True)
    for path in plots.plot_runs(list(runs), output, _names(only), _names(formats), tell):
        click.echo(path)


def _names(text: str | None) -> list[str]:
    """`a,b` -> its parts."""
    return [name for name in (text or "").replace(" ", "").split(",") if name]


@commands.command()
@click.argument("run", type=FILE, metavar="RUN")
@click.option("-o", "--output", type=FILE, help="The folder for the model; RUN/exports/<point> by default.")
@click.option("--point", help="A measurement point: its number, an experience (its end), or experience@tokens.")
def export(run: Path, output: Path | None, point: str | None) -> None:
    """Write the model of a run as a Hugging Face folder: weights, tokenizer, and a card with its history and scores.

    `AutoModelForCausalLM.from_pretrained(FOLDER)` loads it. By default it is the final model or, of a run that is not
    finished, the one of the newest checkpoint. Of earlier points the ends of experiences are kept, those in
    `training.keep_at`, and all with `training.keep_measured`.

    \b
    Examples:
      clmed export runs/replay -o my-model
      clmed export runs/replay --point medical-pretraining
      clmed export runs/replay --point medical-pretraining@750M
    """
    from clmed.results.rundir import RunDirectory

    found = RunDirectory.open(run)

    from clmed.training.export import export as write

    click.echo(write(found, output, point))


@commands.command()
@click.argument("arguments", nargs=-1, required=True, metavar="FILE... [KEY=VALUE]...")
def validate(arguments: tuple[str, ...]) -> None:
    """Check experiment files: keys, values, paths, strategies and their parameters, leaks of test questions.

    Nothing is trained or downloaded. Every mistake is told with its file and line; the exit code is 2 if there is any.
    KEY=VALUE replaces a value in each of the files, as in `clmed run`.

    \b
    Examples:
      clmed validate experiments/naive.yaml experiments/replay.yaml
      clmed validate experiments/replay.yaml strategy.replay.ratio=0.1
    """
    from clmed import validation

    overrides = [argument for argument in arguments if "=" in argument and not Path(argument).exists()]
    files = [argument for argument in arguments if argument not in overrides]
    if not files:
        raise click.UsageError("Missing argument 'FILE...'.")
    mistakes = []
    for file in files:
        try:
            config = validation.load(file, overrides)
        except UserError as error:
            mistakes.append(str(error))
            continue
        stream = " -> ".join(experience.name for experience in config.stream)
        measured = [benchmark.label for benchmark in config.evaluation.gain + config.evaluation.retention]
        strategies = ", ".join(config.strategy) or "naive"
        click.echo(f"{file}: fine ({stream}; strategy {strategies}; measures {', '.join(measured) or 'nothing'})")
    if mistakes:
        raise UserError("\n".join(mistakes))


@commands.group()
def data() -> None:
    """Look at the data of an experiment."""


@data.command()
@click.argument("file", type=FILE)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON, for programs.")
def inspect(file: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Report what the sources in FILE hold, before anything is trained on them.

    Documents, tokens and lengths of each source, duplicates, test questions of the benchmarks in training text (with
    file and line), and whether the answers of a training exam are distributed as those of the test. The tokenizer and
    the rows that are made for it are kept: a run finds them ready. What is looked for and what cannot be found:
    docs/data.md.

    \b
    Examples:
      clmed data inspect experiments/replay.yaml
      clmed data inspect experiments/real-data.yaml data_root=FOLDER data.exam.decontaminate=true
      clmed data inspect experiment.yaml --json > report.json
    """
    import json
    from functools import partial

    from clmed import validation

    config = validation.load(file, overrides)

    from rich.console import Console
    from rich.text import Text

    from clmed import inspection
    from clmed.results.inspection import renderables
    from clmed.voice import scanning

    report = inspection.inspect(config, partial(scanning, Console(stderr=True)))
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=2))
        return
    console = Console()
    for part in renderables(report):
        console.print(part, soft_wrap=isinstance(part, Text))


def main() -> None:
    """Run the command: exit code 2 with a message in plain words for a mistake of the user, 130 when interrupted,
    75 when a run was asked to stop (SIGTERM, SIGUSR1) and has saved where it stands."""
    try:
        sys.exit(commands(standalone_mode=False))
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":  # all ranks make the same mistake; one tells it
            click.echo(error, err=True)
        sys.exit(2)
    except LostRankError as error:
        click.echo(error, err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except StoppedError:
        sys.exit(75)  # EX_TEMPFAIL: what clusters requeue
    except (KeyboardInterrupt, click.Abort):
        click.echo("stopped", err=True)
        sys.exit(130)
