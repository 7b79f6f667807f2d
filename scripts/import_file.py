"""`make import FILE=notes.csv COLUMN=body`: loads a file into the demo's server and makes it searchable by meaning.

The file is CSV or JSON lines. TABLE=name names the table (by default the file does), REPLACE=1 replaces an existing
table. First all rows are loaded in one transaction: after an error in the file, or Ctrl-C, nothing is loaded. Then they
are embedded, one transaction per batch: Ctrl-C leaves all rows and the embeddings made so far, and prints how to continue.
"""

import os
import re
import shlex
from pathlib import Path

import demo
import records
import state
import tour
import web_role
from postgres import quote_literal
from session import Progress, Session
from state import Failure, say

# Characters sent to the server at once: enough that the time of round trips does not matter.
CHUNK = 1 << 20
# Limits of a transaction of the embedding: rows, characters that the model reads in all of them, characters that it reads
# of one text (512 tokens have about 2,000), characters in the server's memory. A transaction takes a second or two, and
# Ctrl-C loses one.
BATCH, BATCH_READ, READ, BATCH_CHARACTERS = 128, 32 << 10, 2 << 10, 4 << 20
# Reading a file from this size on shows its progress: 16 MB take a second.
LARGE = 16 << 20
# The names of the search functions have a prefix before the table's name; names have at most 63 bytes.
LONGEST_TABLE = 63 - len("hybrid_")
QUESTION_WORDS = 8


class Table:
    """The table to create: its name, and the SQL names of it and of its text column."""

    def __init__(self, name: str, column: str):
        if "\0" in name or not name.strip():
            raise Failure("TABLE= wants a table's name")
        if len(name.encode()) > LONGEST_TABLE:
            raise Failure(f"TABLE={name} has {len(name.encode())} bytes, and the search functions, which are named "
                          f"after the table, leave it {LONGEST_TABLE}; choose a shorter name")
        self.name, self.column = name, column
        # After a schema and a dot even `order` needs no quotes.
        self.sql = f"public.{name if re.fullmatch('[a-z_][a-z0-9_]*', name) else quoted(name)}"

    def enable(self, with_index: bool) -> str:
        """The statement that makes it searchable. A second call repairs what is missing."""
        columns = quote_literal('{"' + re.sub(r'(["\\])', r"\\\1", self.column) + '"}')
        return (f"select enable_semantic_search({quote_literal(self.sql)}, {columns}, "
                f"with_index => {'true' if with_index else 'false'});")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def table_name(path: Path) -> str:
    """A name that needs no quotes, unless it is a keyword of SQL: `Meeting notes (1).csv` becomes meeting_notes_1."""
    name = re.sub(r"\W+", "_", path.name.split(".")[0].lower()).strip("_") or "imported"
    return ("t_" + name if name[0].isdigit() else name).encode()[:LONGEST_TABLE].decode(errors="ignore")


def import_file(cluster, database: str, source, column: str = "", table: str = "", replace: bool = False) -> None:
    """Load `source` (see records.source) into a new table of this database, embed it, and show how to search it."""
    target = Table(table or table_name(source.path), source.column(column))
    for given, name in source.renamed():
        say(f'note: the column {quoted(given) if given else "without a name"} of the file is {quoted(name)} in the table')
    try:
        with Session(cluster, database) as session:
            session.run("set client_min_messages = warning; begin;")
            make_room(session, target, replace)
            batches = load(session, target, source)
            session.run(f"{target.enable(with_index=False)}\ncommit;")
    except KeyboardInterrupt:
        raise Failure("interrupted before every row was in; nothing was loaded") from None
    try:
        with Session(cluster, database) as session:
            # Long texts are counted and reported at the end, whatever the database's setting is.
            session.run("set client_min_messages = warning; set gte_small.on_truncate = 'silent';")
            truncated = embed(session, target, batches)
            finish(session, target)
    except (KeyboardInterrupt, Failure) as stopped:
        raise Failure(unfinished(cluster, database, target, batches[-1], stopped)) from None
    with Session(cluster, database) as session:
        report(cluster, database, session, target, source, batches[-1], truncated)


def make_room(session: Session, target: Table, replace: bool) -> None:
    """Drop the table that is to be replaced. A rollback of this transaction brings it back."""
    if session.value("select not exists (select from pg_proc where proname = 'enable_semantic_search')") == "t":
        raise Failure("this server's gte-small has no enable_semantic_search, because it was made by an earlier "
                      "version; nothing was loaded.\n  make reset    removes the demo's server and rows, "
                      "the next command makes them anew")
    kind = session.value(f"select relkind from pg_class where oid = to_regclass({quote_literal(target.sql)})")
    if not kind:
        # PostgreSQL creates a type with the table's name, so the name of an existing type is refused.
        if session.value(f"select to_regtype({quote_literal(target.sql)}) is not null") == "t":
            raise Failure(f"{target.name} is the name of a type, which no table can have; nothing was loaded. "
                          "TABLE= chooses another name")
        return
    if kind not in "rp":
        raise Failure(f"{target.name} is there and is not a table; nothing was loaded. TABLE= chooses another name")
    if not replace:
        raise Failure(f"a table {target.name} is there already; nothing was loaded. TABLE= chooses another name, "
                      "REPLACE=1 drops that table and takes its place")
    session.run(f"select disable_semantic_search({quote_literal(target.sql)}, c.embedding) "
                f"from embedding_columns({quote_literal(target.sql)}) c;\ndrop table {target.sql};")


def load(session: Session, target: Table, source) -> list:
    """Create the table and send it every row; returns the last id of each batch, the last of which is the number of rows."""
    columns = ", ".join(map(quoted, source.columns))
    session.run(f"create table {target.sql} (id bigint generated always as identity primary key, "
                f"{', '.join(f'{quoted(name)} text' for name in source.columns)});\n"
                f"comment on table {target.sql} is {quote_literal(f'imported from {source.path.name}')};")
    say(f"reading {source.path.name} ...")
    progress = Progress("reading", source.size >> 20, "MB") if source.size > LARGE else None
    copy = f"copy {target.sql} ({columns}) from stdin;"
    text = source.columns.index(target.column)
    lines, held, texts = [], 0, 0
    batches, row, first, characters, read = [], 0, 1, 0, 0
    try:
        for row, (_, values) in enumerate(source.rows(), 1):
            lines.append(copy_line(values))
            held += len(lines[-1])
            if held >= CHUNK:
                session.run(copy, "".join(lines))
                lines, held = [], 0
                if progress and (source.position >> 20) > progress.done:
                    progress.add((source.position >> 20) - progress.done)
            texts += values[text] is not None
            length = len(values[text] or "")
            characters, read = characters + length, read + min(length, READ)
            if row - first + 1 >= BATCH or read >= BATCH_READ or characters >= BATCH_CHARACTERS:
                batches.append(row)
                first, characters, read = row + 1, 0, 0
    finally:
        if progress:
            progress.end()
    if not row:
        raise Failure(f"{source.path} has no rows; nothing was loaded")
    if not texts:
        raise Failure(f'"{target.column}" is empty in every row of {source.path}; nothing was loaded. '
                      f"COLUMN= takes one of: {', '.join(source.given)}")
    if lines:
        session.run(copy, "".join(lines))
    if first <= row:
        batches.append(row)
    return batches


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_line(values) -> str:
    """A row as COPY reads it."""
    return "\t".join("\\N" if value is None else value.translate(_ESCAPES) for value in values) + "\n"


def missing(target: Table) -> str:
    return f"from {target.sql} where embedding is null and {quoted(target.column)} is not null"


def embed(session: Session, target: Table, batches: list) -> int:
    """Fill the embedding column, one transaction per batch; returns how many texts were truncated."""
    # Ids count from 1 in the order of the file. embed(text[]) embeds a batch in one call, on all cores.
    column = quoted(target.column)
    progress = Progress("embedding", batches[-1])
    first = 1
    try:
        for last in batches:
            session.run(f"begin;\nupdate {target.sql} t set embedding = e.vector from ("
                        f"select unnest(ids) as id, unnest(vectors) as vector from (select array_agg(id order by id) as ids, "
                        f"embed(array_agg({column} order by id)) as vectors from {target.sql} "
                        f"where id between {first} and {last} and {column} is not null) as texts) as e where t.id = e.id;\n"
                        # The trigger does not know the model of a supplied vector; these are from the loaded model.
                        f"select embedding_written({quote_literal(target.sql)}) where exists (select from {target.sql} "
                        f"where id between {first} and {last} and embedding is not null);\ncommit;")
            progress.add(last - first + 1)
            first = last + 1
    finally:
        progress.end()
    return int(session.value("select truncated_texts from embed_stats()"))


def finish(session: Session, target: Table) -> None:
    """Build the index and ANALYZE. For 10,000 rows this takes 1.7 s; with an index from the start it took 6.8 s."""
    say("building the index ...")
    # Without parallel workers: they use shared memory, of which containers often have 64 MB. 512 MB is only a limit.
    session.run("set max_parallel_maintenance_workers = 0; set maintenance_work_mem = '512MB';\n"
                f"{target.enable(with_index=True)}\nvacuum (analyze) {target.sql};")


def unfinished(cluster, database: str, target: Table, rows: int, stopped: BaseException) -> str:
    """The message after an interrupted import: its state, and how to continue."""
    why = "interrupted" if isinstance(stopped, KeyboardInterrupt) else str(stopped)
    counted = cluster.psql(f"select count(*) {missing(target)}", dbname=database, args=("-At",), check=False)
    left = f"{counted.stdout.strip()} of them still without an embedding" if counted.returncode == 0 else "not all embedded"
    return (f"{why}\nThe table {target.name} has all {rows} rows, {left}. To go on, in  make psql :\n"
            f"  call embed_backfill({quote_literal(target.sql)});\n  {target.enable(with_index=True)}\n"
            "or start again with the same command and REPLACE=1")


def question(text: str) -> str:
    """The first words of a text, as a user might type them; empty for white space."""
    words = re.findall(r"\w+(?:['’-]\w+)*", text)[:QUESTION_WORDS]
    return " ".join(words) or text.strip()[:40]


def in_shell(text: str) -> str:
    """Quoted for a shell, with double quotes if possible, because SQL contains single quotes."""
    return shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'


def report(cluster, database: str, session: Session, target: Table, source, rows: int, truncated: int) -> None:
    """Prints what was loaded, how to search it, and one search."""
    column = session.value(f"select quote_ident({quote_literal(target.column)})")
    function = session.value(f"select quote_ident({quote_literal('query_' + target.name)})")
    empty = int(session.value(f"select count(*) from {target.sql} where embedding is null"))
    name, limit = session.value("select name, max_tokens from embed_model()").split("|")
    shown = session.value(f"select quote_ident({quote_literal(target.name)})")
    tour.tell(f"\n{rows} {'row' if rows == 1 else 'rows'} of {source.path.name} {'is' if rows == 1 else 'are'} in the table {shown}, "
              f"embedded by {name}.")
    if empty:
        tour.tell(f"{empty} of them {'has' if empty == 1 else 'have'} no text in {column}, so no search by meaning finds "
                  f"{'it' if empty == 1 else 'them'}.")
    if truncated:
        tour.tell(f"{truncated} {'text is' if truncated == 1 else 'texts are'} longer than the {limit} tokens this model reads; the rest of "
                  f"{'this text' if truncated == 1 else 'these texts'} is not searched by meaning.")
    # From the middle, because first rows are often titles and tests.
    text = session.value(f"select {column} from {target.sql} where embedding is not null order by {column} !~ '\\w', "
                         f"{column} !~ '\\S', id < (select max(id) / 2 from {target.sql}), id limit 1")
    asked = question(text)
    search = quote_literal(asked)
    sql = (f"select round(-(embedding <#> embed({search}))::numeric, 2) as similarity, left({column}, 72) as {column}\n"
           f"from {function}({search}, null, 3);")
    short = f"select {column} from {function}('what you look for', null, 5);"
    tour.tell(f"\nTo search it:  make psql  and there\n  {short}\nor from a shell\n"
              f"  {shlex.quote(str(cluster.bin / 'psql'))} {in_shell(cluster.dsn(database))} -c {in_shell(short)}\n")
    if not asked:
        return
    tour.tell("One search, with words of a row in the middle of the file:\n")
    session.run("\\timing on")
    tour.typed(session, sql)


def main() -> int:
    path = os.environ.get("FILE", "")
    if not path:
        raise Failure("no file is named; make import FILE=notes.csv COLUMN=body")
    # The file is checked first, because setting up the server may take minutes.
    source = records.source(Path(path).expanduser())
    target = Table(os.environ.get("TABLE") or table_name(source.path), source.column(os.environ.get("COLUMN", "")))
    if target.name == "embeddings":
        raise Failure("the table embeddings is the demo's own; nothing was loaded. TABLE= chooses another name")
    with state.lock("demo"):
        server = demo.Demo.last()
        server.bring_up(tour.tell)
    import_file(server.cluster, demo.DATABASE, source, os.environ.get("COLUMN", ""), target.name,
                os.environ.get("REPLACE", "") not in ("", "0", "no"))
    web_role.let_read_new_tables(server.cluster, demo.DATABASE)
    return 0


if __name__ == "__main__":
    state.verb(main)
