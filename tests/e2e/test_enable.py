"""enable_semantic_search and disable_semantic_search: any table, all or nothing, repeatable."""

import json
import re

import psycopg
import pytest

from measure import one, unit_axis

ENABLE = "select enable_semantic_search(%s)"


def objects(connection):
    """Everything in the database that enable_semantic_search creates or changes, with its OID."""
    return connection.execute(
        "select 'relation', oid::int, relname::text, coalesce(obj_description(oid, 'pg_class'), '') from pg_class where oid >= 16384 and relnamespace <> 'pg_toast'::regnamespace "
        "union all select 'function', oid::int, oid::regprocedure::text, prosrc || coalesce(obj_description(oid, 'pg_proc'), '') from pg_proc where oid >= 16384 "
        "union all select 'trigger', oid::int, pg_get_triggerdef(oid), coalesce(obj_description(oid, 'pg_trigger'), '') || tgenabled::text from pg_trigger "
        "union all select 'column', attrelid::int, attname::text, attnum::text from pg_attribute join pg_class on pg_class.oid = attrelid where attrelid >= 16384 and relkind in ('r', 'p') and attnum > 0 and not attisdropped "
        "order by 1, 2, 3"
    ).fetchall()


def note(connection, table, embedding="embedding"):
    return one(connection, "select note from embedding_columns(%s) where embedding = %s", [table, embedding])


def search(connection, function, text):
    """The text column of the best row."""
    return one(connection, f"select body from {function}(%s, 0.99, 1)", [text])


@pytest.mark.parametrize(
    "made, table, functions",
    [
        ("create table docs (id serial primary key, body text)", "docs", "{}_docs"),
        ("create schema library; create table library.docs (body text)", "library.docs", "library.{}_docs"),
        ('create schema "My Library"; create table "My Library"."Docs ""2""" (body text)',
         '"My Library"."Docs ""2"""', '"My Library"."{}_Docs ""2"""'),
        ("create table docs (a int, b int, body varchar(40) not null, primary key (a, b))", "docs", "{}_docs"),
        ("create table docs (body text, embedding vector(384), e int, s int, r int, q int, d int)", "docs", "{}_docs"),
        ("create table docs (part int, body text) partition by list (part); "
         "create table one partition of docs for values in (1); create schema other; "
         "create table other.two (gone int, body text, part int); alter table other.two drop column gone; "
         "alter table docs attach partition other.two default", "docs", "{}_docs"),
        ("create domain prose as text check (value <> ''); create table docs (body prose)", "docs", "{}_docs"),
        ("create type doc as (body text, embedding vector(384)); create table docs of doc", "docs", "{}_docs"),
        # PostgreSQL does not search pg_temp for functions, so they are called with the schema.
        ("create temporary table docs (body text)", "docs", "pg_temp.{}_docs"),
    ],
    ids=["plain", "other-schema", "quoted", "composite-key", "column-names", "partitioned", "domain", "typed", "temporary"],
)
def test_enable_insert_search_disable(connection, made, table, functions):
    connection.execute(made)
    before = objects(connection)
    connection.execute(ENABLE.replace(")", ", '{body}')"), [table])
    for number, body in enumerate(["a cat", "a dog"], 1):
        # The table's other required columns.
        connection.execute(f"insert into {table} select * from jsonb_populate_record(null::{table}, "
                           "jsonb_build_object('id', %s::int, 'a', 1, 'b', %s::int, 'part', %s::int, 'body', %s::text))", [number] * 3 + [body])
    assert one(connection, f"select count(*) from {table} where embedding = embed(body::text)") == 2
    query, hybrid = functions.format("query"), functions.format("hybrid")
    assert search(connection, query, "a cat") == "a cat"
    assert one(connection, f"select body from {query}(embed('a dog'), 0.99) limit 1") == "a dog"
    assert one(connection, f"select (item).body from {hybrid}('dog', 1)") == "a dog"
    known = note(connection, table)
    assert known["fingerprint"] == one(connection, "select fingerprint from embed_model()") and "empty" not in known

    enabled = objects(connection)
    connection.execute(ENABLE.replace(")", ", '{body}')"), [table])
    assert objects(connection) == enabled

    connection.execute("select disable_semantic_search(%s)", [table])
    assert one(connection, f"select count(embedding) from {table}") == 2
    had = {row[2] for row in before if row[0] == "column"}
    after = [row for row in objects(connection) if row not in before]
    # Only the column and its vectors stay.
    assert {(row[0], row[2]) for row in after if row[2] not in had} <= {("column", "embedding")}
    connection.execute("select disable_semantic_search(%s)", [table])


def test_a_sequence_of_source_columns_and_the_note(connection):
    connection.execute("create table docs (title text, body text)")
    connection.execute("select enable_semantic_search('docs', '{title,body}')")
    connection.execute("insert into docs values ('a', 'b'), (null, 'c')")
    assert one(connection, "select bool_and(embedding = embed(concat_ws(E'\\n', title, body))) from docs")
    assert one(connection, "select content from embedding_columns('docs')") == ["title", "body"]
    assert note(connection, "docs")["text_search"] == "pg_catalog.english"
    # A second call with other columns: the trigger and the full-text index follow.
    connection.execute("select enable_semantic_search('docs', '{body}')")
    assert one(connection, "select content from embedding_columns('docs')") == ["body"]
    assert one(connection, "select count(*) from pg_indexes where tablename = 'docs' and indexdef like '%gin%'") == 1
    assert one(connection, "select full_text_rank from hybrid_docs('c')") == 1


def test_vectors_that_were_there_are_of_an_unknown_model(connection):
    connection.execute("create table docs (content text, embedding vector(384)); insert into docs values ('a cat', %s)" % psycopg.sql.Literal(unit_axis(1)).as_string(connection))
    connection.execute(ENABLE, ["docs"])
    assert "fingerprint" in note(connection, "docs") and note(connection, "docs")["fingerprint"] is None
    assert one(connection, "select content from query_docs(%s::vector, 0.9)", [unit_axis(1)]) == "a cat"
    # Without vectors the column is like a new one.
    connection.execute("set gte_small.own_vectors = on; update docs set embedding = null")
    connection.execute(ENABLE, ["docs"])
    assert note(connection, "docs")["fingerprint"] == one(connection, "select fingerprint from embed_model()")


def test_two_embedding_columns(connection):
    connection.execute("create table docs (title text, body text)")
    connection.execute("select enable_semantic_search('docs', '{body}')")
    before = objects(connection)
    with pytest.raises(psycopg.errors.DuplicateFunction):
        connection.execute("select enable_semantic_search('docs', '{title}', 'title_embedding')")
    assert objects(connection) == before
    connection.execute("select enable_semantic_search('docs', '{title}', 'title_embedding', search_function => 'query_titles')")
    connection.execute("insert into docs values ('a cat', 'stones')")
    assert one(connection, "select embedding = embed(body) and title_embedding = embed(title) from docs")
    assert search(connection, "query_docs", "stones") == "stones"
    assert search(connection, "query_titles", "a cat") == "stones"
    assert one(connection, "select full_text_rank from hybrid_titles('cat')") == 1
    assert one(connection, "select full_text_rank from hybrid_docs('cat')") is None
    # The chosen name is kept.
    enabled = objects(connection)
    connection.execute("select enable_semantic_search('docs', '{title}', 'title_embedding')")
    assert objects(connection) == enabled
    connection.execute("select disable_semantic_search('docs')")
    assert search(connection, "query_titles", "a cat") == "stones"
    with pytest.raises(psycopg.errors.UndefinedFunction):
        connection.execute("select * from query_docs('stones', 0.9)")


@pytest.mark.parametrize(
    "made, call, sqlstate",
    [
        ("create view docs as select 'a'::text as content", "'docs'", "42809"),
        ("create materialized view docs as select 'a'::text as content", "'docs'", "42809"),
        ("create foreign data wrapper w; create server s foreign data wrapper w; create foreign table docs (content text) server s", "'docs'", "42809"),
        ("create table docs (content text, embedding halfvec(384))", "'docs'", "42804"),
        ("create table docs (content text, embedding vector(12))", "'docs'", "42804"),
        ("create table docs (content text, embedding vector)", "'docs'", "42804"),
        ("create table docs (content text, embedding real[])", "'docs'", "42804"),
        ("create table docs (content text, embedding vector(384) generated always as (embed(content)) stored)", "'docs'", "428C9"),
        ("create table docs (a text, content text generated always as (upper(a)) stored)", "'docs'", "428C9"),
        ("create table docs (content json)", "'docs'", "42804"),
        ("create table docs (body text)", "'docs'", "42703"),
        ("create table docs (content text)", "'docs', '{}'", "22023"),
        ("create table docs (content text)", "'docs', array[null]::name[]", "22023"),
        ("create table docs (content text)", "'docs', null", "22004"),
        ("create table docs (content text)", "null", "22004"),
        ("create table docs (content text)", "1", "42P01"),
        ("create table docs (content text)", "'pg_description', '{description}'", "42809"),
        (f"create table {'d' * 60} (content text)", f"'{'d' * 60}'", "42622"),
        ("create table docs (content text); create function query_docs(text, float8) returns int language sql as 'select 1'", "'docs'", "42723"),
        ("create table docs (content text); create function hybrid_docs(text, int, float8, float8, int, jsonb) returns int language sql as 'select 1'", "'docs'", "42723"),
        ("create table docs (content text); create table notes (content text); "
         "select enable_semantic_search('notes', search_function => 'query_docs')", "'docs'", "42723"),
        ("create table docs (content text, embedding vector(384)); create trigger mine before insert or update on docs "
         "for each row execute function embed_trigger('embedding', 'content')", "'docs'", "42710"),
        ("create table parent (content text) partition by list (content); create table docs partition of parent default", "'docs'", "42809"),
        ("create type doc as (content text); create table docs of doc", "'docs'", "42809"),
    ],
)
def test_refused_before_anything_is_made(connection, made, call, sqlstate):
    connection.execute(made)
    before = objects(connection)
    with pytest.raises(psycopg.Error) as raised:
        connection.execute(f"select enable_semantic_search({call})")
    assert raised.value.sqlstate == sqlstate
    assert raised.value.diag.message_detail and raised.value.diag.message_hint
    assert objects(connection) == before


def test_the_hint_on_a_typed_table_works(connection):
    connection.execute('create schema "My Types"; create type "My Types"."Doc" as (body text); create table docs of "My Types"."Doc"')
    with pytest.raises(psycopg.errors.WrongObjectType) as raised:
        connection.execute("select enable_semantic_search('docs', '{body}', 'My Vector')")
    statement, _, _ = raised.value.diag.message_hint.partition(", and enable")
    connection.execute(statement)
    connection.execute("select enable_semantic_search('docs', '{body}', 'My Vector'); insert into docs values ('a cat')")
    assert search(connection, "query_docs", "a cat") == "a cat"


def test_only_the_owner(database, connection):
    connection.execute("create schema shop authorization gte_owner; set role gte_owner; create table shop.docs (content text); "
                       "grant usage on schema shop to public; grant all on shop.docs to gte_plain; reset role")
    other = database.connect("gte_plain")
    for call in ["enable_semantic_search('shop.docs')", "disable_semantic_search('shop.docs')"]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute(f"select {call}")
    # A superuser may, and the created objects belong to the table's owner.
    connection.execute(ENABLE, ["shop.docs"])
    assert one(connection, "select array_agg(distinct proowner::regrole::text) from pg_proc where proname ~ '(query|hybrid)_docs'") == ["gte_owner"]
    owner = database.connect("gte_owner")
    owner.execute("insert into shop.docs values ('a cat')")
    assert one(owner, "select content from shop.query_docs('a cat', 0.9, 3)") == "a cat"
    owner.execute("select disable_semantic_search('shop.docs')")
    owner.execute(ENABLE, ["shop.docs"])
    assert one(owner, "select count(*) from shop.query_docs('a cat', 0.9)") == 1


def test_row_level_security_holds_in_every_function(database, connection):
    connection.execute("create table docs (content text, who text); select enable_semantic_search('docs'); "
                       "alter table docs enable row level security; create policy own on docs to gte_reader using (who = current_user); "
                       "grant select on docs to gte_reader; insert into docs values ('a cat', 'gte_reader'), ('a cat too', 'gte_plain')")
    reader = database.connect("gte_reader")
    for call in ["query_docs('a cat', null)", "query_docs('a cat', null, 10)", "query_docs(embed('a cat'), null)"]:
        assert reader.execute(f"select content from {call}").fetchall() == [("a cat",)]
    assert reader.execute("select (item).content from hybrid_docs('cat')").fetchall() == [("a cat",)]


def test_what_is_missing_is_mended(connection):
    connection.execute("create table docs (content text)")
    connection.execute(ENABLE, ["docs"])
    whole = {row[2] for row in objects(connection)}
    connection.execute("drop index docs_embedding_idx; alter table docs disable trigger all; drop function hybrid_docs")
    connection.execute(ENABLE, ["docs"])
    assert {row[2] for row in objects(connection)} == whole
    connection.execute("insert into docs values ('a cat')")
    assert one(connection, "select count(embedding) from docs") == 1
    connection.execute("drop trigger zzz_gte_small_embedding on docs; select enable_semantic_search('docs')")
    # The note is dropped with the trigger: the vectors are of an unknown model.
    assert note(connection, "docs")["fingerprint"] is None


def test_renamed_and_moved(connection):
    connection.execute("create table docs (content text)")
    connection.execute(ENABLE, ["docs"])
    connection.execute("insert into docs values ('a cat'); alter table docs rename to papers; alter table papers rename content to body; "
                       "create schema attic; alter table papers set schema attic; create schema vectors; alter extension vector set schema vectors")
    # The trigger's arguments are names, as in core's tsvector_update_trigger.
    connection.execute("drop trigger zzz_gte_small_embedding on attic.papers")
    connection.execute("select enable_semantic_search('attic.papers', '{body}')")
    connection.execute("insert into attic.papers values ('a dog')")
    assert search(connection, "attic.query_papers", "a dog") == "a dog"
    assert one(connection, "select (item).body from attic.hybrid_papers('dog', 1)") == "a dog"


def test_rename_with_the_note_drops_the_functions_of_the_old_name(connection):
    connection.execute("create table docs (content text); select enable_semantic_search('docs'); alter table docs rename to papers; "
                       "create schema attic; alter table papers set schema attic; select enable_semantic_search('attic.papers')")
    names = connection.execute("select oid::regprocedure::text from pg_proc where proname ~ '_(docs|papers)$'").fetchall()
    assert len(names) == 6 and all(name.startswith(("attic.query_papers", "attic.search_papers", "attic.hybrid_papers")) for (name,) in names)


def test_a_later_trigger_is_warned_of(connection):
    heard = []
    connection.add_notice_handler(lambda diag: heard.append((diag.severity_nonlocalized, diag.message_primary, diag.message_hint)))
    connection.execute("create table docs (content text); create function upper_it() returns trigger language plpgsql as 'begin return new; end'; "
                       "create trigger zzzz before insert on docs for each row execute function upper_it(); "
                       "insert into docs values ('here before')")
    connection.execute(ENABLE, ["docs"])
    assert ("WARNING", 'trigger "zzzz" of table public.docs fires after the one that embeds') in [h[:2] for h in heard]
    assert ("NOTICE", "table public.docs has rows without an embedding", "CALL embed_backfill('public.docs');") in heard


def test_without_a_model(database):
    database.configure("gte_small.model_path", "/nonexistent")
    connection = database.connect()
    heard = []
    connection.add_notice_handler(lambda diag: heard.append(diag.message_primary))
    connection.execute("create table docs (content text)")
    connection.execute(ENABLE, ["docs"])
    assert any("no model is loaded" in line for line in heard)
    assert "fingerprint" not in note(connection, "docs")


def test_the_first_row_decides_whose_an_empty_column_is(server, database, connection):
    connection.execute("create table docs (content text); select enable_semantic_search('docs')")
    assert note(connection, "docs")["empty"] is True
    database.configure("gte_small.model_path", server.tiny_other)
    other = database.connect()
    heard = []
    other.add_notice_handler(lambda diag: heard.append(diag.message_primary))
    other.execute("insert into docs values ('a cat')")
    known = note(other, "docs")
    assert known["fingerprint"] == one(other, "select fingerprint from embed_model()") and not {"empty", "mixed"} & known.keys()
    assert not heard


def test_rolled_back_it_leaves_nothing(connection):
    connection.execute("create table docs (content text)")
    before = objects(connection)
    connection.execute("begin; select enable_semantic_search('docs'); rollback")
    assert objects(connection) == before


def test_without_index(connection):
    connection.execute("create table docs (content text); select enable_semantic_search('docs', with_index => false)")
    assert one(connection, "select count(*) from pg_indexes where tablename = 'docs'") == 0
    connection.execute("insert into docs values ('a cat')")
    assert one(connection, "select content from query_docs('a cat', 0.9, 1)") == "a cat"
    connection.execute(ENABLE, ["docs"])
    assert one(connection, "select count(*) from pg_indexes where tablename = 'docs'") == 2


def test_an_index_of_ones_own_is_used_and_kept(connection):
    connection.execute("create table docs (content text, embedding vector(384)); create index mine on docs using hnsw (embedding vector_ip_ops) with (m = 8); "
                       "select enable_semantic_search('docs')")
    assert one(connection, "select count(*) from pg_indexes where indexdef like '%hnsw%'") == 1
    connection.execute("select disable_semantic_search('docs')")
    assert one(connection, "select array_agg(indexname::text) from pg_indexes where tablename = 'docs'") == ["mine"]


def test_drop_extension_takes_the_functions(connection):
    connection.execute("create table docs (content text); select enable_semantic_search('docs')")
    connection.execute('drop extension "gte-small" cascade')
    assert one(connection, "select count(*) from pg_proc where proname ~ '_docs$'") == 0
    assert one(connection, "select count(*) from pg_trigger where tgrelid = 'docs'::regclass") == 0
    assert one(connection, "select count(*) from docs") == 0


def without_notes(objects):
    """Enabling again notes the columns of the restored table."""
    return re.sub(r"'gte-small \{.*?\}[OADR]'", "", str(objects))


def test_dump_and_restore_keep_it_all(server, database, connection):
    connection.execute("""create schema "S"; create table "S"."T" (body text);
        select enable_semantic_search('"S"."T"', '{body}', 'e m b', search_function => 'Find', text_search => 'german');
        insert into "S"."T" values ('die Katze'), ('der Hund')""")
    described = ("select obj_description(oid, 'pg_trigger') from pg_trigger where tgrelid = '\"S\".\"T\"'::regclass "
                 "union all select obj_description(indexrelid, 'pg_class') from pg_index where indrelid = '\"S\".\"T\"'::regclass "
                 "union all select prosrc from pg_proc where pronamespace = '\"S\"'::regnamespace order by 1")
    dump = server.cluster.tool("pg_dump", "--dbname", database.name).stdout
    target = server.create_database("template0")
    try:
        target.psql(dump)
        restored = target.connect()
        assert restored.execute(described).fetchall() == connection.execute(described).fetchall()
        assert one(restored, 'select (item).body from "S"."hybrid_Find"(%s, 1)', ["Katzen"]) == "die Katze"
        before = without_notes(objects(restored))
        restored.execute("""select enable_semantic_search('"S"."T"', '{body}', 'e m b')""")
        assert without_notes(objects(restored)) == before
        kept = one(restored, """select note from embedding_columns('"S"."T"')""")
        assert kept["text_search"] == "pg_catalog.german" and len(kept["fingerprint"]) == 64
        json.dumps(kept)
        restored.execute("""select disable_semantic_search('"S"."T"', 'e m b')""")
        assert one(restored, "select count(*) from pg_proc where pronamespace = '\"S\"'::regnamespace") == 0
    finally:
        target.drop()


def test_a_partition_with_functions_of_its_own_can_be_renewed(connection):
    connection.execute("create table par (id int, content text) partition by list (id); create table par1 partition of par default; "
                       "select enable_semantic_search('par', search_function => 'find_par'); select enable_semantic_search('par1'); "
                       "select enable_semantic_search('par1')")
    heard = []
    connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    assert connection.execute("select * from refresh_semantic_search()").fetchall() == [] and heard == []
    connection.execute("insert into par values (1, 'a cat')")
    assert one(connection, "select count(*) from query_par1('a cat', 0.9)") == one(connection, "select count(*) from find_par('a cat', 0.9)") == 1
