"""A comment makes no function one of a table's search: only its owner's functions are taken, and others are in nobody's way."""

from measure import one

PLANT = """
create schema evil; create table evil.log (who text, super bool);
create function evil.f(search text, match_threshold numeric, match_count int default 10) returns table (document app.manuals)
  language plpgsql as $$ begin insert into evil.log select current_user, (select rolsuper from pg_roles where rolname = current_user); return; end $$;
comment on function evil.f is 'gte-small: for documents in chunks';
"""


def plant(connection, statements):
    """As a role that has no right on the table."""
    connection.execute("grant create on database " + one(connection, "select quote_ident(current_database())") + " to gte_plain")
    connection.execute("set role gte_plain")
    connection.execute(statements)
    connection.execute("reset role")


def test_a_strangers_function_is_not_taken_for_a_document_search(connection):
    connection.execute("create schema app; create table app.manuals (id int primary key, content text); grant usage on schema app to gte_plain")
    plant(connection, PLANT)
    connection.execute("select enable_document_search('app.manuals')")
    connection.execute("insert into app.manuals values (1, 'Invoices are due within thirty days.')")
    connection.execute("select * from app.query_manuals('pay', 0.4, 5)")
    assert one(connection, "select count(*) from evil.log") == 0
    assert one(connection, "select count(*) from pg_proc where proname = 'query_manuals'") == 1
    connection.execute("select disable_document_search('app.manuals')")
    assert one(connection, "select count(*) from pg_proc where proname = 'f' and pronamespace = 'evil'::regnamespace") == 1


def test_a_strangers_function_does_not_keep_the_owner_from_the_documents(connection):
    connection.execute("create schema app authorization gte_owner; set role gte_owner; create table app.manuals (id int primary key, content text);"
                       "grant usage on schema app to gte_plain; reset role")
    plant(connection, PLANT)
    connection.execute("set role gte_owner")
    connection.execute("select enable_document_search('app.manuals'); select enable_document_search('app.manuals'); select disable_document_search('app.manuals')")
    connection.execute("reset role")
    assert one(connection, "select count(*) from pg_proc where proname = 'query_manuals'") == 0


def test_a_strangers_function_does_not_keep_the_owner_from_the_rows(connection):
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    connection.execute("create schema app authorization gte_owner; set role gte_owner; create table app.docs (id int primary key, content text);"
                       "grant usage, create on schema app to gte_plain; reset role")
    plant(connection, "create function app.query_mine(x app.docs) returns setof app.docs language sql as 'select x';"
                      "comment on function app.query_mine is 'gte-small: for embedding: mine'")
    connection.execute("set role gte_owner")
    connection.execute("select enable_semantic_search('app.docs'); select enable_semantic_search('app.docs'); select disable_semantic_search('app.docs')")
    connection.execute("reset role")
    assert any("belongs to another role and was left" in said for said in notices)
    assert one(connection, "select string_agg(proname, ' ') from pg_proc where pronamespace = 'app'::regnamespace") == "query_mine"


def test_privileges_of_a_strangers_function_are_not_copied(connection):
    connection.execute("create schema app authorization gte_owner; set role gte_owner; create table app.docs (id int primary key, content text);"
                       "grant usage, create on schema app to gte_plain; reset role")
    connection.execute("set role gte_owner; alter default privileges revoke execute on functions from public;"
                       "select enable_semantic_search('app.docs'); revoke all on all functions in schema app from public; reset role")
    # An older function of the stranger, with the arguments of a search, that everybody may execute.
    plant(connection, "create function app.query_older(search text) returns setof app.docs language sql as 'select null::app.docs';"
                      "comment on function app.query_older is 'gte-small: for embedding: mine'")
    connection.execute("set role gte_owner; select enable_semantic_search('app.docs', search_function => 'query_new'); reset role")
    assert not one(connection, "select bool_or(has_function_privilege('gte_reader', p.oid, 'execute')) from pg_proc p "
                               "where pronamespace = 'app'::regnamespace and proname in ('query_new', 'search_new', 'hybrid_new')")
