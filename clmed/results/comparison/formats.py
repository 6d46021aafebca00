"""A comparison as a table for the terminal, as Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clmed.results.comparison.rows import Comparison, Mark, Row, columns_of
from clmed.results.metrics import as_shown
from clmed.results.statistics.estimate import Estimate
from clmed.results.statistics.verdicts import Verdict
from clmed.results.table import NAME_WIDTH, fold, tokens_text

if TYPE_CHECKING:
    from rich.console import RenderableType

MARKS: Mapping[Mark, str] = {"": "", "better": " ▲", "worse": " ▼"}
# What means something else in LaTeX, or has no letter in its usual fonts.
LATEX = str.maketrans(
    {letter: f"\\{letter}" for letter in "&%$#_{}"}
    | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "–": "--", "\n": " "}
    | {"<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", "−": "$-$", "†": "$\\dagger$"}
    | {"▲": "$\\blacktriangle$", "▼": "$\\blacktriangledown$", "●": "$\\bullet$", "○": "$\\circ$"}
)
# The columns of a benchmark in CSV.
ENDINGS = tuple(f"{what}{end}" for what in ("", "_forgetting", "_difference") for end in ("", "_low", "_high"))
ENDINGS += ("_p", "_mark", "_verdict")
MOST_COLUMNS = 4  # of benchmarks, on a terminal 80 wide
SUMMARY = ("", "gain", "retention", "forgetting", "domain\ntokens", "all\ntokens", "TFLOP", "seconds")


def explanation(comparison: Comparison) -> list[str]:
    """What the signs of the tables mean, as far as they occur, then the notes."""
    rows = comparison.rows
    told = [
        "changes since the base in points of accuracy (perplexity: nats per token, less is better), with 95 % intervals"
    ]
    if any(row.gain_mark or row.retention_mark or any(cell.mark for cell in row.cells.values()) for row in rows):
        told.append(f"▲ better, ▼ worse than {comparison.reference} (5 %, Holm over all rows and primary benchmarks)")
    if any(row.on_front for row in rows):
        told.append("● on the front: no other row has more gain and more retention")
    if any(row.on_trivial_front for row in rows):
        told.append("○ on the trivial front: the same among rows without a method")
    if any(row.mismatches for row in rows):
        told.append("† no fair comparison with the reference: see below")
    points = f"{100 * comparison.margin:g} point{'' if comparison.margin == 0.01 else 's'}"
    if any(row.verdict for row in rows):
        told.append(
            f"retained: a loss above {points} is excluded; forgotten: some loss is certain, and that is not "
            "so; undecided: as many questions, or seeds, would decide it"
        )
    return told


def summary(comparison: Comparison) -> list[list[str]]:
    """A header and a line a row; an interval is behind its value, after a line break."""
    lines = [list(SUMMARY)]
    for row in comparison.rows:
        lines.append(
            [
                _label(row),
                _estimate(row.gain, "accuracy", row.gain_mark),
                _estimate(row.retention, "accuracy", row.retention_mark) + _said(row.verdict),
                _estimate(row.forgetting, "accuracy"),
                *(_amount(value, tokens_text) for value in (row.tokens, row.all_tokens)),
                _amount(row.flops, lambda flops: f"{flops / 1e12:,.3g}"),
                _amount(row.seconds, lambda seconds: f"{seconds:,.0f}"),
            ]
        )
    return lines


def by_benchmark(comparison: Comparison) -> list[list[str]]:
    """A header and a line a row: the change on each benchmark, its mark and its verdict."""
    some = {name: cell for row in comparison.rows for name, cell in row.cells.items()}
    names = sorted((name for name in comparison.benchmarks if name in some), key=lambda n: some[n].role != "gain")
    lines = [["", *(f"{name}\n({some[name].role})" for name in names)]]
    for row in comparison.rows:
        cells = []
        for name in names:
            cell = row.cells.get(name)
            shown = "–" if cell is None else _estimate(cell.change, cell.metric, cell.mark) + _said(cell.verdict)
            cells.append(shown)
        lines.append([_label(row), *cells])
    return lines


def terminal(comparison: Comparison) -> "list[RenderableType]":
    """What rich prints."""
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = []
    wide = by_benchmark(comparison)
    some = range(1, len(wide[0]), MOST_COLUMNS)
    for title, (header, *lines) in (
        ("gain, retention and forgetting", summary(comparison)),
        *(("change by benchmark", [[line[0], *line[at : at + MOST_COLUMNS]] for line in wide]) for at in some),
    ):
        table = Table(
            title=title, title_style="bold", title_justify="left", box=None, pad_edge=False, collapse_padding=True
        )
        table.add_column(header[0], overflow="fold")
        shown = [[_narrow(cell) for cell in line[1:]] for line in lines]
        for name, *cells in zip(header[1:], *shown, strict=True):
            folded = "\n".join(fold(part, NAME_WIDTH) for part in name.split("\n"))
            # Labels give way where there is no room: a number that is cut is another number.
            table.add_column(folded, justify="right", no_wrap=True, min_width=_width([folded, *cells]))
        for (label, *_), cells in zip(lines, shown, strict=True):
            name, *below = label.split("\n")
            table.add_row(Text("\n".join([fold(name, NAME_WIDTH + 4), *below])), *map(_coloured, cells))
        parts += [table, Text()]
    return [*parts, *(Text(f"  {line}", style="dim") for line in [*explanation(comparison), *comparison.notes])]


def markdown(comparison: Comparison) -> str:
    """Two tables, then what their signs mean and the notes as a list."""
    parts = [_markdown(summary(comparison)), _markdown(by_benchmark(comparison))]
    return (
        "\n\n".join([*parts, "\n".join(f"- {line}" for line in [*explanation(comparison), *comparison.notes])]) + "\n"
    )


def latex(comparison: Comparison) -> str:
    """Two tabulars of the package booktabs; the rest as comments."""
    parts = [_latex(summary(comparison)), _latex(by_benchmark(comparison))]
    comments = [f"% {line}" for line in [*explanation(comparison), *comparison.notes]]
    return "\n\n".join([*parts, "\n".join(comments)]) + "\n"


def as_csv(comparison: Comparison) -> str:
    """A line a row, unrounded, in shares of 1; `mmlu`, `mmlu_low`, `mmlu_high`, … of each benchmark.

    A benchmark whose columns would be called as others goes by `benchmark:gain`, `benchmark:gain_low`, ….
    """
    buffer = io.StringIO()
    rows = [_flat(row, comparison) for row in comparison.rows]
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def as_json(comparison: Comparison) -> str:
    """Everything; what is not a number is null."""
    return json.dumps(_plain(asdict(comparison)), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def text(comparison: Comparison) -> str:
    """The terminal's tables without colours."""
    from rich.console import Console

    buffer = io.StringIO()
    Console(file=buffer, width=100, force_jupyter=False).print(*terminal(comparison), sep="\n")
    return buffer.getvalue()


FORMATS: Mapping[str, Callable[[Comparison], str]] = {
    "table": text,
    "markdown": markdown,
    "csv": as_csv,
    "latex": latex,
    "json": as_json,
}


def _label(row: Row) -> str:
    notes = []
    if row.needed > 1 or len(row.runs) > 1:
        notes.append(f"{len(row.runs)} seeds" if row.enough else f"{len(row.runs)} of {row.needed} seeds")
    if row.state != "complete":
        notes.append(row.state)
    signs = "".join(s for s, on in zip("●○†", (row.on_front, row.on_trivial_front, row.mismatches), strict=True) if on)
    return "\n".join([f"{row.label}{' ' if signs else ''}{signs}", *(f"({note})" for note in notes)])


def _estimate(estimate: Estimate | None, metric: str, mark: Mark = "") -> str:
    """`+12.3 ▲`, and after a line break `[+10.1, +14.2]`."""
    if estimate is None:
        return "–"
    if not math.isfinite(estimate.value):
        return "NaN"  # a note says why
    scale, digits = as_shown(metric)
    shown = [f"{scale * each:+.{digits}f}".replace("-", "−") for each in (estimate.value, estimate.low, estimate.high)]
    return shown[0] + MARKS[mark] + (f"\n[{shown[1]}, {shown[2]}]" if estimate.known else "")


def _said(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    return f"\n{verdict.kind}" + (f" (~{verdict.needs:,} {verdict.of})" if verdict.needs is not None else "")


def _amount(value: float | None, text: Callable[[float], str]) -> str:
    return "–" if value is None else text(value)


def _width(cells: Sequence[str]) -> int:
    return max(len(line) for cell in cells for line in cell.split("\n"))


def _narrow(cell: str) -> str:
    """`29.9…50.4` instead of `[+29.9, +50.4]`: three such columns and the costs fit 80 characters."""
    return re.sub(r"\[\+?([^,]*), \+?([^]]*)\]", r"\1…\2", cell).replace(" (~", "\n~").removesuffix(")")


def _coloured(cell: str) -> Any:
    from rich.text import Text

    shown = Text(cell)
    for sign, style in (("▲", "green"), ("▼", "red"), ("retained", "green"), ("forgotten", "red")):
        shown.highlight_words([sign], style)
    shown.highlight_regex(r"\S+…\S+|~.*", "dim")
    return shown


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    header, *rows = [[_markdown_cell(cell) for cell in line] for line in lines]
    table = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def _markdown_cell(cell: str) -> str:
    return cell.replace("<", "&lt;").replace("|", "\\|").replace("\n", "<br>")


def _latex(lines: Sequence[Sequence[str]]) -> str:
    header, *rows = [[_latex_cell(cell) for cell in line] for line in lines]
    # Behind the end of a line a bracket or star would belong to that.
    for row in rows:
        row[0] = f"{{}}{row[0]}" if row[0].startswith(("[", "*")) else row[0]
    written = [f"{' & '.join(line)} \\\\" for line in [header, *rows]]
    start = f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}"
    return "\n".join([start, "\\toprule", written[0], "\\midrule", *written[1:], "\\bottomrule", "\\end{tabular}"])


def _latex_cell(cell: str) -> str:
    return cell.translate(LATEX)


def _flat(row: Row, comparison: Comparison) -> dict[str, Any]:
    found: dict[str, Any] = {"label": row.label, "strategy": row.strategy, "seeds": " ".join(map(str, row.seeds))}
    found |= {"state": row.state, "reference": row.reference, "trivial": row.trivial}

    def add(name: str, estimate: Estimate | None) -> None:
        for end, field in (("", "value"), ("_low", "low"), ("_high", "high")):
            value = None if estimate is None else getattr(estimate, field)
            found[name + end] = None if value is None or math.isnan(value) else value

    for name, estimate in (("gain", row.gain), ("retention", row.retention), ("forgetting", row.forgetting)):
        add(name, estimate)
    found |= {"gain_mark": row.gain_mark, "retention_mark": row.retention_mark, "verdict": row.verdict or ""}
    found |= {key: getattr(row, key) for key in ("tokens", "all_tokens", "flops", "seconds")}
    found |= {"on_front": row.on_front, "on_trivial_front": row.on_trivial_front}
    last = {"mismatches": "; ".join(row.mismatches), "runs": " ".join(map(str, row.runs))}
    for benchmark, name in columns_of(comparison.benchmarks, found.keys() | last.keys(), ENDINGS).items():
        cell = row.cells.get(benchmark)
        add(name, cell.change if cell else None)
        add(f"{name}_forgetting", cell.forgetting if cell else None)
        add(f"{name}_difference", cell.difference if cell else None)
        found |= {f"{name}_p": cell.p if cell else None, f"{name}_mark": cell.mark if cell else ""}
        found[f"{name}_verdict"] = cell.verdict or "" if cell else ""
    return found | last


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
