"""Memory for many calls, many elements and large texts: what a backend keeps, and its peak.

The default is a tenth of the calls; `make test-long` runs all of them.
"""

import os

import pytest

from measure import counting, embedding, memory_kb, one

CALLS = 200_000 if os.environ.get("GTE_LONG") else 10_000
ELEMENTS = 100_000 if os.environ.get("GTE_LONG") else 20_000

# Size of a session's buffers, see the table of memory in README.
BUFFERS_KB = 30 * 1024


@pytest.fixture(params=[0, 128], ids=["no memo", "memo"])
def backend(connection, request):
    """A backend with the library loaded and a fixed number of threads, because a new thread would count as growth."""
    connection.execute("load 'gte-small'")
    connection.execute(f"set gte_small.threads = 2; set gte_small.memo_size = {request.param}; set jit = off")
    connection.execute("set max_parallel_workers_per_gather = 0; create table notes (content text, embedding vector(384))")
    connection.execute(
        "create trigger zzz_notes_embedding before insert or update on notes for each row execute function embed_trigger()"
    )
    return connection


def reset_peak(pid):
    with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def rows(count):
    """In the select list, where they are made one by one: in FROM, PostgreSQL keeps them all, 28 bytes each."""
    return f"(select generate_series(1, {count}) as i) as rows"


def query(connection, calls, name):
    dims = one(connection, f"select sum(vector_dims(embed('{name} ' || i))) from {rows(calls)}")
    assert dims == 384 * calls


def block(connection, calls, name):
    connection.execute(f"do $$ begin for i in 1..{calls} loop perform embed('{name} ' || i); end loop; end $$")


def trigger(connection, calls, name):
    connection.execute(f"insert into notes (content) select '{name} ' || i from {rows(calls)}")
    connection.execute("truncate notes")


def statements(connection, calls, name):
    for start in range(0, calls, 500):
        with connection.pipeline():
            for i in range(start, start + 500):
                connection.execute("select embed(%s)", [f"{name} {i}"])


@pytest.mark.parametrize("call", [query, block, trigger, statements])
def test_calls_leave_nothing(backend, call):
    """A backend grows by less than a megabyte, after many calls and within one long statement."""
    pid = backend.info.backend_pid
    call(backend, 2000, "warm")
    reset_peak(pid)
    before = memory_kb(pid, "RssAnon")
    resident = memory_kb(pid, "VmRSS") - memory_kb(pid, "RssShmem")
    with counting(backend) as counted:
        call(backend, CALLS, "text")
    assert counted.texts == CALLS
    assert memory_kb(pid, "RssAnon") - before < 1024
    # Pages of the shared buffers count as resident after the first access.
    assert memory_kb(pid, "VmHWM") - memory_kb(pid, "RssShmem") - resident < 1024


def test_errors_leave_nothing(backend):
    """A cancelled or refused call frees its memory."""
    pid = backend.info.backend_pid
    long = "word " * 600

    def fail(times):
        backend.execute("set gte_small.on_truncate = error")
        backend.execute(
            f"do $$ begin for i in 1..{times} loop begin perform embed(array['a', i || '{long}']); raise 'no error'; "
            "exception when string_data_right_truncation then null; end; end loop; end $$"
        )

    fail(200)
    before = memory_kb(pid, "RssAnon")
    fail(CALLS // 10)
    assert memory_kb(pid, "RssAnon") - before < 1024


def test_an_array_takes_its_result_and_little_more(connection):
    """1.6 kB for each element, of which the vector has 1.5 kB, and the argument."""
    connection.execute("set gte_small.memo_size = 0; set jit = off")
    embedding(connection, "load")
    pid = connection.info.backend_pid
    reset_peak(pid)
    texts = f"array_agg('text number ' || i) from generate_series(1, {ELEMENTS}) i"
    assert one(connection, f"select cardinality(t) from (select {texts}) s(t)") == ELEMENTS
    argument = memory_kb(pid, "VmHWM")
    reset_peak(pid)
    with counting(connection) as counted:
        found = one(connection, f"select cardinality(embed(t)) from (select {texts}) s(t)")
    assert found == ELEMENTS == counted.texts
    assert memory_kb(pid, "VmHWM") - argument < BUFFERS_KB + 1.6 * ELEMENTS
    assert memory_kb(pid, "VmRSS") - argument < BUFFERS_KB


# A hundred million bytes. 512 tokens have at most 60,000 characters.
LARGE = {"words": "repeat('lorem ipsum ', 8333334)", "one word": "repeat('a', 100000000)", "blanks": "repeat(' ', 100000000)",
         "ideographs": "repeat('漢字', 16666667)", "umlauts": "repeat('ä', 50000000)"}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE.keys())
def test_a_text_of_a_hundred_megabytes_is_not_copied(connection, text):
    """The memory of PostgreSQL's own copy of the text, and a session's buffers."""
    connection.execute("set gte_small.memo_size = 0; set jit = off; set client_min_messages = warning")
    embedding(connection, "load the model " * 300)
    connection.execute(f"create temp table large as select {text} as content")
    pid = connection.info.backend_pid
    reset_peak(pid)
    one(connection, "select octet_length(content || '') from large")
    of_its_own = memory_kb(pid, "VmHWM")
    reset_peak(pid)
    assert one(connection, "select embed(content)::text = embed(left(content, 60000))::text from large")
    assert memory_kb(pid, "VmHWM") - of_its_own < BUFFERS_KB
