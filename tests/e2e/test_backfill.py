"""embed_backfill and embed_backfill_step on all kinds of tables, in one session."""

import psycopg
import pytest

from backfills import fingerprint, make, missing, note, notices, refused, wrong
from measure import counters, counting, one


def test_every_row_without_an_embedding_gets_that_of_its_text(connection):
    make(connection, 700)
    connection.execute("insert into docs values (701, null)")
    with notices(connection) as heard:
        connection.execute("call embed_backfill('docs')")
    assert one(connection, "select count(*) from docs where embedding = embed(content)") == 700
    assert missing(connection) == 1, "a row without text has no embedding"
    assert any("700 rows embedded" in message for _, message in heard)
    assert note(connection)["fingerprint"] == fingerprint(connection)


def test_only_missing_rows_run_the_model(connection):
    make(connection, 300)
    connection.execute("call embed_backfill('docs')")
    connection.execute("set gte_small.memo_size = 0; set gte_small.own_vectors = on; update docs set embedding = null where id in (5, 290)")
    with counting(connection) as counted:
        connection.execute("call embed_backfill('docs')")
    assert counted.texts == 2 and wrong(connection) == 0


@pytest.mark.parametrize("size", [1, 7, 256, 100000])
def test_batches_of_any_size(connection, size):
    make(connection, 150)
    connection.execute(f"call embed_backfill('docs', {size})")
    assert wrong(connection) == 0
    transactions = one(connection, "select count(distinct xmin::text) from docs")
    assert transactions == 150 if size == 1 else transactions >= 150 / size


def test_a_step_is_one_batch_of_the_callers_transaction(database, connection):
    make(connection, 500)
    with database.connect(autocommit=False) as other:
        assert one(other, "select embed_backfill_step('docs', 60)") == 60
        other.rollback()
        assert missing(connection) == 500
    steps = []
    while not steps or steps[-1] > 0:
        steps.append(one(connection, "select embed_backfill_step('docs', 60)"))
        assert len(steps) < 100
    assert sum(steps) == 500 and max(steps) == 60 and wrong(connection) == 0


def test_what_a_row_embeds_is_what_the_trigger_embeds(connection):
    """Several columns, with NULLs, blank ones, padding, varchar and name."""
    connection.execute(
        """create table docs (id int, "Über ""schrift" text, code char(8), tag varchar, kind name, embedding vector(384));
        insert into docs select i, case when i % 2 = 0 then 'title ' || i end, case when i % 3 = 0 then 'c' || i end,
            case when i % 5 = 0 then ' ' end, case when i % 7 = 0 then 'k' || i end from generate_series(1, 211) i;
        select enable_semantic_search('docs', array['Über "schrift', 'code', 'tag', 'kind'], with_index => false);
        create table same (like docs);
        select enable_semantic_search('same', array['Über "schrift', 'code', 'tag', 'kind'], with_index => false)"""
    )
    connection.execute("call embed_backfill('docs')")
    connection.execute("insert into same select id, \"Über \"\"schrift\", code, tag, kind from docs")
    differ = "select count(*) from docs d join same s using (id) where d.embedding is distinct from s.embedding"
    assert one(connection, differ) == 0
    nothing = one(connection, "select count(*) from docs where embedding is null")
    assert nothing == one(connection, "select count(*) from generate_series(1, 211) i where i % 2 > 0 and i % 3 > 0 and i % 7 > 0")
    assert nothing > 0


def test_names_that_need_quotes(connection):
    connection.execute(
        """create schema "My ""Schema"; create table "My ""Schema"."my 'docs" ("select" text, "Em bed" vector(384));
        insert into "My ""Schema"."my 'docs" select 'text ' || i from generate_series(1, 40) i;
        select enable_semantic_search('"My ""Schema"."my ''docs"', '{select}', 'Em bed', with_index => false)"""
    )
    table = '"My ""Schema"."my \'docs"'
    connection.execute("call embed_backfill('\"My \"\"Schema\".\"my ''docs\"')")
    assert wrong(connection, table, '"select"', '"Em bed"') == 0
    connection.execute(f'set gte_small.own_vectors = on; update {table} set "Em bed" = null')
    assert one(connection, "select embed_backfill_step('\"My \"\"Schema\".\"my ''docs\"')") == 40
    assert one(connection, "select missing from embedding_status('\"My \"\"Schema\".\"my ''docs\"')") == 0
    assert one(connection, "select wrong from embed_verify('\"My \"\"Schema\".\"my ''docs\"')") == 0


@pytest.mark.parametrize("definition", ["id int, content text", "a int, b text default 'x', content text, primary key (a, b)"])
def test_tables_without_and_with_a_composite_key(connection, definition):
    columns = "id, content" if "id" in definition else "a, content"
    connection.execute(f"create table docs ({definition}, embedding vector(384));"
                       f"insert into docs ({columns}) select i, 'text ' || i from generate_series(1, 100) i;"
                       "insert into docs select * from docs where false; select enable_semantic_search('docs', with_index => false)")
    connection.execute("call embed_backfill('docs')")
    assert wrong(connection) == 0 and missing(connection) == 0


def test_two_embedding_columns(connection):
    connection.execute(
        "create table docs (title text, content text, of_title vector(384), embedding vector(384));"
        "insert into docs select 't' || i, 'c' || i from generate_series(1, 90) i;"
        "select enable_semantic_search('docs', '{title}', 'of_title', false, 'query_titles');"
        "select enable_semantic_search('docs', with_index => false)"
    )
    connection.execute("call embed_backfill('docs', embedding => 'of_title')")
    assert missing(connection) == 90 and wrong(connection, text="title", embedding="of_title") == 0
    connection.execute("set gte_small.own_vectors = on; update docs set of_title = null where title < 't5'")
    connection.execute("call embed_backfill('docs')")
    assert wrong(connection) == 0 and wrong(connection, text="title", embedding="of_title") == 0
    diag = refused(connection, "call embed_backfill('docs', embedding => 'other')", "42703")
    assert "other" in diag.message_primary


PARTITIONED = """
    create schema elsewhere;
    create table docs (id int, gone int, content text, embedding vector(384)) partition by range (id);
    alter table docs drop column gone;
    create table docs_1 partition of docs for values from (0) to (100);
    create table elsewhere.docs_2 (content text, trash int, embedding vector(384), id int);
    alter table elsewhere.docs_2 drop column trash;
    alter table docs attach partition elsewhere.docs_2 for values from (100) to (200);
    create table docs_3 partition of docs for values from (200) to (400) partition by list (id);
    create table docs_3_rest partition of docs_3 default;
    insert into docs (id, content) select i, 'text ' || i from generate_series(0, 399) i;
    select enable_semantic_search('docs', with_index => false);
"""


def test_partitions_of_any_schema_and_shape(connection):
    connection.execute(PARTITIONED)
    connection.execute("call embed_backfill('docs')")
    assert missing(connection) == 0 and wrong(connection) == 0
    assert note(connection)["fingerprint"] == fingerprint(connection)
    connection.execute("set gte_small.own_vectors = on; update docs set embedding = null")
    connection.execute("call embed_backfill('elsewhere.docs_2')")
    assert missing(connection) == 300 and missing(connection, "elsewhere.docs_2") == 0
    steps = []
    while not steps or steps[-1] > 0:
        steps.append(one(connection, "select embed_backfill_step('docs', 64)"))
        assert len(steps) < 100
    assert sum(steps) == 300 and wrong(connection) == 0


def test_a_foreign_table_is_left_out_with_a_notice(connection):
    connection.execute(PARTITIONED)
    connection.execute(
        "create foreign data wrapper nowhere; create server far foreign data wrapper nowhere;"
        "create foreign table docs_far partition of docs for values from (400) to (500) server far"
    )
    with notices(connection) as heard:
        connection.execute("call embed_backfill('docs')")
    assert any("docs_far" in message for _, message in heard)
    assert wrong(connection, "docs_1") == wrong(connection, "elsewhere.docs_2") == wrong(connection, "docs_3") == 0


def test_a_child_by_inheritance_is_another_table(connection):
    make(connection, 50)
    connection.execute("create table child () inherits (docs); insert into child select i, 'child ' || i from generate_series(1, 30) i")
    connection.execute("call embed_backfill('docs')")
    assert missing(connection, "only docs") == 0 and missing(connection, "child") == 30


# --- errors ---


def test_a_transaction_block_is_refused_before_any_work(database, connection):
    make(connection, 20)
    before = counters(connection)
    with database.connect(autocommit=False) as other:
        diag = refused(other, "call embed_backfill('docs')", "2D000")
        assert "embed_backfill_step" in diag.message_hint and "transaction block" in diag.message_primary
    for wrapped in ("do $$ begin perform 1; execute 'call embed_backfill(''docs'')'; end $$",
                    "select 1; call embed_backfill('docs')"):
        assert "transaction block" in refused(connection, wrapped, "2D000").message_primary
    assert counters(connection) == before and missing(connection) == 20
    connection.execute("do $$ begin call embed_backfill('docs'); end $$")
    assert wrong(connection) == 0, "a DO block that is no transaction block may commit"


def test_repeatable_read_is_refused(connection):
    make(connection, 20)
    connection.execute("set default_transaction_isolation = 'repeatable read'")
    for call in ("call embed_backfill('docs')", "select embed_backfill_step('docs')"):
        assert "read committed" in refused(connection, call, "25000").message_hint
    assert missing(connection) == 20


def test_arguments_that_make_no_sense(connection):
    make(connection, 1)
    connection.execute("create table plain (content text)")
    assert "enable_semantic_search" in refused(connection, "call embed_backfill('plain')", "42703").message_hint
    refused(connection, "select embed_backfill_step('plain')", "42703")
    refused(connection, "call embed_backfill('docs', 0)", "22023")
    refused(connection, "call embed_backfill('docs', null)", "22004")
    refused(connection, "call embed_backfill(null)", "22004")


def test_no_model(database, server):
    connection = database.connect()
    make(connection, 5)
    database.configure("gte_small.model_path", server.scratch / "nowhere")
    other = database.connect()
    refused(other, "call embed_backfill('docs')", "58P01")
    assert missing(connection) == 5


def test_a_text_too_long_is_named_and_keeps_no_other_from_its_embedding(connection):
    make(connection, 200)
    connection.execute("update docs set content = repeat('word ', 5000) where id in (50, 60)")
    connection.execute("set gte_small.own_vectors = on; update docs set embedding = null; set gte_small.on_truncate = 'error'")
    diag = refused(connection, "call embed_backfill('docs')", "22001")
    assert diag.message_primary == "2 rows of public.docs.embedding could not be embedded: (id)=(50), (id)=(60)"
    assert "on_truncate" in diag.message_hint
    assert connection.execute("select id from docs where embedding is null order by id").fetchall() == [(50,), (60,)]
    with notices(connection) as heard:
        assert one(connection, "select embed_backfill_step('docs')") == 0
    assert [message.partition(":")[0] for severity, message in heard if severity == "WARNING"] == ["2 rows of public.docs.embedding could not be embedded"]
    connection.execute("set gte_small.on_truncate = 'silent'")
    connection.execute("call embed_backfill('docs')")
    assert wrong(connection) == 0


def test_a_trigger_that_forbids_the_update_does_not_keep_it_going_forever(connection):
    make(connection, 60)
    connection.execute(
        "create function no() returns trigger language plpgsql as 'begin if new.id > 50 then return null; end if; return new; end';"
        "create trigger no before update on docs for each row execute function no()"
    )
    with notices(connection) as heard:
        connection.execute("call embed_backfill('docs')")
    assert missing(connection) == 10 and any("10 rows" in message for _, message in heard)


def test_the_users_triggers_fire_with_his_search_path(connection):
    connection.execute("create schema mine; set search_path = mine, public; create table seen (id int)")
    make(connection, 30)
    connection.execute(
        "create function note_it() returns trigger language plpgsql as 'begin insert into seen values (new.id); return new; end';"
        "create trigger note_it after update on docs for each row execute function note_it()"
    )
    connection.execute("call embed_backfill('docs')")
    assert one(connection, "select count(distinct id) from seen") == 30
    connection.execute("truncate seen; set gte_small.own_vectors = on; update docs set embedding = null; truncate seen")
    assert one(connection, "select embed_backfill_step('docs')") == 30
    assert one(connection, "select count(*) from seen") == 30


def test_a_disabled_trigger_changes_nothing(connection):
    make(connection, 30)
    connection.execute("alter table docs disable trigger all")
    connection.execute("call embed_backfill('docs')")
    assert wrong(connection) == 0 and missing(connection) == 0


def test_a_statement_timeout_leaves_whole_batches(connection):
    make(connection, 4000)
    connection.execute("set statement_timeout = '100ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("call embed_backfill('docs')")
    connection.execute("reset statement_timeout")
    assert missing(connection) > 0
    assert one(connection, "select count(*) from docs where embedding is not null and embedding <> embed(content)") == 0
    connection.execute("call embed_backfill('docs')")
    assert wrong(connection) == 0


# --- rights and planted objects ---


def test_a_role_fills_the_rows_it_may_see_and_change(database, connection):
    make(connection, 40)
    connection.execute(
        "grant select, update on docs to gte_plain; grant select on docs to gte_reader;"
        "alter table docs enable row level security; create policy low on docs to gte_plain using (id <= 10)"
    )
    database.connect("gte_plain").execute("call embed_backfill('docs')")
    assert missing(connection) == 30
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.connect("gte_reader").execute("call embed_backfill('docs')")
    assert one(connection, "select embed_backfill_step('docs')") == 30


PLANTED = """
    create table public.caught (what text);
    grant all on public.caught to public;
"""


def test_planted_functions_and_operators_change_nothing(database, connection):
    """Objects that a role with CREATE on public can create to hide those of pg_catalog, if the search_path allows it."""
    make(connection, 120)
    connection.execute(PLANTED)
    trap = "begin insert into public.caught values ('{}'); return {}; end"
    for name, arguments, result, value in [
        ("cardinality", "anyarray", "int", "0"), ("array_append", "text[], text", "text[]", "$1"),
        ("octet_length", "text", "int", "1"), ("concat_ws", "text, text", "text", "$1"), ("format", "text, text", "text", "$1"),
        ("unnest", "tid[]", "tid", "null"), ("pg_sleep", "float8", "void", ""), ("set_config", "text, text, boolean", "text", "$2"),
        ("clock_timestamp", "", "timestamptz", "null"), ("embed", "varchar[]", "text", "null"), ("count", "bigint", "bigint", "0"),
    ]:
        connection.execute(f"create function public.{name}({arguments}) returns {result} language plpgsql as $f$"
                           + trap.format(name, value) + "$f$")
    for operator, left, right, result in [
        ("=", "tid", "tid", "boolean"), (">=", "tid", "tid", "boolean"), ("<", "tid", "tid", "boolean"), ("=", "text", "text", "boolean"),
        (">", "int", "int", "boolean"), ("<=", "int", "int", "boolean"), ("+", "float8", "int", "float8"), ("||", "text", "text", "text"),
        (">", "float8", "int", "boolean"), (">=", "int", "int", "boolean"), ("-", "timestamptz", "timestamptz", "interval"),
        ("<>", "text", "text", "boolean"), ("+", "int", "int", "int"), ("=", "xid", "xid", "boolean"), ("-", "int", "int", "int"),
    ]:
        value = {"boolean": "false", "float8": "0", "int": "0", "text": "''", "interval": "null"}[result]
        name = f"trap_{abs(hash((operator, left, right)))}"
        connection.execute(f"create function public.{name}({left}, {right}) returns {result} language plpgsql as $f$"
                           + trap.format(name, value) + f"$f$; create operator public.{operator} (function = public.{name}, leftarg = {left}, rightarg = {right})")
    other = database.connect()
    other.execute("set search_path = public, pg_catalog")
    other.execute("call embed_backfill('docs')")
    other.execute("set gte_small.own_vectors = on; update docs set embedding = null")
    other.execute("select embed_backfill_step('docs')")
    other.execute("call embed_backfill('docs', force => true)")
    for question in ("embedding_status('docs')", "embed_verify('docs')", "suggest_threshold('docs')"):
        other.execute(f"select * from {question}")
    other.execute("set search_path = pg_catalog, public")
    assert other.execute("select what from caught").fetchall() == []
    assert missing(other) == 0 and wrong(other) == 0


# --- plans ---


def test_places_are_visited_one_by_one_in_a_large_table_that_was_never_analyzed(connection):
    connection.execute("create table docs (id int, content text, embedding vector(384)) with (fillfactor = 10, autovacuum_enabled = off);"
                       "insert into docs select i, 'text ' || i from generate_series(1, 60000) i;"
                       "select enable_semantic_search('docs', with_index => false)")
    connection.execute(
        """create function plans(out reading text, out writing text) language plpgsql as $$
        declare job gte_small.backfill_job; statements record; line text; places tid[];
        begin
          job := gte_small.backfill_range((gte_small.backfill_jobs('docs', 256, false, null))[1]);
          select * into statements from gte_small.backfill_statements(job);
          for line in execute 'explain ' || statements.reading using job.at, job.upto, job.skipped, job.own, job.since, '{}'::tid[] loop reading := concat_ws(E'\n', reading, line); end loop;
          places := array(select ctid from docs limit 256);
          for line in execute 'explain ' || gte_small.backfill_writing(job) using places, array_fill(embed('x'), array[256]) loop
            writing := concat_ws(E'\n', writing, line);
          end loop;
        end $$"""
    )
    for prepare in ("select 1", "create index on docs (id) where embedding is null", "vacuum analyze docs"):
        connection.execute(prepare)
        reading, writing = connection.execute("select * from plans()").fetchone()
        assert "Tid Range Scan" in reading, reading
        assert "Nested Loop" in writing and "Tid Scan" in writing and "Seq Scan" not in writing, writing
