"""`enable_document_search`: long texts of any table, searched by their chunks."""

import psycopg
import pytest

from measure import counting, one

PARAGRAPHS = ["The cat sleeps on the sofa all day. ", "Invoices are due within thirty days. ", "A backup runs every night at two. "]


def filler(n):
    return " ".join(f"Sentence {n} number {i} says very little." for i in range(60)) + "\n\n"


@pytest.fixture
def minilm(database):
    database.configure("gte_small.model_path", database.server.minilm)
    return database.connect()


@pytest.fixture
def manuals(connection):
    """A table that is searched, on the tiny model."""
    connection.execute("create table manuals (id bigint generated always as identity primary key, title text, body text, tenant int default 1)")
    connection.execute("select enable_document_search('manuals', 'body')")
    return connection


def made(connection):
    """Tables, functions and triggers of the database's own schemas."""
    return connection.execute(
        "select 'relation', relname::text from pg_class c where relkind in ('r', 'p', 'i') and relnamespace::regnamespace::text !~ '^(pg_|information_schema)' "
        "union all select 'function', p.oid::regprocedure::text from pg_proc p where pronamespace::regnamespace::text !~ '^(pg_|information_schema)' "
        "and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e') "
        "union all select 'trigger', tgname::text from pg_trigger where not tgisinternal order by 1, 2").fetchall()


def true_to_the_text(connection, table="manuals", text="body", joined="e.id = c.document_id"):
    """The chunks of each document are those of its text, each with the embedding of its text."""
    assert one(connection, f"select count(*) from {table} e where {text} <> coalesce((select string_agg(c.content, '' order by ordinal) "
                           f"from {table}_chunks c where {joined}), '')") == 0
    assert one(connection, f"select count(*) from {table}_chunks c join {table} e on {joined} where substr({text}, start, length(c.content)) <> c.content "
                           "or embedding::text is distinct from embed(c.content)::text") == 0


@pytest.mark.parametrize("key, values, chunk_key", [
    ("id uuid primary key default gen_random_uuid()", "default", "document_id uuid"),
    ("slug text collate \"C\" primary key", "'a', 'B', 'c'", "document_slug text"),
    ("lang char(2), number numeric(8,2), primary key (number, lang)", "('de', 1.5), ('en', 1.5), ('de', 2)",
     "document_number numeric(8,2), document_lang character(2)"),
    ("day date primary key, ordinal int", "('2020-01-01', 1), ('2020-01-02', 1), ('2020-01-03', 1)", "document_day date"),
])
def test_any_primary_key(minilm, key, values, chunk_key):
    minilm.execute(f"create table manuals ({key}, body text)")
    columns = one(minilm, "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute where attrelid = 'manuals'::regclass and attnum > 0 and attname <> 'body'")
    minilm.execute("select enable_document_search('manuals', content => 'body')")
    rows = [v if v.startswith("(") else f"({v})" for v in (values.replace("), (", ")|(").split("|") if "(" in values else values.split(", "))]
    rows = rows * 3 if len(rows) == 1 else rows
    for row, paragraph in zip(rows, PARAGRAPHS):
        minilm.execute(f"insert into manuals ({columns}, body) values ({row[1:-1]}, %s)", [filler(1) + paragraph])
    found = minilm.execute("select (document).body, chunk, start from query_manuals('when do I have to pay?', match_count => 2)").fetchall()
    assert len(found) == 2 and found[0][0].endswith(PARAGRAPHS[1]) and PARAGRAPHS[1] in found[0][1]
    assert found[0][0][found[0][2] - 1:].startswith(found[0][1])
    assert one(minilm, "select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum) from pg_attribute "
                       "where attrelid = 'manuals_chunks'::regclass and attname like 'document%'") == chunk_key
    # A key that changes takes its chunks along.
    kept = one(minilm, "select array_agg(embedding::text order by embedding::text) from manuals_chunks")
    name = columns.split(", ")[0]
    minilm.execute({"id": "update manuals set id = gen_random_uuid()", "slug": "update manuals set slug = slug || 'x'",
                    "lang": "update manuals set lang = 'fr' where lang = 'de'", "day": "update manuals set day = day + 100"}[name])
    assert one(minilm, "select array_agg(embedding::text order by embedding::text) from manuals_chunks") == kept
    minilm.execute("delete from manuals")
    assert one(minilm, "select count(*) from manuals_chunks") == 0


def test_names_are_names(database, connection):
    """A table in another schema, with names that need quotes and could be read as SQL."""
    schema, table, key, body = 'a"b $$; drop table kept; --', "Do c.cs' $body$", "k. c.x'y", "body $body$ \\' new.x"
    quoted = psycopg.sql.Identifier
    connection.execute("create table kept ()")
    connection.execute(psycopg.sql.SQL("create schema {s}; create table {s}.{t} ({k} int primary key, {b} text); insert into {s}.{t} values (1, 'a cat')").format(
        s=quoted(schema), t=quoted(table), k=quoted(key), b=quoted(body)))
    enable = psycopg.sql.SQL("select enable_document_search({}::regclass, {})").format(f"{quoted(schema).as_string()}.{quoted(table).as_string()}", body)
    connection.execute(enable)
    connection.execute("set search_path = pg_catalog")
    connection.execute(psycopg.sql.SQL("insert into {}.{} values (2, 'a dog'), (3, '')").format(quoted(schema), quoted(table)))
    connection.execute(psycopg.sql.SQL("update {}.{} set {} = 3 - {} where {} < 3").format(quoted(schema), quoted(table), quoted(key), quoted(key), quoted(key))
                       if False else psycopg.sql.SQL("update {}.{} set {} = 7 where {} = 2").format(quoted(schema), quoted(table), quoted(key), quoted(key)))
    search = psycopg.sql.SQL("select (document).{}, chunk from {}.{}('a dog', null, 5, {})")
    function = quoted("query_" + table)
    connection.execute("set search_path = public")
    connection.execute(psycopg.sql.SQL("call embed_backfill({})").format(f"{quoted(schema).as_string()}.{quoted(table + '_chunks').as_string()}"))
    assert connection.execute(search.format(quoted(key), quoted(schema), function, "{}")).fetchall()[0] == (7, "a dog")
    assert connection.execute(search.format(quoted(key), quoted(schema), function, '{"' + key + '": 1}')).fetchall() == [(1, "a cat")]
    connection.execute(enable)
    disable = psycopg.sql.SQL("select disable_document_search({}::regclass)").format(f"{quoted(schema).as_string()}.{quoted(table).as_string()}")
    connection.execute(disable)
    assert one(connection, "select to_regclass('public.kept') is not null")
    assert one(connection, "select count(*) from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname like 'a%%'") == 0


REFUSED = {
    "no primary key": ("create table manuals (id int, body text)", "has no primary key"),
    "deferrable key": ("create table manuals (id int primary key deferrable, body text)", "has no primary key"),
    "json": ("create table manuals (id int primary key, body json)", "has type json"),
    "no such column": ("create table manuals (id int primary key, text text)", "does not exist"),
    "view": ("create view manuals as select 1 as id, 'a' as body", "is not a table"),
    "other chunks table": ("create table manuals (id int primary key, body text); create table manuals_chunks ()", "exists and does not hold"),
    "a view as chunks": ("create table manuals (id int primary key, body text); create view manuals_chunks as select 1", "exists and does not hold"),
    "other chunks table of its shape": (
        "create table manuals (id int primary key, body text); create table manuals_chunks (document_id int references manuals on update cascade on delete cascade, "
        "ordinal int, start int, content text, embedding vector(384), primary key (document_id, ordinal))", "exists and does not hold"),
    "trigger function": ("create table manuals (id int primary key, body text); create function chunk_manuals() returns trigger language plpgsql as 'begin end'",
                         "is not gte-small's"),
    "search function": ("create table manuals (id int primary key, body text); create function query_manuals(text, int) returns int language sql as 'select 1'",
                        "is not gte-small's"),
    "row search": ("create table manuals (id int primary key, body text); select enable_semantic_search('manuals', 'body')", "semantic search by its rows"),
    "partition": ("create table whole (id int primary key, body text) partition by list (id); create table manuals partition of whole default", "is a partition"),
    "long key": ("create table manuals (" + ", ".join(f"c{i} int" for i in range(32)) + ", body text, primary key (" + ", ".join(f"c{i}" for i in range(32)) + "))",
                 "has 32 columns"),
    "long name": (f"create table manuals{'s' * 50} (id int primary key, body text)", "has 64 bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_work_is_refused_before_anything_is_made(connection, case):
    statements, message = REFUSED[case]
    connection.execute(statements)
    before = made(connection)
    with pytest.raises(psycopg.Error, match=message) as error:
        connection.execute("select enable_document_search((select oid::regclass from pg_class where relname ~ '^manualss*$' and relkind <> 'i'), 'body')")
    assert error.value.diag.message_detail and error.value.diag.message_hint
    assert made(connection) == before


def test_a_foreign_table_as_chunks_is_refused(connection):
    connection.execute("create table manuals (id int primary key, body text); create foreign data wrapper nowhere; "
                       "create server there foreign data wrapper nowhere; create foreign table manuals_chunks (a int) server there")
    with pytest.raises(psycopg.errors.DuplicateTable):
        connection.execute("select enable_document_search('manuals', 'body')")
    connection.execute("select enable_document_search('manuals', 'body', chunks_table => 'parts', search_function => 'find_manuals')")
    connection.execute("insert into manuals values (1, 'a cat')")
    assert one(connection, "select chunk from find_manuals('a cat')") == one(connection, "select content from parts") == "a cat"
    connection.execute("select enable_document_search('manuals', 'body')")
    assert one(connection, "select chunk from find_manuals('a cat')") == "a cat"


def test_only_the_owner_enables_and_disables(database, manuals):
    plain = database.connect("gte_plain")
    for call in ("enable_document_search('manuals', 'body')", "disable_document_search('manuals')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
            plain.execute(f"select {call}")


def test_disable_undoes_enable(connection):
    connection.execute("create table manuals (id int primary key, title text, body text); insert into manuals values (1, 'Pets', 'a cat')")
    before = made(connection)
    connection.execute("select enable_document_search('manuals', '{title,body}', 'title')")
    assert made(connection) != before
    connection.execute("select disable_document_search('manuals')")
    assert made(connection) == before and one(connection, "select count(*) from manuals") == 1
    heard = []
    connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    connection.execute("select disable_document_search('manuals')")
    assert heard == ["document search is not enabled on table public.manuals, nothing to undo"]
    connection.execute("select enable_semantic_search('manuals', 'body')")


def test_enabling_again_changes_nothing_and_mends(manuals):
    manuals.execute("insert into manuals (body) values ('a cat')")
    before, kept = made(manuals), manuals.execute("select ctid::text, xmin::text, embedding::text from manuals_chunks").fetchall()
    heard = []
    manuals.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    manuals.execute("select enable_document_search('manuals', 'body')")
    assert made(manuals) == before and heard == []
    assert manuals.execute("select ctid::text, xmin::text, embedding::text from manuals_chunks").fetchall() == kept
    manuals.execute("drop trigger gte_small_accept on manuals_chunks; drop function query_manuals; alter table manuals disable trigger gte_small_chunks")
    manuals.execute("insert into manuals (body) values ('a dog')")
    manuals.execute("select enable_document_search('manuals', 'body')")
    assert made(manuals) == before
    manuals.execute("call embed_backfill('manuals_chunks')")
    manuals.execute("insert into manuals (body) values ('a cow')")
    assert one(manuals, "select count(*) from query_manuals('x')") == 3
    true_to_the_text(manuals)


def test_renames_are_followed_by_enabling_again(database, manuals):
    manuals.execute("insert into manuals (body) values ('a cat'); grant select on manuals, manuals_chunks to gte_plain; "
                    "revoke execute on function query_manuals from public; create schema app; grant usage on schema app to gte_plain")
    manuals.execute("alter table manuals rename to books; alter table books rename id to isbn; alter table books rename body to words; "
                    "alter table books set schema app; alter table manuals_chunks rename document_id to of_book; alter table manuals_chunks set schema app")
    manuals.execute("select enable_document_search('app.books', 'words')")
    manuals.execute("insert into app.books (words) values ('a dog'); update app.books set isbn = default, words = 'a cow' where words = 'a cat'")
    assert [chunk for chunk, in manuals.execute("select chunk from app.query_books('a cow')")][:1] == ["a cow"]
    assert one(manuals, "select count(*) from pg_proc where proname like '%\\_manuals'") == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.connect("gte_plain").execute("select * from app.query_books('a cow')")


def test_columns_are_added_while_sessions_search(manuals):
    manuals.execute("insert into manuals (body) values ('a cat')")
    assert one(manuals, "select chunk from query_manuals('a cat')") == "a cat"
    manuals.execute("alter table manuals add column shelf text default 'B3'; alter table manuals drop column title")
    manuals.execute("insert into manuals (body) values ('a dog')")
    assert manuals.execute("select (document).shelf, chunk from query_manuals('a dog', null, 1, '{\"shelf\": \"B3\"}')").fetchall() == [("B3", "a dog")]


def test_an_index_of_half_the_size(manuals):
    manuals.execute("drop index manuals_chunks_embedding_idx; "
                    "create index on manuals_chunks using hnsw ((embedding::halfvec(384)) halfvec_ip_ops); select enable_document_search('manuals', 'body')")
    manuals.execute("insert into manuals (body) select 'text ' || i from generate_series(1, 500) i; set enable_seqscan = off")
    best = one(manuals, "select -(min(embedding <#> embed('a cat'))) from manuals_chunks")
    with manuals.transaction():
        scans = "select pg_stat_get_xact_numscans(indexrelid) from pg_index where indrelid = 'manuals_chunks'::regclass and not indisunique"
        before = one(manuals, scans)
        assert one(manuals, "select max(similarity) from query_manuals('a cat')") == pytest.approx(best, abs=1e-3)
        assert one(manuals, scans) > before


def test_texts_of_several_columns(manuals):
    manuals.execute("select enable_document_search('manuals', 'title, body')")
    manuals.execute("insert into manuals (title, body) values ('Pets', 'a cat'), (null, 'a dog'), (null, null)")
    assert manuals.execute("select content from manuals_chunks order by document_id").fetchall() == [("Pets\na cat",), ("a dog",)]


def test_another_text_makes_other_chunks(manuals):
    """The vectors of chunks that stay are kept."""
    manuals.execute("insert into manuals (title, body) values ('Pets', 'a cat'), (null, 'a dog')")
    dog = one(manuals, "select ctid::text from manuals_chunks where content = 'a dog'")
    manuals.execute("select enable_document_search('manuals', 'title, body')")
    assert manuals.execute("select content, embedding is null from manuals_chunks order by document_id").fetchall() == [("Pets\na cat", True), ("a dog", False)]
    assert one(manuals, "select ctid::text from manuals_chunks where content = 'a dog'") == dog
    manuals.execute("call embed_backfill('manuals_chunks')")
    true_to_the_text(manuals, text="concat_ws(chr(10), title, body)")


# --- context ---


def test_a_heading_is_embedded_and_not_stored_in_the_chunk(minilm):
    minilm.execute("create table manuals (id int primary key, title text, body text)")
    minilm.execute("select enable_document_search('manuals', 'body', context => '{title}')")
    long = filler(1) + filler(2)
    minilm.execute("insert into manuals values (1, 'Laptops', %s), (2, ' ', 'Return them to the front desk.'), (3, null, 'a cat')", [long])
    minilm.execute("set gte_small.on_truncate = error")
    assert one(minilm, "select bool_and(1 - (c.embedding <=> embed(coalesce('Laptops: ' || substr(c.content, 1, 0), '') || c.content)) > 0.9999) "
                       "from manuals_chunks c where document_id = 1")
    assert one(minilm, "select string_agg(content, '' order by ordinal) from manuals_chunks where document_id = 1") == long
    assert minilm.execute("select heading, embedding::text = embed(content)::text from manuals_chunks where document_id > 1").fetchall() == [(None, True)] * 2
    assert one(minilm, "select max(token_count('Laptops: ' || content)) <= 256 from manuals_chunks")
    # The title alone changes.
    before = minilm.execute("select ordinal, content from manuals_chunks where document_id = 1 order by 1").fetchall()
    minilm.execute("update manuals set title = 'Printers' where id = 1")
    assert minilm.execute("select ordinal, content from manuals_chunks where document_id = 1 order by 1").fetchall() == before
    assert one(minilm, "select bool_and(1 - (c.embedding <=> embed('Printers: ' || c.content)) > 0.9999) from manuals_chunks c where document_id = 1")
    # A long title leaves most of the window to the text.
    minilm.execute("update manuals set title = repeat('title ', 1000) where id = 1")
    assert one(minilm, "select max(token_count(heading || ' ' || content)) between 200 and 256 from manuals_chunks where document_id = 1")
    assert one(minilm, "select wrong from embed_verify('manuals_chunks')") == 0


def test_context_can_be_added_and_left_out(manuals):
    manuals.execute("insert into manuals (title, body) values ('Pets', 'a cat')")
    manuals.execute("select enable_document_search('manuals', 'body', 'title')")
    assert manuals.execute("select heading, content, embedding is null from manuals_chunks").fetchall() == [("Pets:", "a cat", True)]
    manuals.execute("call embed_backfill('manuals_chunks')")
    assert one(manuals, "select embedding::text = embed('Pets: a cat')::text from manuals_chunks")
    manuals.execute("select enable_document_search('manuals', 'body')")
    manuals.execute("call embed_backfill('manuals_chunks')")
    assert one(manuals, "select embedding::text = embed('a cat')::text from manuals_chunks")


# --- partitions, loads, dumps ---


def test_partitioned_documents(connection):
    connection.execute("create table manuals (id int, year int, body text, primary key (year, id)) partition by list (year); "
                       "create table old partition of manuals for values in (2020); create table new (body text, id int not null, year int not null); "
                       "alter table manuals attach partition new for values in (2021)")
    connection.execute("select enable_document_search('manuals', 'body')")
    connection.execute("insert into manuals values (1, 2020, 'a cat'), (2, 2021, 'a dog')")
    assert connection.execute("select (document).year, chunk from query_manuals('a dog')").fetchall()[0] == (2021, "a dog")
    connection.execute("create table newer partition of manuals for values in (2022); insert into newer values (3, 2022, 'a cow')")
    assert one(connection, "select chunk from query_manuals('a cow', null, 1)") == "a cow"
    # Rows that move to another partition.
    connection.execute("update manuals set year = 2022 where id = 1; update manuals set year = 2022, body = 'a dogfish' where id = 2")
    assert connection.execute("select document_year, document_id, content from manuals_chunks order by 2").fetchall() == [
        (2022, 1, "a cat"), (2022, 2, "a dogfish"), (2022, 3, "a cow")]
    true_to_the_text(connection, joined="(e.year, e.id) = (c.document_year, c.document_id)")
    connection.execute("select disable_document_search('manuals')")


def load(database, target, *options):
    target.psql(database.server.cluster.tool("pg_dump", "--dbname", database.name, *options).stdout)


@pytest.mark.parametrize("defer", [False, True])
def test_a_data_only_load_of_documents_and_chunks(server, database, manuals, defer):
    manuals.execute("insert into manuals (title, body) select 'n', repeat('Text ' || i || '. ', 300) from generate_series(1, 3) i; "
                    "insert into manuals (body) values ('a cat')")
    other = server.create_database()
    try:
        target = other.connect()
        target.execute("create table manuals (id bigint generated always as identity primary key, title text, body text, tenant int default 1)")
        target.execute("select enable_document_search('manuals', 'body')")
        if defer:
            other.configure("gte_small.defer", "on")
        load(database, other, "--data-only")
        content = "select document_id, ordinal, start, content, embedding::text from manuals_chunks order by 1, 2"
        assert target.execute(content).fetchall() == manuals.execute(content).fetchall()
        assert one(target, "select count(*) > 4 from manuals_chunks")
    finally:
        other.drop()


def test_chunks_of_another_model_do_not_replace_those_of_the_text(manuals):
    manuals.execute("insert into manuals (body) values ('a cat. a dog.')")
    manuals.execute("insert into manuals_chunks (document_id, ordinal, start, content) values (1, 1, 1, 'a cat. ')")
    assert one(manuals, "select content from manuals_chunks") == "a cat. a dog."


def test_dump_and_restore(server, database, manuals):
    manuals.execute("insert into manuals (body) values ('a cat'), (repeat('A dog. ', 1000))")
    for options in ([], ["--no-comments"]):
        other = server.create_database("template0")
        try:
            other.configure("gte_small.model_path", "/nonexistent")
            load(database, other, *options)
            restored = other.connect()
            rows = "select document_id, ordinal, start, content, embedding::text from manuals_chunks order by 1, 2"
            assert restored.execute(rows).fetchall() == manuals.execute(rows).fetchall()
            assert made(restored) == made(manuals)
            assert one(restored, "select prosecdef and proacl is not null from pg_proc where proname = 'chunk_manuals'")
            other.configure("gte_small.model_path", server.tiny)
            restored = other.connect()
            restored.execute("insert into manuals (body) values ('a cow')")
            assert one(restored, "select chunk from query_manuals('a cow', 0.9999)") == "a cow"
            restored.execute("select enable_document_search('manuals', 'body')")
            assert made(restored) == made(manuals)
            restored.execute("select disable_document_search('manuals')")
            assert [name for kind, name in made(restored) if kind != "relation"] == []
        finally:
            other.drop()


def test_the_extension_leaves_and_the_documents_stay(manuals):
    manuals.execute("insert into manuals (body) values ('a cat')")
    manuals.execute('drop extension "gte-small" cascade')
    manuals.execute("insert into manuals (body) values ('a dog')")
    assert one(manuals, "select count(*) from manuals") == 2
    assert [name for kind, name in made(manuals) if kind == "function" and "manuals" in name] == []
    manuals.execute('create extension "gte-small"')
    manuals.execute("select enable_document_search('manuals', 'body')")
    manuals.execute("call embed_backfill('manuals_chunks')")
    true_to_the_text(manuals)


def test_the_schema_of_the_extension_is_renamed(server):
    database = server.create_database("template0")
    try:
        connection = database.connect()
        connection.execute('create schema extensions; create extension vector schema extensions; create extension "gte-small" schema extensions')
        connection.execute("create table manuals (id int primary key, title text, body text); select extensions.enable_document_search('manuals', 'body', 'title')")
        connection.execute("insert into manuals values (1, 'Pets', 'a cat')")
        connection.execute("alter schema extensions rename to ext")
        for session in (connection, database.connect()):
            session.execute("insert into manuals select max(id) + 1, 'Pets', 'a dog' from manuals; update manuals set body = 'a cat.' where id = 1")
            assert one(session, "select chunk from query_manuals('Pets: a dog', 0.99, 1)") == "a dog"
        connection.execute("select ext.enable_document_search('manuals', 'body', 'title'); select ext.disable_document_search('manuals')")
    finally:
        database.drop()
