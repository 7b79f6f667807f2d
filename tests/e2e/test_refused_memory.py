"""Sessions with little memory: each statement is right or an error 53200, and no process ends.

A session's limit of address space (`ulimit -v`) is lowered while it is idle, to its size and some megabytes more. The
limits go from too little for the library to enough for every statement.
"""

import contextlib
import os
import resource

import psycopg
import pytest

from measure import one, proc_file

MB = 1 << 20

LONG = "repeat('a dog and a cat, ', 20000)"
STATEMENTS = {
    "embed": "select embed('a dog')",
    "embed a query": "select embed_query('a dog')",
    "embed an array": "select embed(array(select 'text ' || i from generate_series(1, 1200) i))",
    # Each sign is a word, and the library makes some vectors and strings for each, on the helper as well.
    "embed an array of signs": "select embed(array(select 'é' || repeat('!', 3000) || i from generate_series(1, 64) i))",
    "embed a long text": "select embed(repeat('é à ü ', 20000))",
    "chunk_text": f"select * from chunk_text({LONG})",
    "token_count": f"select token_count({LONG})",
    "token_count of punctuation": "select token_count(repeat('é! ', 20000))",
    # Each object takes 640 bytes.
    "a name in a long note": "select gte_small.column_name_now('notes', 'notes', 'nope', "
                             "'[' || repeat(repeat('{\"\":', 120) || '1' || repeat('}', 120) || ',', 340) || '1]')",
    "words": "select gte_small.words('simple', repeat('é ﷺ ', 10000))",
    "embed_verify": "select * from embed_verify('notes')",
    "the trigger": "insert into notes (content) values ('one more') returning embedding",
    "embed_backfill": "call embed_backfill('later')",
    "embed_selftest": "select * from embed_selftest()",
}
# In MB. The tiny model needs 7 to 20, and 2 threads their buffers; MiniLM needs 39, and its self-test 120 and
# the heaps of two threads.
LIMITS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 32, 128]
LARGE = {"embed": [8, 16, 24, 32, 36, 38, 40, 48, 128], "embed_selftest": [16, 40, 64, 96, 112, 120, 200, 500]}


def limit(connection, more):
    """Lets the idle backend take this many bytes more, or without a limit for None."""
    pid = connection.info.backend_pid
    size = int(proc_file(pid, "statm").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    wanted = resource.RLIM_INFINITY if more is None else size + more
    owner = os.stat(f"/proc/{pid}")
    # Only the server's user may do it without a capability that a container does not have.
    child = os.fork()
    if child == 0:
        try:
            os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
            os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
            hard = resource.prlimit(pid, resource.RLIMIT_AS)[1]
            resource.prlimit(pid, resource.RLIMIT_AS, (wanted, hard))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture(scope="module")
def small(server):
    settings = {"gte_small.model_path": str(server.tiny), "shared_buffers": "16MB", "gte_small.threads": "2",
                "gte_small.on_truncate": "silent", "jit": "off", "max_parallel_workers_per_gather": "0"}
    with server.another("memory", settings) as cluster:
        cluster.psql("""
            create table notes (id int generated always as identity primary key, content text);
            create table later (like notes including all);
            select enable_semantic_search('notes', 'content');
            select enable_semantic_search('later', 'content');
            insert into notes (content) values ('a cat'), ('a dog');
            set gte_small.defer = on;
            insert into later (content) select 'text ' || i from generate_series(1, 200) i;
            """)
        yield cluster


def answer(connection, name):
    """The rows of a statement. A refused INSERT or batch leaves no row behind."""
    if name == "embed_backfill":
        connection.execute(STATEMENTS[name])
        return connection.execute("select count(*), count(embedding) from later").fetchall()
    rows = connection.execute(STATEMENTS[name]).fetchall()
    if name == "the trigger":
        connection.execute("delete from notes where id > 2")
    return rows


def answers_or_is_refused(cluster, name, model, limits):
    """How many of the limits refuse the statement."""

    @contextlib.contextmanager
    def session():
        if name == "embed_backfill":
            cluster.psql("set gte_small.own_vectors = on; update later set embedding = null")
        with psycopg.connect(cluster.dsn(), autocommit=True, prepare_threshold=None) as connection:
            connection.execute(f"set gte_small.model_path = '{model}'")
            yield connection

    with session() as connection:
        expected = answer(connection, name)
    refused = []
    for loaded in (True, False):
        for more in limits if loaded else limits[::4]:
            with session() as connection:
                if loaded:
                    connection.execute("load 'vector'; load 'gte-small'; load 'plpgsql'")
                limit(connection, int(more * MB))
                try:
                    assert answer(connection, name) == expected, more
                except psycopg.Error as error:
                    refused.append(more)
                    assert error.sqlstate == "53200" or "could not load library" in str(error), (more, error)
                    assert error.sqlstate != "53200" or "out of memory" in str(error)
                limit(connection, None)
                assert answer(connection, name) == expected, f"the same session after {more} MB"
    assert "terminated by signal" not in cluster.log.read_text(errors="replace")
    assert limits[-1] not in refused
    return len(refused)


@pytest.mark.parametrize("name", [name for name in STATEMENTS if name != "embed_selftest"])
def test_a_statement_without_memory_is_an_error(server, small, name):
    assert answers_or_is_refused(small, name, server.tiny, LIMITS) > 3


@pytest.mark.parametrize("name", LARGE)
def test_a_model_without_memory_is_an_error(server, small, name):
    assert answers_or_is_refused(small, name, server.minilm, LARGE[name]) > 3
