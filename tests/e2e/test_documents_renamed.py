"""Document search goes on after renames, or says which statement mends it."""

import psycopg
import pytest

from measure import one


@pytest.fixture
def manuals(connection):
    """Two columns of text, one of context, a key of two columns."""
    connection.execute("create table manuals (lang text, number int, title text, body text, tenant int default 1, primary key (lang, number)); create schema app")
    connection.execute("select enable_document_search('manuals', 'title, body', 'title')")
    connection.execute("insert into manuals values ('en', 1, 'Pets', 'a cat sat on the mat')")
    return connection


def works(connection, table="manuals", chunks="manuals_chunks", function="query_manuals", body="body"):
    """Rows are inserted, changed, searched and deleted, and the chunks follow."""
    start = one(connection, f"select count(*) from {table}")
    connection.execute(f"insert into {table} select lang, number + 1000, title, body, tenant "
                       f"from (select * from {table} limit 1) as r (lang, number, title, body, tenant)")
    connection.execute(f"update {table} set {body} = 'a stone in the river' where {table}.ctid in (select ctid from {table} order by ctid desc limit 1)")
    texts = [text for text, in connection.execute(f"select content from {chunks}")]
    assert any("a stone in the river" in text for text in texts) and len(texts) == start + 1, texts
    assert one(connection, f"select chunk from {function}('a stone in the river')").endswith("a stone in the river")
    assert one(connection, f"select (document).{body} from {function}('a stone in the river')") == "a stone in the river"
    connection.execute(f"delete from {table} where {body} = 'a stone in the river'")
    assert one(connection, f"select count(*) from {chunks}") == start


RENAMES = {
    "source column": ("alter table manuals rename body to words", {"body": "words"}),
    "context": ("alter table manuals rename title to heading", {}),
    "key": ("alter table manuals rename number to no", {}),
    "table": ("alter table manuals rename to books", {"table": "books"}),
    "schema": ("alter table manuals set schema app", {"table": "app.manuals"}),
    "name of the schema": ("alter table manuals set schema app; alter schema app rename to other", {"table": "other.manuals"}),
    "chunks": ("alter table manuals_chunks rename to parts", {"chunks": "parts"}),
    "schema of the chunks": ("alter table manuals_chunks set schema app", {"chunks": "app.manuals_chunks"}),
    "key of the chunks": ("alter table manuals_chunks rename document_lang to language", {}),
    "an odd name": ('alter table manuals rename body to "a ""b\\"; alter table manuals_chunks rename to "x y"', {"body": '"a ""b\\"', "chunks": '"x y"'}),
}


@pytest.mark.parametrize("case", RENAMES)
def test_a_rename_needs_nothing(database, manuals, case):
    statements, names = RENAMES[case]
    later = database.connect()
    works(later)
    manuals.execute(statements)
    for session in (manuals, later, database.connect()):
        works(session, **names)


def test_all_at_once_and_in_partitions(database, connection):
    connection.execute("create table manuals (id int, body text, primary key (id)) partition by range (id); "
                       "create table low partition of manuals for values from (0) to (100); "
                       "create table high (body text, gone int, id int primary key); alter table high drop column gone; "
                       "alter table manuals attach partition high for values from (100) to (1000); create schema app")
    connection.execute("select enable_document_search('manuals', 'body'); insert into manuals values (1, 'a cat'), (101, 'a dog')")
    connection.execute("alter table manuals rename body to words; alter table manuals rename id to isbn; alter table manuals rename to books; "
                       "alter table books set schema app; alter table low rename to little; alter table manuals_chunks rename to parts")
    connection.execute("update app.books set words = words || ' sat'; update app.books set isbn = 102 where isbn = 1; delete from app.books where isbn = 101")
    assert connection.execute("select document_id, content from parts").fetchall() == [(102, "a cat sat")]
    assert one(connection, "select chunk from query_manuals('a cat')") == "a cat sat"
    connection.execute("create table more partition of app.books for values from (1000) to (2000); insert into app.books values (1001, 'a cow')")
    assert connection.execute("select document_id, content from parts order by 1").fetchall() == [(102, "a cat sat"), (1001, "a cow")]


def test_enabling_again_after_a_rename_keeps_the_chunks(manuals):
    manuals.execute("alter table manuals rename body to words; alter table manuals rename to books")
    kept = manuals.execute("select ctid::text, xmin::text from manuals_chunks").fetchall()
    manuals.execute("select enable_document_search('books', 'title, words', 'title')")
    assert manuals.execute("select ctid::text, xmin::text from manuals_chunks").fetchall() == kept
    works(manuals, "books", function="query_books", body="words")
    manuals.execute("alter table books rename words to body")
    manuals.execute("select * from refresh_semantic_search()")
    works(manuals, "books", function="query_books")


def test_a_dropped_column_is_named_with_the_statement_that_mends_it(manuals):
    manuals.execute("alter table manuals drop column title")
    with pytest.raises(psycopg.errors.UndefinedColumn, match='column "title" of table public.manuals does not exist') as error:
        manuals.execute("insert into manuals (lang, number, body) values ('en', 2, 'a dog')")
    assert error.value.diag.message_detail
    assert "enable_document_search('public.manuals'" in error.value.diag.message_hint
    manuals.execute("select enable_document_search('public.manuals', 'body')")
    manuals.execute("insert into manuals (lang, number, body) values ('en', 2, 'a dog')")
    manuals.execute("call embed_backfill('manuals_chunks')")
    assert one(manuals, "select count(*) from query_manuals('a dog')") == 2


def test_dropped_chunks_are_made_again_by_the_hint(manuals):
    manuals.execute("drop table manuals_chunks")
    for statement in ("insert into manuals values ('en', 2, 'Dogs', 'a dog')", "update manuals set body = 'x'"):
        with pytest.raises(psycopg.errors.UndefinedTable, match="chunks of table public.manuals is gone") as error:
            manuals.execute(statement)
    with pytest.raises(psycopg.errors.UndefinedTable, match="chunks of table public.manuals is gone") as searched:
        manuals.execute("select * from query_manuals('a cat')")
    mend = error.value.diag.message_hint.split(";")[0]
    assert mend == searched.value.diag.message_hint.split(";")[0]
    manuals.execute(mend)
    works(manuals)


def test_a_renamed_column_of_the_chunks_is_named(manuals):
    manuals.execute("alter table manuals_chunks rename ordinal to place")
    with pytest.raises(psycopg.errors.UndefinedColumn, match='column "ordinal" of table public.manuals_chunks') as error:
        manuals.execute("insert into manuals values ('en', 2, 'Dogs', 'a dog')")
    assert "give it this name again" in error.value.diag.message_hint
    manuals.execute("alter table manuals_chunks rename place to ordinal")
    works(manuals)


def test_a_table_of_another_role_is_never_taken_for_the_chunks(database, manuals):
    """Its triggers would run with the rights of the documents' owner."""
    manuals.execute("grant references on manuals to gte_plain; create schema theirs authorization gte_plain")
    plain = database.connect("gte_plain")
    plain.execute("set search_path = theirs, public; create table ran (who text); "
                  "create table planted (document_lang text, document_number int, ordinal int, start int, content text, embedding vector(384), heading text, "
                  "primary key (document_lang, document_number, ordinal), foreign key (document_lang, document_number) references public.manuals); "
                  "create trigger gte_small_accept before insert on planted for each row execute function gte_small.accept_chunk(); "
                  "create function run() returns trigger language plpgsql as $$ begin insert into theirs.ran values (current_user); return new; end $$; "
                  "create trigger run before insert on planted for each row execute function run()")
    manuals.execute("drop table manuals_chunks")
    with pytest.raises(psycopg.errors.UndefinedTable):
        manuals.execute("insert into manuals values ('en', 2, 'Dogs', 'a dog')")
    manuals.execute("alter table manuals owner to gte_plain; alter table manuals owner to postgres")
    with pytest.raises(psycopg.errors.UndefinedTable):
        manuals.execute("select * from query_manuals('a dog')")
    manuals.execute("select enable_document_search('manuals', 'title, body', 'title')")
    works(manuals)
    assert one(manuals, "select count(*) from theirs.planted") == one(manuals, "select count(*) from theirs.ran") == 0


def test_the_documents_were_dropped_and_made_again(connection):
    connection.execute("create table manuals (id int primary key, body text); select enable_document_search('manuals', 'body')")
    connection.execute("insert into manuals values (1, 'a dog')")
    connection.execute("drop table manuals cascade")
    connection.execute("create table manuals (id int primary key, body text)")
    with pytest.raises(psycopg.errors.DuplicateTable) as error:
        connection.execute("select enable_document_search('manuals', 'body')")
    statements = error.value.diag.message_hint.split("; ")
    assert statements[0] == "Its documents were dropped. DROP TABLE public.manuals_chunks" and statements[2] == "and enable the search again."
    connection.execute(statements[0].partition(". ")[2])
    connection.execute(statements[1])
    connection.execute("select enable_document_search('manuals', 'body')")
    connection.execute("insert into manuals values (2, 'a cat')")
    assert connection.execute("select (document).id from query_manuals('cat', match_count => 5)").fetchall() == [(2,)]
