"""What `make import` says of files that are no text, and the lines of its progress."""

import bz2
import gzip
import json
import lzma
import re
import subprocess
import sys

import pytest

import import_file
import records
import session
import web_role
from state import Failure
from test_import import load, notes, verb  # noqa: F401  fixtures


def refused(path) -> str:
    with pytest.raises(Failure) as raised:
        source = records.source(path)
        list(source.rows())
    return str(raised.value)


def repaired(path) -> list:
    """The rows after the command of the message was run in a shell, in another directory."""
    command = refused(path).splitlines()[-1]
    subprocess.run(command, shell=True, check=True, cwd="/")
    source = records.source(command.rsplit(" > ", 1)[1].strip("'"))
    assert import_file.table_name(source.path) == import_file.table_name(path)
    return [values for _, values in source.rows()]


@pytest.mark.parametrize("pack, name", [(gzip.compress, "my notes.csv.gz"), (bz2.compress, "notes.csv.bz2"), (lzma.compress, "notes.csv.xz"), (gzip.compress, "notes.gz")])
def test_a_compressed_file_is_unpacked_by_the_command_of_the_message(tmp_path, pack, name):
    path = tmp_path / name
    path.write_bytes(pack(b"body\nfirst\n"))
    assert "compressed" in refused(path) and repaired(path) == [["first"]]


@pytest.mark.parametrize("start, words", [(b"PK\x03\x04", "spreadsheet"), (b"PAR1", "Parquet"), (b"SQLite format 3\0", "SQLite"), (b"%PDF-1.7\n%\xe2\xe3", "PDF")])
@pytest.mark.parametrize("name", ["notes.csv", "notes.xlsx"])
def test_a_file_that_is_no_text_is_named(tmp_path, start, words, name):
    path = tmp_path / name
    path.write_bytes(start + b"\0\xff" * 100)
    assert words in refused(path) and "iconv" not in refused(path)


@pytest.mark.parametrize("content, name, rows", [
    ("body\ncaf\xe9\n".encode("latin-1"), "my notes.csv", [["café"]]), ('{"body": "café"}\n'.encode("latin-1"), "notes.jsonl", [["café"]]),
    ("body\ncafé\n".encode("utf-16"), "notes.csv", [["café"]])], ids=["CSV", "JSON lines", "UTF-16"])
def test_the_encoding_is_changed_by_the_command_of_the_message(tmp_path, content, name, rows):
    path = tmp_path / name
    path.write_bytes(content)
    assert repaired(path) == rows


def test_an_object_over_several_lines_is_told_apart(tmp_path):
    path = tmp_path / "my notes.json"
    path.write_text(json.dumps({"body": "x"}, indent=2))
    # jq is not on every machine.
    assert refused(path).endswith(f"\n  jq -c . '{path}' > '{tmp_path}/my notes.lines.jsonl'")
    path.write_text('[{"body": "x"}]')
    assert refused(path).endswith(f"\n  jq -c '.[]' '{path}' > '{tmp_path}/my notes.lines.jsonl'")


def test_one_row_is_said_as_one(load, capsys):  # noqa: F811
    load("body\nword\n")
    assert "1 row of notes.csv is in the table notes" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["reading", "embedding"])
def test_an_interrupt_is_said_on_a_line_of_its_own(load, notes, monkeypatch, capsys, what):  # noqa: F811
    monkeypatch.setattr(import_file, "LARGE", 0)
    monkeypatch.setattr(import_file, "CHUNK", 1)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    # A file of several megabytes, without its rows.
    monkeypatch.setattr(records.Csv, "position", property(lambda _: 1 << 20, lambda *_: None), raising=False)
    monkeypatch.setattr(records.Csv, "size", property(lambda _: 9 << 20, lambda *_: None), raising=False)
    add = session.Progress.add

    def interrupted(self, rows):
        add(self, rows)
        if self.what == what:
            raise KeyboardInterrupt

    monkeypatch.setattr(session.Progress, "add", interrupted)
    with pytest.raises(Failure, match="interrupted"):
        load(notes, "body")
    said = capsys.readouterr().err
    assert re.search(rf"\r{what}  \d+ of \d+ .*\n$", said), said[-200:]


def test_the_search_page_that_runs_already_may_read_the_new_table(verb, database, tmp_path):  # noqa: F811
    web_role.make(database.server.cluster, database.name)
    path = tmp_path / "notes.csv"
    path.write_text("body\nnight\n")
    for replace in ("", "1"):
        assert verb(FILE=path, REPLACE=replace) == (True, None)
        with database.connect(web_role.ROLE) as page:
            assert page.execute("select body from search_notes('night', 5)").fetchall() == [("night",)]
