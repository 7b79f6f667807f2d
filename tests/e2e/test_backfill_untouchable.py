"""Rows that no UPDATE can touch: the rest is embedded, and the end of the call names them."""

import threading

import psycopg
import pytest

from backfills import fingerprint, make, missing, note, notices, refused, wait_for, wrong
from measure import counting, one

CALL = "call embed_backfill('docs')"
FORCE = "call embed_backfill('docs', force => true)"
STEP = "select embed_backfill_step('docs')"
OLD = "array_fill(0.051031, array[384])::vector"
RAISES = "create function raises() returns trigger language plpgsql as $$ begin {} end $$;"
TRIGGER = "create trigger {} {} update on docs for each row when (old.id in ({})) execute function raises();"

# What keeps a row from being written: the statement that makes it, of the ids given; SQLSTATE; a word of the message.
OBSTACLES = {
    "check": ("alter table docs add constraint fits check (id not in ({})) not valid", "23514", "fits"),
    "trigger": (RAISES.format("raise exception 'not this one' using hint = 'Ask Ann.';") + TRIGGER.format("a", "before", "{}"), "P0001", "not this one"),
    "after trigger": (RAISES.format("raise sqlstate '22012';") + TRIGGER.format("a", "after", "{}"), "22012", "22012"),
    "assert": (RAISES.format("assert false, 'no';") + TRIGGER.format("a", "before", "{}"), "P0004", "no"),
    "deferred trigger": (RAISES.format("raise exception 'at the end';") + "create constraint trigger a after update on docs deferrable "
                         "initially deferred for each row when (old.id in ({})) execute function raises();", "P0001", "at the end"),
    "undefined function": (RAISES.format("perform nowhere(); return new;") + TRIGGER.format("a", "before", "{}"), "42883", "nowhere"),
    "changed by the trigger": (RAISES.format("update docs set embedding = old.embedding where id = new.id; return new;")
                               + TRIGGER.format("a", "before", "{}").replace("when (", "when (pg_trigger_depth() = 0 and "), "27000", "modified"),
    "policy": ("alter table docs enable row level security; alter table docs force row level security; alter table docs owner to gte_owner;"
               "create policy p on docs using (true) with check (id not in ({}))", "42501", "row-level security"),
    "generated column": ("alter table docs add g int generated always as (case when embedding is null or id not in ({}) then 1 else 1 / (id - id) end) "
                         "stored", "22012", "division"),
    "domain": ("create domain short as text; alter table docs alter content type short; create function odd(text) returns bool language plpgsql "
               "immutable as $$ begin return value in ({}) from (select right($1, 3)::int as value) v; end $$;"
               + RAISES.format("new.content := new.content::text::short; return new;") + "create trigger a before update on docs for each row "
               "execute function raises(); alter domain short add check (not odd(value)) not valid", "23514", "short"),
    "expression index": ("create function key(vector, int) returns int language plpgsql immutable as $$ begin "
                         "if $1 is not null and $2 in ({}) then raise exception 'no key'; end if; return 1; end $$;"
                         "create index on docs (key(embedding, id))", "P0001", "no key"),
}


def rows(connection, count=500, definition="id int primary key, content text"):
    make(connection, count, definition, "select i, 'text ' || to_char(i, 'FM0000') from generate_series(1, {}) i")


def session(database, connection, obstacle):
    """Who calls, without a memo: a superuser's rows are hidden by no policy."""
    caller = database.connect("gte_owner") if obstacle == "policy" else connection
    caller.execute("set gte_small.memo_size = 0")
    return caller


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_one_of_500_rows(database, connection, obstacle):
    """The procedure. The model runs for each text once."""
    statement, sqlstate, word = OBSTACLES[obstacle]
    rows(connection)
    connection.execute(statement.replace("{}", "77"))
    caller = session(database, connection, obstacle)
    for texts in (500, 1):
        with counting(caller) as counted:
            diag = refused(caller, CALL, sqlstate)
        assert diag.message_primary == "1 row of public.docs.embedding could not be embedded: (id)=(77)"
        assert diag.message_detail.startswith("Row (id)=(77): ") and word in diag.message_detail and sqlstate in diag.message_detail
        assert "Mend the cause" in diag.message_hint
        assert connection.execute("select id from docs where embedding is null").fetchall() == [(77,)] and counted.texts == texts
    assert wrong(connection, "(select * from docs where id <> 77) d") == 0
    assert one(connection, "select missing from embedding_status('docs')") == 1, "it counts as missing"


@pytest.mark.parametrize("obstacle", [o for o in OBSTACLES if o != "policy"])
def test_one_of_500_rows_under_force(database, connection, obstacle):
    statement, sqlstate, word = OBSTACLES[obstacle]
    rows(connection)
    connection.execute(f"update docs set embedding = {OLD}")
    # The embeddings of before must pass.
    connection.execute(statement.replace("{}", "77").replace("embedding is null", f"embedding = {OLD}").replace("$1 is not null", "$1 operator(public.<>) array_fill(0.051031, array[384])::public.vector"))
    connection.execute("set gte_small.memo_size = 0")
    for texts in (500, None):
        with counting(connection) as counted:
            diag = refused(connection, FORCE, sqlstate)
        assert diag.message_primary == "1 row of public.docs.embedding could not be embedded: (id)=(77)" and word in diag.message_detail
        assert "force => true" in diag.message_hint and "former" in diag.message_detail
        assert counted.texts == texts or texts is None and counted.texts < 300, "the second call resumes"
        assert connection.execute("select id from docs where embedding <> embed(content)").fetchall() == [(77,)]
        assert one(connection, "select state from embedding_status('docs')") == "re-embedding", "an embedding of before is there"
    assert missing(connection) == 0


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_steps_go_on_to_the_last_row_that_can_be_written(database, connection, obstacle):
    statement, sqlstate, word = OBSTACLES[obstacle]
    rows(connection)
    connection.execute(statement.replace("{}", "77, 78, 400"))
    caller = session(database, connection, obstacle)
    steps, heard = [], []
    caller.add_notice_handler(lambda diag: heard.append((diag.sqlstate, diag.severity_nonlocalized, diag.message_primary, diag.message_detail, diag.message_hint)))
    while not steps or steps[-1] > 0:
        steps.append(one(caller, "select embed_backfill_step('docs', 60)"))
        assert len(steps) < 50
    assert sum(steps) == 497 and [i for i, in connection.execute("select id from docs where embedding is null order by id")] == [77, 78, 400]
    code, severity, message, detail, hint = heard[-1]
    assert len(heard) == 1 and severity == "WARNING" and code == sqlstate and word in detail and hint
    assert message.startswith("3 rows of public.docs.embedding could not be embedded: ") and "(id)=(400)" in message


def test_a_step_of_a_transaction_keeps_what_the_transaction_did(database, connection):
    rows(connection, 120)
    connection.execute(OBSTACLES["check"][0].replace("{}", "5"))
    other = database.connect(autocommit=False)
    other.execute("create table mine (n int)")
    while one(other, "select embed_backfill_step('docs', 50)") > 0:
        pass
    other.commit()
    assert missing(connection) == 1 and one(connection, "select to_regclass('mine') is not null")


@pytest.mark.parametrize("call", [CALL, FORCE])
def test_many_rows_are_counted_and_the_first_are_named(connection, call):
    """Also where whole batches of them stand before the others."""
    rows(connection, 900)
    connection.execute("alter table docs add check (id > 600 or id % 100 = 0) not valid; set gte_small.memo_size = 0")
    with counting(connection) as counted:
        diag = refused(connection, call, "23514")
    assert diag.message_primary == "594 rows of public.docs.embedding could not be embedded: (id)=(1), (id)=(2), (id)=(3), (id)=(4), (id)=(5), ..."
    assert counted.texts == 900
    assert one(connection, "select count(*) from docs where embedding = embed(content)") == 306 == 900 - missing(connection)


@pytest.mark.parametrize("definition, named", [
    ("id int, content text", "ctid (0,2)"),
    ('id int, content text, "my key" text default repeat(\'é\', 99), primary key ("my key", id)', f'("my key", id)=({"é" * 64}, 2)'),
    ("id int, content text, primary key (id) include (content)", "(id)=(2)"),
])
def test_a_row_is_named_by_its_key_or_its_place(connection, definition, named):
    connection.execute(f"create table docs ({definition}, embedding vector(384))")
    connection.execute("insert into docs (id, content) select i, 'text ' || i from generate_series(1, 3) i; select enable_semantic_search('docs', with_index => false);"
                       "alter table docs add check (id <> 2) not valid")
    assert refused(connection, CALL, "23514").message_primary == f"1 row of public.docs.embedding could not be embedded: {named}"


def test_a_key_that_the_caller_may_not_read_is_not_told(database, connection):
    rows(connection, 3)
    connection.execute("alter table docs add check (id <> 2) not valid; grant select (content, embedding, ctid, xmin), update (embedding) on docs to gte_plain")
    diag = refused(database.connect("gte_plain"), CALL, "23514")
    assert diag.message_primary.endswith(": ctid (0,2)") and missing(connection) == 1


def test_rows_of_partitions(connection):
    connection.execute("create table docs (id int primary key, content text, embedding vector(384)) partition by range (id);"
                       "create table docs_1 partition of docs for values from (0) to (100); create table docs_2 partition of docs for values from (100) to (200);"
                       "insert into docs select i, 'text ' || i from generate_series(0, 199) i; select enable_semantic_search('docs', with_index => false);"
                       "alter table docs add check (id % 100 <> 7) not valid")
    named = "2 rows of public.docs.embedding could not be embedded: (id)=(7) of public.docs_1, (id)=(107) of public.docs_2"
    assert refused(connection, CALL, "23514").message_primary == named
    assert missing(connection) == 2
    for _ in range(2):
        assert refused(connection, FORCE, "23514").message_primary == named
        assert missing(connection) == 2
    connection.execute("alter table docs drop constraint docs_id_check")
    connection.execute(FORCE)
    assert wrong(connection) == 0 and one(connection, "select state from embedding_status('docs')") == "current"


def test_of_two_columns_each_is_filled(connection):
    connection.execute("create table docs (id int primary key, title text, content text, a vector(384), b vector(384));"
                       "insert into docs select i, 't' || i, 'c' || i from generate_series(1, 50) i;"
                       "select enable_semantic_search('docs', '{title}', 'a', false, 'query_a'); select enable_semantic_search('docs', '{content}', 'b', false, 'query_b');"
                       "alter table docs add check (id <> 3 or a is null) not valid, add check (id <> 4 or b is null) not valid")
    with notices(connection) as heard:
        diag = refused(connection, CALL, "23514")
    assert diag.message_primary == "1 row of public.docs.b could not be embedded: (id)=(4)"
    assert [m for s, m in heard if s == "WARNING"] == ["1 row of public.docs.a could not be embedded: (id)=(3)"]
    assert connection.execute("select id, a is null, b is null from docs where a is null or b is null order by id").fetchall() == [(3, True, False), (4, False, True)]


# --- force: the walk over all rows ---


def test_once_mended_a_forced_walk_ends(database, connection):
    """The call that resumes it begins at the first such row."""
    rows(connection, 2000)
    connection.execute(f"update docs set embedding = {OLD}; alter table docs add constraint fits check (id not in (1500, 1900)) not valid; set gte_small.memo_size = 0")
    assert "(id)=(1500), (id)=(1900)" in refused(connection, FORCE, "23514").message_primary
    assert note(connection)["force"]["block"] == one(connection, "select (ctid::text::point)[0]::int from docs where id = 1500")
    connection.execute("alter table docs drop constraint fits")
    with counting(connection) as counted:
        connection.execute(FORCE)
    assert wrong(connection) == 0 and "force" not in note(connection) and note(connection)["fingerprint"] == fingerprint(connection)
    assert counted.texts < 100, "what is done is known by its transactions"


def test_a_forced_batch_with_such_a_row_embeds_no_row_twice(connection):
    """Rows that are written row by row stand in later blocks of the same walk."""
    rows(connection, 1500)
    connection.execute(f"update docs set embedding = {OLD}; alter table docs add check (id % 97 <> 0) not valid; set gte_small.memo_size = 0")
    with counting(connection) as counted:
        refused(connection, FORCE, "23514")
    assert counted.texts == 1500 and one(connection, f"select count(*) from docs where embedding = {OLD}") == 15


def test_rows_of_others_during_the_walk_are_embedded_in_spite_of_such_a_row(database, connection):
    """An UPDATE of another column copies the old vector to a block that the walk has left."""
    rows(connection, 3000, "id int primary key, content text, hits int")
    connection.execute(f"update docs set embedding = {OLD}; alter table docs add check (id <> 1) not valid")
    right = "select count(*) from docs where embedding <> " + OLD
    holder = database.connect(autocommit=False)
    holder.execute("select from docs where id = 2999 for update")
    errors = []

    def work():
        try:
            database.connect().execute(FORCE)
        except psycopg.Error as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: one(connection, right) > 2500)
    holder.execute("update docs set hits = 1 where id = 2999")
    holder.commit()
    thread.join(120)
    assert errors and errors[0].sqlstate == "23514"
    assert one(connection, f"select count(*) from docs where embedding = {OLD}") == 1


# --- texts that the model refuses ---


def test_a_text_that_the_model_refuses_and_a_row_that_can_not_be_written(connection):
    make(connection, 300, insert="select i, case i when 50 then repeat('word ', 5000) else 'text ' || i end from generate_series(1, {}) i")
    connection.execute("alter table docs add check (id <> 60) not valid; set gte_small.on_truncate = 'error'; set gte_small.memo_size = 0")
    with counting(connection) as counted:
        diag = refused(connection, CALL, "22001")
    assert diag.message_primary.startswith("2 rows of ") and diag.message_detail.startswith("Row (id)=(50)")
    assert missing(connection) == 2 and counted.texts == 299, "no text twice"
    with notices(connection) as heard:
        assert one(connection, STEP) == 0
    assert [s for s, m in heard if "2 rows" in m] == ["WARNING"]


# --- errors that are not of a row ---


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "53200", "55P03", "57014", "57P03", "58030", "XX001", "25006", "08006"])
@pytest.mark.parametrize("call", [CALL, FORCE, STEP])
def test_an_error_of_the_whole_call_ends_it_at_once(connection, call, sqlstate):
    rows(connection, 40)
    connection.execute(RAISES.format(f"raise exception 'all of it' using errcode = '{sqlstate}', detail = 'd', hint = 'h';") + TRIGGER.format("a", "before", "20"))
    diag = refused(connection, call, sqlstate)
    assert diag.message_primary == "all of it" and diag.message_detail == "d", "as it was raised"


def test_a_statement_that_no_row_can_pass_ends_the_call_at_once(connection):
    rows(connection, 300)
    connection.execute("create table seen (n int); create sequence tries;" + RAISES.format("perform nextval('tries'); raise exception 'closed' using detail = 'd', hint = 'h';")
                       + "create trigger a before update on docs execute function raises()")
    for call in (CALL, STEP):
        assert refused(connection, call, "P0001").message_primary == "closed"
    assert one(connection, "select last_value from tries") == 4, "the batch, and once without rows"


def test_statement_timeout_and_lock_timeout_end_it(database, connection):
    rows(connection, 60)
    connection.execute("create table busy (n int); insert into busy values (1);" + RAISES.format("perform from busy for update; perform pg_sleep(20); return new;")
                       + TRIGGER.format("a", "before", "20"))
    connection.execute("set statement_timeout = '300ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute(CALL)
    holder = database.connect(autocommit=False)
    holder.execute("select from busy for update")
    connection.execute("set statement_timeout = 0; set lock_timeout = '200ms'")
    for call in (CALL, STEP):
        with pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute(call)
    assert missing(connection) == 60


def test_a_deferred_trigger_that_is_right_at_the_end_is_no_obstacle(connection):
    """Two constraints of one table; also in a transaction that has written before, where a step leaves them to COMMIT."""
    rows(connection, 100)
    connection.execute("create table log (id int); create table seen (id int);" + RAISES.format("insert into seen values (new.id); return null;")
                       + "create constraint trigger a after update on docs deferrable initially deferred for each row execute function raises()")
    connection.execute(CALL)
    assert missing(connection) == 0 and one(connection, "select count(*) from seen") == 100, "it fires for each row once"


def test_a_step_does_not_try_what_the_caller_has_pending(database, connection):
    rows(connection, 100)
    connection.execute("create table p (id int primary key); create table c (id int references p deferrable initially deferred)")
    other = database.connect(autocommit=False)
    other.execute("insert into c values (1)")
    while one(other, STEP) > 0:
        pass
    other.execute("insert into p values (1)")
    other.commit()
    assert missing(connection) == 0
