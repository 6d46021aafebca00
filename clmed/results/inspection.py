"""The report on an experiment's data for the terminal: tables, lengths as bars, examples with file and line."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from clmed.results.table import NAME_WIDTH, fold, tokens_text

BAR = 40  # characters of the longest bar
STEM = 60  # characters shown of a question
WARNING = "warning: "


def renderables(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What to print, in order; the report is what `clmed.inspection.inspect` returns."""
    sources = report["sources"]
    yield _counts(sources)
    for name, source in sources.items():
        yield _lengths(name, source["lengths"], report["row_tokens"])
    if report["benchmarks"]:
        yield _benchmarks(report["benchmarks"])
    yield from _examples(sources)
    for found in report["answers"]:
        yield _answers(found)
    for warning in report["warnings"]:
        yield Text.assemble((WARNING, "bold yellow"), warning)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _counts(sources: Mapping[str, Any]) -> Table:
    """Documents, tokens and bytes as a run reads them; copies, near copies and documents that touch a question as the
    files hold them."""
    columns = ("source", "docs", "tokens", "with loss", "bytes", "cut", "copies", "near", "touching")
    table = _table("Sources", *columns)
    for name, source in sources.items():
        duplicates = source["duplicates"]
        table.add_row(
            fold(name, NAME_WIDTH),
            f"{source['documents']:,}",
            tokens_text(source["tokens"]),
            f"{source['supervised'] / max(source['tokens'], 1):.0%}",
            tokens_text(source["bytes"]),
            f"{source['cut']:,}",
            f"{duplicates['copies_within'] + duplicates['copies_of_other_sources']:,}",
            f"{duplicates['near_copies']:,}",
            f"{source['documents_touching']:,}",
        )
    return table


def _lengths(name: str, lengths: Sequence[Sequence[int]], row: int) -> Table:
    table = Table(title=f"{name}: tokens of a document", title_justify="left", box=None, pad_edge=False)
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column()
    most = max((number for *_, number in lengths), default=0)
    for shortest, longest, number in lengths:
        style = "yellow" if longest >= 2 * row else "cyan"  # surely longer than a row
        bar = "█" * round(BAR * number / max(most, 1)) or ("▏" if number else "")
        table.add_row(f"{shortest:,} to {longest:,}", f"{number:,}", Text(bar, style=style))
    return table


def _benchmarks(benchmarks: Mapping[str, Any]) -> Table:
    table = _table("Questions of the benchmarks", "benchmark", "questions", "touched", "contaminated", "unsearchable")
    for name, found in benchmarks.items():
        numbers = (found[key] for key in ("questions", "touched", "contaminated", "unsearchable"))
        table.add_row(name, *(f"{number:,}" for number in numbers))
    return table


def _examples(sources: Mapping[str, Any]) -> Iterator[Text]:
    for source in sources.values():
        for copy in source["duplicates"]["examples"]:
            what = f"repeats {copy['of']}" if copy["of"] else f"repeats {copy['share']:.0%} from earlier documents"
            yield Text(f"{copy['at']} {what}")
        for benchmark, found in source["questions"].items():
            for example in found["examples"]:
                stem = " ".join(example["stem"].split())
                stem = stem if len(stem) <= STEM else f"{stem[:STEM]}…"
                what = f"{example['share']:.0%} of" if example["share"] else "words of an option of"
                where = f"{benchmark}, {example['subject']}, question {example['index'] + 1}"
                yield Text(f"{example['at']} has {what} {where}: {stem}")


def _answers(found: Mapping[str, Any]) -> Table:
    verdict = "differ" if found["differ"] else "alike"
    table = _table(
        f"{found['what'].capitalize()}: {verdict} (p = {found['p']:.2g})",
        *("", *found["train"]),
    )
    for side, name in (("train", found["source"]), ("test", found["benchmark"])):
        table.add_row(f"{name} ({side})", *(f"{share:.1%}" for share in found[side].values()))
    return table
