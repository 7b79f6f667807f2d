"""The rows of a CSV or JSON lines file, one at a time. Every error has its line.

The memory depends on the longest record, not on the file. An empty field of a CSV file and an absent or null key are
NULL. Every other value is text; nested values are JSON text.
"""

import csv
import json
import re
import shlex
from pathlib import Path

from state import Failure

# No model reads a text of this length. The limit also ends the search for the end of a quote that is never closed.
LONGEST = 16 << 20
# PostgreSQL's limits: columns of a table (the import adds two), bytes of a name.
MOST_COLUMNS, LONGEST_NAME = 1598, 63
# Names of columns that every imported table has: the import adds id and embedding, the others are system columns.
TAKEN = ("id", "embedding", "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid")
DELIMITERS = (",", ";", "\t")
# How files begin that are often taken for text.
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
BINARY = {b"PK\x03\x04": "a spreadsheet or a zip archive", b"\xd0\xcf\x11\xe0": "a spreadsheet", b"PAR1": "a Parquet file",
          b"SQLite format 3": "an SQLite database", b"%PDF": "a PDF"}


class _Literal(str):
    """A number as it is written in the file: 19.90 stays 19.90, and 30 digits stay 30 digits."""


def source(path):
    """The reader of this file, with its columns known. The name decides the format; for an unknown name the first character."""
    path = Path(path)
    if not path.is_file():
        raise Failure(f"{path} {'is not a regular file' if path.exists() else 'does not exist'}, so nothing was loaded; "
                      "FILE= wants a CSV file or JSON lines")
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise Failure(f"{path} can't be read ({error.strerror}), so nothing was loaded") from None
    _refuse_binary(path, start)
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise Failure(f"{path} is empty, so there is nothing to load")
    kind = path.suffix.lower()
    if kind in (".jsonl", ".ndjson", ".json") or kind not in (".csv", ".tsv", ".txt") and start.startswith(b"{"):
        if start.startswith(b"["):
            raise Failure(f"{path} is one JSON array, which can't be read a row at a time; one object a line is wanted:\n"
                          f"  jq -c '.[]' {_in_shell(path)} > {_in_shell(_beside(path, '.lines.jsonl'))}")
        return JsonLines(path)
    return Csv(path)


def _refuse_binary(path: Path, start: bytes) -> None:
    for magic, program in COMPRESSED.items():
        if start.startswith(magic):
            unpacked = path.with_suffix("") if "." in path.stem else _beside(path, ".csv")
            raise Failure(f"{path} is compressed, so nothing was loaded; unpack it first:\n"
                          f"  {program} -dc {_in_shell(path)} > {_in_shell(unpacked)}")
    for magic, what in BINARY.items():
        if start.startswith(magic):
            raise Failure(f"{path} is {what}, so nothing was loaded; save its rows as CSV first")


def _beside(path: Path, ending: str) -> Path:
    """A file beside it for the text in another form. The name of the table stays the same, because it ends at the first dot."""
    return path.with_name(path.stem + ending)


def _in_shell(path: Path) -> str:
    return shlex.quote(str(path))


class _Source:
    """`given`: the names of the columns in the file; `columns`: their names in the table, in the same order."""

    def __init__(self, path: Path):
        self.path, self.position, self.size = path, 0, path.stat().st_size
        self.given = self._names()
        if len(self.given) > MOST_COLUMNS:
            raise Failure(f"{path} has {len(self.given)} columns, and a table here can have {MOST_COLUMNS}; "
                          "leave some out")
        self.columns = _column_names(self.given)

    def renamed(self) -> list:
        """(given, column) of the columns whose name in the table differs from the name in the file."""
        return [pair for pair in zip(self.given, self.columns) if pair[0] != pair[1]]

    def column(self, wanted: str) -> str:
        """The table's column for a name of the file; without a name, the only column."""
        if not wanted and len(self.columns) == 1:
            return self.columns[0]
        for names in (self.given, self.columns):
            if wanted and wanted in names:
                return self.columns[names.index(wanted)]
        there = ", ".join(name or "(nameless)" for name in self.given)
        fact = f'{self.path} has no column "{wanted}"' if wanted else "no column is named whose text is to be searched"
        raise Failure(f"{fact}, so nothing was loaded; COLUMN= takes one of: {there}")

    def fail(self, line: int, what: str, hint: str = ""):
        """An error in the file's content."""
        return Failure(f"{self.path}, line {line}: {what}; nothing was loaded{hint}")

    def _lines(self, newline: str):
        """Lines of text: UTF-8, without zero bytes, of bounded length."""
        # Invalid bytes become lone surrogates first, so that the error can have their line number.
        with open(self.path, encoding="utf-8-sig", errors="surrogateescape", newline=newline) as file:
            number = 0
            while line := file.readline(LONGEST + 1):
                number += 1
                self.position = file.buffer.tell()
                if len(line) > LONGEST:
                    raise self.fail(number, f"it is longer than {LONGEST >> 20} million characters")
                if not line.isascii():
                    try:
                        line.encode()
                    except UnicodeEncodeError as error:
                        raise self.fail(number, *_not_utf8(line, error.start, self.path)) from None
                if "\0" in line:
                    raise self.fail(number, "it has a zero byte, which no text in PostgreSQL can have")
                yield line


class Csv(_Source):
    """CSV. The delimiter is comma, semicolon or tab: the one that splits the header into most columns. Quotes as in RFC 4180."""

    def rows(self):
        """(line, values) for each record after the header."""
        records = self._records(self._delimiter)
        next(records)
        for line, values in records:
            if len(values) != len(self.given):
                many = f"{len(values)} field{'s' if len(values) != 1 else ''}"
                raise self.fail(line, f"{many}, where the header has {len(self.given)}; a text with a "
                                      f"{_DELIMITER_NAMES[self._delimiter]} in it needs quotes")
            yield line, [value or None for value in values]

    def _names(self) -> list:
        tried = ("\t",) if self.path.suffix.lower() == ".tsv" else DELIMITERS
        headers, failure = {}, None
        for delimiter in tried:
            try:
                headers[delimiter] = next(self._records(delimiter), (0, []))[1]
            except Failure as error:
                failure = failure or error
        if not headers:
            raise failure
        # max takes the first of equals: a header of one column has no delimiter.
        self._delimiter = max(headers, key=lambda delimiter: len(headers[delimiter]))
        names = [name.strip() for name in headers[self._delimiter]]
        if not any(names):
            raise Failure(f"{self.path} has no header, so its columns have no names; "
                          "the first line must name them")
        return names

    def _records(self, delimiter: str):
        csv.field_size_limit(LONGEST)
        reader = csv.reader(self._lines(""), delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise self.fail(line, _csv_trouble(str(error))) from None
            if values:
                yield line, values


class JsonLines(_Source):
    """JSON lines: one object per line. The columns are all keys that occur, so the file is read twice."""

    def rows(self):
        for line, record in self._objects():
            try:
                values = [_json_value(record.get(name)) for name in self.given]
            except RecursionError:
                raise self.fail(line, "it is nested too deeply") from None
            # Escapes can express what bytes can't: half of a surrogate pair, or character zero.
            text = "".join(value for value in values if value)
            if "\0" in text:
                raise self.fail(line, r"it has the character \u0000, which no text in PostgreSQL can have")
            if not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise self.fail(line, r"it has half of a surrogate pair, which is no character") from None
            yield line, values

    def _names(self) -> list:
        names = {}
        for line, record in self._objects():
            for name in record:
                if name not in names:
                    if "\0" in name or re.search("[\ud800-\udfff]", name):
                        raise self.fail(line, "a key has a character that no name in PostgreSQL can have")
                    names[name] = None
            if len(names) > MOST_COLUMNS:
                raise self.fail(line, f"up to here there are more than {MOST_COLUMNS} different keys, each of which "
                                      "would be a column")
        if not names:
            raise Failure(f"{self.path} has no object with a key, so there is nothing to load")
        return list(names)

    def _objects(self):
        for line, text in enumerate(self._lines("\n"), 1):
            if not text.strip():
                continue
            try:
                record = json.loads(text, parse_int=_Literal, parse_float=_Literal, parse_constant=_no_constant)
            except RecursionError:
                raise self.fail(line, "it is nested too deeply") from None
            except ValueError as error:
                what = getattr(error, "msg", str(error))
                at = f" at character {error.pos + 1}" if hasattr(error, "pos") else ""
                raise self.fail(line, f"it is not JSON ({what}{at})", self._several_lines(text)) from None
            if not isinstance(record, dict):
                raise self.fail(line, "it is JSON but not an object; a row is {\"column\": \"value\"}")
            yield line, record

    def _several_lines(self, text: str) -> str:
        """What to do about an object that is written over several lines."""
        return "" if text.strip() != "{" else (
            f". One object a line is wanted:\n  jq -c . {_in_shell(self.path)} > {_in_shell(_beside(self.path, '.lines.jsonl'))}")


_DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}


def _csv_trouble(said: str) -> str:
    """Python's messages, in terms of the file."""
    if "unexpected end of data" in said:
        return "a quote is opened here and never closed"
    if "expected after" in said:
        return "behind a closing quote comes neither a separator nor the end of the line; a quote inside of quotes is doubled"
    if "field larger than" in said:
        return f"a field is longer than {LONGEST >> 20} million characters; is a quote never closed?"
    return said


def _not_utf8(line: str, place: int, path: Path) -> tuple:
    """The error and what to do about it."""
    encoding = "UTF-16" if line[:2] in ("\udcff\udcfe", "\udcfe\udcff") else "WINDOWS-1252"
    return (f"byte 0x{ord(line[place]) - 0xDC00:02x} is not UTF-8",
            f". If the file is in {encoding}:\n"
            f"  iconv -f {encoding} -t UTF-8 {_in_shell(path)} > {_in_shell(_beside(path, '.utf8' + path.suffix))}")


def _no_constant(name: str):
    raise ValueError(f"{name} is not JSON")


def _json_value(value):
    """The value of the column: a string as it is, any other value as JSON text."""
    return value if value is None or isinstance(value, str) else _json_text(value)


def _json_text(value) -> str:
    """JSON with the numbers as they were written."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)}: {_json_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json_text, value)) + "]"
    return str(value) if isinstance(value, _Literal) else json.dumps(value, ensure_ascii=False)


def _shortened(name: str, room: int) -> str:
    return name.encode()[:room].decode(errors="ignore")


def _column_names(given: list) -> list:
    """Unique names that a table can have. Empty, repeated, too long and reserved names are changed to similar ones."""
    columns, used = [], set(TAKEN)
    # A valid name is kept, also if a changed name before it would be the same.
    keep = {name for name in given if name and name not in TAKEN and len(name.encode()) <= LONGEST_NAME}
    for number, name in enumerate(given, 1):
        if name in keep:
            keep.discard(name)
            columns.append(name)
            used.add(name)
            continue
        base = f"file_{name}" if name in TAKEN else _shortened(name, LONGEST_NAME) or f"column_{number}"
        column, count = base, 1
        while column in used or column in keep:
            count += 1
            column = f"{_shortened(base, LONGEST_NAME - 1 - len(str(count)))}_{count}"
        columns.append(column)
        used.add(column)
    return columns
