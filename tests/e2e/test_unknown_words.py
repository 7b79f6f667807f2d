"""Texts whose words the model's vocabulary does not have: status and verification say so."""

import contextlib

import pytest

from backfills import make
from measure import one
from test_status import status

UNKNOWN = "unknown words"
KNOWN = {"English": "the weather was fine on day ", "Russian": "привет мир ", "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
STRANGE = {"emoji": "😀 🎉 🚀 🧊 ", "Thai": "สวัสดีครับ ยินดีต้อนรับ ", "sha512": "a4abd4448c49562d828115d13a1fccea927f52b4d5459297f8b43e42da89238b" * 2,
           "Chinese": "我们使用这个模型来搜索文本"}


@contextlib.contextmanager
def diagnostics(connection):
    heard = []
    connection.add_notice_handler(lambda d: heard.append((d.message_primary, d.message_detail, d.message_hint)))
    yield heard


def hints(connection, table="docs"):
    return [hint for hint in status(connection, table)["hints"] if UNKNOWN in hint]


def fill(connection, text, rows=40):
    make(connection, rows, insert="select i, '%s' from generate_series(1, {}) i" % text)
    connection.execute("call embed_backfill('docs')")


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE.keys())
def test_unknown_words_are_told(minilm_database, text):
    connection = minilm_database.connect()
    with connection.transaction(force_rollback=True):
        connection.execute("create table docs (id int, content text); select enable_semantic_search('docs', with_index => false)")
        connection.execute("insert into docs select i, %s from generate_series(1, 20) i", [text])
        hint, = hints(connection)
        # The statement is one that PostgreSQL accepts.
        connection.execute(hint.partition(": ")[2])
        with diagnostics(connection) as heard:
            assert connection.execute("select checked, wrong from embed_verify('docs')").fetchone() == (20, 0)
        (fact, detail, action), = heard
        assert "does not know" in fact and detail and "gte_small.model_path" in action


@pytest.mark.parametrize("text", KNOWN.values(), ids=KNOWN.keys())
def test_known_words_are_not_told(minilm_database, text):
    connection = minilm_database.connect()
    with connection.transaction(force_rollback=True):
        connection.execute("create table docs (id int, content text); select enable_semantic_search('docs', with_index => false)")
        connection.execute("insert into docs select i, %s from generate_series(1, 20) i", [text])
        assert hints(connection) == []
        with diagnostics(connection) as heard:
            connection.execute("select * from embed_verify('docs')")
        assert heard == []


def test_the_share_counts_neither_special_tokens_nor_the_prompt(connection, model_copy):
    (model_copy / "config_sentence_transformers.json").write_text('{"prompts": {"query": "query: ", "document": "a long prompt of many words: "}}')
    connection.execute("select set_config('gte_small.model_path', %s, false)", [str(model_copy)])
    assert one(connection, "select document_prompt from embed_model()")
    for text, counted in (("", (0, 0)), ("😀", (1, 1)), ("😀 😀", (2, 2)), ("[UNK]", (1, 1))):
        assert connection.execute("select unknown, tokens from gte_small.unknown_tokens(%s)", [text]).fetchone() == counted
    unknown, tokens = connection.execute("select unknown, tokens from gte_small.unknown_tokens('hello 😀')").fetchone()
    assert unknown == 1 and tokens == one(connection, "select token_count('hello 😀') - token_count('')")


def test_tokens_beyond_the_limit_do_not_count(connection):
    most = one(connection, "select max_tokens from embed_model()")
    assert connection.execute("select unknown, tokens from gte_small.unknown_tokens(repeat('😀 ', 10000))").fetchone() == (most - 2, most - 2)


def test_several_text_columns_partitions_and_long_texts(connection):
    connection.execute(
        "create table docs (id int, title text, body text) partition by range (id); create table docs_1 partition of docs for values from (0) to (100);"
        "select enable_semantic_search('docs', 'title, body', with_index => false);"
        "insert into docs select i, '😀', repeat('😀 ', 5000) from generate_series(1, 20) i; insert into docs values (21, null, '😀'), (22, null, null)")
    assert len(hints(connection)) == 1
    connection.execute("update docs set title = repeat('hello ', 100), body = null")
    assert hints(connection) == []


def test_a_large_table_is_sampled(connection):
    fill(connection, "😀", rows=3000)
    connection.execute("analyze docs")
    assert len(hints(connection)) == 1


def test_the_counters_of_the_session_stay(connection):
    fill(connection, "😀")
    before = connection.execute("select texts, tokens, unknown_tokens from embed_stats()").fetchone()
    status(connection)
    assert connection.execute("select texts, tokens, unknown_tokens from embed_stats()").fetchone() == before


def test_bytes_that_are_no_text_do_not_stop_the_status(encoded):
    connection = encoded("SQL_ASCII")
    connection.execute("set client_encoding = 'SQL_ASCII'; create table docs (id int, content text); select enable_semantic_search('docs', with_index => false)")
    connection.execute("set session_replication_role = replica; insert into docs values (1, convert_from('\\xff'::bytea, 'SQL_ASCII'))")
    assert connection.execute("select rows, missing from embedding_status('docs')").fetchone() == (1, 1)
