"""The calls of the search page: what they answer, whom they refuse, and that they can write nothing."""

import contextlib
import json
import socket
import time

import psycopg
import pytest

import web_role
from conftest import DOCS, TIMEOUT_MS, make_docs, make_role, reader

PATIENCE = 30


def plain(row: dict) -> str:
    return "".join(row["content"][0])


def marked(row: dict) -> list:
    return row["content"][0][1::2]


def one(connection, statement, parameters=None):
    return connection.execute(statement, parameters).fetchone()[0]


def until(true) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


# -- results --

def test_the_overview_lists_enabled_tables_and_whether_they_can_be_read(docs, connection):
    connection.execute("create table plain (body text); create table closed (body text); select enable_semantic_search('closed', '{body}')")
    overview = docs.call("overview")
    assert overview["role"] == web_role.ROLE
    assert {t["label"]: t["readable"] for t in overview["tables"]} == {"docs": True, "closed": False}
    assert [t["rows"] for t in overview["tables"] if t["label"] == "docs"] == [len(DOCS)]


def test_results_by_meaning_are_those_of_the_search_function(docs, connection):
    rows = docs.search("a backup is taken every night at two", count=3)["meaning"]["rows"]
    expected = connection.execute("select body, similarity from search_docs('a backup is taken every night at two', 3)").fetchall()
    assert [(plain(r), r["similarity"]) for r in rows] == [(body, pytest.approx(s)) for body, s in expected]
    assert rows[0]["similarity"] == pytest.approx(1, abs=1e-3) and dict(rows[0]["fields"]) == {"id": "6", "lang": "en", "priority": "5"}


def test_results_by_words_have_a_word_and_its_mark(shared):
    rows = shared.search("1042", ["words"])["words"]["rows"]
    assert [plain(r) for r in rows] == [DOCS[0][0]]
    assert marked(rows[0]) == ["1042"] and rows[0]["words"] == ["1042"] and rows[0]["full_text_rank"] == 1


@pytest.mark.parametrize("search, row, marks", [("cafe", 1, ["café"]), ("deleting", 2, ["deleted"]), ("売上", 4, ["売上"]), ("the backups", 5, ["backup"])])
def test_marks_follow_the_dictionary_and_not_the_letters(shared, search, row, marks):
    found = {plain(r): r for r in shared.search(search, ["words"])["words"]["rows"]}
    assert marked(found[DOCS[row][0]]) == marks


def test_results_by_both_have_both_ranks(docs, connection):
    rows = docs.search("error 1042", ["both"])["both"]["rows"]
    expected = connection.execute("select (item).body, full_text_rank, semantic_rank, score from hybrid_docs('error 1042', 5)").fetchall()
    assert [(plain(r), r["full_text_rank"], r["semantic_rank"], r["score"]) for r in rows] == [(*e[:3], pytest.approx(e[3])) for e in expected]


def test_one_request_answers_several_parts(shared):
    answer = shared.search("night", ["meaning", "words", "both", "histogram"])
    assert list(answer) == ["terms", "meaning", "words", "both", "histogram", "end"]
    assert answer["terms"]["counted"] == ["night"] and answer["terms"]["common"] == []


def test_words_in_more_than_200_rows_are_named_and_not_marked(docs, connection):
    connection.execute("insert into docs (body, embedding) select 'nothing ' || i, d.embedding from generate_series(1, 250) i, docs d where d.id = 1")
    answer = docs.search("nothing at night", ["words"])
    assert answer["terms"]["counted"] == ["night"] and answer["terms"]["common"] == ["nothing"]
    assert [marked(r) for r in answer["words"]["rows"]] == [["night"]]


def test_the_threshold_is_part_of_the_search_by_meaning(shared):
    rows = shared.search("a backup is taken every night at two", threshold=0.999)["meaning"]["rows"]
    assert [plain(r) for r in rows] == [DOCS[5][0]]


def test_a_filter_reaches_all_searches(shared):
    answer = shared.search("night", ["meaning", "words", "both"], filter={"lang": ["en", "de"], "priority": ["5", "1"]})
    for part, texts in [("meaning", {DOCS[0][0], DOCS[5][0]}), ("words", {DOCS[5][0]}), ("both", {DOCS[0][0], DOCS[5][0]})]:
        assert {plain(r) for r in answer[part]["rows"]} == texts
    assert [plain(r) for r in shared.search("night", filter={"priority": None})["meaning"]["rows"]] == [DOCS[3][0]]


def test_the_filters_offered_are_those_the_extension_takes(docs, connection):
    connection.execute("alter table docs add about jsonb, add tags text[]; select refresh_semantic_search()")
    filters = {f["column"]: f for f in docs.call("filters", **docs.table())["filters"]}
    assert set(filters) == {"id", "lang", "priority"}
    assert filters["lang"]["choice"] and filters["lang"]["values"] == ["de", "en", "fr", "ja"]
    assert not filters["id"]["choice"] and filters["id"]["number"]


def test_the_statement_shown_gives_the_same_rows_when_it_is_run(docs, connection, database):
    search = "it's a \\ \"night\" %s $1; drop table docs"
    answer = docs.search(search, ["meaning", "words", "both"], threshold=-1, filter={"lang": ["en", "o'k"]})
    for part in ("meaning", "both", "words"):
        shown = answer[part]["statement"]
        rows = database.connect(web_role.ROLE).execute(f"select (r).body from ({shown.rstrip(';')}) r".encode()).fetchall()
        assert [row[0] for row in rows] == [plain(r) for r in answer[part]["rows"]]
        assert "'it''s a " in shown.replace("E'", "'") and answer[part]["seconds"] > 0


@pytest.mark.parametrize("name", ['My "docs"', "100%s", "o'docs", "select", "docs; drop table docs"])
def test_names_of_tables_and_columns_may_have_any_characters(docs, connection, name):
    quoted = '"' + name.replace('"', '""') + '"'
    run = lambda statement: connection.execute(statement.encode())  # noqa: E731
    run(f"create table {quoted} (id int primary key, {quoted} text, \"a%b\" text)")
    connection.execute("select enable_semantic_search(%s, array[%s]::name[], embedding => %s)", [quoted, name, name + "'e"])
    run(f"insert into {quoted} values (1, 'a text about nights', 'x'); grant select on {quoted} to gte_web")
    label = one(connection, "select %s::regclass::text", [quoted])
    answer = docs.search("night", ["meaning", "words", "both", "histogram"], label, filter={"a%b": "x"})
    for part in ("meaning", "words", "both"):
        assert [marked(r) for r in answer[part]["rows"]] == [["nights"]], answer[part]
    assert answer["histogram"]["sampled"] == 1
    assert [f["column"] for f in docs.call("filters", **docs.table(label))["filters"]] == ["id", "a%b"]
    assert docs.call("status", **docs.table(label))["status"][0]["embedded"] == "1"


def test_a_column_that_is_called_as_an_argument_is_shown(docs, connection):
    connection.execute("create table odd (search text, similarity int, filter int); select enable_semantic_search('odd', '{search}')")
    connection.execute("insert into odd values ('night', 7, 8); grant select on odd to gte_web")
    answer = docs.search("night", ["meaning", "both"], "odd")
    for part in ("meaning", "both"):
        row = answer[part]["rows"][0]
        assert plain(row) == "night" and [value for _, value in row["fields"]] == ["7", "8"], row
        assert row["similarity"] == pytest.approx(1, abs=1e-3)


def test_a_row_without_text_has_no_similarity_and_no_mark(docs, connection):
    connection.execute("insert into docs (body, lang) values (null, 'xx')")
    assert docs.search("night", ["both"], filter={"lang": "xx"})["both"]["rows"] == []


def test_a_table_that_changed_since_the_last_search_is_looked_up_again(docs, connection):
    question = docs.question("night")

    def rows():
        answer = [json.loads(line) for line in docs.request("POST", "/api/search", json.dumps(question).encode())[2].splitlines()]
        return next((line["rows"] for line in answer if "rows" in line), None) or next(line["problem"] for line in answer if "problem" in line)

    assert len(rows()) == 5
    connection.execute("select enable_semantic_search('docs', '{body}', search_function => 'query_other'); drop function if exists search_docs")
    # The first one meets the name that is gone.
    assert rows()["kind"] == "database"
    assert len(rows()) == 5
    connection.execute("revoke select on docs from gte_web")
    assert rows()["kind"] == "rights"
    connection.execute("drop table docs cascade")
    assert rows()["kind"] == "gone"


def test_a_partitioned_table_is_searched(docs, connection):
    connection.execute("create table parts (id int, body text) partition by range (id); create table p1 partition of parts for values from (0) to (10); "
                       "create table p2 partition of parts for values from (10) to (20); select enable_semantic_search('parts', '{body}')")
    connection.execute("insert into parts values (1, 'a night'), (11, 'two nights'); grant select on parts to gte_web")
    answer = docs.search("night", ["meaning", "words", "histogram"], "parts")
    assert len(answer["meaning"]["rows"]) == 2 and answer["histogram"]["sampled"] == 2


def test_a_very_long_text_is_cut_and_still_marked(docs, connection):
    connection.execute("insert into docs (body) values ('zebra ' || repeat('x ', 100000))")
    row = docs.search("zebra", ["words"])["words"]["rows"][0]
    assert len(plain(row)) < 4000 and marked(row) == ["zebra"]


def test_documents_in_chunks_are_found_by_their_best_chunk(docs, connection):
    connection.execute("create table papers (id int primary key, title text, body text); select enable_document_search('papers', '{body}')")
    connection.execute("insert into papers values (1, 'one', 'a backup at night. ' || repeat('Other words follow here. ', 400)), (2, 'two', 'the kitchen opens at nine')")
    assert {t["label"]: (t["readable"], t["documents"]) for t in docs.call("overview")["tables"]} == {"docs": (True, False), "papers": (False, True)}
    problem = docs.search("night", label="papers")["all"]["problem"]
    connection.execute(problem["hint"])
    answer = docs.search("the kitchen opens at nine", ["meaning", "words", "histogram"], "papers", filter={"title": ["two", "one"]})
    row = answer["meaning"]["rows"][0]
    assert plain(row) == "the kitchen opens at nine" and row["similarity"] == pytest.approx(1, abs=1e-3)
    assert row["fields"] == [["id", "2"], ["title", "two"], ["chunk", "1"]] and "kitchen" in marked(row)
    assert len(answer["meaning"]["rows"]) == 2 and len(connection.execute(answer["meaning"]["statement"].encode()).fetchall()) == 2
    assert answer["words"]["problem"]["kind"] == "unsupported"
    assert answer["histogram"]["sampled"] == one(connection, "select count(*) from papers_chunks where embedding is not null") > 2
    assert [f["column"] for f in docs.call("filters", **docs.table("papers"))["filters"]] == ["id", "title"]
    assert docs.call("status", **docs.table("papers"))["status"][0]["missing"] == "0"


# -- the histogram --

def test_the_histogram_counts_every_row_of_a_small_table(docs, connection):
    answer = docs.search("a backup is taken every night at two", ["histogram"])["histogram"]
    assert answer["whole"] and answer["sampled"] == len(DOCS)
    similarities = [row[0] for row in connection.execute("select similarity from search_docs('a backup is taken every night at two', 100)")]
    expected = {}
    for value in similarities:
        place = min(answer["of"] - 1, int((value + 1) / 2 * answer["of"] + 1e-6))
        expected[place] = expected.get(place, 0) + 1
    assert sum(expected.values()) == len(DOCS) and dict(map(tuple, answer["bins"])).keys() == expected.keys()


def test_the_histogram_reads_a_bounded_sample_of_a_large_table(docs, connection):
    connection.execute("create table large (body text); select enable_semantic_search('large', '{body}', with_index => false)")
    connection.execute("insert into large select 'nothing', d.embedding from generate_series(1, 20000), docs d where d.id = 1")
    connection.execute("grant select on large to gte_web; analyze large")
    answer = docs.search("night", ["histogram"], "large")["histogram"]
    assert not answer["whole"] and 2000 < answer["sampled"] <= 10000 and answer["rows"] == pytest.approx(20000, rel=0.1)
    assert answer["bins"] == docs.search("night", ["histogram"], "large")["histogram"]["bins"]


# -- status and model --

def test_the_status_has_the_hints(docs, connection):
    connection.execute("alter table docs disable trigger all; insert into docs (body) values ('new'); ")
    found, = docs.call("status", **docs.table())["status"]
    assert (found["rows"], found["missing"], found["trigger_enabled"]) == ("7", "1", "f")
    assert any("embed_backfill" in hint for hint in found["hints"]) and any("ENABLE TRIGGER" in hint for hint in found["hints"])


def test_the_model_and_the_self_test_answer(shared):
    model = dict(shared.call("model")["values"])
    assert model["dims"] == "384" and model["source"] is None
    assert float(dict(shared.call("selftest")["values"])["least_cosine"]) > 0.99


# -- errors --

def test_a_table_without_rights_is_an_error_with_the_grant(docs, connection, database):
    connection.execute("create schema app; create table app.closed (body text); select enable_semantic_search('app.closed', '{body}')")
    problem = docs.search("night", label="app.closed")["all"]["problem"]
    assert problem["kind"] == "rights"
    for name in ("filters", "status"):
        assert docs.call(name, **docs.table("app.closed"))["problem"] == problem
    connection.execute(problem["hint"])
    assert docs.search("night", label="app.closed")["meaning"]["rows"] == []


def test_without_a_model_the_error_is_the_extensions_own(docs, database, page):
    database.configure("gte_small.model_path", "/nowhere")
    answer = page(reader(database)).search("night")
    assert answer["meaning"]["problem"]["kind"] == "model"
    assert answer["meaning"]["problem"]["message"] and answer["meaning"]["problem"]["hint"]


def test_a_stopped_server_is_an_error_and_a_restarted_one_answers(server, page):
    with server.another("web", {"gte_small.model_path": str(server.tiny)}) as cluster:
        web_role.make(cluster, "postgres")
        with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
            make_docs(connection)
            # The tests' servers may lose their last commits at an immediate stop.
            connection.execute("checkpoint")
        running = page(cluster.dsn("postgres", web_role.ROLE))
        question = running.question("night")

        def rows():
            answer = running.request("POST", "/api/search", json.dumps(question).encode())[2].splitlines()
            return json.loads(answer[1])["rows"] if len(answer) == 3 else json.loads(answer[0])["problem"]

        assert len(rows()) == 5
        cluster.stop("immediate")
        assert rows()["kind"] == "server"
        assert running.call("overview")["problem"]["kind"] == "server"
        cluster.start()
        assert len(rows()) == 5
        # Connections that were idle meanwhile.
        cluster.stop("immediate")
        cluster.start()
        assert len(rows()) == 5


@pytest.mark.parametrize("changed, words", [
    ({"search": " "}, "empty"), ({"search": "x" * 10_001}, "10000"), ({"search": "a\0b"}, "zero byte"), ({"search": 5}, "empty"),
    ({"count": 0}, "from 1 to"), ({"count": 101}, "from 1 to"), ({"count": True}, "from 1 to"), ({"count": "5; drop table docs"}, "from 1 to"),
    ({"threshold": 1.5}, "similarity"), ({"threshold": "0"}, "similarity"), ({"filter": []}, "JSON object"),
    ({"table": "1"}, "not there"), ({"table": "docs"}, "no table"), ({"embedding": "body"}, "not there"), ({"page": None}, "names its page")])
def test_a_senseless_request_is_refused_in_words(shared, changed, words):
    answer = shared.search("night", **changed) if "search" not in changed else shared.search(**changed)
    assert words in answer["all"]["problem"]["message"]


def test_an_unpaired_surrogate_is_refused(shared):
    body = json.dumps(shared.question("night")).replace('"night"', '"\\ud800"').encode()
    lines = shared.request("POST", "/api/search", body)[2].splitlines()
    assert json.loads(lines[0])["problem"]["kind"] == "input"


@pytest.mark.parametrize("chosen, words", [({"nothing": 1}, "nothing"), ({"priority": "x"}, "priority"), ({"lang": {"a": 1}}, "nested")])
def test_an_error_of_a_filter_is_the_extensions_own(shared, chosen, words):
    problem = shared.search("night", filter=chosen)["meaning"]["problem"]
    assert words in problem["message"] and problem["hint"]


# -- slow statements --

def make_slow(connection) -> None:
    """Rows that take a minute to read: a policy waits at each."""
    connection.execute("create table pace (seconds int); insert into pace values (10); grant select on pace to gte_web")
    connection.execute("create function slow() returns bool language sql volatile as 'select pg_sleep(seconds) is not null from pace'")
    connection.execute("alter table docs enable row level security; create policy p on docs to gte_web using (slow())")


def make_fast(connection) -> None:
    """Not by DDL, which would wait for the statement that runs."""
    connection.execute("update pace set seconds = 0")


def active(connection) -> int:
    """Statements of the page that read the slow rows."""
    return one(connection, "select count(*) from pg_stat_activity where usename = 'gte_web' and wait_event = 'PgSleep' "
                           "and state = 'active' and datname = current_database()")


def test_a_statement_that_takes_too_long_is_stopped(docs, connection, database, page):
    make_slow(connection)
    # The first statement after connecting must not be hit as well on a busy machine.
    problem = page(reader(database), timeout_ms=2000).search("night", ["meaning"])
    problem = problem.get("meaning", problem.get("all"))["problem"]
    assert problem["kind"] == "timeout" and "2 seconds" in problem["message"]


@contextlib.contextmanager
def asking(docs, **more):
    """A search that is sent and not read."""
    body = json.dumps(docs.question("night", **more)).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in docs.headers(Content_Length=str(len(body))).items())
    with socket.create_connection(("127.0.0.1", docs.port), timeout=PATIENCE) as browser:
        browser.sendall(f"POST /api/search HTTP/1.1\r\n{head}\r\n".encode() + body)
        yield browser


def test_a_statement_ends_when_the_browser_goes_away(docs, connection):
    make_slow(connection)
    with asking(docs):
        until(lambda: active(connection) == 1)
    until(lambda: active(connection) == 0)


def test_a_newer_search_of_the_same_page_cancels_the_one_before(docs, connection):
    make_slow(connection)
    with asking(docs, serial=1) as first:
        until(lambda: active(connection) == 1)
        make_fast(connection)
        assert docs.search("night", serial=2)["meaning"]["rows"]
        assert b'"kind": "cancelled"' in b"".join(iter(lambda: first.recv(1 << 16), b""))
    # It was cancelled, and did not run to its end.
    assert active(connection) == 0
    # An older one that arrives late is not run.
    assert docs.search("night", serial=1)["all"]["problem"]["kind"] == "cancelled"


def test_a_cancelled_connection_serves_the_next_search(docs, connection):
    make_slow(connection)
    for _ in range(5):
        with asking(docs):
            until(lambda: active(connection) == 1)
        until(lambda: active(connection) == 0)
    make_fast(connection)
    for serial in range(10, 20):
        assert docs.search("night", serial=serial)["meaning"]["rows"]
    assert one(connection, "select count(*) from pg_stat_activity where usename = 'gte_web' and datname = current_database()") <= 4


def test_searches_of_other_pages_are_left_alone(docs, connection):
    make_slow(connection)
    with asking(docs, page="one"), asking(docs, page="two"):
        until(lambda: active(connection) == 2)


# -- whom it refuses --

REFUSED = [
    {"Host": "evil.example"}, {"Host": "evil.example:80"}, {"Host": "localhost.evil.example"}, {"Host": "localhost:1.evil.example"}, {"Host": None},
    {"Origin": "http://127.0.0.1:1"}, {"Origin": "http://evil.example"}, {"Origin": None}, {"Origin": "null"},
    {"X_Key": "wrong"}, {"X_Key": None}, {"X_Key": ""}, {"X_Key": "ü"}, {"Content_Type": "text/plain"}, {"Content_Type": "application/x-www-form-urlencoded"}]


@pytest.mark.parametrize("changed", REFUSED, ids=str)
def test_a_call_that_is_not_from_the_page_is_refused(shared, changed):
    status, _, answer = shared.request("POST", "/api/overview", b"{}", **changed)
    # A request without Host is not HTTP/1.1; http.client sends its own.
    if changed == {"Host": None}:
        assert status == 200
    else:
        assert status == 403 and b"docs" not in answer


def test_a_name_that_resolves_to_127_0_0_1_gets_no_file(shared):
    assert shared.request("GET", "/", Host="rebound.example")[0] == 403
    assert shared.request("GET", "/", Host=f"localhost:{shared.port}")[0] == 200


def test_another_port_may_be_forwarded_here(shared):
    """As by ssh -L 9000:127.0.0.1:8018."""
    assert shared.request("GET", "/", Host="localhost:9000")[0] == 200
    assert shared.request("POST", "/api/overview", b"{}", Host="localhost:9000", Origin="http://localhost:9000")[0] == 200


def test_a_get_reaches_no_call(shared):
    for name in ("overview", "search", "filters", "status", "model", "selftest"):
        assert shared.request("GET", f"/api/{name}")[0] == 405
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert shared.request(method, "/api/overview")[0] == 501


@pytest.mark.parametrize("path", ["/../Makefile", "/..%2fMakefile", "//etc/passwd", "/web", "/app.js/", "/%2e%2e/Makefile"])
def test_only_the_pages_files_are_served(shared, path):
    assert shared.request("GET", path)[0] == 404


def test_files_carry_a_policy_without_inline_script(shared):
    for path in ("/", "/app.js", "/results.js", "/style.css", "/icon.svg"):
        status, headers, body = shared.request("GET", path)
        assert status == 200 and body
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert b"http://" not in body.replace(b"http://www.w3.org", b"") and b"https://" not in body
        assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("body, status", [(b"", 400), (b"{", 400), (b"[]", 400), (b"\xff", 400), (b'{"a": ' + b"[" * 100_000, 400), (b" " * 300_000, 413)],
                         ids=["nothing", "half", "a list", "not UTF-8", "deep", "long"])
def test_a_body_that_is_no_json_object_is_refused(shared, body, status):
    assert shared.request("POST", "/api/overview", body)[0] == status
    assert shared.call("overview")["role"] == web_role.ROLE


def test_the_server_listens_on_127_0_0_1_only(shared):
    assert shared.server.socket.getsockname()[0] == "127.0.0.1"


# -- the role --

def test_the_role_can_write_nothing(docs, database):
    with database.connect(web_role.ROLE) as reading:
        assert one(reading, "select current_setting('default_transaction_read_only')") == "on"
        for write in ("insert into docs (body) values ('x')", "update docs set body = 'x'", "delete from docs", "drop table docs", "truncate docs",
                      "create table mine (x int)", "alter table docs disable trigger all"):
            # Also where it switches the default off.
            reading.execute("set default_transaction_read_only = off")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reading.execute(write.encode())
    attributes = "select rolsuper or rolcreaterole or rolcreatedb or rolbypassrls or rolreplication from pg_roles where rolname = 'gte_web'"
    assert one(database.connect(), attributes) is False


def test_making_the_role_again_changes_nothing(docs, database, connection):
    catalogue = "select string_agg(md5(coalesce(proacl::text, '')), '' order by oid) from pg_proc"
    before = one(connection, catalogue)
    make_role(database)
    assert one(connection, catalogue) == before


def test_where_public_has_no_privileges_the_role_gets_those_it_needs(database, connection, page):
    database.apply_embeddings_sql(connection)
    connection.execute("insert into embeddings (content) values ('a backup is taken at night')")
    connection.execute("revoke execute on all routines in schema public, gte_small from public; revoke usage on schema gte_small, public from public")
    make_role(database)
    running = page(reader(database))
    answer = running.search("night", ["meaning", "words", "both", "histogram"], "embeddings")
    for part in ("meaning", "words", "both"):
        assert len(answer[part]["rows"]) == 1, answer[part]
    assert answer["histogram"]["sampled"] == 1
    for name in ("status", "filters", "model", "selftest"):
        assert "problem" not in running.call(name, **running.table("embeddings"))
    # No more than the searches need.
    refused = "select has_function_privilege('gte_web', 'embed(text[])', 'execute')"
    assert one(connection, refused) is False


def test_the_demos_hidden_rows_are_shown_to_the_role_only(database, connection, page):
    database.apply_embeddings_sql(connection)
    connection.execute("insert into embeddings (content) values ('a backup is taken at night'); grant select on embeddings to gte_plain")
    make_role(database)
    assert len(page(reader(database)).search("night", label="embeddings")["meaning"]["rows"]) == 1
    assert one(database.connect("gte_plain"), "select count(*) from embeddings") == 0


def test_imported_tables_are_readable_and_others_are_not(database, connection, page):
    for name in ("imported", "mine"):
        connection.execute(f"create table {name} (body text); select enable_semantic_search('{name}', '{{body}}')".encode())
    connection.execute("comment on table imported is 'imported from notes.csv'")
    make_role(database)
    assert {t["label"]: t["readable"] for t in page(reader(database)).call("overview")["tables"]} == {"imported": True, "mine": False}


def test_a_database_without_the_extension_is_said(server, page):
    server.execute("drop database if exists gte_web_empty with (force)")
    server.execute("create database gte_web_empty template template0")
    try:
        problem = page(server.cluster.dsn("gte_web_empty"), TIMEOUT_MS).call("overview")["problem"]
        assert "not in this database" in problem["message"]
    finally:
        server.execute("drop database gte_web_empty with (force)")
