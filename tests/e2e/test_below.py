"""gte_small.below: a search without LIMIT is exact at any random_page_cost, and a LIMIT still reaches the index.

No model is needed: the vectors are random, and `near` is written like a generated search function. pgvector's iterative scan
is off, so that a plan with the index returns 40 rows at most.
"""

import pytest

from measure import one

# What makes an index scan look cheap or dear. The first takes the index wherever it is allowed.
PLANNERS = {
    "the index preferred": "set enable_seqscan = off; set enable_sort = off; set enable_bitmapscan = off",
    "random_page_cost 1.1": "set random_page_cost = 1.1",
    "random_page_cost 4": "set random_page_cost = 4",
}
ALL_ON = "set local enable_seqscan = on; set local enable_sort = on; set local enable_bitmapscan = on; set local enable_indexscan = off"

TABLE = """
    create function noise(seed int, n int) returns vector language sql immutable parallel safe as $$
        select array_agg(cos(seed * 12.9898 + i * 78.233 + seed * i * 0.37))::vector from generate_series(1, n) i $$;
    create table docs (id int primary key, tenant int, embedding vector(8), filler text);
    insert into docs select i, i % 50, l2_normalize(noise(i, 8)), repeat('wide ', 380) from generate_series(1, 4000) i;
    create index docs_embedding on docs using hnsw (embedding vector_ip_ops);
    create table tenants as select i as id, 'tenant ' || i as name from generate_series(0, 60) i;
    create table found (id int primary key, seen int default 0);
    analyze;
"""

SEARCH = """
    create function {name}(vector, float8) returns setof {table} language sql stable parallel safe as $$
        with q as materialized (select $1 as v)
        select e.* from {table} e where {condition}
        order by e.embedding operator(public.<#>) (select v from q){ties} $$;
"""
DISTANCE = "e.embedding operator(public.<#>) (select v from q)"
BELOW = f"gte_small.below({DISTANCE}, operator(pg_catalog.-) $2)"

WANTED = "l2_normalize(noise(3, 8))"
NEAR = f"near({WANTED}, 0.55)"
MARKED = f"docs e where gte_small.below(e.embedding <#> {WANTED}, -0.55)"

ALL_ROWS = {
    "rows": "select id from {near}",
    "count": "select count(*) from {near}",
    "sorted by another column": "select id from {near} order by filler, id limit 5000",
    "grouped": "select tenant, count(*) from {near} group by tenant order by tenant limit 100",
    "grouped by distance": "select e.embedding <#> {wanted} as d, count(*) over (), min(id) from {marked} "
                           "group by d order by d limit 3",
    "distinct": "select count(*) from (select distinct tenant from {near} limit 500) s",
    "counted beside a limit": "select count(*) over () from {near} limit 1",
    "counted beside a limit, in one level": "select count(*) over (), id from {marked} order by e.embedding <#> {wanted} limit 1",
    "CTE": "with c as materialized (select id from {near}) select id from c limit 5000",
    "inlined CTE": "with c as (select * from {near}) select id from c",
    "offset alone": "select id from {near} offset 3",
    "limit all": "select id from {near} limit all",
    "limit null": "select id from {near} limit null",
    "union all": "select id from {near} union all select id from {near}",
    "union": "select id from {near} union select id + 1 from {near} order by 1 limit 9000",
    "except": "select id from docs where id < 3000 except select id from {near} limit 9000",
    "except, turned": "select id from {near} except select id from docs where id < 3000 limit 9000",
    "in": "select id from docs where id in (select id from {near})",
    "not in": "select id from docs where id not in (select id from {near}) order by id limit 9000",
    "not in, unsorted": "select id from tenants where id not in (select tenant from {near} where tenant < 40) limit 9000",
    "any of an array": "select id from docs where id = any (array(select id from {near})) limit 9000",
    "a value for each row": "select id, (select count(*) from {near} n where n.tenant = t.id) from tenants t limit 70",
    "exists": "select id from tenants t where exists (select from {near} n where n.tenant = t.id) order by id",
    "exists or": "select id from tenants t where id = 60 or exists (select from {near} n where n.tenant = t.id) limit 70",
    "exists alone": "select exists (select from {near} n where n.id = (select max(id) from {near}))",
    "joined": "select d.id, t.name from {near} d join tenants t on t.id = d.tenant limit 9000",
    "left joined": "select d.id, t.name from tenants t left join {near} d on t.id = d.tenant",
    "condition inside an outer join": "select x.id from tenants t left join (select * from {marked}) x on x.tenant = t.id "
                                      "order by x.embedding <#> {wanted}, x.id",
    "condition in ON": "select e.id from tenants t join docs e on e.tenant = t.id and "
                       "gte_small.below(e.embedding <#> {wanted}, -0.55) order by e.embedding <#> {wanted}",
    "lateral": "select v.i, n.id from (values (1), (2)) v (i), lateral {near} n",
    "view": "select id from seen_near",
    "rows locked": "select id from {marked} order by e.embedding <#> {wanted} for update",
    "insert": "insert into found select id from {near} returning id",
    "update": "update docs d set tenant = d.tenant from {near} n where n.id = d.id returning d.id",
    "delete": "delete from docs d using {near} n where n.id = d.id returning d.id",
}


def create_search(connection, name="near", table="docs", condition=BELOW):
    """Before PostgreSQL 17 an index by distance serves no second sort key, not even for an incremental sort."""
    ties = ", e.id" if connection.info.server_version >= 170000 else ""
    connection.execute(SEARCH.format(name=name, table=table, condition=condition, ties=ties))


@pytest.fixture(scope="module")
def made(server):
    database = server.create_database()
    connection = database.connect()
    connection.execute(TABLE)
    create_search(connection)
    create_search(connection, "near_by_operator", condition=f"{DISTANCE} operator(pg_catalog.<) (operator(pg_catalog.-) $2)")
    connection.execute(f"create view seen_near as select id from {NEAR}")
    yield database
    database.drop()


@pytest.fixture
def session(made):
    connection = made.connect()
    connection.execute("set hnsw.iterative_scan = off")
    yield connection
    connection.close()


def filled(statement):
    return statement.format(near=NEAR, marked=MARKED, wanted=WANTED)


def rows(connection, statement):
    """The rows of a statement that is rolled back."""
    with connection.transaction(force_rollback=True):
        return sorted(connection.execute(statement).fetchall(), key=repr)


def exact(connection, statement):
    with connection.transaction(force_rollback=True):
        connection.execute(ALL_ON)
        return sorted(connection.execute(statement).fetchall(), key=repr)


def plan(connection, statement):
    return "\n".join(line for (line,) in connection.execute(f"explain (costs off) {statement}"))


def prefer_the_index(session):
    session.execute(PLANNERS["the index preferred"])


def test_the_operator_alone_returns_a_part(session):
    """Otherwise the tests below could not fail."""
    prefer_the_index(session)
    statement = f"select id from near_by_operator({WANTED}, 0.55)"
    assert "docs_embedding" in plan(session, statement)
    assert len(rows(session, statement)) <= 40 < 200 < len(exact(session, statement))


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("case", ALL_ROWS)
def test_without_limit_all_rows_come(session, case, planner):
    session.execute(PLANNERS[planner])
    statement = filled(ALL_ROWS[case])
    assert rows(session, statement) == exact(session, statement)


def test_merge_gets_all_rows(session):
    prefer_the_index(session)
    if session.info.server_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    with session.transaction(force_rollback=True):
        session.execute(f"merge into found f using {NEAR} n on n.id = f.id when not matched then insert (id) values (n.id)")
        merged = rows(session, "select id from found")
    assert merged == exact(session, f"select id from {NEAR}")


@pytest.mark.parametrize("end", ["", "limit all"])
def test_a_cursor_without_limit_gets_all_rows(session, end):
    prefer_the_index(session)
    with session.transaction():
        session.execute(f"declare c cursor for select id from {NEAR} {end}")
        fetched = rows(session, "fetch all from c")
    assert fetched == exact(session, f"select id from {NEAR}")


def test_the_first_statement_of_a_session_is_exact(made):
    connection = made.connect()
    prefer_the_index(connection)
    assert one(connection, f"select count(*) from {NEAR}") == len(exact(connection, f"select id from {NEAR}"))


def test_a_generic_plan_gets_all_rows(session):
    prefer_the_index(session)
    session.execute("set plan_cache_mode = force_generic_plan")
    session.execute("prepare search (vector, float8) as select id from near($1, $2)")
    found = rows(session, f"execute search ({WANTED}, 0.55)")
    assert found == exact(session, f"select id from {NEAR}")


def test_in_a_function_gets_all_rows(session):
    prefer_the_index(session)
    session.execute(f"""
        create or replace function pg_temp.ids() returns setof int language plpgsql as $$
        declare r record; begin for r in select id from {NEAR} loop return next r.id; end loop; end $$""")
    assert rows(session, "select * from pg_temp.ids()") == exact(session, f"select id from {NEAR}")


def test_parallel_plans_get_all_rows(session):
    session.execute("set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; "
                    "set max_parallel_workers_per_gather = 2")
    statement = f"select id from {MARKED} order by e.embedding <#> {WANTED}"
    assert "Gather" in plan(session, statement)
    assert rows(session, statement) == exact(session, statement)


LIMITED = {
    "3": "select id from {near} limit 3",
    "100": "select id from {near} limit 100",
    "offset": "select id from {near} offset 5 limit 10",
    "fetch first": "select id from {near} fetch first 5 rows only",
    "filtered": "select id from {near} where tenant < 25 limit 10",
    "in a subquery": "select sum(id) from (select id from {near} limit 10) s",
    "in a CTE": "with c as (select id from {near} limit 10) select id from c",
    "around a subquery": "select id from (select * from {near}) s limit 10",
    "a value for each row": "select id, (select n.id from {near} n limit 1) from tenants",
    "lateral": "select v.i, n.id from (values (1), (2)) v (i), lateral (select id from {near} limit 10) n",
    "in one level": "select id from {marked} order by e.embedding <#> {wanted} limit 10",
    "one row of a subselect": "select id from {near} limit (select 5)",
}


@pytest.mark.parametrize("page_cost", [1.1, 4])
@pytest.mark.parametrize("case", LIMITED)
def test_a_limit_reaches_the_index(session, case, page_cost):
    session.execute(f"set random_page_cost = {page_cost}")
    assert "docs_embedding" in plan(session, filled(LIMITED[case]))


def test_a_limit_around_union_all_is_planned_as_with_the_operator(session):
    """PostgreSQL 16 sorts there, PostgreSQL 18 uses the index."""
    statement = "select id from {search}({wanted}, 0.55) union all select id from {search}({wanted}, 0.55) limit 10"
    by_below, by_operator = (plan(session, statement.format(search=name, wanted=WANTED)) for name in ("near", "near_by_operator"))
    assert by_below.count("docs_embedding") == by_operator.count("docs_embedding")


def test_a_limit_of_a_generic_plan_reaches_the_index(session):
    session.execute("set plan_cache_mode = force_generic_plan")
    session.execute("prepare search (vector, float8, int) as select id from near($1, $2) limit $3")
    assert "docs_embedding" in plan(session, f"execute search ({WANTED}, 0.55, 10)")


def test_a_limit_of_null_in_a_custom_plan_gets_all_rows(session):
    prefer_the_index(session)
    session.execute("set plan_cache_mode = force_custom_plan")
    session.execute("prepare search (vector, float8, int) as select id from near($1, $2) limit $3")
    assert rows(session, f"execute search ({WANTED}, 0.55, null)") == exact(session, f"select id from {NEAR}")


def test_a_cursor_with_limit_reaches_the_index(session):
    assert "docs_embedding" in plan(session, f"declare c cursor for select id from {NEAR} limit 10")


def test_other_queries_keep_the_index(session):
    prefer_the_index(session)
    session.execute(f"select count(*) from {NEAR}")
    assert "docs_embedding" in plan(session, f"select id from near_by_operator({WANTED}, 0.55)")
    assert "docs_embedding" in plan(session, f"select id from docs order by embedding <#> {WANTED} limit 3")


def test_other_indexes_stay(session):
    assert "docs_pkey" in plan(session, f"select id from {NEAR} where id = 3")


def test_ivfflat_is_hidden_too(session):
    prefer_the_index(session)
    with session.transaction(force_rollback=True):
        session.execute("drop index docs_embedding; create index docs_lists on docs using ivfflat (embedding vector_ip_ops) with (lists = 60)")
        assert "docs_lists" in plan(session, f"select id from near_by_operator({WANTED}, 0.55)")
        found = rows(session, f"select id from {NEAR}")
        assert "docs_lists" in plan(session, f"select id from {NEAR} limit 3")
    assert found == exact(session, f"select id from {NEAR}")


def test_partitions(session):
    prefer_the_index(session)
    with session.transaction(force_rollback=True):
        session.execute("create table parts (like docs) partition by hash (id)")
        for i in range(3):
            session.execute(f"create table part{i} partition of parts for values with (modulus 3, remainder {i})")
        session.execute("insert into parts select * from docs; create index on parts using hnsw (embedding vector_ip_ops); analyze parts")
        create_search(session, "near_parts", "parts")
        search = f"near_parts({WANTED}, 0.55)"
        assert "hnsw" not in plan(session, f"select id from {search}") and "embedding_idx" in plan(session, f"select id from {search} limit 10")
        found = rows(session, f"select id from {search}")
    assert found == exact(session, f"select id from {NEAR}")


def test_policies(made, session):
    session.execute("grant select on docs to gte_plain; alter table docs enable row level security; "
                    "create policy half on docs for select to gte_plain using (tenant < 25)")
    try:
        plain = made.connect("gte_plain")
        plain.execute("set hnsw.iterative_scan = off")
        prefer_the_index(plain)
        assert rows(plain, f"select id from {NEAR}") == exact(session, f"select id from {NEAR} where tenant < 25")
        assert "docs_embedding" in plan(plain, f"select id from {NEAR} limit 10")
    finally:
        session.execute("drop policy half on docs; alter table docs disable row level security")


def test_commands_that_plan_without_a_query(session):
    """CREATE INDEX and CLUSTER plan with a query that has no FROM."""
    session.execute(f"select count(*) from {NEAR}")
    with session.transaction(force_rollback=True):
        session.execute("set local min_parallel_table_scan_size = 0")
        session.execute("create index on docs (tenant); cluster docs using docs_pkey; analyze docs")


def test_the_extension_is_created_again(database, connection):
    """The function then has another OID."""
    for _ in range(2):
        connection.execute(TABLE)
        create_search(connection)
        connection.execute("set hnsw.iterative_scan = off")
        prefer_the_index(connection)
        statement = f"select id from {NEAR}"
        assert rows(connection, statement) == exact(connection, statement)
        connection.execute('drop function near; drop table docs, tenants, found; drop extension "gte-small"; drop function noise; '
                           'create extension "gte-small"')


def test_it_compares_like_the_operator(connection):
    values = "(values (1::float8), (-0.5), (0), (null), ('nan'), ('infinity'), ('-infinity')) v (x)"
    assert one(connection, f"select count(*) from {values}, {values.replace('v (x)', 'w (y)')} "
                           "where gte_small.below(x, y) is distinct from (x < y)") == 0


def test_nobody_can_call_the_support_function(connection):
    with pytest.raises(Exception, match="cannot accept a value of type internal|does not exist"):
        connection.execute("select gte_small.below_support(null)")
    with pytest.raises(Exception, match="cannot accept a value of type internal|does not exist"):
        connection.execute("select gte_small.below_support('1')")
