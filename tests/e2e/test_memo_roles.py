"""The memo in a pooled session: a role gets no hit for a text that another role embedded."""

import pytest

from measure import counting, embedding


def hits(connection, text):
    """Hits in the memo for one text: 0 or 1."""
    with counting(connection) as counted:
        embedding(connection, text)
    assert counted.texts + counted.memo_hits == 1
    return counted.memo_hits


@pytest.fixture
def pooled(connection):
    """A session whose user may become each of the three roles, as the user of a pool does."""
    connection.execute("set role gte_owner")
    embedding(connection, "secret")
    assert hits(connection, "secret") == 1
    return connection


def test_another_role_gets_no_hit(pooled):
    pooled.execute("set role gte_plain")
    assert hits(pooled, "secret") == 0
    assert hits(pooled, "secret") == 1, "it remembers its own"
    pooled.execute("reset role")
    assert hits(pooled, "secret") == 0, "a superuser is a role as well"
    pooled.execute("set role gte_owner")
    assert hits(pooled, "secret") == 1, "the first role's text is still there"


def test_a_role_of_one_transaction_gets_no_hit(pooled):
    """As an API server sets the role, for one request."""
    for role, expected in (("gte_plain", 0), ("gte_owner", 1)):
        with pooled.transaction():
            pooled.execute(f"set local role {role}")
            assert hits(pooled, "secret") == expected, role


def test_another_session_authorization_gets_no_hit(pooled):
    pooled.execute("reset role; set session authorization gte_plain")
    assert hits(pooled, "secret") == 0
    pooled.execute("set session authorization gte_owner")
    assert hits(pooled, "secret") == 1


def test_callers_of_a_security_definer_function_share_no_hits(pooled):
    """Within such a function the current user is the same for all callers."""
    pooled.execute("reset role")
    pooled.execute("create function hidden(content text) returns vector language plpgsql security definer "
                   "as $$ begin return embed(content); end $$")

    def call():
        with counting(pooled) as counted:
            pooled.execute("select hidden('a hidden text')")
        return counted.memo_hits

    pooled.execute("set role gte_plain")
    assert (call(), call()) == (0, 1)
    assert hits(pooled, "a hidden text") == 0, "what the function embedded is not the caller's"
    pooled.execute("set role gte_reader")
    assert (call(), call()) == (0, 1)


def test_all_roles_share_one_limit(connection):
    connection.execute("set gte_small.memo_size = 4")
    for role in ("gte_owner", "gte_plain", "gte_reader"):
        connection.execute(f"set role {role}")
        for text in ("one", "two"):
            embedding(connection, text)
    connection.execute("set role gte_plain")
    assert (hits(connection, "two"), hits(connection, "one")) == (1, 1)
    connection.execute("set role gte_owner")
    assert (hits(connection, "two"), hits(connection, "one")) == (0, 0)


def test_discard_all_keeps_the_texts_and_memo_size_0_forgets_them(pooled):
    pooled.execute("discard all")
    assert hits(pooled, "secret") == 0, "the role is reset, too"
    pooled.execute("set role gte_owner")
    assert hits(pooled, "secret") == 1
    # No text is embedded between the two statements.
    pooled.execute("set gte_small.memo_size = 0; reset gte_small.memo_size")
    assert hits(pooled, "secret") == 0
    # RESET ALL and ROLLBACK of a smaller memo_size change nothing but the limit.
    pooled.execute("set gte_small.memo_size = 64; reset all")
    with pooled.transaction(force_rollback=True):
        pooled.execute("set local gte_small.memo_size = 32")
    assert hits(pooled, "secret") == 1


def test_discard_all_forgets_the_texts_beyond_the_default(database, connection):
    """RESET ALL, which is a part of DISCARD ALL, makes a memo small again that was made large."""
    database.configure("gte_small.memo_size", 0)
    session = database.connect()
    session.execute("set gte_small.memo_size = 100")
    embedding(session, "secret")
    assert hits(session, "secret") == 1
    session.execute("discard all")
    session.execute("set gte_small.memo_size = 100")
    assert hits(session, "secret") == 0
