"""enable_semantic_search(): how columns are named, options of the index, and what it says."""

import psycopg
import pytest

from measure import one

INDEXES = "select array_agg(indexdef order by indexdef) from pg_indexes where tablename = 'docs' and indexdef like '%hnsw%'"


@pytest.fixture
def docs(connection):
    connection.execute('create table docs (id int primary key, title text, body text, "A, b" text, "Say ""x""" text)')
    return connection


@pytest.mark.parametrize("content, expected", [
    ("body", ["body"]), ("title, body", ["title", "body"]), ("title,body", ["title", "body"]), (" {title,body} ", ["title", "body"]),
    ('{"A, b",body}', ["A, b", "body"]), ("A, b", ["A, b"]), ('"Say ""x""", body', ['Say "x"', "body"])])
def test_columns_are_named_as_one_writes_them(docs, content, expected):
    docs.execute("select enable_semantic_search('docs', %s)", [content])
    assert one(docs, "select content from embedding_columns('docs')") == expected


def test_typed_arrays_name_columns_too(docs):
    docs.execute("select enable_semantic_search('docs', array['title', 'body'])")
    docs.execute("select enable_semantic_search('docs', %s::text[])", [["title", "body"]])
    docs.execute("select enable_semantic_search('docs', content => '{title,body}'::name[])")
    assert one(docs, "select content from embedding_columns('docs')") == ["title", "body"]


@pytest.mark.parametrize("content, error", [("nothing", psycopg.errors.UndefinedColumn), ("title,", psycopg.errors.UndefinedColumn),
                                            ("", psycopg.errors.InvalidParameterValue), ("{title", psycopg.errors.UndefinedColumn),
                                            ('{"title}', psycopg.errors.InvalidParameterValue), ("{}", psycopg.errors.InvalidParameterValue),
                                            (None, psycopg.errors.NullValueNotAllowed), ("title; drop table docs", psycopg.errors.UndefinedColumn)])
def test_what_is_no_list_of_columns(docs, content, error):
    with pytest.raises(error) as raised:
        docs.execute("select enable_semantic_search('docs', %s)", [content])
    assert "othing was made" in raised.value.diag.message_detail and raised.value.diag.message_hint


def test_it_says_what_it_made_and_shows_a_search(docs):
    said = []
    docs.add_notice_handler(lambda notice: said.append((notice.message_primary, notice.message_hint)))
    docs.execute("select enable_semantic_search('docs', 'body')")
    message, hint = said[-1]
    for made in ("column embedding", "trigger zzz_gte_small_embedding", "index public.docs_embedding_idx", "function public.query_docs"):
        assert made in message
    docs.execute("insert into docs (id, body) values (1, 'a cat')")
    assert docs.execute(hint.removeprefix("Search it: ")).fetchall() != []
    said.clear()
    docs.execute("select enable_semantic_search('docs', 'body')")
    assert said == []


def test_options_are_those_of_the_index_and_a_second_call_keeps_them(docs):
    options = '{"m": 24, "ef_construction": 128}'
    docs.execute("select enable_semantic_search('docs', 'body', index_options => %s)", [options])
    (index,) = one(docs, INDEXES)
    assert "m='24'" in index and "ef_construction='128'" in index
    made = one(docs, "select 'docs_embedding_idx'::regclass::oid")
    docs.execute("select enable_semantic_search('docs', 'body')")
    docs.execute("select enable_semantic_search('docs', 'body', index_options => %s)", [options])
    assert one(docs, "select 'docs_embedding_idx'::regclass::oid") == made
    docs.execute("select enable_semantic_search('docs', 'body', index_options => '{\"m\": 8}')")
    (index,) = one(docs, INDEXES)
    assert "m='8'" in index and "ef_construction" not in index


def test_an_index_of_halfvec_serves_all_forms(docs):
    docs.execute("insert into docs (id, body) select i, 'text number ' || i from generate_series(1, 400) i")
    docs.execute("""select enable_semantic_search('docs', 'body', index_options => '{"type": "halfvec"}')""")
    docs.execute("call embed_backfill('docs')")
    docs.execute("analyze docs; set enable_seqscan = off")
    (index,) = one(docs, INDEXES)
    assert "halfvec(384)" in index and one(docs, "select index_present from embedding_status('docs')") is True
    vector = one(docs, "select embed_query('text number 7')::text")
    exact = [row[0] for row in docs.execute("select id from docs order by vector_negative_inner_product(embedding, %s::vector), id limit 5", [vector]).fetchall()]
    for call in ("select id from query_docs('text number 7', null, 5)", "select id from query_docs('text number 7') limit 5",
                 "select id from search_docs('text number 7', 5)", "select (item).id from hybrid_docs('text number 7', 5, 0)"):
        with docs.transaction():
            before = one(docs, "select pg_stat_get_xact_numscans(indexrelid) from pg_index i join pg_class c on c.oid = i.indexrelid "
                               "join pg_am a on a.oid = c.relam where indrelid = 'docs'::regclass and amname = 'hnsw'")
            found = [row[0] for row in docs.execute(call).fetchall()]
            after = one(docs, "select pg_stat_get_xact_numscans(indexrelid) from pg_index i join pg_class c on c.oid = i.indexrelid "
                              "join pg_am a on a.oid = c.relam where indrelid = 'docs'::regclass and amname = 'hnsw'")
        assert after == before + 1, call
        assert len(set(found) & set(exact)) >= 4 and found[0] == exact[0], call
    assert one(docs, "select recall from embedding_recall('docs', 5, 20)") > 0.8
    # And back.
    docs.execute("""select enable_semantic_search('docs', 'body', index_options => '{"type": "vector"}')""")
    (index,) = one(docs, INDEXES)
    assert "halfvec" not in index
    assert one(docs, "select hints from embedding_status('docs')") == []


@pytest.mark.parametrize("options", ['{"m": 1}', '{"m": 101}', '{"m": "x"}', '{"ef_construction": 8}', '{"type": "bit"}', '{"lists": 100}', "[]", "7",
                                     '{"m": 24.5}', '{"m": null}', '{"m": 64}'])
def test_options_that_no_index_can_have(docs, options):
    with pytest.raises(psycopg.errors.InvalidParameterValue) as error:
        docs.execute("select enable_semantic_search('docs', 'body', index_options => %s)", [options])
    assert "othing was made" in error.value.diag.message_detail
    assert one(docs, "select count(*) from pg_attribute where attrelid = 'docs'::regclass and attname = 'embedding'") == 0


def test_half_precision_leaves_out_no_row_at_the_threshold(docs):
    """The index orders rows whose cosines differ by less than half precision tells apart by chance."""
    docs.execute("""select enable_semantic_search('docs', 'body', index_options => '{"type": "halfvec"}')""")
    docs.execute("create table axis as select l2_normalize(array_agg(sin(n * n))::vector(384)) as u from generate_series(1, 384) n")
    # Each of the rows is the search, turned by the same angle and a little more, each in a direction of its own.
    docs.execute("insert into docs (id, body, embedding) select i, 'x', l2_normalize(u + w * array_fill(0.7 + i * 2e-5, array[384])::vector) from axis, "
                 "(select i, l2_normalize((select array_agg(cos(n * n * (i + 2))) from generate_series(1, 384) n)::vector) as w from generate_series(1, 60) i) s")
    docs.execute("analyze docs; set enable_seqscan = off; set hnsw.ef_search = 1000")
    search = one(docs, "select u::text from axis")
    rows = docs.execute("select id, -(embedding <#> %s::vector) from docs order by vector_negative_inner_product(embedding, %s::vector), id", [search] * 2).fetchall()
    for count in (3, 10, 20, 33):
        between = (rows[count - 1][1] + rows[count][1]) / 2
        for threshold in (between, None):
            found = docs.execute("select id from query_docs(%s::vector, %s, %s)", [search, threshold, count]).fetchall()
            assert [row[0] for row in found] == [row[0] for row in rows[:count]], (count, threshold)
