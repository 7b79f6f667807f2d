"""Input: NULL, empty, blank, huge and unusually encoded texts, and truncation at the token limit."""

import psycopg
import pytest
from psycopg import sql

from measure import counting, embedding, max_abs, memory_kb, one, processor_seconds, vector

# Ten million bytes, with and without a place to divide them.
HUGE = {"words": "repeat('lorem ipsum ', 833334)", "no spaces": "repeat('a', 10000000)",
        "blanks": "repeat(' ', 10000000)", "umlauts": "repeat('ä', 5000000)", "ideographs": "repeat('漢字', 1666667)",
        "punctuation": "repeat('.', 10000000)", "special tokens": "repeat('[SEP]', 2000000)"}


def test_null_is_null(connection):
    assert one(connection, "select embed(null::text)") is None
    assert one(connection, "select embed_query(null)") is None
    assert one(connection, "select embed(null::text[])") is None


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u3000", "\u200b", "\x01", "🙂", "e\u0301", "\ufffd", "\U0010ffff", "a" * 3000])
def test_odd_texts_have_a_unit_vector(connection, text):
    values = embedding(connection, text)
    assert abs(sum(value * value for value in values) - 1) < 1e-5


@pytest.mark.parametrize("text", ["", " ", "\n\t \r", "\u00a0", "\u3000\u2003"])
def test_blank_search(connection, text):
    with pytest.raises(psycopg.Error) as error:
        connection.execute("select embed_query(%s)", [text])
    assert error.value.sqlstate == "22023"


@pytest.mark.parametrize("text", ["[0.1,0.2]", " [1, -2e-3, 0.5]\n", "[" + ",".join(["0.05"] * 384) + "]"], ids=["short", "spaced", "whole"])
def test_vector_literal_as_search(tutorial, text):
    """An untyped parameter selects the text form, which refuses it and names the cast."""
    for statement in ("select embed_query(%s)", "select * from query_embeddings(%s, 0.8)",
                      "select * from query_embeddings(%s, 0.8, 3)"):
        with pytest.raises(psycopg.Error) as error:
            tutorial.execute(statement, [text])
        assert error.value.sqlstate == "22023"
        assert "::vector" in error.value.diag.message_hint


@pytest.mark.parametrize("text", ["[1] see note", "see [1,2]", "[a, b]", "[1,2", "[]", "[1,2][3]", "[TODO] milk",
                                  "[" + ",".join(["1"] * 16_001) + "]"])
def test_searches_that_only_look_like_a_vector(connection, text):
    assert one(connection, "select embed_query(%s)::text", [text]) == one(connection, "select embed(%s::text)::text", [text])


@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE.keys())
def test_ten_megabytes(minilm_database, text):
    """At most a second of work and 100 MB above the loaded model. The vector is that of the start of the text."""
    connection = minilm_database.connect()
    connection.execute("set gte_small.memo_size = 0; set jit = off; set client_min_messages = warning")
    embedding(connection, "load the model " * 300)
    one(connection, f"select length({text})")
    pid = connection.info.backend_pid
    seconds, memory = processor_seconds(pid), memory_kb(pid, "VmRSS")
    with counting(connection) as counted:
        huge = vector(connection, f"embed({text})")
    assert processor_seconds(pid) - seconds <= 1.0
    assert memory_kb(pid, "VmHWM") - memory <= 100 * 1024
    assert counted.texts == 1 and counted.tokens <= 256
    # 256 tokens have at most 60,000 characters.
    assert max_abs(huge, vector(connection, f"embed(left({text}, 60000))")) <= 1e-6
    connection.close()


def test_ten_megabytes_through_the_trigger_and_the_array(database, tutorial):
    tutorial.execute("insert into embeddings (content) values (repeat('lorem ipsum ', 833334))")
    assert one(tutorial, "select embedding = embed(repeat('lorem ipsum ', 1000)) from embeddings")
    assert one(tutorial, "select (embed(array[repeat('a ', 5000000), 'b']))[2]::text = embed('b')::text")


# --- the token limit ---


def test_on_truncate(connection):
    long = "word " * 600
    embedding(connection, "load the library")
    assert connection.execute("show gte_small.on_truncate").fetchone() == ("silent",)
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.severity_nonlocalized))
    with counting(connection) as counted:
        silent = embedding(connection, long)
    assert counted.truncated_texts == 1 and notices == []

    connection.execute("set gte_small.on_truncate = warning")
    assert embedding(connection, long + "other end") == silent
    assert notices == ["WARNING"]

    connection.execute("set gte_small.on_truncate = error")
    with pytest.raises(psycopg.Error) as error:
        embedding(connection, long + "third end")
    assert error.value.sqlstate == "22001"
    assert embedding(connection, "short") is not None


def test_on_truncate_applies_on_a_memo_hit(connection):
    long = "word " * 600
    embedding(connection, long)
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.severity_nonlocalized))
    connection.execute("set gte_small.on_truncate = warning")
    with counting(connection) as counted:
        embedding(connection, long)
    assert counted.memo_hits == 1 and notices == ["WARNING"]
    connection.execute("set gte_small.on_truncate = error")
    with pytest.raises(psycopg.Error) as error:
        embedding(connection, long)
    assert error.value.sqlstate == "22001"


def test_on_truncate_in_the_array_and_the_trigger(database, tutorial):
    tutorial.execute("set gte_small.on_truncate = error")
    for statement in ("select embed(array['short', repeat('word ', 600)])",
                      "insert into embeddings (content) values (repeat('word ', 600))"):
        with pytest.raises(psycopg.Error) as error:
            tutorial.execute(statement)
        assert error.value.sqlstate == "22001"
    assert one(tutorial, "select count(*) from embeddings") == 0


def test_text_at_the_limit_is_not_truncated(minilm):
    """254 words of one token each and the two specials fill all-MiniLM-L6-v2's 256."""
    minilm.execute("set gte_small.on_truncate = error")
    try:
        with counting(minilm) as counted:
            embedding(minilm, "cat " * 254)
        assert counted.tokens == 256
        with pytest.raises(psycopg.Error) as error:
            embedding(minilm, "cat " * 255)
        assert error.value.sqlstate == "22001"
    finally:
        minilm.execute("reset gte_small.on_truncate")


# --- arrays ---


def test_array_keeps_order_and_nulls(connection):
    rows = connection.execute(
        "select n, v is null, v::text = embed(t)::text from unnest(array['b', null, 'a much longer text than the others', "
        "'', 'b', null]) with ordinality as s(t, n) left join unnest(embed(array['b', null, 'a much longer text than "
        "the others', '', 'b', null])) with ordinality as e(v, n) using (n) order by n"
    ).fetchall()
    assert [null for _, null, _ in rows] == [False, True, False, False, False, True]


def test_array_form_is_batched(connection):
    """Fewer forward passes than texts, and equal texts of one call may share one."""
    connection.execute("set gte_small.memo_size = 0")
    with counting(connection) as counted:
        assert one(connection, "select array_length(embed(array_agg('text ' || i)), 1) from generate_series(1, 64) i") == 64
    assert counted.texts == 64 and 1 <= counted.model_runs < 64


def test_which_form_untyped_arguments_take(connection):
    assert one(connection, "select pg_typeof(embed('x'))::text") == "vector"
    assert one(connection, "select pg_typeof(embed(NULL))::text") == "vector"
    assert one(connection, "select pg_typeof(embed(array['x']))::text") == "vector[]"
    assert one(connection, "select pg_typeof(embed(%s))::text", ["{a,b}"]) == "vector"
    connection.execute("prepare untyped as select pg_typeof(embed($1))::text")
    assert one(connection, "execute untyped('x')") == "vector"


# --- encodings ---


TEXTS = ["plain", "café crème à Zürich", "ÆØÅ £ § ½", "x" * 500 + "é"]


@pytest.mark.parametrize("text", TEXTS)
def test_latin1_database(connection, encoded, text):
    other = encoded("LATIN1")
    assert one(other, "show server_encoding") == "LATIN1"
    assert embedding(other, text) == embedding(connection, text)
    assert vector(other, "(embed(array[%s::text, 'b']))[1]", [text]) == embedding(connection, text)
    assert vector(other, "embed_query(%s)", [text]) == embedding(connection, text)


def test_latin1_trigger(connection, encoded):
    other = encoded("LATIN1")
    other.execute(
        "create table notes (content text, embedding vector(384)); create trigger zzz_gte_small_embedding before insert "
        "or update on notes for each row execute function embed_trigger(); insert into notes values ('café')"
    )
    assert vector(other, "(select embedding from notes)") == embedding(connection, "café")


def test_sql_ascii_database(connection, encoded):
    """Bytes without a declared encoding: valid UTF-8 is read as UTF-8, other bytes are refused."""
    other = encoded("SQL_ASCII")
    cafe = r"embed(E'caf\xc3\xa9')"
    assert vector(other, cafe) == embedding(connection, "café")
    for call in (r"embed(E'caf\xe9')", r"embed(array['ok', E'\xff'])", r"embed_query(E'\xc3')", r"embed(E'\xed\xa0\x80')"):
        with pytest.raises(psycopg.Error) as error:
            other.execute(f"select {call}")
        assert error.value.sqlstate == "22021", call
    assert vector(other, cafe) == embedding(connection, "café")


@pytest.mark.parametrize("before, after, at", [("repeat('a', 1048575) || E'\\xc3\\xa4'", "E'\\xff'", 1048577),
                                               ("repeat(E'\\xe6\\xbc\\xa2', 400000)", "E'\\xe6\\xbc'", 1200000),
                                               ("''", "E'\\xff' || repeat('a', 2000000)", 0)])
def test_sql_ascii_tells_where(encoded, before, after, at):
    """A text is checked one megabyte at a time, and characters cross the boundaries."""
    other = encoded("SQL_ASCII")
    assert one(other, f"select vector_dims(embed({before}))") == 384
    with pytest.raises(psycopg.errors.CharacterNotInRepertoire) as error:
        other.execute(f"select embed({before} || {after})")
    assert f"from byte {at} on" in str(error.value)


def test_sql_ascii_trigger(encoded):
    other = encoded("SQL_ASCII")
    other.execute(
        "create table notes (content text, embedding vector(384)); create trigger zzz_gte_small_embedding before insert "
        "or update on notes for each row execute function embed_trigger()"
    )
    with pytest.raises(psycopg.Error) as error:
        other.execute(r"insert into notes values (E'caf\xe9')")
    assert error.value.sqlstate == "22021"
    assert one(other, "select count(*) from notes") == 0


def test_no_forms_for_other_types(connection):
    for argument in ("'{}'::json", "'{}'::jsonb", "1", "1.5", "'\\x00'::bytea", "now()"):
        with pytest.raises(psycopg.errors.UndefinedFunction):
            connection.execute(sql.SQL("select embed({})").format(sql.SQL(argument)))


@pytest.mark.parametrize("kind", ["varchar", "varchar(3)", "char(5)", "name", "text"])
def test_forms_by_coercion(connection, kind):
    assert one(connection, f"select embed('cat'::{kind})::text = embed('cat')::text")


def test_an_error_in_another_encoding_is_still_that_error(encoded):
    """Letters that the encoding lacks, in a message or a name, must not change the error into 22021."""
    other = encoded("EUC_JP")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        other.execute("select embed_query('[1,2]')")
    other.execute(
        'create table "日本" (content text, embedding vector(12)); create trigger zzz before insert on "日本" '
        "for each row execute function embed_trigger()"
    )
    with pytest.raises(psycopg.errors.DatatypeMismatch):
        other.execute("""insert into "日本" values ('a cat')""")
