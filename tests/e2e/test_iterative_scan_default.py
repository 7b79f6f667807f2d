"""The default of hnsw.iterative_scan: raised in sessions that use the library, under every explicit setting."""

import psycopg
import pytest

from measure import one

VECTOR = "load 'vector'"
GTE = "load 'gte-small'"
BOTH_ORDERS = [(VECTOR, GTE), (GTE, VECTOR)]


def iterative_scan(connection):
    return one(connection, "show hnsw.iterative_scan")


def source(connection):
    return one(connection, "select source from pg_settings where name = 'hnsw.iterative_scan'")


@pytest.fixture(scope="module")
def shared(server):
    database = server.create_database()
    yield database
    database.drop()


@pytest.fixture
def fresh(shared):
    """Makes connections that have loaded nothing."""
    opened = []

    def connect(*arguments, **options):
        opened.append(shared.connect(*arguments, **options))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def role(server):
    """Sets parameters of role gte_plain until the end of the test."""
    def configure(setting, value):
        server.execute(f"alter role gte_plain set {setting} = {value}")
    yield configure
    server.execute("alter role gte_plain reset all")


def test_pgvector_alone_keeps_its_default(fresh):
    """Otherwise the tests below could not fail."""
    connection = fresh()
    connection.execute(VECTOR)
    assert iterative_scan(connection) == "off"


@pytest.mark.parametrize("order", BOTH_ORDERS)
def test_the_default_is_raised(fresh, order):
    connection = fresh()
    for statement in order:
        connection.execute(statement)
    assert (iterative_scan(connection), source(connection)) == ("strict_order", "default")


def test_any_function_of_the_library_raises_it(fresh):
    connection = fresh()
    connection.execute("select embed('a cat')::vector(384) <#> embed('a dog')::vector(384)")
    assert iterative_scan(connection) == "strict_order"


@pytest.mark.parametrize("order", BOTH_ORDERS)
@pytest.mark.parametrize("when", range(3))
@pytest.mark.parametrize("value", ["off", "relaxed_order"])
def test_set_wins(fresh, order, when, value):
    statements = list(order)
    statements.insert(when, f"set hnsw.iterative_scan = {value}")
    connection = fresh()
    for statement in statements:
        connection.execute(statement)
    assert (iterative_scan(connection), source(connection)) == (value, "session")
    connection.execute("reset hnsw.iterative_scan")
    assert (iterative_scan(connection), source(connection)) == ("strict_order", "default")


@pytest.mark.parametrize("order", BOTH_ORDERS)
@pytest.mark.parametrize("when", range(3))
def test_set_local_wins_until_the_transaction_ends(fresh, order, when):
    statements = list(order)
    statements.insert(when, "set local hnsw.iterative_scan = relaxed_order")
    connection = fresh()
    with connection.transaction():
        for statement in statements:
            connection.execute(statement)
        assert iterative_scan(connection) == "relaxed_order"
    assert (iterative_scan(connection), source(connection)) == ("strict_order", "default")


@pytest.mark.parametrize("order", BOTH_ORDERS)
@pytest.mark.parametrize("where", ["role", "database", "options"])
def test_a_setting_of_the_role_database_or_connection_wins(shared, fresh, role, order, where):
    options = {}
    if where == "role":
        role("hnsw.iterative_scan", "off")
    elif where == "database":
        shared.configure("hnsw.iterative_scan", "off")
    else:
        options["options"] = "-c hnsw.iterative_scan=off"
    connection = fresh("gte_plain", **options)
    shared.server.execute(f"alter database {shared.name} reset all")
    for statement in order:
        connection.execute({VECTOR: "select '[1]'::vector", GTE: "select embed('a cat')"}[statement])
    assert iterative_scan(connection) == "off"
    connection.execute("set hnsw.iterative_scan = relaxed_order; reset hnsw.iterative_scan")
    assert iterative_scan(connection) == "off"


@pytest.mark.parametrize("statement", ["reset all", "discard all", "set hnsw.iterative_scan to default"])
def test_resetting_leads_to_the_raised_default(fresh, statement):
    connection = fresh()
    connection.execute(f"{GTE}; {VECTOR}; set hnsw.iterative_scan = off")
    connection.execute(statement)
    assert (iterative_scan(connection), source(connection)) == ("strict_order", "default")


def test_a_rollback_does_not_undo_it(fresh):
    connection = fresh()
    with connection.transaction(force_rollback=True):
        connection.execute(GTE)
        connection.execute(VECTOR)
    assert iterative_scan(connection) == "strict_order"


@pytest.mark.parametrize("order", BOTH_ORDERS)
@pytest.mark.parametrize("when", range(3))
def test_our_setting_switches_it_off(fresh, order, when):
    statements = list(order)
    statements.insert(when, "set gte_small.iterative_scan = off")
    connection = fresh()
    for statement in statements:
        connection.execute(statement)
    assert iterative_scan(connection) == "off"
    connection.execute("reset gte_small.iterative_scan")
    assert (iterative_scan(connection), source(connection)) == ("strict_order", "default")


def test_our_setting_of_a_role(fresh, role):
    role("gte_small.iterative_scan", "off")
    connection = fresh("gte_plain")
    connection.execute("select embed('a cat')")
    assert iterative_scan(connection) == "off"
    connection.execute("discard all")
    assert iterative_scan(connection) == "off"
    connection.execute("set gte_small.iterative_scan = on")
    assert iterative_scan(connection) == "strict_order"


def test_our_setting_follows_the_transaction(fresh):
    connection = fresh()
    connection.execute(f"{GTE}; {VECTOR}")
    with connection.transaction(force_rollback=True):
        connection.execute("set gte_small.iterative_scan = off")
        assert iterative_scan(connection) == "off"
    assert iterative_scan(connection) == "strict_order"
    with connection.transaction():
        connection.execute("set local gte_small.iterative_scan = off; set local hnsw.iterative_scan = relaxed_order")
        assert iterative_scan(connection) == "relaxed_order"
    assert iterative_scan(connection) == "strict_order"


def test_our_setting_never_touches_an_explicit_one(fresh):
    connection = fresh()
    connection.execute(f"{GTE}; {VECTOR}; set hnsw.iterative_scan = relaxed_order")
    connection.execute("set gte_small.iterative_scan = off")
    assert iterative_scan(connection) == "relaxed_order"
    connection.execute("reset all")
    assert iterative_scan(connection) == "strict_order"


@pytest.mark.parametrize("ours", ["on", "off"])
def test_parallel_workers_follow(fresh, ours):
    connection = fresh()
    connection.execute(f"{VECTOR}; {GTE}; set gte_small.iterative_scan = {ours}")
    connection.execute("create table if not exists many as select i from generate_series(1, 1000) i; alter table many set (parallel_workers = 2)")
    connection.execute("set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set parallel_leader_participation = off")
    statement = "select distinct current_setting('hnsw.iterative_scan') from many"
    plan = "\n".join(line for (line,) in connection.execute(f"explain {statement}"))
    assert "Gather" in plan
    assert one(connection, statement) == {"on": "strict_order", "off": "off"}[ours]


def test_loaded_by_a_parallel_worker(fresh):
    """The library's functions in a worker of a session that has not used them before."""
    connection = fresh()
    connection.execute("create table texts as select 'row ' || i as content from generate_series(1, 50) i; "
                       "alter table texts set (parallel_workers = 2); set parallel_leader_participation = off; "
                       "set parallel_setup_cost = 0; set parallel_tuple_cost = 0")
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    assert one(connection, "select count(embed(content)) from texts") == 50
    assert iterative_scan(connection) == "strict_order" and notices == []


@pytest.fixture(scope="module")
def preloading(server):
    with server.another("iterative", {"shared_preload_libraries": "gte-small", "gte_small.model_path": str(server.tiny)}) as cluster:
        yield cluster


@pytest.mark.parametrize("libraries", ["gte-small", "gte-small,vector", "vector,gte-small"])
@pytest.mark.parametrize("configured, expected", [
    ({}, "strict_order"),
    ({"hnsw.iterative_scan": "off"}, "off"),
    ({"hnsw.iterative_scan": "relaxed_order"}, "relaxed_order"),
    ({"gte_small.iterative_scan": "off"}, "off"),
])
def test_preloaded(preloading, libraries, configured, expected):
    preloading.stop()
    for setting in ("hnsw.iterative_scan", "gte_small.iterative_scan"):
        preloading.settings.pop(setting, None)
    preloading.start({"shared_preload_libraries": libraries, **configured})
    with psycopg.connect(preloading.dsn(), autocommit=True) as connection:
        connection.execute("select '[1]'::vector")
        assert iterative_scan(connection) == expected
        connection.execute("set hnsw.iterative_scan = strict_order")
        connection.execute("discard all")
        assert iterative_scan(connection) == expected
