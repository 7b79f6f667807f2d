"""`sql/chunks.sql`: long documents kept as chunks by a trigger, and searched."""

import pathlib

import psycopg
import pytest

from measure import counting, one

PARAGRAPHS = ["The cat sleeps on the sofa all day. ", "Invoices are due within thirty days. ", "A backup runs every night at two. "]


def filler(n):
    return " ".join(f"Sentence {n} number {i} says very little." for i in range(60)) + "\n\n"


@pytest.fixture
def documents(database, connection):
    database.configure("gte_small.model_path", database.server.minilm)
    connection = database.connect()
    connection.execute(database.server.chunks_sql.read_text())
    return connection


def add(connection, title, content):
    return one(connection, "insert into documents (title, content) values (%s, %s) returning id", [title, content])


def kept(connection, document):
    return connection.execute(
        "select ctid::text, ordinal, start, content, embedding::text from chunks where document_id = %s order by ordinal", [document]
    ).fetchall()


def true_to_the_text(connection):
    """The chunks of each document are those of its text, each with the embedding of its text."""
    assert one(connection, "select count(*) from chunks c join documents d on d.id = c.document_id "
                           "where substr(d.content, start, length(c.content)) <> c.content or token_count(c.content) > 256 "
                           "or embedding::text is distinct from embed(c.content)::text") == 0
    assert one(connection, "select count(*) from documents d where content <> coalesce((select string_agg(c.content, '' "
                           "order by ordinal) from chunks c where c.document_id = d.id), '')") == 0


def test_chunks_follow_their_document(documents):
    first = add(documents, "a", filler(1) + PARAGRAPHS[0] + filler(2))
    add(documents, "b", "short")
    add(documents, "c", "")
    assert len(kept(documents, first)) > 3
    true_to_the_text(documents)
    documents.execute("update documents set content = content || %s where id = %s", [filler(3), first])
    true_to_the_text(documents)
    documents.execute("update documents set content = 'now short' where id = %s", [first])
    assert len(kept(documents, first)) == 1
    documents.execute("update documents set content = '' where id = %s", [first])
    assert kept(documents, first) == []
    true_to_the_text(documents)
    documents.execute("delete from documents")
    assert one(documents, "select count(*) from chunks") == 0


def test_what_did_not_change_is_not_embedded_again(documents):
    document = add(documents, "a", "".join(filler(n) for n in range(4)))
    before = kept(documents, document)
    documents.execute("set gte_small.memo_size = 0")
    with counting(documents) as counted:
        documents.execute("update documents set title = 'b', content = content")
    assert counted.texts == 0 and kept(documents, document) == before
    # The end of the text changes: the rows of the chunks before it stay.
    with counting(documents) as counted:
        documents.execute("update documents set content = content || 'One more.'")
    after = kept(documents, document)
    assert counted.texts == 1 and after[:len(before) - 1] == before[:-1]
    # A new first chunk: all other chunks move and keep their vectors.
    with counting(documents) as counted:
        documents.execute("update documents set content = %s || content", [filler(9)])
    moved = kept(documents, document)
    assert 0 < counted.texts <= len(moved) - len(after) + 1 < len(after)
    true_to_the_text(documents)


def test_each_document_is_found_once_with_its_best_part(documents):
    for n, paragraph in enumerate(PARAGRAPHS):
        add(documents, f"about {n}", filler(n) + paragraph + filler(n + 10))
    rows = documents.execute("select (document).title, chunk, start, similarity from query_documents('when do I have to pay?', null, 3)").fetchall()
    assert len(rows) == 3 and len({title for title, *_ in rows}) == 3
    title, chunk, start, similarity = rows[0]
    assert title == "about 1" and PARAGRAPHS[1].strip() in chunk
    assert one(documents, "select substr(content, %s, %s) from documents where title = 'about 1'", [start, len(chunk)]) == chunk
    assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)
    assert similarity == pytest.approx(one(documents, "select -(embed(%s) <#> embed('when do I have to pay?'))", [chunk]), abs=1e-5)
    # Exact, independent of the index.
    best = documents.execute("select document_id from chunks group by 1 order by min(embedding <#> embed('when do I have to pay?'))").fetchall()
    assert documents.execute("select (document).id from query_documents('when do I have to pay?', null, 3)").fetchall() == best
    # With a threshold, by name, with no threshold, and with a wrong argument.
    found = documents.execute("select similarity from query_documents(search => 'when do I have to pay?', match_threshold => %s)", [rows[1][3]]).fetchall()
    assert found == [(similarity,)]
    assert documents.execute("select * from query_documents('x', null, 0)").fetchall() == []
    assert len(documents.execute("select * from query_documents('x', null, null)").fetchall()) == 3
    for wrong in ("match_threshold => 1.5", "match_count => -1"):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            documents.execute(f"select * from query_documents('x', {wrong})")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        documents.execute("select * from query_documents(' ')")


def test_documents_with_many_near_parts_leave_room_for_others(documents):
    """The nearest hundred chunks belong to one document, and the search wants three documents."""
    documents.execute("set gte_small.precision = 'f32'")
    add(documents, "many", "".join(f"The cat number {i} sleeps on a sofa. ".ljust(40) + "\n\n" for i in range(1500)))
    for other in ("one", "two", "three"):
        add(documents, other, f"Quarterly figures, part {other}.")
    assert one(documents, "select count(*) from chunks where document_id = 1") > 40
    titles = [t for t, in documents.execute("select (document).title from query_documents('a cat on a sofa', null, 3)")]
    assert titles[0] == "many" and len(set(titles)) == 3


def test_the_search_uses_the_index_and_runs_the_model_once(documents):
    documents.execute(
        "set session_replication_role = replica; insert into documents (title, content) select 'd', 'x' from generate_series(1, 1500); "
        "insert into chunks (document_id, ordinal, start, content, embedding) select id, n, 1, 'x', "
        "(select array_agg(sin(id * 31 + n * 7 + k)) from generate_series(1, 384) k)::vector from documents, generate_series(1, 2) n; "
        "reset session_replication_role; analyze documents; analyze chunks; set gte_small.memo_size = 0")
    index = one(documents, "select indexrelid::regclass::text from pg_index i join pg_class c on c.oid = indexrelid "
                           "join pg_am a on a.oid = relam where indrelid = 'chunks'::regclass and amname = 'hnsw'")
    plan = "\n".join(line for line, in documents.execute(
        "explain select document_id from chunks order by embedding <#> (select embedding from chunks limit 1) limit 40"))
    assert index in plan, plan
    for search in ("select * from query_documents('a cat', null, 5)", "select * from (values ('a cat')) v (s), query_documents(s, null, 5)"):
        # More often than PostgreSQL needs to try a generic plan.
        for _ in range(7):
            with documents.transaction(), counting(documents) as counted:
                assert len(documents.execute(search).fetchall()) == 5
                scans, reads = documents.execute(
                    f"select pg_stat_get_xact_numscans('{index}'::regclass), pg_stat_get_xact_numscans('chunks'::regclass)").fetchone()
            assert scans >= 1 and reads == 0, "the table was scanned"
            assert counted.texts == 1
    # The nearest chunk is beyond the threshold, so no more chunks are read.
    with documents.transaction():
        before = one(documents, "select pg_stat_get_xact_numscans('chunks'::regclass)")
        assert documents.execute("select * from query_documents('a cat', 0.9999, 5)").fetchall() == []
        assert one(documents, "select pg_stat_get_xact_numscans('chunks'::regclass)") == before


def test_row_level_security_of_the_documents_holds(database, documents):
    documents.execute(
        "alter table documents add owner name default current_user; create policy own on documents using (owner = current_user); "
        "grant select, insert, update, delete on documents to gte_plain, gte_reader; grant select on chunks to gte_plain, gte_reader")
    plain, reader = database.connect("gte_plain"), database.connect("gte_reader")
    add(plain, "plain's", filler(1) + PARAGRAPHS[0])
    add(reader, "reader's", filler(2) + PARAGRAPHS[0])
    for connection, title in ((plain, "plain's"), (reader, "reader's")):
        rows = connection.execute("select (document).title from query_documents('a cat on the sofa', null, 10)").fetchall()
        assert rows == [(title,)]
        assert connection.execute("select distinct d.title from chunks join documents d on d.id = document_id").fetchall() == [(title,)]
        assert one(connection, "select count(distinct document_id) from chunks") == 1
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        plain.execute("insert into chunks (document_id, ordinal, start, content) select 1, 99, 1, 'forged'")
    plain.execute("update documents set content = 'changed'; delete from documents")
    assert one(documents, "select count(distinct document_id) from chunks") == 1
    true_to_the_text(documents)
    # The owner's search is not restricted.
    assert len(documents.execute("select * from query_documents('a cat', null, 10)").fetchall()) == 1


def test_run_again_and_beside_what_is_there(database, documents):
    document = add(documents, "a", filler(1))
    before = kept(documents, document)
    documents.execute(database.server.chunks_sql.read_text())
    assert kept(documents, document) == before
    documents.execute("create schema other; set search_path = other, public; "
                      "create table documents (id bigint primary key, content text, document_id int); insert into documents values (7, 'A cat.')")
    documents.execute(database.server.chunks_sql.read_text())
    documents.execute("call embed_backfill('chunks')")
    assert one(documents, "select count(*) from other.chunks") == 1
    documents.execute("update documents set content = 'A dog.', document_id = 1; insert into documents values (8, null)")
    assert documents.execute("select (document).id, chunk from other.query_documents('dog')").fetchall() == [(7, "A dog.")]
    # Another schema and planted objects change nothing.
    documents.execute("set search_path = pg_temp; create function pg_temp.chunk_text(text) returns setof int language sql as 'select 1/0'")
    documents.execute("update other.documents set content = 'A cow.' where id = 7")
    assert one(documents, "select content from other.chunks") == "A cow."
    documents.execute('drop extension "gte-small" cascade')
    assert one(documents, "select count(*) from other.documents") == 2


def test_restored_as_it_was(database, documents):
    """A dump loads rows in any order and with their vectors."""
    add(documents, "a", filler(1))
    with counting(documents) as counted:
        documents.execute("create table c as table chunks; create table d as table documents; delete from documents; "
                          "set session_replication_role = replica; insert into documents overriding system value table d; insert into chunks table c; "
                          "reset session_replication_role")
    assert counted.texts == 0
    true_to_the_text(documents)


def test_a_schema_name_is_never_read_as_sql(server, connection):
    evil = "$body$; drop table kept; --"
    connection.execute(f'create table kept (); create schema "{evil}"; set search_path = "{evil}", public')
    connection.execute(server.chunks_sql.read_text())
    connection.execute("insert into documents (content) values ('a cat')")
    assert one(connection, "select chunk from query_documents('a cat')") == "a cat"
    assert one(connection, "select to_regclass('public.kept') is not null")


def test_the_form_of_0_1_0_is_brought_over(database):
    """The tables, their grants and the embeddings stay, and a reader can no longer write chunks."""
    database.configure("gte_small.model_path", database.server.minilm)
    connection = database.connect()
    connection.execute((pathlib.Path(__file__).parent / "released" / "chunks-0.1.0.sql").read_text())
    connection.execute("insert into documents (title, content) values ('a', 'a cat'), ('b', %s)", [filler(1)])
    connection.execute("grant select, insert, update, delete on documents to gte_plain; grant select, insert, delete on chunks to gte_plain; "
                       "create policy everybody on documents using (true)")
    before = kept(connection, 2)
    index = one(connection, "select array_agg(indexrelid order by 1) from pg_index where indrelid = 'chunks'::regclass")
    with counting(connection) as counted:
        connection.execute(database.server.chunks_sql.read_text())
    assert counted.texts == 0 and kept(connection, 2) == before
    assert one(connection, "select array_agg(indexrelid order by 1) from pg_index where indrelid = 'chunks'::regclass") == index
    assert one(connection, "select array_agg(polcmd::text) from pg_policy where polrelid = 'chunks'::regclass") == ["r"]
    plain = database.connect("gte_plain")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        plain.execute("insert into chunks (document_id, ordinal, start, content) values (1, 2, 9, 'forged')")
    plain.execute("delete from chunks")
    assert kept(connection, 2) == before
    plain.execute("update documents set content = 'a dog' where id = 1")
    assert plain.execute("select (document).title, chunk from query_documents('a dog', null, 1)").fetchall() == [("a", "a dog")]
    # The search of the chunks by themselves is there as before.
    assert one(plain, "select content from query_chunks('a dog', null, 1)") == "a dog"
    connection.execute("update documents set title = 'c', content = content || 'One more.'")
    true_to_the_text(connection)
    before = kept(connection, 2)
    connection.execute(database.server.chunks_sql.read_text())
    assert kept(connection, 2) == before
