"""`gte_small.conditions`: a filter as SQL. Every type compares as its own, and no key or value becomes SQL."""

import json

import psycopg
import pytest
from psycopg.types.json import Jsonb

from measure import one

LONG_NAME = "n" * 63
ODD_NAMES = ["we ird", 'quo"te', "it's", "$1", "%I", "back\\slash", "Ünï", "select", ";drop table t", LONG_NAME, "ctid2", "E'x"]
UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"


@pytest.fixture
def table(connection):
    """Row 1 has a value in each column, row 2 another one, row 3 NULL."""
    connection.execute(
        "create type mood as enum ('glad', 'it''s so', 'sad'); create domain small as int check (value < 10); "
        "create domain smaller as small; create domain code as varchar(5) not null; "
        "create schema other; create type other.ci; "
        "create function other.ci_in(cstring) returns other.ci language internal immutable strict as 'textin'; "
        "create function other.ci_out(other.ci) returns cstring language internal immutable strict as 'textout'; "
        "create type other.ci (input = other.ci_in, output = other.ci_out, like = text); "
        "create cast (other.ci as text) without function; "
        "create function other.ci_eq(other.ci, other.ci) returns bool language sql immutable strict as 'select lower($1::text) = lower($2::text)'; "
        "create operator other.= (leftarg = other.ci, rightarg = other.ci, function = other.ci_eq, merges); "
        "create table t (id int primary key, i2 int2, i4 int, i8 int8, f4 real, f8 float8, num numeric(6,2), t text, v varchar(5), "
        "c char(5), n name, b bool, e mood, u uuid, d date, tz timestamptz, ts timestamp, sm smaller, ci other.ci, r int4range, "
        "bits bit(3), ip inet, by bytea, iv interval, j json, jb jsonb, a int[], x xml, p point, vec vector(3), ro mood[])"
    )
    connection.execute(
        "insert into t (id, i2, i4, i8, f4, f8, num, t, v, c, n, b, e, u, d, tz, ts, sm, ci, r, bits, ip, by, iv) values "
        f"(1, 7, 7, 7, 0.1, 0.1, 7.5, 'de', 'de', 'de', 'de', true, 'it''s so', '{UUID}', '2024-02-29', '2024-02-29 12:00+00', "
        "'2024-02-29 12:00', 7, 'De', '[1,5)', '101', '10.0.0.1/8', '\\x00ff', '1 day'), "
        "(2, 8, 8, 8, 0.2, 0.2, 8, 'fr', 'fr', 'fr', 'fr', false, 'sad', gen_random_uuid(), '2024-03-01', '2024-03-01 12:00+00', "
        "'2024-03-01 12:00', 8, 'Fr', '[2,5)', '111', '10.0.0.2/8', '\\x01', '2 days')"
    )
    connection.execute("insert into t (id) values (3)")
    return connection


def conditions(connection, value, target="t"):
    return one(connection, "select gte_small.conditions(%s::regclass, %s)", [target, Jsonb(value)])


def rows(connection, value, target="t"):
    """The rows that a filter leaves, as a generated search asks for them."""
    connection.execute(
        "create or replace function pg_temp.rows(target regclass, filter jsonb) returns setof int language plpgsql as "
        "$f$ begin return query execute 'select e.id from only ' || target || ' e where true' "
        "|| gte_small.conditions(target, filter) || ' order by e.id'; end $f$")
    found = connection.execute("select * from pg_temp.rows(%s, %s)", [target, Jsonb(value)])
    return [row for (row,) in found]


def refused(connection, value, state="22023", target="t"):
    with pytest.raises(psycopg.Error) as error:
        conditions(connection, value, target)
    assert error.value.sqlstate == state, error.value
    assert error.value.diag.message_detail and error.value.diag.message_hint
    return error.value.diag.message_primary


# --- no filter ---


def test_no_filter_is_no_condition(table):
    assert conditions(table, {}) == ""
    assert one(table, "select gte_small.conditions('t', null)") == ""


@pytest.mark.parametrize("value", [[], [1], "x", 7, True, [{"i4": 7}], None])
def test_a_filter_is_an_object(table, value):
    assert refused(table, value).startswith("a filter is a JSON object, not ")


# --- what each type matches ---


@pytest.mark.parametrize("column, value", [
    ("i2", 7), ("i4", 7), ("i8", 7), ("i4", 7.0), ("i4", "7"), ("i4", " 7 "), ("i8", "7.0"), ("i4", "70e-1"), ("f4", 0.1), ("f8", 0.1), ("f8", "1e-1"),
    ("num", 7.5), ("num", "7.50"), ("t", "de"), ("v", "de"), ("c", "de"), ("c", "de   "), ("n", "de"), ("b", True), ("b", "true"),
    ("b", 1), ("e", "it's so"), ("u", UUID), ("u", UUID.upper()), ("u", UUID.replace("-", "")), ("d", "2024-02-29"),
    ("tz", "2024-02-29T12:00:00Z"), ("tz", "2024-02-29 13:00+01"), ("ts", "2024-02-29 12:00"), ("sm", 7), ("ci", "dE"), ("r", "[1,5)"),
    ("r", "[1,4]"), ("bits", "101"), ("ip", "10.0.0.1/8"), ("by", "\\x00FF"), ("iv", "24:00:00"),
])
def test_a_value_matches_in_the_columns_type(table, column, value):
    assert rows(table, {column: value}) == [1]
    assert rows(table, {column: [value]}) == [1]
    assert rows(table, {column: [value, value, None]}) == [1, 3]


@pytest.mark.parametrize("column", ["i2", "i4", "i8", "f4", "f8", "num", "t", "v", "c", "n", "b", "e", "u", "d", "tz", "ts", "sm", "ci", "r", "bits"])
def test_null_and_nothing(table, column):
    assert rows(table, {column: None}) == [3]
    assert rows(table, {column: [None]}) == [3]
    assert rows(table, {column: []}) == []


def test_several_values_and_several_columns(table):
    assert rows(table, {"i4": [7, 8, 9]}) == [1, 2]
    assert rows(table, {"t": ["de", "fr", "DE"], "i4": 8}) == [2]
    assert rows(table, {"t": "de", "i4": 8}) == []
    assert rows(table, {"e": ["sad", None], "id": [1, 2, 3]}) == [2, 3]


@pytest.mark.parametrize("column, value", [
    ("i4", 3000000000), ("i4", -3000000000), ("i4", 7.5), ("i2", 32768), ("i2", -32769), ("i8", 9223372036854775808), ("i4", "3000000000"),
    ("i4", "7.5"), ("f4", 1e300), ("f8", 1e-320), ("sm", 100), ("num", 7.501), ("num", 1e9), ("t", "DE"), ("v", "de but longer"), ("c", "de but longer"),
    ("n", "x" * 64), ("t", 7), ("t", True), ("d", "infinity"), ("r", "empty"), ("bits", "1010"),
])
def test_a_value_that_no_row_can_have_matches_nothing(table, column, value):
    assert rows(table, {column: value}) == []
    assert rows(table, {column: [value, None]}) == [3]


def test_the_ends_of_the_integers(table):
    table.execute("insert into t (id, i2, i4, i8) values (4, -32768, -2147483648, -9223372036854775808), (5, 32767, 2147483647, 9223372036854775807)")
    assert [rows(table, {column: value}) for column, value in (
        ("i2", -32768), ("i4", -2147483648), ("i8", -9223372036854775808), ("i2", 32767), ("i4", 2147483647), ("i8", 9223372036854775807))
            ] == [[4], [4], [4], [5], [5], [5]]


@pytest.mark.parametrize("number", ["1e400", "1e100000", "-1e100000", "1e-2000"])
def test_numbers_beyond_all_types(table, number):
    """jsonb keeps them in a few bytes."""
    table.execute("create or replace function pg_temp.c(k text, n text) returns text language sql as "
                  "$$ select gte_small.conditions('t', format('{%s: [%s, null]}', to_json(k), n)::jsonb) $$")
    for column in ("i2", "i8", "f4", "f8"):
        assert one(table, "select pg_temp.c(%s, %s)", [column, number]) == f" and (e.{column} is null)"
    for column in ("num", "t", "tz"):
        with pytest.raises(psycopg.Error) as error:
            one(table, "select pg_temp.c(%s, %s)", [column, number])
        assert error.value.sqlstate == "22023"


def test_numbers_as_text_are_the_digits_of_json(table):
    table.execute("insert into t (id, t) values (4, '7'), (5, '100'), (6, '7.0'), (7, 'true')")
    assert one(table, "select gte_small.conditions('t', '{\"t\": [7, 1e2, 7.0, true]}')").count("{7,100,7.0,true}") == 1
    assert rows(table, {"t": [7, True]}) == [4, 7]


# --- what is refused ---


@pytest.mark.parametrize("key", ["nothing", "I4", "", " i4", "e.i4", 'i4"', LONG_NAME + "n", "ctid", "tableoid", "xmin", "........pg.dropped.2........"])
def test_unknown_and_system_columns(table, key):
    table.execute(f"alter table t drop column i2, add {LONG_NAME} int")
    assert "does not exist" in refused(table, {key: 7}, "42703")


@pytest.mark.parametrize("value", [{"gt": 7}, [[7]], [7, {"a": 1}], {}, [[]]])
def test_nested_values(table, value):
    assert refused(table, {"i4": value}) == 'filter on column "i4" is nested'


@pytest.mark.parametrize("column", ["vec", "j", "jb", "a", "x", "p", "ro"])
def test_types_that_have_no_equality(table, column):
    assert refused(table, {column: "x"}, "0A000") == f"column \"{column}\" can't be filtered by"
    assert refused(table, {column: None}, "0A000")


@pytest.mark.parametrize("column, value", [
    ("i4", "abc"), ("i4", ""), ("i4", True), ("i4", "7; drop table t"), ("i4", "1e99999"), ("f8", "abc"), ("b", "maybe"), ("b", 7), ("e", "furious"),
    ("e", 7), ("u", "abc"), ("u", 7), ("sm", "abc"),
])
def test_values_of_another_type(table, column, value):
    assert refused(table, {column: value}) == f'a value in the filter on column "{column}" is not of its type'


@pytest.mark.parametrize("column, value", [("num", "abc"), ("num", True), ("d", "2024-02-30"), ("d", True), ("tz", "soon"), ("ip", "x"), ("bits", "102"),
                                           ("r", "[5,1)"), ("by", "\\xzz"), ("iv", "x")])
def test_values_of_another_type_of_any_kind(table, column, value):
    """PostgreSQL can say so without an error since version 16. Before, the search itself refuses them."""
    if table.info.server_version >= 160000:
        assert refused(table, {column: value}) == f'a value in the filter on column "{column}" is not of its type'
    else:
        with pytest.raises(psycopg.DataError):
            rows(table, {column: value})


# --- SQL in keys and values ---

HOSTILE = ["'", "''", "\\", "\\'", "'; drop table t; --", "') or true or ('", "{}", "{a,b}", '"', '{"a"}', "NULL", "null", "$1", "%s %I %L", "\n", "\x01", "'::text",
           "E'\\x'", "$$", "/* */ --", "a,b", "[1]", "Ünï\U0001f642", "::regclass", "x" * 5000]


@pytest.mark.parametrize("strings", ["on", "off"])
def test_hostile_values(table, strings):
    table.execute(f"set escape_string_warning = off; set standard_conforming_strings = {strings}")
    for number, value in enumerate(HOSTILE, start=10):
        table.execute("insert into t (id, t, v) values (%s, %s, left(%s, 5))", [number, value, value])
    for number, value in enumerate(HOSTILE, start=10):
        assert rows(table, {"t": value}) == [number], value
        assert rows(table, {"t": [value, "nothing"]}) == [number], value
        refused(table, {value: 7}, "42703")
        refused(table, {"e": value})
        refused(table, {"i4": value})
    assert rows(table, {"t": HOSTILE}) == list(range(10, 10 + len(HOSTILE)))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_column_names(connection, name):
    connection.execute(f"create table t (id int, {psycopg.sql.Identifier(name).as_string(connection)} int)")
    connection.execute("insert into t values (1, 7), (2, 8)")
    assert rows(connection, {name: 7}) == [1]
    assert rows(connection, {name: [8, None], "id": 2}) == [2]


def test_odd_names_of_types_and_tables(connection):
    connection.execute('create schema "s p"; create type "s p"."ty""pe" as enum (\'a\', \'b\'); '
                       'create table "s p"."ta ble" (id int, k "s p"."ty""pe"); insert into "s p"."ta ble" values (1, \'a\'), (2, \'b\')')
    assert rows(connection, {"k": "a"}, '"s p"."ta ble"') == [1]


def test_planted_operators_and_types_are_not_taken(database, connection):
    """Names come from the catalogue with their schema, whatever the search_path of the caller is."""
    connection.execute("create table t (id int, i4 int, v varchar(9)); insert into t values (1, 7, 'a'), (2, 8, 'b'); create schema planted; "
                       "create domain planted.int4 as text; create function planted.always(int, int) returns bool language sql as 'select true'; "
                       "create operator planted.= (leftarg = int, rightarg = int, function = planted.always)")
    connection.execute("set search_path = planted, public")
    assert rows(connection, {"i4": 7, "v": "a"}, "public.t") == [1]
    assert conditions(connection, {"i4": 7}, "public.t") == " and (e.i4 operator(pg_catalog.=) any ('{7}'::pg_catalog.int4[]))"


# --- rights ---


def test_column_rights_are_those_of_the_caller(database, table):
    table.execute("grant select (id, t) on t to gte_plain")
    plain = database.connect("gte_plain")
    assert rows(plain, {"t": "de"}) == [1]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        rows(plain, {"i4": 7})


def test_conditions_read_no_row(database, table):
    """Also of a table that the caller may not read: the text depends on the catalogue alone."""
    plain = database.connect("gte_plain")
    before = conditions(plain, {"t": "de", "i4": [1, None]})
    table.execute("truncate t")
    assert conditions(plain, {"t": "de", "i4": [1, None]}) == before
    assert one(table, "select bool_and(not prosecdef and provolatile = 's' and proparallel = 's') from pg_proc "
                      "where proname in ('conditions', 'filter_column', 'filter_text') and pronamespace = 'gte_small'::regnamespace")


# --- plans ---


@pytest.mark.parametrize("column, value", [("i4", 70), ("i4", [70, 71]), ("t", "word 70"), ("u", "00000000-0000-0000-0000-000000000070"), ("v", "v70"),
                                           ("c", "c70"), ("sm", 70), ("e", "sad"), ("num", 70), ("d", "2024-01-01"), ("i4", None)])
def test_an_index_on_the_column_is_chosen(connection, column, value):
    connection.execute(
        "create type mood as enum ('glad', 'sad'); create domain positive as int check (value > 0); "
        "create table t as select i as id, i as i4, 'word ' || i as t, lpad(i::text, 32, '0')::uuid as u, ('v' || i)::varchar(9) as v, "
        "('c' || i)::char(9) as c, i::positive as sm, (case i when 5 then 'sad' else 'glad' end)::mood as e, i::numeric as num, "
        "'2020-01-01'::date + i as d from generate_series(1, 5000) i; "
        "insert into t (id) values (0)")
    connection.execute(f"create index t_column on t ({column}); analyze t")
    statement = "select e.id from only t e where true" + conditions(connection, {column: value})
    plan = "\n".join(line for (line,) in connection.execute("explain (costs off) " + statement))
    assert "t_column" in plan, plan
    assert connection.execute(statement).rowcount >= 1


def test_a_long_list(table):
    assert rows(table, {"i4": list(range(7, 10_000))}) == [1, 2]
    assert rows(table, {"t": [json.dumps(i) for i in range(10_000)] + ["fr"]}) == [2]
