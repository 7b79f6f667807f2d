"""scripts/records.py: the rows of CSV and JSON lines files, and the lines of errors."""

import csv
import json
import random

import pytest

import records
from state import Failure


@pytest.fixture
def read(tmp_path):
    """Writes a file and reads it: (columns, rows)."""
    def of(content, name="notes.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        source = records.source(path)
        return source.columns, [values for _, values in source.rows()]
    return of


def refused(read, content, name="notes.csv"):
    with pytest.raises(Failure) as raised:
        read(content, name)
    return str(raised.value)


# --- CSV ---


def test_a_csv_file(read):
    assert read("title,body\nA,first\nB,second\n") == (["title", "body"], [["A", "first"], ["B", "second"]])


def test_quoted_fields_hold_newlines_separators_and_quotes(read):
    assert read('title,body\n"a, b","one\ntwo ""three""\r\n\tfour\\"\n') == (
        ["title", "body"], [["a, b", 'one\ntwo "three"\r\n\tfour\\']])


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"], ids=["Windows", "old Mac", "Unix"])
def test_line_ends(read, end):
    assert read(f"title,body{end}A,first{end}B,second") == (["title", "body"], [["A", "first"], ["B", "second"]])


def test_a_byte_order_mark_is_no_part_of_the_first_name(read):
    assert read(b"\xef\xbb\xbfbody,title\nx,y\n")[0] == ["body", "title"]
    assert read(b'\xef\xbb\xbf"body",title\nx,y\n')[0] == ["body", "title"]
    assert read(b'\xef\xbb\xbf{"body": "x"}\n', "notes.jsonl")[0] == ["body"]


@pytest.mark.parametrize("content, name", [
    ("title;body\nA, B;first, second\n", "notes.csv"), ("title\tbody\nA, B\tfirst, second\n", "notes.csv"),
    ("title\tbody\nA, B\tfirst, second\n", "notes.tsv"), ('"title";"body"\n"A, B";"first, second"\n', "notes.csv"),
], ids=["semicolon", "tab", "tsv", "quoted"])
def test_the_separator_is_found(read, content, name):
    assert read(content, name) == (["title", "body"], [["A, B", "first, second"]])


def test_a_tsv_file_is_separated_by_tabs_alone(read):
    assert read("a,b,c\nfirst, second\n", "notes.tsv") == (["a,b,c"], [["first, second"]])


def test_one_column(read):
    assert read('body\nfirst\n"second, longer"\n') == (["body"], [["first"], ["second, longer"]])


def test_empty_fields_are_null_and_blank_lines_are_none(read):
    assert read('a,b\n,x\n\n"",y\n\n') == (["a", "b"], [[None, "x"], [None, "y"]])


def test_what_python_writes_is_read_back(tmp_path):
    characters = random.Random(1)
    rows = [["".join(characters.choices('ab ,;\t"\\\n\r\'äß漢😀', k=characters.randint(1, 30))) for _ in range(3)]
            for _ in range(500)]
    path = tmp_path / "any.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["a", "b", "c"], *rows])
    assert [values for _, values in records.source(path).rows()] == rows


@pytest.mark.parametrize("content, words", [
    ("a,b\n1,2\n1,2,3\n", "line 3: 3 fields, where the header has 2"),
    ("a,b\n1,2\n1\n", "line 3: 1 field, where the header has 2"),
    ('a,b\n"1\n2\n3",2\n\n1,2,3\n', "line 6: 3 fields"),
    ('a,b\n1,2\n"1,2\n3,4\n', "line 3: a quote is opened here and never closed"),
    ('a,b\n"1"x,2\n', "line 2: behind a closing quote"),
    (b"a,b\n1,2\nx,caf\xe9\n", "line 3: byte 0xe9 is not UTF-8"),
    (b'a,b\n"1\n2\n\xff",2\n', "line 4: byte 0xff is not UTF-8"),
    (b"caf\xe9,b\n", "line 1: byte 0xe9"),
    ("a,b\n1,2\n".encode("utf-16"), "iconv -f UTF-16"),
    (b"a,b\n1,\x002\n", "line 2: it has a zero byte"),
])
def test_an_error_names_its_line(read, content, words):
    said = refused(read, content)
    assert words in said and "nothing was loaded" in said


@pytest.mark.parametrize("content", ["", "\n\n \n", b"\xef\xbb\xbf"], ids=["empty", "blank", "byte order mark"])
@pytest.mark.parametrize("name", ["notes.csv", "notes.jsonl"])
def test_an_empty_file(read, content, name):
    assert "is empty" in refused(read, content, name)


def test_a_header_without_names(read):
    assert "has no header" in refused(read, ",,\n1,2,3\n")


def test_a_line_and_a_field_have_a_longest_length(read, monkeypatch):
    monkeypatch.setattr(records, "LONGEST", 1000)
    assert "line 3: it is longer than" in refused(read, "a,b\n1,2\n" + "x" * 1001 + ",2\n")
    assert "line 2: a field is longer than" in refused(read, 'a,b\n"' + "x\n" * 501 + '",2\n')


# --- names of columns ---


@pytest.mark.parametrize("given, columns", [
    (["id", "embedding", "body"], ["file_id", "file_embedding", "body"]),
    (["id", "file_id"], ["file_id_2", "file_id"]),
    (["a", "a", "a_2", "a"], ["a", "a_3", "a_2", "a_4"]),
    (["", "b", ""], ["column_1", "b", "column_3"]),
    (["column_2", "", "x"], ["column_2", "column_2_2", "x"]),
    (["ctid", "xmin", "tableoid"], ["file_ctid", "file_xmin", "file_tableoid"]),
    (["ID", "Body text", 'say "hi"', "a;b", ":x", "select"], ["ID", "Body text", 'say "hi"', "a;b", ":x", "select"]),
    (["x" * 80], ["x" * 63]), (["ä" * 40], ["ä" * 31]), (["x" * 80, "x" * 90], ["x" * 63, "x" * 61 + "_2"]),
])
def test_every_column_has_a_name_of_its_own(given, columns):
    assert records._column_names(given) == columns


def test_a_column_is_chosen_by_its_name_in_the_file(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("id,body,body\n1,2,3\n")
    source = records.source(path)
    assert [source.column(name) for name in ("id", "body", "body_2")] == ["file_id", "body", "body_2"]
    assert source.renamed() == [("id", "file_id"), ("body", "body_2")]
    for wanted in ("text", ""):
        with pytest.raises(Failure, match="COLUMN= takes one of: id, body, body"):
            source.column(wanted)


def test_the_only_column_needs_no_naming(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("body\nx\n")
    assert records.source(path).column("") == "body"
    with pytest.raises(Failure, match='no column "text"'):
        records.source(path).column("text")


def test_more_columns_than_a_table_can_have(read):
    header = ",".join(f"c{n}" for n in range(1599))
    assert "1599 columns" in refused(read, f"{header}\n{header}\n")
    line = json.dumps({f"c{n}": n for n in range(1599)})
    assert "more than 1598 different keys" in refused(read, line, "notes.jsonl")


# --- JSON lines ---


def test_json_lines(read):
    lines = ['{"body": "a \\u00e4\\n\\t\\\\", "n": 19.90, "big": 123456789012345678901234567890, "e": 1e400}',
             "", '{"later": true, "body": null}', '{"body": "", "nested": {"a": [1.10, null, "\\u00e4"], "b": false}}']
    columns, rows = read("\n".join(lines), "notes.jsonl")
    assert columns == ["body", "n", "big", "e", "later", "nested"]
    assert rows == [["a ä\n\t\\", "19.90", "123456789012345678901234567890", "1e400", None, None],
                    [None, None, None, None, "true", None],
                    ["", None, None, None, None, '{"a": [1.10, null, "ä"], "b": false}']]


@pytest.mark.parametrize("name", ["notes.jsonl", "notes.ndjson", "notes.json", "notes", "notes.log"])
def test_json_lines_are_known_by_name_or_first_character(read, name):
    assert read('{"body": "x\u2028y"}\r\n{"body": "z"}\r\n', name) == (["body"], [["x\u2028y"], ["z"]])


@pytest.mark.parametrize("line, words", [
    ('{"body": "x"', "it is not JSON"), ("{'body': 'x'}", "it is not JSON"), ('{"body": NaN}', "it is not JSON"),
    ('{"body": "x"} {"body": "y"}', "it is not JSON"), ('["x"]', "not an object"), ('"x"', "not an object"),
    ('{"body": "a\\u0000b"}', "zero|u0000"), ('{"body": "\\ud83d"}', "surrogate"), ('{"\\ud83d": "x"}', "a key has"),
    ('{"body": ' + "[" * 100000 + "]" * 100000 + "}", "nested too deeply"), (b'{"body": "\xe9"}', "0xe9 is not UTF-8"),
])
def test_a_bad_line_is_named(read, line, words):
    line = line.encode() if isinstance(line, str) else line
    said = refused(read, b'{"body": "one"}\n\n' + line + b'\n{"body": "two"}\n', "notes.jsonl")
    assert "line 3: " in said and any(word in said for word in words.split("|"))


def test_a_json_array_is_told_apart(read):
    assert "jq -c" in refused(read, '[{"body": "x"}]', "notes.json")


def test_objects_without_keys(read):
    assert "no object with a key" in refused(read, "{}\n{}\n", "notes.jsonl")


# --- files ---


def test_what_is_no_file(tmp_path):
    for path, words in ((tmp_path / "none.csv", "does not exist"), (tmp_path, "not a regular file")):
        with pytest.raises(Failure, match=words):
            records.source(path)
