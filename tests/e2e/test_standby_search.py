"""A standby answers searches: it embeds the text itself and reads the replicated vectors and indexes."""

import psycopg
import pytest

import postgres


@pytest.fixture(scope="module")
def standby(server):
    with server.another("primary", {"gte_small.model_path": str(server.tiny)}) as primary:
        primary.psql("create table docs (id int primary key, content text); select enable_semantic_search('docs');"
                     "insert into docs values (1, 'a dog'), (2, 'an invoice');"
                     "create table manuals (id int primary key, content text); select enable_document_search('manuals');"
                     "insert into manuals values (1, 'a dog. a cat.')")
        directory = primary.directory.with_name(f"{primary.directory.name}-standby")
        with postgres.Cluster(primary.pg_config, directory, dict(primary.settings)) as cluster:
            cluster.destroy()
            cluster._make_directory()
            primary.tool("pg_basebackup", "-D", str(cluster.data), "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast")
            cluster._register()
            cluster.start()
            with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
                yield connection
            cluster.destroy()


@pytest.mark.parametrize("search", [
    "select id from search_docs('a dog', 1)",
    "select id from query_docs('a dog', 0.99)",
    "select id from query_docs(embed('a dog'), 0.99, 1)",
    "select (item).id from hybrid_docs('a dog', 1)",
    "select (document).id from query_manuals('a dog', null, 1)",
])
def test_a_standby_answers(standby, search):
    assert standby.execute("select pg_is_in_recovery()").fetchone() == (True,)
    assert standby.execute(search).fetchall() == [(1,)]
    assert standby.execute("select model_runs > 0 from embed_stats()").fetchone() == (True,)


def test_a_standby_tells_the_state(standby):
    assert standby.execute("select state, missing from embedding_status('docs')").fetchall() == [("current", 0)]
    assert standby.execute("select checked, wrong from embed_verify('docs')").fetchall() == [(2, 0)]
