"""The arguments of the search functions: one rule for all forms."""

import itertools

import psycopg
import pytest

from measure import one


@pytest.fixture
def docs(connection):
    connection.execute("create table docs (id int primary key, content text, search text, similarity real, tags text[]);"
                       "select enable_semantic_search('docs')")
    connection.execute("insert into docs (id, content, search, similarity) values (1, 'a cat', 'mine', 7), (2, 'a dog', null, null)")
    return connection


@pytest.mark.parametrize("call", ["query_docs('x', {})", "query_docs(embed('x'), {})", "query_docs('x', {}, 10)",
                                  "query_docs(embed('x'), {}, 10)", "search_docs('x', match_threshold => {})"])
@pytest.mark.parametrize("threshold", ["5", "1.01", "-1.5", "'NaN'", "'infinity'", "'-infinity'"])
def test_a_threshold_that_is_no_cosine(docs, call, threshold):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="match_threshold is") as error:
        docs.execute("select * from " + call.format(threshold))
    assert "match_count => " in error.value.diag.message_hint
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        docs.execute(f"select * from {call.format('%s::float8')}", [threshold.strip("'")])


def test_the_hint_about_a_threshold_has_arguments_that_every_search_function_takes(docs):
    with pytest.raises(psycopg.errors.InvalidParameterValue) as error:
        docs.execute("select * from query_docs('x', 1.5)")
    arguments = error.value.diag.message_hint.partition(" write ")[2].rstrip(".")
    for call in ("query_docs('x', {})", "query_docs(embed('x'), {})", "search_docs('x', {})"):
        assert len(docs.execute("select id from " + call.format(arguments)).fetchall()) == 2


@pytest.mark.parametrize("call", ["query_docs('x', null, {})", "query_docs(embed('x'), null, {})", "search_docs('x', {})",
                                  "hybrid_docs('x', {})"])
def test_counts(docs, call):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="match_count is -1"):
        docs.execute("select * from " + call.format(-1))
    assert len(docs.execute("select * from " + call.format("null")).fetchall()) == 2
    docs.execute("insert into docs (id, content) select i, 'text ' || i from generate_series(3, 20) i")
    assert len(docs.execute("select * from " + call.format("null")).fetchall()) == 10
    assert docs.execute("select * from " + call.format("0")).fetchall() == []


def test_a_question_alone(docs):
    assert docs.execute("select id from query_docs('how do I get my money back?')").fetchall() != []
    assert docs.execute("select id from search_docs('how do I get my money back?')").fetchall() != []


@pytest.mark.parametrize("search", ["[0.1,0.2]", "{0.1,0.2}", " ", ""])
def test_searches_that_are_mistakes(docs, search):
    for call in ("query_docs(%s)", "query_docs(%s, 0.5)", "query_docs(%s, 0.5, 3)", "search_docs(%s)", "hybrid_docs(%s)"):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            docs.execute(f"select * from {call}", [search])


def test_null_finds_nothing(docs):
    for call in ("query_docs(null::text)", "query_docs(null::vector)", "query_docs(null::text, 0.5, 3)", "search_docs(null)", "hybrid_docs(null)"):
        assert docs.execute(f"select * from {call}").fetchall() == []


def test_no_set_of_named_arguments_fits_two_functions(docs):
    functions = docs.execute("select proname, proargnames[1:pronargs], pronargdefaults from pg_proc "
                             "where proname in ('query_docs', 'search_docs', 'hybrid_docs')").fetchall()
    assert len(functions) == 6
    for name in ("query_docs", "search_docs", "hybrid_docs"):
        fitting = {}
        for _, arguments, defaults in (row for row in functions if row[0] == name):
            required, optional = arguments[:len(arguments) - defaults], arguments[len(arguments) - defaults:]
            for some in itertools.chain.from_iterable(itertools.combinations(optional, n) for n in range(len(optional) + 1)):
                key = frozenset((*required, *some))
                assert key not in fitting, (name, sorted(key))
                fitting[key] = arguments


def test_the_friendly_form_returns_the_columns_and_the_similarity(docs):
    cursor = docs.execute("select * from search_docs('a cat', 1)")
    assert [column.name for column in cursor.description] == ["id", "content", "search_1", "similarity", "tags", "similarity_1"]
    assert cursor.fetchone()[:4] == (1, "a cat", "mine", 7)
    # By rounding, a vector's product with itself may exceed 1.
    docs.execute("insert into docs (id, content) select i, 'text number ' || i from generate_series(3, 300) i")
    assert one(docs, "select max(s.similarity_1) from docs d, search_docs(d.content, 1) s") <= 1


def test_a_filter_by_name(docs):
    assert docs.execute("select id from search_docs('a dog', filter => '{\"search\": null}')").fetchall() == [(2,)]
    assert docs.execute("select id from query_docs(search => 'a dog', match_threshold => null, match_count => 5, "
                        "filter => '{\"id\": [1, 99]}')").fetchall() == [(1,)]
    assert docs.execute("select (item).id from hybrid_docs('dog', filter => '{\"id\": 1}')").fetchall() == [(1,)]


def test_columns_come_and_go(docs):
    status = "select hints from embedding_status('docs')"
    assert one(docs, status) == []
    for change in ("alter table docs add column lang text", "alter table docs drop column tags", "alter table docs rename column lang to language"):
        docs.execute(change)
        (hint,) = one(docs, status)
        assert "search functions" in hint
        docs.execute(hint[hint.index("SELECT"):])
        assert one(docs, status) == []
    assert "language" in [column.name for column in docs.execute("select * from search_docs('a cat')").description]


def test_grants_survive_renewed_functions(docs, database):
    docs.execute("revoke execute on function search_docs from public; grant execute on function search_docs to gte_reader; "
                 "grant select on docs to gte_reader, gte_plain; alter table docs drop column tags; select enable_semantic_search('docs')")
    assert len(database.connect("gte_reader").execute("select * from search_docs('a cat')").fetchall()) == 2
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.connect("gte_plain").execute("select * from search_docs('a cat')")
