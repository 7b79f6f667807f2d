"""A renamed text or embedding column needs nothing: the note has the numbers of the columns, which a rename does not change."""

import psycopg
import pytest

from measure import one

SIMILAR = "select round((1 - ({column} <=> embed({text})))::numeric, 3) from {table} where id = {id}"


def heard_from(connection):
    heard = []
    connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    return heard


@pytest.fixture
def docs(connection):
    connection.execute("create table docs (gone int, id int primary key, title text, content text); alter table docs drop column gone; "
                       "select enable_semantic_search('docs', 'title, content'); insert into docs values (1, 'pets', 'a cat')")
    return connection


def embedded_as(connection, text, id=1, column="embedding"):
    return one(connection, f"select {column} is not distinct from embed(%s) from docs where id = {id}", [text])


def test_writes_go_on_after_a_rename(docs):
    heard = heard_from(docs)
    docs.execute("alter table docs rename content to body; insert into docs (id, title, body) values (2, 'pets', 'a dog')")
    docs.execute("update docs set body = 'two cats' where id = 1")
    assert embedded_as(docs, "pets\ntwo cats") and embedded_as(docs, "pets\na dog", 2)
    assert heard == []
    assert docs.execute("select embedding::text, content::text from embedding_columns('docs')").fetchall() == [("embedding", "{title,body}")]
    docs.execute("call embed_backfill('docs', force => true)")
    assert embedded_as(docs, "pets\ntwo cats")


def test_a_renamed_embedding_column(docs):
    docs.execute("alter table docs rename embedding to vec; insert into docs (id, title, content) values (2, 'pets', 'a dog')")
    assert embedded_as(docs, "pets\na dog", 2, "vec")
    docs.execute("update docs set content = 'two cats' where id = 1; set gte_small.defer = on; update docs set content = 'x' where id = 2")
    docs.execute("call embed_backfill('docs')")
    assert embedded_as(docs, "pets\ntwo cats", 1, "vec") and embedded_as(docs, "pets\nx", 2, "vec")
    assert one(docs, "select count(*) from embed_verify('docs') where embedding = 'vec'") == 1


def test_status_says_what_mends_the_functions_and_it_does(docs):
    docs.execute("alter table docs rename content to body; alter table docs rename embedding to vec")
    (state, hints) = docs.execute("select state, hints from embedding_status('docs')").fetchone()
    assert state == "current"
    assert any("enable_semantic_search" in hint and "title,body" in hint and "'vec'" in hint for hint in hints)
    heard = heard_from(docs)
    renewed = [row[0] for row in docs.execute("select renewed from refresh_semantic_search()").fetchall()]
    assert "trigger zzz_gte_small_vec" in renewed
    assert not any("other columns" in message for message in heard)
    assert one(docs, "select state from embedding_status('docs')") == "current"
    assert one(docs, "select hints from embedding_status('docs')") == []
    assert one(docs, "select body from search_docs('a cat', 1)") == "a cat"
    assert one(docs, "select (item).body from hybrid_docs('cat', 1)") == "a cat"
    assert one(docs, "select count(*) from pg_indexes where tablename = 'docs'") == 3
    assert docs.execute("select * from refresh_semantic_search()").fetchall() == []
    docs.execute("select disable_semantic_search('docs', 'vec')")
    assert one(docs, "select count(*) from pg_proc where proname ~ '_docs$'") == 0
    assert one(docs, "select count(*) from pg_indexes where tablename = 'docs'") == 1


def test_searches_that_name_no_renamed_column_go_on(docs):
    docs.execute("alter table docs rename content to body")
    assert one(docs, "select body from query_docs('a cat', null, 1)") == "a cat"
    assert one(docs, "select body from query_docs('a cat') limit 1") == "a cat"
    with pytest.raises(psycopg.errors.UndefinedColumn, match="content"):
        docs.execute("select * from search_docs('a cat')")


def test_enabling_with_the_earlier_names_is_understood(docs):
    docs.execute("alter table docs rename content to body; alter table docs rename embedding to vec")
    heard = heard_from(docs)
    docs.execute("select enable_semantic_search('docs', 'title, content')")
    assert 'column "content" of table public.docs is called "body" now' in heard
    assert 'column "embedding" of table public.docs is called "vec" now' in heard
    assert docs.execute("select embedding::text, content::text from embedding_columns('docs')").fetchall() == [("vec", "{title,body}")]
    assert one(docs, "select hints from embedding_status('docs')") == []


def test_disabling_without_mending_leaves_nothing(docs):
    docs.execute("alter table docs rename content to body; alter table docs rename embedding to vec; select disable_semantic_search('docs')")
    assert one(docs, "select count(*) from pg_proc where proname ~ '_docs$'") == 0
    assert one(docs, "select count(*) from pg_trigger where tgrelid = 'docs'::regclass") == 0
    assert one(docs, "select count(*) from pg_indexes where tablename = 'docs'") == 1


def test_a_name_that_the_table_has_wins(docs):
    docs.execute("alter table docs rename content to body; alter table docs add content text; "
                 "insert into docs (id, title, content, body) values (2, 'pets', 'a dog', 'a cat')")
    assert embedded_as(docs, "pets\na dog", 2)


def test_partitions_have_other_numbers(connection):
    connection.execute("""create table docs (id int, content text) partition by range (id);
        create table docs_1 partition of docs for values from (0) to (100);
        create table docs_2 (content text, gone text, other text, id int); alter table docs_2 drop column gone, drop column other;
        alter table docs attach partition docs_2 for values from (100) to (200);
        select enable_semantic_search('docs'); alter table docs rename content to body; alter table docs rename embedding to vec;
        insert into docs (id, body) values (1, 'a cat'), (101, 'a dog'); insert into docs_2 (id, body) values (102, 'a cow')""")
    for id, text in ((1, "a cat"), (101, "a dog"), (102, "a cow")):
        assert embedded_as(connection, text, id, "vec")
    assert one(connection, "select content::text from embedding_columns('docs_2')") == "{body}"
    connection.execute("select * from refresh_semantic_search()")
    assert one(connection, "select hints from embedding_status('docs')") == []
    assert one(connection, "select hints from embedding_status('docs_2')") == []
    connection.execute("update docs set body = 'a sheep' where id = 101")
    assert embedded_as(connection, "a sheep", 101, "vec")


def test_the_numbers_of_another_table_never_count(server, database, docs):
    docs.execute("alter table docs rename content to body")
    dump = server.cluster.tool("pg_dump", "--dbname", database.name).stdout
    target = server.create_database("template0")
    try:
        target.psql(dump.replace("INSERT", "insert"))
        restored = target.connect()
        # The numbers are of the first table; here the text is in another column.
        with pytest.raises(psycopg.errors.UndefinedColumn, match='"content" of relation "docs" does not exist') as error:
            restored.execute("insert into docs (id, title, body) values (2, 'pets', 'a dog')")
        assert "CREATE OR REPLACE TRIGGER" in error.value.diag.message_hint
        note = one(restored, "select obj_description(oid, 'pg_trigger') from pg_trigger where tgrelid = 'docs'::regclass")
        for place in ("1/" + str(one(restored, "select 'docs'::regclass::oid::text")), "", "/", "x", "7/1"):
            restored.execute("select gte_small.names_now('docs', '{content}', jsonb_build_object('table', %s::text, 'numbers', '{\"content\": 3}'::jsonb))", [place])
            assert one(restored, "select gte_small.names_now('docs', '{content}', jsonb_build_object('table', %s::text, 'numbers', "
                       "'{\"content\": 3}'::jsonb))::text", [place]) == "{content}"
        assert note.startswith("gte-small {")
        restored.execute("select enable_semantic_search('docs', 'title, body'); insert into docs (id, title, body) values (2, 'pets', 'a dog')")
        assert embedded_as(restored, "pets\na dog", 2)
        # From now on a rename needs nothing here either.
        restored.execute("alter table docs rename body to text; insert into docs (id, title, text) values (3, 'pets', 'a cow')")
        assert embedded_as(restored, "pets\na cow", 3)
    finally:
        target.drop()


@pytest.mark.parametrize("numbers", ['{"content": 99999}', '{"content": -1}', '{"content": 1}', '{"content": "3"}', '{"content": 1e99}', "[]", "3", "null", "{}"])
def test_a_broken_note_is_no_note(docs, numbers):
    docs.execute("alter table docs rename content to body")
    docs.execute("do $$ begin execute format('comment on trigger zzz_gte_small_embedding on docs is %L', 'gte-small ' || jsonb_build_object("
                 "'columns', jsonb_build_object('table', gte_small.table_place('docs'), 'numbers', '" + numbers + "'::jsonb))::text); end $$")
    with pytest.raises(psycopg.errors.UndefinedColumn, match='"content" of relation "docs" does not exist'):
        docs.execute("insert into docs (id, title, body) values (2, 'pets', 'a dog')")
    assert one(docs, "select content::text from embedding_columns('docs')") == "{title,content}"


def test_a_dropped_column_says_what_mends(docs):
    docs.execute("alter table docs drop column content")
    with pytest.raises(psycopg.errors.UndefinedColumn, match='"content" of relation "docs" does not exist') as error:
        docs.execute("insert into docs values (2, 'pets')")
    assert "The row was not stored" in error.value.diag.message_detail
    assert one(docs, "select state from embedding_status('docs')") == "broken"
    docs.execute("select enable_semantic_search('docs', 'title'); insert into docs values (2, 'pets')")
    assert embedded_as(docs, "pets", 2)


def test_a_trigger_written_by_hand_has_no_numbers(connection):
    connection.execute("create table docs (id int, content text, embedding vector(384)); "
                       "create trigger fills before insert or update on docs for each row execute function embed_trigger(); "
                       "alter table docs rename content to body")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        connection.execute("insert into docs values (1, 'a cat')")


def test_in_another_encoding(encoded):
    connection = encoded("LATIN1")
    connection.execute('create table docs (id int, "größe" text); select enable_semantic_search(\'docs\', \'größe\'); '
                       'alter table docs rename "größe" to "länge"; insert into docs values (1, \'a cat\')')
    assert embedded_as(connection, "a cat")
    assert one(connection, "select content[1]::text from embedding_columns('docs')") == "länge"
