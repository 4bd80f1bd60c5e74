"""How the demo looks in a terminal: live progress, then the tables.

Owns the layout. Must not know where the figures come from.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from consumer.demo.tally import ModelSummary, Tally


class Display:
    """Live bars, one per model and one for the dead letters; a context manager."""

    def __init__(self, console: Console, tally: Tally) -> None:
        self._tally = tally
        self._progress = Progress(
            TextColumn("{task.description:>12}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._bars: dict[str, TaskID] = {
            model: self._progress.add_task(model, total=books.sent, note="") for model, books in tally.books.items()
        }
        expected = sum(sending.reason is not None for sending in tally.missing.values())
        self._letters = self._progress.add_task("dead letters", total=expected, note="")

    def __enter__(self) -> Self:
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave the last state on the screen."""
        self.refresh()
        self._progress.stop()

    def refresh(self) -> None:
        """Show what the tally says now."""
        for model, books in self._tally.books.items():
            note = f"{books.right / books.unseen:.1%} right" if books.unseen else ""
            self._progress.update(self._bars[model], completed=books.answered, note=note)
        self._progress.update(self._letters, completed=len(self._tally.letters))


def models_table(summaries: Sequence[ModelSummary]) -> Table:
    """Lay out a line per model."""
    table = Table(title="Results", caption="accuracy: of the images that training never saw", title_justify="left")
    for column in ("model", "records", "accuracy", "mean batch", "records/s", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for each in summaries:
        table.add_row(
            each.model,
            f"{each.records:,}",
            f"{each.accuracy:.1%}",
            f"{each.batch_rows:.1f}",
            f"{each.records_per_s:,.0f}",
            f"{each.p50_ms:.1f}",
            f"{each.p99_ms:.1f}",
        )
    return table


def letters_table(tally: Tally) -> Table:
    """Lay out a line per dead letter."""
    table = Table(title="Dead letters", title_justify="left")
    for column in ("reason", "model", "what was sent", "what its headers say"):
        table.add_column(column, overflow="fold")
    for letter in sorted(tally.letters, key=lambda letter: letter.reason):
        key = letter.sending.key
        table.add_row(letter.reason, key.decode() if key else "-", letter.sending.fault, escape(letter.message))
    return table


def offsets_table(offsets: Sequence[tuple[int, int]]) -> Table:
    """Lay out a line per partition."""
    table = Table(title="Offsets of the input topic", title_justify="left")
    for column in ("partition", "committed", "end"):
        table.add_column(column, justify="right")
    for partition, (committed, end) in enumerate(offsets):
        table.add_row(str(partition), f"{committed:,}", f"{end:,}" if committed == end else f"[red]{end:,}")
    return table
