"""scripts/import_file.py: a file becomes a searchable table, completely or not at all."""

import os
import re
import signal
import subprocess
import sys
import textwrap

import pytest

import corpus
import demo
import import_file
import records
import session
from conftest import CLONE
from measure import one
from state import Failure

ROWS = 300


@pytest.fixture
def load(database, tmp_path):
    """Writes a file and imports it into the test's database."""
    def of(content, column="", name="notes.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        import_file.import_file(database.server.cluster, database.name, records.source(path), column, **options)
    return of


@pytest.fixture
def notes():
    """A file of several batches."""
    return "title,body\n" + "".join(f"{n},text number {n} about {'cats' if n % 2 else 'dogs'}\n" for n in range(1, ROWS + 1))


def relations(connection):
    return connection.execute("select relname::text from pg_class where relnamespace = 'public'::regnamespace "
                              "and relkind in ('r', 'v', 'S', 'm') order by 1").fetchall()


def functions(connection):
    return one(connection, "select count(*) from pg_proc where proname ~ '^(query|hybrid)_' "
               "and pronamespace = 'public'::regnamespace")


# --- loaded rows ---


def test_every_row_and_column_with_the_embedding_of_the_text(load, notes, connection):
    load(notes, "body")
    assert connection.execute("select id, title, body from notes order by id limit 2").fetchall() == [
        (1, "1", "text number 1 about cats"), (2, "2", "text number 2 about dogs")]
    # The vectors of a batch equal those of the texts alone, within 1e-6.
    assert one(connection, "select count(*) from notes where -(embedding <#> embed(body)) > 0.999999") == ROWS
    assert connection.execute("select attname::text, atttypid::regtype::text from pg_attribute where attrelid = "
                              "'notes'::regclass and attnum > 0 order by attnum").fetchall() == [
        ("id", "bigint"), ("title", "text"), ("body", "text"), ("embedding", "vector")]
    assert one(connection, "select count(*) from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = "
               "c.relam where i.indrelid = 'notes'::regclass and m.amname = 'hnsw' and i.indisvalid") == 1


@pytest.mark.parametrize("characters, rows", [(10, 128), (1000, 33), (5000, 16), (3 << 20, 2), (5 << 20, 1)])
def test_long_texts_make_small_batches(database, tmp_path, characters, rows):
    path = tmp_path / "notes.csv"
    path.write_text("body\n" + f"{'x' * characters}\n" * min(200, 2 * rows))
    with session.Session(database.server.cluster, database.name) as loading:
        assert import_file.load(loading, import_file.Table("notes", "body"), records.source(path))[0] == rows


def test_the_table_goes_on_by_itself(load, notes, connection):
    load(notes, "body")
    connection.execute("insert into notes (body) values ('a sentence nobody wrote before')")
    assert one(connection, "select id from query_notes('a sentence nobody wrote before', null, 1)") == ROWS + 1
    connection.execute("update notes set body = 'another sentence' where id = 1")
    assert one(connection, "select embedding::text = embed('another sentence')::text from notes where id = 1")


def test_the_column_knows_its_model(load, notes, connection):
    load(notes, "body")
    assert one(connection, "select note ->> 'fingerprint' from embedding_columns('notes')") == one(
        connection, "select fingerprint from embed_model()")


def test_texts_arrive_as_they_are(load, connection):
    texts = ["a\tb", "a\nb\r\nc", "back\\slash \\. \\N \\t", "\\.", "\\N", "'; drop table notes; --", ':x :\'y\' :"z"',
             'say "hi"', "漢字 😀 ä", "a\\", "\x01\x7f", "  spaces  "]
    quoted = "".join('"{}"\n'.format(text.replace('"', '""')) for text in texts)
    load("body\n" + quoted)
    assert [row[0] for row in connection.execute("select body from notes order by id").fetchall()] == texts


def test_odd_column_names(load, connection, capsys):
    load('id,embedding,"say ""hi"", {x}\\",,a,a,"new\nline",:x\n' + "1,2,the text,4,5,6,7,8\n", 'say "hi", {x}\\')
    assert [name for name, in connection.execute("select attname::text from pg_attribute where attrelid = 'notes'::regclass "
                                                 "and attnum > 0 order by attnum").fetchall()] == [
        "id", "file_id", "file_embedding", 'say "hi", {x}\\', "column_4", "a", "a_2", "new\nline", ":x", "embedding"]
    assert connection.execute('select file_id, file_embedding, column_4, a_2, ":x" from notes').fetchall() == [
        ("1", "2", "4", "6", "8")]
    assert one(connection, "select embedding::text = embed('the text')::text from notes")
    assert 'the column "id" of the file is "file_id"' in capsys.readouterr().err


def test_a_column_called_id_can_be_searched(load, connection):
    load("id,x\nthe text,1\n", "id")
    assert one(connection, "select file_id from query_notes('the text', null, 1)") == "the text"


def test_json_lines(load, connection):
    load('{"body": "one", "tags": ["a", "b"]}\n{"n": 1.50, "body": "two"}\n{"n": 2}\n', "body", "notes.jsonl")
    assert connection.execute("select body, tags, n, embedding is null from notes order by id").fetchall() == [
        ("one", '["a", "b"]', None, False), ("two", None, "1.50", False), (None, None, "2", True)]


@pytest.mark.parametrize("file, table", [
    ("Meeting notes (1).csv", "meeting_notes_1"), ("2024.csv", "t_2024"), ("order.csv", "order"), ("заметки.csv", "заметки"),
    ("...csv", "imported"), ("a.b.csv", "a"), ("x" * 80 + ".csv", "x" * 56), ("ä" * 50 + ".csv", "ä" * 28)])
def test_the_file_names_the_table(file, table, tmp_path):
    assert import_file.table_name(tmp_path / file) == table


@pytest.mark.parametrize("table", ["order", 'My "notes"', "select", "x" * 56, "schema.table", "a'b\\c"])
def test_any_table_name(load, connection, capsys, table):
    load("body\nthe text\n", table=table)
    shown = one(connection, "select quote_ident('query_' || %s)", [table])
    search = f"select body from {shown}('what you look for', null, 5);"
    assert search in capsys.readouterr().out
    assert connection.execute(search).fetchall() == [("the text",)]


def test_a_table_name_that_leaves_no_room(load, connection):
    with pytest.raises(Failure, match="choose a shorter name"):
        load("body\nx\n", table="x" * 57)
    assert relations(connection) == []


# --- messages ---


def test_it_says_how_to_search_and_shows_one(load, notes, connection, capsys):
    load(notes, "body")
    said = capsys.readouterr()
    assert f"{ROWS} rows of notes.csv are in the table notes" in said.out
    # The command that is printed for a shell works in a shell.
    command = re.search(r"^  (\S*psql .*)$", said.out, re.MULTILINE)[1]
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 0 and "(5 rows)" in done.stdout, done.stderr
    # The sample search has the words of a row, so it finds that row or an equal one.
    assert "from query_notes('text number 150 about dogs', null, 3);" in said.out
    assert "text number 150 about dogs\n" in said.out and "(3 rows)" in said.out
    assert f"embedding  {ROWS} of {ROWS} rows" in said.err and "rows/s" in said.err and "s left" in said.err


def test_texts_beyond_the_models_limit_are_counted(load, capsys):
    load("body\n" + "word " * 3000 + "\nshort\n" + "other " * 3000 + "\n")
    said = capsys.readouterr().out
    assert re.search(r"2 texts are longer than the \d+ tokens", said)


def test_rows_without_a_text_are_counted(load, connection, capsys):
    load("a,body\n1,x\n2,\n3,\n", "body")
    assert "2 of them have no text in body" in capsys.readouterr().out
    assert connection.execute("select id from notes where embedding is null order by id").fetchall() == [(2,), (3,)]


@pytest.mark.parametrize("refuses", ["error", "warning"])
def test_long_texts_are_loaded_whatever_the_database_says_of_them(load, database, connection, capsys, refuses):
    database.configure("gte_small.on_truncate", refuses)
    load("body\n" + "word " * 3000 + "\nshort\n")
    assert "1 text is longer than" in capsys.readouterr().out
    assert one(connection, "select count(*) from notes where embedding is not null") == 2


def test_a_batch_without_a_text_says_nothing_of_the_model(database, tmp_path, connection, monkeypatch):
    """The import is stopped after the first batch, so that the note has no first writer yet."""
    path = tmp_path / "notes.csv"
    path.write_text("a,body\n" + "1,\n" * 128 + "2,text\n")

    class Stop(session.Progress):
        def add(self, rows):
            raise KeyboardInterrupt

    monkeypatch.setattr(import_file, "Progress", Stop)
    with pytest.raises(Failure):
        import_file.import_file(database.server.cluster, database.name, records.source(path), "body")
    assert one(connection, "select note -> 'empty' from embedding_columns('notes')") is True
    connection.execute("call embed_backfill('notes')")
    assert one(connection, "select note ? 'empty' from embedding_columns('notes')") is False


def test_white_space_alone_is_no_search(load, connection, capsys):
    load('a,body\n1,"  "\n2,\n3,"\t "\n', "body")
    said = capsys.readouterr().out
    assert "To search it" in said and "One search" not in said
    load('body\n" "\nwords here\n" "\n" "\n" "\n', name="few.csv")
    assert "from query_few('words here', null, 3);" in capsys.readouterr().out, "also where the later half has none"


@pytest.mark.parametrize("text", ["😀😀😀", "'''", "$1 \\d", "--"])
def test_a_sample_of_any_text(load, text, capsys):
    load(f'body\n"{text}"\n')
    assert "(1 row)" in capsys.readouterr().out


# --- errors ---


LARGE = "title,body\n" + "".join(f"{n},{'x' * 1000}\n" for n in range(3000))


BROKEN = {
    "ragged": (LARGE + "ragged\n", "notes.csv", "line 3002: 1 field"),
    "not UTF-8": (LARGE.encode() + b"x,\xff\n", "notes.csv", "line 3002: byte 0xff"),
    "not JSON": ('{"body": "x"}\n' * 1000 + '{"body": \n', "notes.jsonl", "line 1001: it is not JSON"),
    "zero character": ('{"body": "x"}\n' * 1000 + '{"body": "\\u0000"}\n', "notes.jsonl", "line 1001"),
    "no rows": ("a,body\n", "notes.csv", "has no rows"),
    "no texts": ("a,body\n1,\n2,\n", "notes.csv", "is empty in every row"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_an_error_leaves_nothing_behind(load, connection, broken):
    assert len(LARGE) > 2 * import_file.CHUNK
    content, name, words = BROKEN[broken]
    with pytest.raises(Failure, match=words):
        load(content, "body", name)
    assert relations(connection) == [] and functions(connection) == 0


def test_a_missing_column_leaves_nothing_behind(load, connection, notes):
    with pytest.raises(Failure, match="COLUMN= takes one of: title, body"):
        load(notes, "text")
    assert relations(connection) == []


def test_a_table_that_is_there_stays(load, connection, notes):
    connection.execute("create table notes (x int); insert into notes values (1)")
    with pytest.raises(Failure, match="REPLACE=1"):
        load(notes, "body")
    assert connection.execute("select * from notes").fetchall() == [(1,)]


def test_replace_takes_its_place(load, connection, notes):
    load("body,more\nold,x\n", "body")
    load(notes, "body", replace=True)
    assert one(connection, "select count(*) from notes") == ROWS and functions(connection) == 5
    connection.execute("drop table if exists plain; create table plain (x int)")
    load(notes, "body", table="plain", replace=True)
    assert one(connection, "select count(embedding) from plain") == ROWS


def test_a_failed_replacement_keeps_the_old_table(load, connection, notes):
    load("body\nold\n")
    with pytest.raises(Failure, match="line 302"):
        load(notes + "ragged\n", "body", replace=True)
    assert connection.execute("select body from query_notes('old', null, 5)").fetchall() == [("old",)]


def test_replace_does_not_drop_what_depends(load, connection, notes):
    load("body\nold\n")
    connection.execute("create view mine as select body from notes")
    with pytest.raises(Failure, match="depend"):
        load(notes, "body", replace=True)
    assert connection.execute("select * from mine").fetchall() == [("old",)]


@pytest.mark.parametrize("made, words", [
    ("create view notes as select 1", "is not a table"), ("create sequence notes", "is not a table"),
    ("create type notes as enum ('a')", "name of a type"), ("create domain notes as text", "name of a type")])
def test_a_name_something_else_has(load, connection, notes, made, words):
    connection.execute(made)
    with pytest.raises(Failure, match=words):
        load(notes, "body", replace=True)


def test_a_database_without_the_functions(load, connection, notes):
    connection.execute('drop extension "gte-small"')
    with pytest.raises(Failure, match="make reset"):
        load(notes, "body")
    assert relations(connection) == []


# --- another model ---


def test_reembed_takes_imported_tables_along(load, notes, database, tutorial):
    """Vectors of two models can't be compared, so `make reembed` leaves no vector of the old model."""
    load(notes, "body", table='My "notes"')
    tutorial.execute("insert into embeddings (content) values ('a cat'), ('a dog')")
    database.configure("gte_small.model_path", database.server.tiny_other)
    with session.Session(database.server.cluster, database.name) as later:
        corpus.reembed(later)
    connection = database.connect()
    for table, text, rows in (('"My ""notes"""', "body", ROWS), ("embeddings", "content", 2)):
        assert one(connection, f"select count(*) from {table} where -(embedding <#> embed({text})) > 0.999999") == rows
        assert one(connection, "select note ->> 'fingerprint' from embedding_columns(%s)", [table]) == one(
            connection, "select fingerprint from embed_model()")


# --- Ctrl-C ---


def test_an_interrupt_while_reading_leaves_nothing(load, connection, monkeypatch):
    real = records.Csv.rows

    def rows(self):
        for line, values in real(self):
            if line == 2500:
                raise KeyboardInterrupt
            yield line, values

    monkeypatch.setattr(records.Csv, "rows", rows)
    with pytest.raises(Failure, match="nothing was loaded"):
        load(LARGE, "body")
    assert relations(connection) == []


def goes_on(database, connection, said):
    """The statements that are printed after an interruption finish the work."""
    statements = re.findall(r"^  ((?:call|select) .*;)$", said, re.MULTILINE)
    assert len(statements) == 2
    database.psql("\n".join(statements))
    assert one(connection, "select count(*) from notes where embedding is null") == 0
    assert one(connection, "select count(*) from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am m on "
               "m.oid = c.relam where i.indrelid = 'notes'::regclass and m.amname = 'hnsw'") == 1


def test_an_interrupt_while_embedding_leaves_all_rows(load, database, connection, notes, monkeypatch):
    real, calls = session.Progress.add, []

    def add(self, rows):
        calls.append(rows)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(self, rows)

    monkeypatch.setattr(session.Progress, "add", add)
    with pytest.raises(Failure) as raised:
        load(notes, "body")
    embedded = sum(calls)
    assert connection.execute("select count(*), count(embedding) from notes").fetchone() == (ROWS, embedded)
    assert f"has all {ROWS} rows, {ROWS - embedded} of them still without" in str(raised.value)
    assert connection.execute("select count(*) from query_notes('text', null, 5)").fetchone() == (5,)
    goes_on(database, connection, str(raised.value))


def test_ctrl_c_on_a_terminal(database, connection, tmp_path):
    """The signal reaches psql as well, as on a terminal."""
    path = tmp_path / "notes.csv"
    path.write_text("body\n" + "".join(f"text number {n}\n" for n in range(10_000)))
    cluster = database.server.cluster
    script = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(CLONE / 'scripts')!r})
        import pathlib, import_file, postgres, records, state
        cluster = postgres.Cluster(pathlib.Path({str(cluster.pg_config)!r}), pathlib.Path({str(cluster.directory)!r}))
        state.verb(lambda: import_file.import_file(cluster, {database.name!r}, records.source({str(path)!r})))
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               text=True, start_new_session=True,
                               # Needed if the tests run in the background, where the signal is ignored.
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("embedding"):
            break
    os.killpg(process.pid, signal.SIGINT)
    said = process.stderr.read()
    assert process.wait() != 0 and "interrupted" in said and "Traceback" not in said, "".join(seen) + said
    rows, embedded = connection.execute("select count(*), count(embedding) from notes").fetchone()
    assert rows == 10_000 and 0 < embedded < rows
    goes_on(database, connection, said)


# --- size ---


def test_a_large_file_takes_no_memory(database, tmp_path):
    """200,000 rows, 48 MB: the process uses far less memory."""
    path = tmp_path / "large.csv"
    with open(path, "w", encoding="ascii") as file:
        file.write("n,body\n")
        for n in range(200_000):
            file.write(f"{n},{'some words that make up a line of text ' * 6}\n")
    cluster = database.server.cluster
    script = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(CLONE / 'scripts')!r})
        import pathlib, resource, import_file, postgres, records, session
        cluster = postgres.Cluster(pathlib.Path({str(cluster.pg_config)!r}), pathlib.Path({str(cluster.directory)!r}))
        used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = used()
        with session.Session(cluster, {database.name!r}) as open_session:
            open_session.run("begin;")
            source = records.source({str(path)!r})
            batches = import_file.load(open_session, import_file.Table("large", "body"), source)
            print(batches[-1], open_session.value("select count(*) from large"), used() - before)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    rows, loaded, grown = map(int, done.stdout.split())
    assert path.stat().st_size > 45 << 20
    # ru_maxrss is in bytes on macOS, in KiB elsewhere.
    assert rows == loaded == 200_000 and grown // (1024 if sys.platform == "darwin" else 1) < 24 << 10
    assert re.search(r"reading  \d+ of 46 MB", done.stderr)


# --- the verb ---


@pytest.fixture
def verb(database, monkeypatch):
    """Runs the verb with these variables on the test's server instead of the demo's; returns whether it set up the demo."""
    class Stub:
        cluster = database.server.cluster
        brought_up = False

        def bring_up(self, tell):
            self.brought_up = True

    def run(**variables):
        stub = Stub()
        monkeypatch.setattr(demo.Demo, "last", classmethod(lambda cls: stub))
        monkeypatch.setattr(demo, "DATABASE", database.name)
        for name in ("FILE", "COLUMN", "TABLE", "REPLACE"):
            monkeypatch.setenv(name, str(variables.get(name, "")))
        failure = None
        try:
            import_file.main()
        except Failure as raised:
            failure = str(raised)
        return stub.brought_up, failure
    return run


def test_the_verbs_variables(verb, connection, tmp_path, notes):
    path = tmp_path / "My notes.csv"
    path.write_text(notes)
    assert verb(FILE=path, COLUMN="body") == (True, None)
    assert verb(FILE=path, COLUMN="title", TABLE="titles") == (True, None)
    assert "REPLACE=1" in verb(FILE=path, COLUMN="body", REPLACE="0")[1]
    assert verb(FILE=path, COLUMN="title", REPLACE="1") == (True, None)
    assert relations(connection) == [("my_notes",), ("my_notes_id_seq",), ("titles",), ("titles_id_seq",)]
    assert one(connection, "select content::text from embedding_columns('my_notes')") == "{title}"


@pytest.mark.parametrize("variables, words", [
    ({}, "make import FILE="), ({"FILE": "nowhere.csv"}, "does not exist"), ({"FILE": "{notes}"}, "COLUMN= takes one of"),
    ({"FILE": "{notes}", "COLUMN": "text"}, 'no column "text"'),
    ({"FILE": "{notes}", "COLUMN": "body", "TABLE": "embeddings"}, "demo's own"),
    ({"FILE": "{notes}", "COLUMN": "body", "TABLE": "x" * 60}, "shorter name"),
])
def test_what_is_wrong_is_said_before_a_server_is_set_up(verb, tmp_path, notes, variables, words):
    path = tmp_path / "notes.csv"
    path.write_text(notes)
    variables = {name: value.replace("{notes}", str(path)) for name, value in variables.items()}
    brought_up, said = verb(**variables)
    assert not brought_up and words in said


def test_the_makefile_hands_them_on(tmp_path):
    done = subprocess.run(["make", "-s", "import", f"FILE={tmp_path / 'no such file.csv'}"], cwd=CLONE,
                          capture_output=True, text=True)
    assert done.returncode != 0 and "no such file.csv does not exist" in done.stderr and "Traceback" not in done.stderr
