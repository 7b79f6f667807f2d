"""The recipes of docs/models.md: one model for each database, and a change of model through a second column while sessions search
and write. The statements are those of the page, with the tests' names of roles, database and models."""

import psycopg
import pytest
from psycopg import sql

from measure import one

# Step by step, as on the page.
ROLE = """
alter role app_2 in database shop set gte_small.model_path = '/srv/models/b';
alter role app_2 in database shop set gte_small.defer = on;
"""
COLUMN = """
begin;
set local gte_small.model_path = '/srv/models/b';
select enable_semantic_search('docs', 'content', 'embedding_2', with_index => false, search_function => 'query_docs_2');
alter table docs disable trigger zzz_gte_small_embedding_2;
create function docs_text_changed() returns trigger language plpgsql as
  $$ begin new.embedding_2 := null; return new; end $$;
create trigger docs_text_changed before update on docs for each row
  when (new.content is distinct from old.content) execute function docs_text_changed();
commit;
"""
FILL = """
set gte_small.model_path = '/srv/models/b';
call embed_backfill('docs', embedding => 'embedding_2');
create index concurrently on docs using hnsw (embedding_2 vector_ip_ops);
select * from embed_verify('docs', embedding => 'embedding_2');
"""
FILL_OLD = """
call embed_backfill('docs', embedding => 'embedding');
"""
FILL_NEW = """
set gte_small.model_path = '/srv/models/b';
call embed_backfill('docs', embedding => 'embedding_2');
"""
END = """
begin;
select disable_semantic_search('docs', 'embedding');
drop trigger docs_text_changed on docs;
drop function docs_text_changed();
alter table docs drop column embedding;
alter table docs enable trigger zzz_gte_small_embedding_2;
commit;
alter database shop set gte_small.model_path = '/srv/models/b';
alter role app_2 in database shop reset all;
"""
LAST = """
call embed_backfill('docs');
"""


class Change:
    """The recipe on a database, and sessions of both versions of an application."""

    def __init__(self, database):
        self.database = database
        self.names = {"app_2": "gte_reader", "shop": database.name, "/srv/models/b": str(database.server.tiny_other)}

    def run(self, statements):
        """In a new session of a superuser, one statement after the other."""
        connection = self.database.connect()
        body = statements
        for name, value in self.names.items():
            body = body.replace(name, value)
        for statement in psql_statements(body):
            connection.execute(statement)
        connection.close()

    def app(self, version):
        return self.database.connect("gte_plain" if version == 1 else "gte_reader")


def psql_statements(script):
    """Divides at semicolons at the ends of lines."""
    return [statement for statement in script.strip().split(";\n") if statement.strip(" \n;")]


def found(connection, text, function):
    """The row of a text, and its similarity, by a search for the text itself: 1 only if one model made both vectors."""
    return connection.execute(f"select content, round(similarity::numeric, 3) from {function}(%s, 1)", [text]).fetchone()


def right(connection, texts, function):
    for text in texts:
        assert found(connection, text, function) == (text, 1), (function, text)


@pytest.fixture
def shop(database):
    connection = database.connect()
    connection.execute("create table docs (id int primary key, content text); grant select, insert, update, delete on docs to gte_plain, gte_reader;"
                       "select enable_semantic_search('docs'); insert into docs select i, 'text number ' || i from generate_series(1, 300) i")
    return Change(database)


def test_a_change_of_model_through_a_second_column(shop):
    old, owner = shop.app(1), shop.database.connect()
    first, written = ["text number 7", "text number 123"], []

    def both_versions(new):
        """Each finds old and new texts with its own model."""
        right(old, first + written, "search_docs")
        right(new, first + written, "search_docs_2")

    def write(connection, number):
        """A new row and a changed one."""
        text, changed = f"written row {number}", f"changed row {number}"
        connection.execute("insert into docs values (%s, %s)", [1000 + number, text])
        connection.execute("update docs set content = %s where id = %s", [changed, 200 + number])
        written.extend([text, changed])

    right(old, first, "search_docs")
    shop.run(ROLE)
    right(old, first, "search_docs")
    shop.run(COLUMN)
    write(old, 1)
    right(old, first + written, "search_docs")
    shop.run(FILL)
    right(old, first + written, "search_docs")
    # After the fill, the old version goes on writing; a job fills the new column.
    write(old, 2)
    right(old, first + written, "search_docs")
    assert one(owner, "select count(*) from docs where embedding_2 is null") == 2
    shop.run(FILL_NEW)
    new = shop.app(2)
    both_versions(new)
    # Both versions write: what the new one writes is found by both after the jobs.
    write(old, 3)
    write(new, 4)
    assert one(owner, "select count(*) from docs where embedding is null") == 2
    shop.run(FILL_OLD)
    shop.run(FILL_NEW)
    both_versions(new)
    assert one(owner, "select wrong from embed_verify('docs', null, 'embedding')") == 0
    states = dict(owner.execute("select embedding, state from embedding_status('docs')").fetchall())
    assert states["embedding"] == "current"
    # The old version ends.
    old.close()
    shop.run(END)
    right(new, first + written, "search_docs_2")
    write(new, 5)
    shop.run(LAST)
    right(new, first + written, "search_docs_2")
    new.close()
    # New sessions of any role have the new model, and rows are found at once.
    new, owner = shop.app(2), shop.database.connect()
    write(new, 6)
    right(new, first + written, "search_docs_2")
    right(owner, first + written, "search_docs_2")
    embedding, state, missing, hints = owner.execute("select embedding, state, missing, hints from embedding_status('docs')").fetchone()
    assert (embedding, state, missing, hints) == ("embedding_2", "current", 0, [])
    assert one(owner, "select wrong from embed_verify('docs', null)") == 0
    with pytest.raises(psycopg.errors.UndefinedFunction):
        owner.execute("select * from search_docs('x')")


def test_rows_that_are_written_while_the_new_column_is_filled(shop):
    """A changed text never keeps the new column's vector of the text before."""
    shop.run(ROLE)
    shop.run(COLUMN)
    old = shop.app(1)
    shop.run(FILL)
    old.execute("update docs set content = 'another text' where id = 5; update docs set content = null where id = 6; update docs set id = 1007 where id = 7")
    assert old.execute("select id from docs where embedding_2 is null order by id").fetchall() == [(5,), (6,)]
    shop.run(FILL_NEW)
    new = shop.app(2)
    assert found(new, "another text", "search_docs_2") == ("another text", 1)
    connection = shop.database.connect()
    connection.execute("select set_config('gte_small.model_path', %s, false)", [str(shop.database.server.tiny_other)])
    assert connection.execute("select checked, wrong, missing from embed_verify('docs', null, 'embedding_2')").fetchone() == (299, 0, 0)


def test_one_model_for_each_database(server):
    made = [server.create_database(), server.create_database()]
    try:
        before = made[1].connect("gte_plain")
        first = one(before, "select embed('a cat')::text")
        server.execute(sql.SQL("alter database {} set gte_small.model_path = {}").format(
            sql.Identifier(made[1].name), sql.Literal(str(server.tiny_other))))
        # Sessions that are connected keep their model; new ones have the other, also those of a plain role.
        assert one(before, "select embed('a cat')::text") == first
        assert one(made[0].connect("gte_plain"), "select embed('a cat')::text") == first
        for role in ("gte_plain", "postgres"):
            assert one(made[1].connect(role), "select embed('a cat')::text") != first
        # A plain role can't leave it. Before the library is loaded the SET is refused only then, with a warning.
        plain = made[1].connect("gte_plain")
        plain.execute("set gte_small.model_path = '/elsewhere'")
        assert one(plain, "select embed('a cat')::text") != first
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            plain.execute("set gte_small.model_path = '/elsewhere'")
    finally:
        for database in made:
            database.drop()
