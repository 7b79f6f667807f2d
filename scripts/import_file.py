"""`make import FILE=notes.csv COLUMN=body`: a file of one's own in the demo's server, searchable by meaning.

CSV or JSON lines; TABLE=name names the table (of none, the file does), REPLACE=1 takes the place of one that is there.
First all rows go in, in one transaction: an error in the file, or Ctrl-C, leaves nothing behind. Then they are
embedded, a batch a transaction: Ctrl-C leaves all rows and the embeddings made so far, and says how to go on.
"""

import os
import re
import shlex
from pathlib import Path

import demo
import records
import state
import tour
from postgres import quote_literal
from session import Progress, Session
from state import Failure, say

# Characters sent to the server at once: large enough that round trips don't count.
CHUNK = 1 << 20
# A transaction of the embedding, of which Ctrl-C loses one: that many rows, or texts of that many characters the model
# reads (about 2,000 of each: 512 tokens), which take a second or two; and never more than that in the server's memory.
BATCH, BATCH_READ, READ, BATCH_CHARACTERS = 128, 32 << 10, 2 << 10, 4 << 20
# Reading shows its progress where it takes longer than a breath: 16 MB are a second.
LARGE = 16 << 20
# What the search functions put in front of the table's name, in 63 bytes.
LONGEST_TABLE = 63 - len("hybrid_")
QUESTION_WORDS = 8


class Table:
    """The table to make: its name, and how SQL calls it and its text column."""

    def __init__(self, name: str, column: str):
        if "\0" in name or not name.strip():
            raise Failure("TABLE= wants a table's name")
        if len(name.encode()) > LONGEST_TABLE:
            raise Failure(f"TABLE={name} has {len(name.encode())} bytes, and the search functions, which are named "
                          f"after the table, leave it {LONGEST_TABLE}; choose a shorter name")
        self.name, self.column = name, column
        # Behind a schema and a dot even `order` needs no quotes.
        self.sql = f"public.{name if re.fullmatch('[a-z_][a-z0-9_]*', name) else quoted(name)}"

    def enable(self, with_index: bool) -> str:
        """The statement that makes it searchable; again, it mends what is missing."""
        columns = quote_literal('{"' + re.sub(r'(["\\])', r"\\\1", self.column) + '"}')
        return (f"select enable_semantic_search({quote_literal(self.sql)}, {columns}, "
                f"with_index => {'true' if with_index else 'false'});")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def table_name(path: Path) -> str:
    """A name that needs no quotes, unless it is a word of SQL's: `Meeting notes (1).csv` is meeting_notes_1."""
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
            # Long texts are counted and told at the end, whatever the database says of them.
            session.run("set client_min_messages = warning; set gte_small.on_truncate = 'silent';")
            truncated = embed(session, target, batches)
            finish(session, target)
    except (KeyboardInterrupt, Failure) as stopped:
        raise Failure(unfinished(cluster, database, target, batches[-1], stopped)) from None
    with Session(cluster, database) as session:
        report(cluster, database, session, target, source, batches[-1], truncated)


def make_room(session: Session, target: Table, replace: bool) -> None:
    """Drop the table that is to be replaced; it is back if this transaction ends without its commit."""
    if session.value("select to_regproc('enable_semantic_search') is null") == "t":
        raise Failure("this server's gte-small has no enable_semantic_search, because it was made by an earlier "
                      "version; nothing was loaded.\n  make reset    removes the demo's server and rows, "
                      "the next command makes them anew")
    kind = session.value(f"select relkind from pg_class where oid = to_regclass({quote_literal(target.sql)})")
    if not kind:
        # A table brings a type of its name along, so it can't be called as one that is there.
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
    """Make the table and send it every row; the last id of each batch to embed, so at the end the number of rows."""
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
    """Fill the embedding column, a batch a transaction; how many texts the model did not read to their end."""
    # Ids count from 1 in the order of the file. The array form embeds a batch at once, with all cores.
    column = quoted(target.column)
    progress = Progress("embedding", batches[-1])
    first = 1
    for last in batches:
        session.run(f"begin;\nupdate {target.sql} t set embedding = e.vector from ("
                    f"select unnest(ids) as id, unnest(vectors) as vector from (select array_agg(id order by id) as ids, "
                    f"embed(array_agg({column} order by id)) as vectors from {target.sql} "
                    f"where id between {first} and {last} and {column} is not null) as texts) as e where t.id = e.id;\n"
                    # The trigger takes a vector that comes along for anybody's; these are the loaded model's.
                    f"select embedding_written({quote_literal(target.sql)}) where exists (select from {target.sql} "
                    f"where id between {first} and {last} and embedding is not null);\ncommit;")
        progress.add(last - first + 1)
        first = last + 1
    return int(session.value("select truncated_texts from embed_stats()"))


def finish(session: Session, target: Table) -> None:
    """The index, and what the planner needs to know. Built last, 10,000 rows take 1.7 s, one by one they took 6.8."""
    say("building the index ...")
    # Alone: the shared memory that parallel workers want is often 64 MB in containers. It takes what it needs of this.
    session.run("set max_parallel_maintenance_workers = 0; set maintenance_work_mem = '512MB';\n"
                f"{target.enable(with_index=True)}\nvacuum (analyze) {target.sql};")


def unfinished(cluster, database: str, target: Table, rows: int, stopped: BaseException) -> str:
    """What there is after an end on the way, and how to go on."""
    why = "interrupted" if isinstance(stopped, KeyboardInterrupt) else str(stopped)
    counted = cluster.psql(f"select count(*) {missing(target)}", dbname=database, args=("-At",), check=False)
    left = f"{counted.stdout.strip()} of them still without an embedding" if counted.returncode == 0 else "not all embedded"
    return (f"{why}\nThe table {target.name} has all {rows} rows, {left}. To go on, in  make psql :\n"
            f"  call embed_backfill({quote_literal(target.sql)});\n  {target.enable(with_index=True)}\n"
            "or begin anew by the same command with REPLACE=1")


def question(text: str) -> str:
    """The first words of a text, as somebody might type them; of white space, nothing."""
    words = re.findall(r"\w+(?:['’-]\w+)*", text)[:QUESTION_WORDS]
    return " ".join(words) or text.strip()[:40]


def in_shell(text: str) -> str:
    """Quoted for a shell, by double quotes where they do: SQL has single ones of its own."""
    return shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'


def report(cluster, database: str, session: Session, target: Table, source, rows: int, truncated: int) -> None:
    """What was loaded, how to search it, and one search."""
    column = session.value(f"select quote_ident({quote_literal(target.column)})")
    function = session.value(f"select quote_ident({quote_literal('query_' + target.name)})")
    empty = int(session.value(f"select count(*) from {target.sql} where embedding is null"))
    name, limit = session.value("select name, max_tokens from embed_model()").split("|")
    shown = session.value(f"select quote_ident({quote_literal(target.name)})")
    tour.tell(f"\n{rows} rows of {source.path.name} are in the table {shown}, embedded by {name}.")
    if empty:
        tour.tell(f"{empty} of them have no text in {column}, so no search by meaning finds them.")
    if truncated:
        tour.tell(f"{truncated} texts are longer than the {limit} tokens this model reads; "
                  "what comes after them has no say in a search.")
    # From the middle: first rows are often titles and tests.
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
    # The file is looked at first: setting the server up may take minutes.
    source = records.source(Path(path).expanduser())
    target = Table(os.environ.get("TABLE") or table_name(source.path), source.column(os.environ.get("COLUMN", "")))
    if target.name == "embeddings":
        raise Failure("the table embeddings is the demo's own; nothing was loaded. TABLE= chooses another name")
    with state.lock("demo"):
        server = demo.Demo.last()
        server.bring_up(tour.tell)
    import_file(server.cluster, demo.DATABASE, source, os.environ.get("COLUMN", ""), target.name,
                os.environ.get("REPLACE", "") not in ("", "0", "no"))
    return 0


if __name__ == "__main__":
    state.verb(main)
