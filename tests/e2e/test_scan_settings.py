"""gte_small.scan_settings and gte_small.index_scans, which counted searches are made of. No model is needed."""

import psycopg
import pytest

from measure import one

TABLE = """
    create table docs (id int primary key, tenant int, embedding vector(4));
    insert into docs select i, i % 10, array[cos(i), sin(i), cos(i * 7), sin(i * 7)]::vector from generate_series(1, 2000) i;
    create index docs_embedding on docs using hnsw (embedding vector_ip_ops);
    analyze docs;
"""
NAMES = ["hnsw.iterative_scan", "hnsw.ef_search", "hnsw.max_scan_tuples"]
SHOWN = "array[" + ", ".join(f"current_setting('{name}', true)" for name in NAMES) + "]"
INSIDE = f"""
    create function inside(most int, then_ text default 'select 1', target regclass default 'docs') returns text[] language plpgsql stable parallel safe
      set plan_cache_mode = force_custom_plan as $$
    begin
      perform gte_small.scan_settings(target, most);
      execute then_;
      return {SHOWN};
    end $$;
"""


@pytest.fixture(scope="module")
def docs(server):
    database = server.create_database()
    with database.connect() as connection:
        connection.execute(TABLE + INSIDE)
        connection.execute("grant select on docs to gte_plain")
    yield database
    database.drop()


@pytest.fixture
def session(docs):
    connection = docs.connect()
    yield connection
    connection.close()


def shown(connection):
    return one(connection, f"select {SHOWN}")


@pytest.mark.parametrize("most, ef_search", [(0, 64), (1, 64), (10, 64), (53, 64), (54, 64), (100, 116), (800, 904), (801, 100),
                                             (5000, 100), (2147483647, 100), (-5, 64)])
def test_candidates_for_a_count(session, most, ef_search):
    assert one(session, "select inside(%s)", [most])[:2] == ["relaxed_order", str(ef_search)]


@pytest.mark.parametrize("own, most, ef_search", [(200, 10, 200), (200, 400, 454), (1000, 400, 1000), (1000, 900, 1000), (5, 10, 64)])
def test_a_higher_value_of_the_user_stays(session, own, most, ef_search):
    session.execute(f"set hnsw.ef_search = {own}; set hnsw.iterative_scan = off")
    assert one(session, "select inside(%s)", [most])[:2] == ["relaxed_order", str(ef_search)]
    assert shown(session)[:2] == ["off", str(own)]


@pytest.mark.parametrize("rows, own, expected", [(2000, None, 1000), (21000, None, 3000), (21000, 500, 500), (21000, 90000, 3000),
                                                 (1e9, None, 20000), (-1, None, 20000)])
def test_an_iterative_scan_gives_up_where_the_exact_one_is_cheaper(session, rows, own, expected):
    session.execute("load 'vector'")
    with session.transaction(force_rollback=True):
        session.execute("create table sized (id int)")
        session.execute("update pg_class set reltuples = %s where oid = 'sized'::regclass", [rows])
        if own:
            session.execute(f"set hnsw.max_scan_tuples = {own}")
        assert one(session, "select inside(10, target => 'sized')")[2] == str(expected)


@pytest.mark.parametrize("loaded_first", [True, False])
@pytest.mark.parametrize("role", ["postgres", "gte_plain"])
def test_they_end_with_the_function(docs, role, loaded_first):
    session = docs.connect(role)
    if loaded_first:
        session.execute("select '[1]'::vector")
    nearest = "select id from docs order by embedding <#> '[1,0,0,0]' limit 100"
    assert one(session, "select inside(100, %s)", [nearest])[:2] == ["relaxed_order", "116"]
    session.execute("select '[1]'::vector")
    assert shown(session) == ["strict_order", "40", "20000"]
    assert len(session.execute(nearest).fetchall()) == 100


@pytest.mark.parametrize("loaded_first", [True, False])
def test_they_end_with_an_error(docs, loaded_first):
    session = docs.connect("gte_plain")
    if loaded_first:
        session.execute("select '[1]'::vector")
    with session.transaction():
        with pytest.raises(psycopg.errors.DivisionByZero):
            with session.transaction():
                session.execute("select inside(100, 'select ''[1]''::vector, 1 / 0')")
        session.execute("select '[1]'::vector")
        assert shown(session) == ["strict_order", "40", "20000"]
    assert shown(session) == ["strict_order", "40", "20000"]


def test_they_end_with_a_caught_error(session):
    session.execute("load 'vector'; create function pg_temp.caught() returns void language plpgsql as $$ begin "
                    "perform inside(100, 'select 1 / 0'); exception when division_by_zero then null; end $$")
    session.execute("select pg_temp.caught()")
    assert shown(session) == ["strict_order", "40", "20000"]


def test_nested_searches(session):
    session.execute("load 'vector'")
    assert one(session, "select inside(100, 'select inside(400)')")[1] == "116"
    assert shown(session)[1] == "40"


def test_what_the_user_sets_around_a_search(session):
    """SET and SET LOCAL in the same transaction, before and after the search."""
    session.execute("load 'vector'")
    with session.transaction():
        session.execute("set hnsw.ef_search = 50")
        assert one(session, "select inside(100)")[1] == "116"
        assert shown(session)[1] == "50"
        session.execute("set local hnsw.ef_search = 70; select inside(100)")
        assert shown(session)[1] == "70"
    assert shown(session)[1] == "50"
    with session.transaction(force_rollback=True):
        session.execute("select inside(100); set hnsw.ef_search = 80")
    assert shown(session)[1] == "50"


def test_in_parallel_workers(session):
    session.execute("set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; "
                    "set parallel_leader_participation = off; set max_parallel_workers_per_gather = 2")
    statement = "select count(*), min(inside(100 + id % 2)::text) from docs where inside(id)::text <> ''"
    plan = "\n".join(line for (line,) in session.execute(f"explain {statement}"))
    assert "Gather" in plan
    count, least = session.execute(statement).fetchone()
    assert count == 2000 and least == "{relaxed_order,116,1000}"


def test_in_a_subtransaction(session):
    session.execute("load 'vector'")
    with session.transaction():
        with session.transaction():
            assert one(session, "select inside(100)")[1] == "116"
            assert shown(session)[1] == "40"
        assert shown(session)[1] == "40"


@pytest.mark.parametrize("before", ["select 1", "set hnsw.ef_search = 50", "set local hnsw.ef_search = 50"])
def test_a_direct_call_is_refused(session, before):
    """Its settings would last longer than one search."""
    session.execute("load 'vector'")
    for inner in (False, True):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="outside of a search function"):
            with session.transaction():
                session.execute(before)
                if inner:
                    session.execute("savepoint a")
                session.execute("select gte_small.scan_settings('docs', 100)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        session.execute("select gte_small.scan_settings('docs', 100)")
    assert shown(session)[1] == "40"


@pytest.mark.parametrize("local", ["true", "false"])
def test_after_settings_of_the_same_function_it_is_refused(session, local):
    session.execute(f"""
        load 'vector';
        create function pg_temp.mixed() returns text[] language plpgsql set plan_cache_mode = force_custom_plan as $$
        begin
          perform set_config('hnsw.ef_search', '50', {local});
          perform gte_small.scan_settings('docs', 100);
          return {SHOWN};
        end $$""")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        session.execute("select pg_temp.mixed()")
    assert shown(session)[1] == "40"


def test_null_sets_nothing(session):
    session.execute("load 'vector'; load 'gte-small'; select inside(null)")
    assert one(session, "select inside(null)") == ["strict_order", "40", "20000"]


# --- index_scans ---

NEAREST = "select id from docs order by embedding <#> '[1,0,0,0]'"


def scans(connection, statement):
    before = one(connection, "select gte_small.index_scans()")
    connection.execute(statement)
    return one(connection, "select gte_small.index_scans()") - before


@pytest.mark.parametrize("statement, expected", [
    (f"{NEAREST} limit 3", 1),
    (f"select count(*) from ({NEAREST} limit 3) s", 1),
    (f"with c as materialized ({NEAREST} limit 3) select id from c", 1),
    (f"select id from docs where id in ({NEAREST} limit 3)", 1),
    ("select i, (select id from docs order by embedding <#> array[i, 0, 0, 0]::vector limit 1) from generate_series(1, 5) i", 1),
    (f"({NEAREST} limit 3) union all ({NEAREST} limit 4)", 1),
    (f"create temp table near_docs as {NEAREST} limit 3", 1),
    ("select id from docs where id = 3", 0),
    ("select count(*) from docs where id < 10", 0),
    ("select 1", 0),
    (f"explain {NEAREST} limit 3", 1),
])
def test_statements_that_may_miss_rows(session, statement, expected):
    assert scans(session, statement) == expected


def test_an_exact_scan_is_none(session):
    session.execute("set enable_indexscan = off")
    assert scans(session, f"{NEAREST} limit 3") == 0


def test_gist_misses_no_rows(session):
    session.execute("create temp table points as select point(i, i) as p from generate_series(1, 2000) i; create index on points using gist (p)")
    session.execute("set enable_seqscan = off; set enable_sort = off")
    assert "Order By" in "".join(line for (line,) in session.execute("explain select p from points order by p <-> '(1,1)' limit 3"))
    assert scans(session, "select p from points order by p <-> '(1,1)' limit 3") == 0


@pytest.mark.parametrize("track", ["on", "off"])
def test_it_needs_no_statistics(session, track):
    session.execute(f"set track_counts = {track}")
    assert scans(session, f"{NEAREST} limit 3") == 1


def test_partitions(session):
    session.execute("create temp table parts (like docs) partition by hash (id)")
    for i in range(3):
        session.execute(f"create temp table part{i} partition of parts for values with (modulus 3, remainder {i})")
    session.execute("insert into parts select * from docs; create index on parts using hnsw (embedding vector_ip_ops); analyze parts; "
                    "set enable_seqscan = off; set enable_sort = off")
    assert scans(session, "select id from parts order by embedding <#> '[1,0,0,0]' limit 3") == 1
    assert scans(session, "select id from parts where id = 7") == 0


def test_as_a_search_uses_it(docs):
    """Of any role, in a STABLE function, around EXECUTE, with a policy."""
    owner = docs.connect()
    owner.execute("""
        create table guarded (like docs including all);
        insert into guarded select * from docs;
        analyze guarded;
        alter table guarded enable row level security;
        create policy a_half on guarded to gte_plain using (tenant < 5);
        grant select on guarded to gte_plain;
        create function took_index(condition text) returns bool language plpgsql stable parallel safe
          set plan_cache_mode = force_custom_plan as $$
        declare before bigint; n int;
        begin
          perform gte_small.scan_settings('guarded', 10);
          before := gte_small.index_scans();
          execute 'select count(*) from (select id from guarded where ' || condition || ' order by embedding <#> $1 limit 10) s'
            into n using '[1,0,0,0]'::vector;
          return gte_small.index_scans() > before;
        end $$""")
    plain = docs.connect("gte_plain")
    for _ in range(2):
        assert one(plain, "select took_index('true')")
        assert not one(plain, "select took_index('id < 20')")


def test_a_search_in_a_parallel_worker(docs):
    owner = docs.connect()
    owner.execute("""
        create function took_index(id_ int) returns bool language plpgsql stable parallel safe
          set plan_cache_mode = force_custom_plan as $$
        declare before bigint := gte_small.index_scans(); n int;
        begin
          execute 'select count(*) from (select id from docs order by embedding <#> $1 limit 10) s' into n using '[1,0,0,0]'::vector;
          return gte_small.index_scans() > before;
        end $$""")
    owner.execute("set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; "
                  "set parallel_leader_participation = off; set max_parallel_workers_per_gather = 2")
    statement = "select count(*) from docs where took_index(id)"
    assert "Gather" in "\n".join(line for (line,) in owner.execute(f"explain {statement}"))
    assert one(owner, statement) == 2000


def test_errors_at_the_end_of_statements_keep_their_fields(session):
    """Once counting has begun, statements end in the library."""
    session.execute("select gte_small.index_scans(); create temp table checked (i int constraint positive check (i > 0))")
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        session.execute("insert into checked values (-1)")
    assert (error.value.diag.table_name, error.value.diag.constraint_name) == ("checked", "positive")
