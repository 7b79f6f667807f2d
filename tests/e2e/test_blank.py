"""Blank texts: NULL from trigger and backfill, and not missing. White space is what Rust's char::is_whitespace says."""

import pytest

from backfills import make, refused
from measure import counting, one, unit_axis
from test_status import status, verified
from test_trigger_rule import TABLE, runs, stored

BLANK = ["", " ", "\t\r\n\x0b\x0c", "\u00a0", "\u0085\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000", " " * 5000 + "\u3000"]
NOT_BLANK = ["x", " x ", "\u200b", "\ufeff", "\u00ad", "é", " " * 5000 + "x", "\u2000" * 400 + "\u2001é", "\u180e"]


@pytest.fixture
def notes(connection):
    connection.execute(TABLE)
    connection.execute("set gte_small.memo_size = 0")
    return connection


def test_what_is_blank(connection):
    for texts, blank in ((BLANK, True), (NOT_BLANK, False)):
        for text in texts:
            assert one(connection, "select gte_small.is_blank(%s)", [text]) is blank, repr(text)
    assert one(connection, "select gte_small.is_blank(null)") is None


def test_every_character(connection):
    """By Unicode's property White_Space. PostgreSQL stores neither U+0000 nor surrogates."""
    white = connection.execute("select i from generate_series(1, 65535) i where i not between 55296 and 57343 and gte_small.is_blank(chr(i)) order by 1").fetchall()
    assert [i for i, in white] == [9, 10, 11, 12, 13, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]


@pytest.mark.parametrize("storage", ["main", "external", "extended"])
def test_of_a_text_that_is_stored_apart(connection, storage):
    connection.execute(f"create table t (n int, x text); alter table t alter x set storage {storage}; "
                       "insert into t values (1, repeat(' ', 300000)), (2, repeat(' ', 300000) || 'x'), (3, 'x' || repeat(' ', 300000)), "
                       "(4, repeat(chr(8192), 100000)), (5, repeat(chr(8192), 100000) || 'x')")
    assert connection.execute("select gte_small.is_blank(x) from t order by n").fetchall() == [(b,) for b in (True, False, False, True, False)]


@pytest.mark.parametrize("encoding, blank, other", [
    ("LATIN1", r"\xa0", r"\xe9"), ("EUC_JP", r"\xa1a1", r"\xa1a2"), ("SQL_ASCII", r"\xe38080", r"\xff"),
    ("SQL_ASCII", r"\x20", r"\xe380"), ("EUC_JIS_2004", r"\xa1a1", r"\xa4f7"), ("WIN1251", r"\xa0", r"\xc0"),
])
def test_other_encodings(encoded, encoding, blank, other):
    connection = encoded(encoding)
    text = "select gte_small.is_blank(' ' || convert_from('{}', '{}'))"
    assert one(connection, text.format(blank, encoding)) is True
    assert one(connection, text.format(other, encoding)) is False


# --- the trigger ---


@pytest.mark.parametrize("text", BLANK)
def test_it_gets_no_embedding(notes, text):
    assert runs(notes, "insert into notes (id, content) values (1, %s)", [text]) == 0
    assert stored(notes) is None
    notes.execute("update notes set content = 'a cat'")
    assert runs(notes, "update notes set content = %s", [text]) == 0
    assert stored(notes) is None


def test_embed_itself_takes_it(connection):
    assert one(connection, "select vector_dims(embed('')) + vector_dims(embed(' '))") == 768


def test_several_sources(connection):
    connection.execute("create table notes (id int, title text, body text, embedding vector(384)); create trigger zzz_gte_small_embedding "
                       "before insert or update on notes for each row execute function embed_trigger('embedding', 'title', 'body')")
    connection.execute("insert into notes values (1, ' ', ''), (2, null, ' '), (3, ' ', 'a')")
    assert stored(connection, 1) is None and stored(connection, 2) is None
    assert stored(connection, 3) == one(connection, r"select embed(E' \na')::text")


# --- status, backfill, verify ---


@pytest.fixture
def docs(connection):
    make(connection, 6, insert="select i, (array['a', '', ' ', E'\\t', chr(160), 'b'])[i] from generate_series(1, {}) i")
    return connection


def test_it_is_not_missing(docs):
    assert (status(docs)["rows"], status(docs)["missing"]) == (6, 2)
    assert verified(docs)[1:4] == (2, 0, 2)
    docs.execute("set gte_small.memo_size = 0")
    with counting(docs) as counted:
        docs.execute("call embed_backfill('docs')")
    assert counted.texts == 2
    assert docs.execute("select id from docs where embedding is null order by id").fetchall() == [(2,), (3,), (4,), (5,)]
    assert status(docs)["missing"] == 0 and status(docs)["state"] == "current"
    assert one(docs, "select embed_backfill_step('docs')") == 0
    assert verified(docs) == ("embedding", 2, 0, 0, None)


def test_a_vector_beside_a_blank_text_is_wrong_and_force_takes_it_away(docs):
    """Version 0.1.0 embedded blank texts."""
    docs.execute("call embed_backfill('docs')")
    docs.execute("alter table docs disable trigger user; update docs set embedding = embed(content); alter table docs enable trigger user")
    assert verified(docs)[1:4] == (6, 4, 0)
    docs.execute("call embed_backfill('docs', force => true)")
    assert docs.execute("select id from docs where embedding is null order by id").fetchall() == [(2,), (3,), (4,), (5,)]
    assert verified(docs)[1:4] == (2, 0, 0)


def test_a_refused_text_loses_its_old_vector_under_force(docs):
    """The trigger keeps the old vector where NULL comes, but not where the backfill sets it."""
    docs.execute("call embed_backfill('docs')")
    docs.execute("set gte_small.on_truncate = silent; update docs set content = repeat('a b c ', 1000), embedding = null where id = 1")
    docs.execute("set gte_small.on_truncate = error")
    refused(docs, "call embed_backfill('docs', force => true)", "22001")
    assert stored(docs, 1, "docs") is None


def test_blank_rows_are_found_by_nobody(connection):
    connection.execute("create table docs (content text); select enable_semantic_search('docs', with_index => false); "
                       "insert into docs values ('a cat'), (''), (' ')")
    assert connection.execute("select content from query_docs(%s::vector, null)", [unit_axis(0)]).fetchall() == [("a cat",)]
