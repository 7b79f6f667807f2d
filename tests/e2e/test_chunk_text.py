"""`token_count` and `chunk_text` through SQL: input, output, memory and time."""

import random
import threading

import psycopg
import pytest

from measure import counting, embedding, memory_kb, one, wait_until_active

TEXT = (
    "The library opens at nine. It closes at six, except on Fridays.\n\nCafé visitors pay at the desk; a card "
    "costs ten euros. Who lost an umbrella? It is green. " * 12
)


def chunks(connection, text, *numbers):
    arguments = ", ".join(["%s::text", *map(str, numbers)])
    return connection.execute(
        f"select ordinal, chunk, start, tokens from chunk_text({arguments}) order by ordinal", [text]
    ).fetchall()


def refused(connection, call, *parameters):
    with pytest.raises(psycopg.errors.InvalidParameterValue) as error:
        connection.execute(f"select * from {call}", parameters)
    assert error.value.diag.message_detail and error.value.diag.message_hint
    return error.value.diag.message_primary


def holds(connection, text, *numbers):
    """Checks in the database what is true for the chunks of any text."""
    arguments = ", ".join(["%(text)s::text", *map(str, numbers)])
    wrong = connection.execute(
        f"select * from (select *, lag(start + length(chunk), 1, 1) over (order by ordinal) as reached, "
        f"row_number() over (order by ordinal) as n from chunk_text({arguments})) c "
        f"where substr(%(text)s, start, length(chunk)) <> chunk or token_count(chunk) <> tokens or tokens > {numbers[0]} "
        "or start > reached or start + length(chunk) <= reached or ordinal <> n or chunk = ''",
        {"text": text},
    ).fetchall()
    assert wrong == []
    reached = one(connection, f"select max(start + length(chunk)) - 1 from chunk_text({arguments})", {"text": text})
    assert reached == one(connection, "select nullif(length(%s), 0)", [text])
    if numbers[1:] in ((), (0,)):
        whole = f"select coalesce(string_agg(chunk, '' order by ordinal), '') = %(text)s from chunk_text({arguments})"
        assert one(connection, whole, {"text": text})


def test_token_count_is_not_capped(minilm):
    assert one(minilm, "select token_count('')") == 2
    assert one(minilm, "select token_count('a cat')") == 4
    assert one(minilm, "select token_count(repeat('cat ', 1000))") == 1002
    assert one(minilm, "select max_tokens from embed_model()") == 256
    with counting(minilm) as counted:
        one(minilm, "select token_count('not embedded')")
    assert counted.model_runs == 0


@pytest.mark.parametrize("numbers", [(8,), (20,), (20, 5), (64, 61), (100,), (512,), (512, 50)])
def test_chunks_cover_the_text(connection, numbers):
    for text in (TEXT, TEXT.replace("\n", "\r\n"), "", " ", " x ", "一二三，四五。" * 50, "👩‍👩‍👧 " * 50, "a" * 3000 + " b", "ab" * 49):
        holds(connection, text, *numbers)


def test_what_a_chunk_looks_like(minilm):
    assert chunks(minilm, "Backups run at two. The dog is called Ada. Invoices are due.", 12) == [
        (1, "Backups run at two. ", 1, 8), (2, "The dog is called Ada. ", 21, 8), (3, "Invoices are due.", 44, 8)]
    assert chunks(minilm, "é one. Two ü. Three.", 8) == [(1, "é one. Two ü. ", 1, 8), (2, "Three.", 15, 4)]
    rows = chunks(minilm, "one two three four five six seven eight nine ten", 8, 2)
    assert [row[1] for row in rows] == [
        "one two three four five six ", "five six seven eight nine ten"]


def test_nothing_and_white_space(connection):
    assert chunks(connection, "") == []
    assert chunks(connection, " \n ") == [(1, " \n ", 1, 2)]


def test_joined_characters_are_no_single_chunk(connection):
    rows = chunks(connection, "a" * 3000)
    assert len(rows) == 30 and all(len(row[1]) == 100 and row[3] > 3 for row in rows)
    assert [(row[2], len(row[1])) for row in chunks(connection, "é " + " " * 20_000 + "ö", 512)] == [(1, 16384), (16385, 3619)]


def test_null_gives_null_and_no_rows(connection):
    assert one(connection, "select token_count(null)") is None
    for call in ("chunk_text(null)", "chunk_text('a', null)", "chunk_text('a', 100, null)"):
        assert connection.execute(f"select * from {call}").fetchall() == []


def test_the_model_s_limit_counts(minilm):
    """all-MiniLM-L6-v2 reads 256 tokens. No chunk has more, so nothing is cut off when it is embedded."""
    text = "cat " * 2000
    assert chunks(minilm, text) == chunks(minilm, text, 256) == chunks(minilm, text, 100000)
    minilm.execute("set gte_small.on_truncate = error")
    try:
        assert one(minilm, "select count(embed(chunk)) from chunk_text(%s)", [text]) == 8
    finally:
        minilm.execute("reset gte_small.on_truncate")


def test_bad_numbers(connection):
    for number in (7, 2, 0, -1, -2147483648):
        assert str(number) in refused(connection, f"chunk_text('a', {number})")
    for arguments in ("'a', 100, 98", "'a', 100, -1", "'a', 8, 6", "'a', 2147483647, 510", "'a', 100, 2147483647"):
        assert "overlap" in refused(connection, f"chunk_text({arguments})")
    assert len(chunks(connection, "a", 100, 97)) == 1
    # At the right position, with the right types.
    with pytest.raises(psycopg.errors.UndefinedFunction):
        connection.execute("select * from chunk_text(1)")


def test_where_it_may_stand(connection):
    text = "'One two. Three four. Five six. Seven eight.', 10"
    rows = connection.execute(f"select ordinal, chunk from chunk_text({text})").fetchall()
    assert len(rows) > 2
    assert connection.execute(f"select (chunk_text({text})).ordinal").fetchall() == [(n,) for n, _ in rows]
    assert [row for row, in connection.execute(f"select (c).chunk from (select chunk_text({text}) as c) s")] == [c for _, c in rows]
    assert len(connection.execute(f"select * from generate_series(1, 3), lateral chunk_text({text})").fetchall()) == 3 * len(rows)
    assert connection.execute(f"select chunk from chunk_text({text}) limit 1").fetchone() == (rows[0][1],)
    named = "select count(*) from chunk_text(content => 'a b c', overlap => 3, max_tokens => 20)"
    assert one(connection, named) == 1
    # A cursor moves in both directions.
    with connection.transaction():
        connection.execute(f"declare back_and_forth scroll cursor for select ordinal from chunk_text({text})")
        connection.execute("fetch all from back_and_forth")
        assert one(connection, "fetch prior from back_and_forth") == len(rows)


def test_no_model(connection):
    connection.execute("select set_config('gte_small.model_path', '/nonexistent', false)")
    for statement in ("select token_count('a')", "select * from chunk_text('a')"):
        with pytest.raises(psycopg.errors.UndefinedFile):
            connection.execute(statement)


# --- encodings ---


@pytest.mark.parametrize(
    "encoding, text",
    [
        ("LATIN1", "Café à Zürich. Größe £5! " * 30),
        ("EUC_JP", "朝ごはんを食べて、駅まで歩きました。電車は遅れていました。ﾊﾝｶｸ too. " * 10),
        ("EUC_KR", "오늘은 날씨가 참 좋습니다. 공원에 갔습니다. " * 10),
        ("EUC_CN", "春天来了，公园里的花都开了。孩子们在草地上跑来跑去！" * 10),
        # One byte in this encoding, two in UTF-8.
        ("EUC_JIS_2004", "か\u309aき\u309aく\u309a を 食べて、駅 か\u309a。" * 10),
        ("WIN1251", "Утром выпал снег. Дети побежали во двор. " * 10),
    ],
)
def test_offsets_count_the_database_s_characters(connection, encoded, encoding, text):
    other = encoded(encoding)
    assert one(other, "show server_encoding") == encoding
    for numbers in ((8,), (20,), (30, 9), (512,)):
        holds(other, text, *numbers)
        there, here = chunks(other, text, *numbers), chunks(connection, text, *numbers)
        assert [(n, chunk, tokens) for n, chunk, _, tokens in there] == [(n, chunk, tokens) for n, chunk, _, tokens in here]
    assert one(other, "select token_count(%s)", [text]) == one(connection, "select token_count(%s)", [text])


def test_sql_ascii(encoded):
    """In this encoding a character is a byte, for substr() and so for `start`."""
    other = encoded("SQL_ASCII")
    other.execute(r"create table t as select repeat(E'caf\xc3\xa9. Two. ', 40) as content")
    for numbers in ("10", "20, 5", "512"):
        assert one(other, f"select count(*) from t, chunk_text(content, {numbers}) where substr(content, start, length(chunk)) <> chunk "
                          "or token_count(chunk) <> tokens") == 0
        assert one(other, f"select count(*) > 0 from t, chunk_text(content, {numbers})")
    assert one(other, "select string_agg(chunk, '' order by ordinal) = content from t, chunk_text(content, 10) group by content")
    for call in (r"token_count(E'caf\xe9')", r"chunk_text(E'caf\xe9')"):
        with pytest.raises(psycopg.errors.CharacterNotInRepertoire):
            other.execute(f"select {call}")


# --- in parallel ---


def test_parallel_workers(connection):
    connection.execute(
        "create table texts as select i as id, repeat('Sentence ' || i || '. ', i % 50) as content from generate_series(1, 500) i; "
        "alter table texts set (parallel_workers = 2); analyze texts; set parallel_setup_cost = 0; set parallel_tuple_cost = 0; "
        "set min_parallel_table_scan_size = 0; set max_parallel_workers_per_gather = 2; set jit = off")
    for statement in ("select sum(token_count(content)) from texts",
                      "select sum(length(chunk)) from texts, chunk_text(content, 20)"):
        plan = "\n".join(line for line, in connection.execute(f"explain (costs off) {statement}"))
        assert "Gather" in plan, plan
        parallel = one(connection, statement)
        connection.execute("set max_parallel_workers_per_gather = 0")
        assert parallel == one(connection, statement) > 0
        connection.execute("set max_parallel_workers_per_gather = 2")


# --- large texts ---

LARGE = {
    "sentences": "repeat('The quick brown fox jumps. Over the lazy dog, twice; (maybe) more! ', 1408500)",
    "one letter": "repeat('a', 100000000)",
    "accents": "repeat(U&'\\0301', 50000000)",
    "blanks": "repeat(' ', 100000000)",
    "full stops": "repeat('. ', 50000000)",
    "ideographs": "repeat('春天来了，公园里的花都开了。', 2380000)",
}


def store(connection, *names):
    """Stored without compression, so that reading them is fast."""
    connection.execute("create table large (name text, content text); alter table large alter content set storage external")
    for name in names:
        connection.execute(f"insert into large values ('{name}', {LARGE[name]})")


def test_a_hundred_megabytes_can_be_cancelled(database, connection):
    """A cancel ends the work at any point. The time limit is generous, because the machine may be slow and busy."""
    store(connection, *LARGE)
    worker, watcher = database.connect(), database.connect()
    one(worker, "select token_count('load')")
    pid = worker.info.backend_pid
    for name in LARGE:
        for call in ("token_count(content)", "(chunk_text(content)).tokens", "(chunk_text(content, 100, 20)).tokens"):
            outcome = []

            def run():
                try:
                    worker.execute(f"select sum(n) from (select {call} as n from large, generate_series(1, 100) where name = '{name}') s")
                    outcome.append("it ended")
                except psycopg.errors.QueryCanceled:
                    outcome.append("cancelled")

            thread = threading.Thread(target=run)
            thread.start()
            wait_until_active(watcher, pid)
            # In the middle of the text, after it was read.
            thread.join(random.uniform(0.2, 0.5))
            assert thread.is_alive(), f"{call} of {name}: too quick to be cancelled"
            one(watcher, "select pg_cancel_backend(%s)", [pid])
            thread.join(10)
            assert outcome == ["cancelled"], f"{call} of {name}: {outcome or 'it goes on'}"


@pytest.mark.parametrize("name, size", [("sentences", 100_000_000), ("one letter", 20_000_000), ("accents", 50_000_000)])
def test_a_hundred_megabytes_take_little_memory(database, connection, name, size):
    """Little more than the text, because chunks go to disk. A chunk is short, whatever the text is made of."""
    store(connection, name)
    worker = database.connect()
    worker.execute("set work_mem = '4MB'; set jit = off")
    one(worker, "select token_count('load')")
    content = f"substr(content, 1, {size})"
    one(worker, f"select length({content}) from large")
    pid = worker.info.backend_pid
    before = memory_kb(pid, "VmHWM")
    tokens = one(worker, f"select token_count({content}) from large")
    counting_took = memory_kb(pid, "VmHWM") - before
    rows, longest, chunk_tokens = worker.execute(
        f"select count(*), max(length(chunk)), sum(tokens - 2) + 2 from large, chunk_text({content})").fetchone()
    chunking_took = memory_kb(pid, "VmHWM") - before
    # A word of letters is one token, and its parts have more.
    assert chunk_tokens == tokens or name == "one letter" and chunk_tokens > 1000 * tokens
    assert rows > 1000 and longest <= 32 * 512
    assert counting_took <= 30 * 1024 and chunking_took <= 50 * 1024, (counting_took, chunking_took)


# --- on_truncate says how much was dropped, and what to do ---


@pytest.fixture
def heard(connection):
    embedding(connection, "load the library")
    notices = []
    connection.add_notice_handler(lambda notice: notices.append((notice.message_detail, notice.message_hint)))
    connection.execute("set gte_small.on_truncate = warning")
    return notices


def said(notices):
    assert len(notices) == 1, notices
    detail, hint = notices.pop()
    assert "chunk_text" in hint
    return detail


def test_the_warning_names_the_dropped_tokens(connection, heard):
    """In every way to embed. The text has 700 tokens and two specials, of which the model reads 512."""
    long = "cat " * 700
    embedding(connection, long)
    assert "The last 190 tokens" in said(heard)
    with counting(connection) as counted:
        embedding(connection, long)
    assert counted.memo_hits == 1 and "190 tokens" in said(heard)
    connection.execute("select embed_query(%s)", [long])
    assert "190 tokens" in said(heard)
    connection.execute("select embed(array['short', %(long)s, %(long)s || 'cat', %(long)s])", {"long": long})
    assert "571 tokens" in said(heard)
    embedding(connection, "cat " * 511)
    assert "The last token has" in said(heard)
    embedding(connection, "cat " * 510)
    assert heard == []


def test_the_error_names_the_dropped_tokens(database, tutorial):
    tutorial.execute("set gte_small.on_truncate = error")
    for statement in ("select embed(%s)", "select embed_query(%s)", "select embed(array[%s])",
                      "insert into embeddings (content) values (%s)"):
        with pytest.raises(psycopg.errors.StringDataRightTruncation) as error:
            tutorial.execute(statement, ["cat " * 700])
        assert "190 tokens" in error.value.diag.message_detail, statement
        assert "chunk_text" in error.value.diag.message_hint


def test_a_text_is_counted_only_where_it_is_said(connection):
    """Counting 100 MB takes seconds and can be cancelled. `silent` does not count."""
    connection.execute("create table t as select repeat('a cat. ', 14000000) as content")
    connection.execute("set statement_timeout = '20s'")
    one(connection, "select vector_dims(embed(content)) from t")
    connection.execute("set gte_small.on_truncate = error; set statement_timeout = '300ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("select embed(content) from t")
    connection.execute("set statement_timeout = 0")
    with pytest.raises(psycopg.errors.StringDataRightTruncation) as error:
        connection.execute("select embed(content) from t")
    assert "The last 41999490 tokens" in error.value.diag.message_detail
