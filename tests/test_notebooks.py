"""The notebooks of docs/: their code runs, and what is shown there is what comes out."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
BOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 200_000


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_every_cell_runs(book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, with a tenth of the tokens."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in code(book):
        exec("".join(cell["source"]).replace("0k", "000"), names)
    assert names["naive"].state == names["replay"].state == "complete"
    assert len(names["table"]) == 2


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_it_is_small_and_was_executed_in_order(book: Path) -> None:
    assert book.stat().st_size <= MOST_BYTES
    cells = code(book)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("text/html" in output.get("data", {}) for output in outputs)


@pytest.mark.full
@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_what_it_shows_is_what_comes_out(book: Path, tmp_path: Path) -> None:
    """Executed again by a kernel: the same results, but for times."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    again = nbformat.read(book, as_version=4)
    nbclient.NotebookClient(again, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for before, now in zip(code(book), [cell for cell in again.cells if cell.cell_type == "code"], strict=True):
        assert results(before["outputs"]) == results(now["outputs"])


def code(book: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(book.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def results(outputs: list[Any]) -> list[str]:
    """The text of what cells end with."""
    texts = [output["data"]["text/plain"] for output in outputs if output["output_type"] == "execute_result"]
    return [re.sub(r"\s+", " ", "".join(text)) for text in texts]
