import dataclasses
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Interval, Le, MinLen

from consumer.config import grammar
from consumer.config.reference import reference, update
from consumer.config.settings import Settings

README = Path(__file__).parents[2] / "README.md"


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A section of a test."""

    size: Annotated[int, Ge(1)] = 3
    """How large
    it is."""
    bare: str | None = None


def sections(annotation: Any) -> list[type]:
    """Find every dataclass below an annotation, once."""
    found: dict[type, None] = {}
    stack = [annotation]
    while stack:
        each = stack.pop()
        if dataclasses.is_dataclass(each) and isinstance(each, type):
            found[each] = None
            stack += [option.annotation for option in grammar.options(each).values()]
        else:
            stack += [inner for inner in getattr(each, "__args__", ()) if inner is not Ellipsis]
    return list(found)


@pytest.mark.parametrize("section", sections(Settings), ids=lambda section: section.__name__)
def test_every_option_says_in_one_sentence_what_it_is(section: type) -> None:
    """Each field of each options class has a docstring that is a sentence, and words for what it allows."""
    for option in grammar.options(section).values():
        assert option.meaning.endswith("."), f"{section.__name__}.{option.name}"
        assert grammar.allowed(option.annotation)


def test_the_reference_has_a_row_per_key() -> None:
    """Every key that the configuration takes is documented, once."""
    keys = re.findall(r"^\| `([^`]+)`", reference(), re.MULTILINE)
    assert len(keys) == len(set(keys))
    assert {
        "input.topics",
        "kafka",
        "delivery",
        "models.<id>.rows_max",
        "models.<id>.inputs[].pad",
        "workers",
        "workers[].cores",
        "flow.records_max",
        "commit.interval_ms",
        "retry.attempts_max",
        "restart.backoff_s",
        "shutdown.drain_timeout_s",
        "http.port",
        "logging.level",
        "python_path",
    } <= set(keys)
    assert not [key for key in keys if key.endswith(".id")]


def test_the_reference_shows_defaults_and_bounds() -> None:
    """A row tells default, what is allowed and the meaning; a key without default is required."""
    table = reference()
    assert (
        "| `http.port` | `8080` | a whole number, at least 0, at most 65535 | "
        "The port to listen on; 0 takes a free one, which the log then names. |" in table
    )
    assert "| `input.topics` | required | a list of texts, at least 1 |" in table
    assert "| `workers` | `auto` | auto, or a list of mappings of device, count, threads, cores |" in table
    assert "| `http.enabled` | `true` | true or false |" in table


def test_update_puts_the_tables_between_their_markers() -> None:
    """Both tables are written anew, the rest of the document and a missing marker are left alone."""
    document = "a\n<!-- configuration:begin -->\nold\n<!-- configuration:end -->\nb\n"
    updated = update(document)
    assert updated == f"a\n<!-- configuration:begin -->\n{reference()}<!-- configuration:end -->\nb\n"
    assert update(updated) == updated
    assert "`consumer_lag_records`" in update("<!-- figures:begin -->\n<!-- figures:end -->\n")
    assert update("nothing\n") == "nothing\n"


def test_the_readme_shows_the_reference_of_this_code() -> None:
    """The README's tables are those that the code writes; `python -m consumer.config.reference README.md` mends it."""
    text = README.read_text(encoding="utf-8")
    assert "<!-- configuration:begin -->" in text
    assert "<!-- figures:begin -->" in text
    assert update(text) == text


def test_the_module_rewrites_files(tmp_path: Path) -> None:
    """Run as a program it updates the documents that are named."""
    document = tmp_path / "README.md"
    document.write_text("<!-- figures:begin -->\n<!-- figures:end -->\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "consumer.config.reference", str(document)], check=True, timeout=60)
    assert "`consumer_lag_records`" in document.read_text(encoding="utf-8")


def test_reading_a_configuration_brings_no_torch() -> None:
    """The configuration knows of workers and models, and still the parent process stays small."""
    code = "import sys, consumer.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "true or false"),
        (Annotated[int, Ge(1), Le(9)], "a whole number, at least 1, at most 9"),
        (Annotated[float, Gt(0)] | None, "a number, more than 0"),
        (Annotated[str, MinLen(1)], "text, not empty"),
        (Literal["a", "b", "c"], "a, b or c"),
        (Literal["a"], "a"),
        (tuple[int | str, ...], "a list of whole numbers and texts"),
        (tuple[Annotated[int, Ge(0)], ...], "a list of whole numbers, at least 0"),
        (tuple[Any, ...], "a list of values"),
        (dict[str, int], "a mapping"),
        (Inner, "a mapping of size, bare"),
        (Literal["auto"] | tuple[Inner, ...], "auto, or a list of mappings of size, bare"),
        (Any, "a value"),
    ],
)
def test_annotations_are_put_in_words(annotation: Any, words: str) -> None:
    """What a type allows is said as people say it."""
    assert grammar.allowed(annotation) == words


def test_an_unknown_bound_is_a_programmer_s_error() -> None:
    """A bound that nobody has words for is found by the tests, not by an operator."""
    with pytest.raises(AssertionError, match="no words for"):
        grammar.allowed(Annotated[int, Interval(ge=1)])


def test_options_are_read_off_a_dataclass() -> None:
    """Names, defaults and docstrings come from the class; a docstring over several lines is one sentence."""
    size, bare = grammar.options(Inner).values()
    assert (size.name, size.default, size.meaning) == ("size", 3, "How large it is.")
    assert (bare.name, bare.default, bare.meaning) == ("bare", None, "")


def test_defaults_that_are_made_are_shown() -> None:
    """A default factory counts as a default; a field without either has none."""

    @dataclass
    class Made:
        made: dict[str, int] = field(default_factory=dict)
        required: int = dataclasses.field(kw_only=True)

    options = grammar.options(Made)
    assert options["made"].default == {}
    assert options["required"].default is dataclasses.MISSING


@pytest.mark.parametrize(
    ("name", "hint"),
    [("sise", "; did you mean size?"), ("zzz", "")],
)
def test_the_nearest_key_is_suggested(name: str, hint: str) -> None:
    """Something close is suggested, nothing far-fetched."""
    assert grammar.nearest(name, ["size", "bare"]) == hint
