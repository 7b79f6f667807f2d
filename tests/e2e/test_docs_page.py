"""`make docs-test` fails where a page is wrong: another number, a failing statement, a command that is not there."""

import contextlib
import importlib

import pytest

import docs_page
import docs_test
from state import Failure


def results(server, database, text, **options):
    return docs_page.Page(server.cluster, database.name, "/", **options).run(text)


def problems(server, database, text, **options):
    return [result.problem for result in results(server, database, text, **options) if result.problem]


def page(kind, code, output=None, before=""):
    shown = "" if output is None else f"```text\n{output}\n```\n"
    return f"# A page\n\n{before}\n```{kind}\n{code}\n```\n{shown}"


ONE = " n\n---\n 1\n(1 row)"


def test_a_page_that_is_right_passes(server, database):
    text = page("sql", "create table t (n int);\ninsert into t values (1);\nselect n from t;", ONE) + page("sh", "psql -Atc 'select n from t'", "1")
    found = results(server, database, text)
    assert len(found) == 2 and not any(result.problem or result.not_run for result in found)


@pytest.mark.parametrize("code, output", [
    ("select 2 as n;", ONE),
    ("select 1 as n;", ONE.replace("n\n", "m\n", 1)),
    ("select 1 as n union all select 1;", ONE),
    ("select n from nowhere;", ONE),
    ("select 1 as n;", ""),
])
def test_another_output_fails(server, database, code, output):
    [problem] = problems(server, database, page("sql", code, output))
    assert "the page says" in problem and "it printed" in problem


@pytest.mark.parametrize("kind, code", [
    ("sql", "select n from nowhere;"),
    ("sql", "select 1;\nselect n from nowhere;\nselect 2;"),
    ("sql", "\\nosuchcommand"),
    ("sql", "select 1"),
    ("sql", "\\quit"),
    ("sh", "no-such-command-of-a-page"),
    ("sh", "false\ntrue"),
    ("sh", "false | true"),
    ("sh", "psql -v ON_ERROR_STOP=1 -c 'select n from nowhere'"),
])
def test_a_failing_statement_or_command_fails(server, database, kind, code):
    assert len(problems(server, database, page(kind, code))) == 1


def test_a_number_may_differ_by_the_tolerance_of_the_page_and_no_more(server, database):
    stated = "<!-- docs-test: tolerance 0.02 -->\n"
    right = page("sql", "select 0.41 as n;", ONE.replace("1\n", "0.42\n", 1), before=stated)
    assert problems(server, database, right) == []
    assert len(problems(server, database, right.replace("0.42", "0.44"))) == 1
    assert len(problems(server, database, right.replace(stated, ""))) == 1
    # Counts are exact.
    assert len(problems(server, database, page("sql", "select 2 as n;", ONE, before="<!-- docs-test: tolerance 5 -->\n"))) == 1


def test_an_error_that_the_page_shows_must_come(server, database):
    shown = 'ERROR:  relation "nowhere" does not exist\n...'
    assert problems(server, database, page("sql", "select n from nowhere;", shown)) == []
    assert len(problems(server, database, page("sql", "select 1 as n;", shown))) == 1


@pytest.mark.parametrize("expected, found, same", [
    ("a ... z", "a b c z", True), ("a ... z", "a b c", False), ("a ... m ... z", "a m z", False), ("a... m ...z", "a m z", True),
    ("...", "", True), ("...\nz", "a\nb\nz", True), ("a\n...", "b\na", False), ("a\n...\nz", "a\nz", True),
    ("x | y\n--+--\n1 | 2", "x  |  y\n----+-----\n1  |  2", True), ("-0.5", "0.5", False), ("1.0", "1", True),
])
def test_wildcards_and_widths(expected, found, same):
    assert docs_page.same(expected, found) is same


def test_left_out_blocks_are_counted_with_their_reason(server, database):
    text = page("sql", "select n from nowhere;", before="<!-- docs-test: not run: there is no such table -->") \
        + page("sh", "false", before="<!-- docs-test: long -->")
    assert [(result.not_run, result.long) for result in results(server, database, text)] == [("there is no such table", False), ("", True)]
    assert len(problems(server, database, text, long=True)) == 1


@pytest.mark.parametrize("command", ["sudo true", "docker run x", "true && curl -O x", "apt-get install x", "git clone x"])
def test_commands_that_change_the_machine_are_left_out(command):
    [block], _ = docs_page.parse(page("sh", command))
    assert block.not_run


def test_hidden_statements_run_and_count(server, database):
    setup = "<!-- docs-test: setup\ncreate table t (n int);\ninsert into t values (1);\n-->\n"
    assert problems(server, database, page("sql", "select n from t;", ONE, before=setup)) == []
    assert len(problems(server, database, setup.replace("values", "valuse"))) == 1


@pytest.mark.parametrize("text", [
    "```\nselect 1;\n```\n", "```text\n1\n```\n", "```sql\nselect 1;\n", page("sql", "select 1;") + "A sentence.\n```text\n1\n```\n",
    "<!-- docs-test: skip -->\n" + page("sql", "select 1;"), "<!-- docs-test: not run: x -->\nA sentence.\n", "<!-- docs-test: long -->\n",
    "<!-- docs-test: setup\nselect 1;\n", "```postgres\nselect 1;\n```\n",
])
def test_a_page_with_a_block_that_would_be_overlooked_is_refused(text):
    with pytest.raises(Failure):
        docs_page.parse(text)


def test_accepted_output_stands_where_the_old_one_stood(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("1. A step\n\n   ```sql\n   select 1;\n   ```\n   ```text\n   old\n   ```\n\n```sql\nselect 2;\n```\n```text\nkept\n```\n")
    blocks, _ = docs_page.parse(path.read_text())
    docs_test.accept(path, [docs_page.Result(block.line, problem, printed="a\n\nb ", output_lines=block.output_lines)
                            for block, problem in zip(blocks, ["differs", ""])])
    assert path.read_text() == "1. A step\n\n   ```sql\n   select 1;\n   ```\n   ```text\n   a\n\n   b\n   ```\n\n```sql\nselect 2;\n```\n```text\nkept\n```\n"


def test_how_fast_a_benchmark_is_is_not_judged(server, database, monkeypatch):
    """A page's benchmark has to run; whether it meets its targets depends on what else the machine does."""
    assert problems(server, database, page("sh", "echo $UNJUDGED", "1")) == []
    monkeypatch.syspath_prepend(str(docs_test.CLONE / "bench"))
    cancellation = importlib.import_module("cancellation")
    monkeypatch.setattr(cancellation.throwaway, "measured", lambda _: contextlib.nullcontext((None, None)))
    monkeypatch.setattr(cancellation, "compare", lambda *_: False)
    monkeypatch.delenv("UNJUDGED", raising=False)
    assert cancellation.main() == 1
    monkeypatch.setenv("UNJUDGED", "1")
    assert cancellation.main() == 0
