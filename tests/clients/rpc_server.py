"""A small HTTP server that answers `rpc/<function>` by the SQL that PostgREST sends.

It proves that the names of arguments select one function, that the functions work in such a statement and in a read-only
transaction, and which plans they have there. It proves nothing else about PostgREST or Supabase: there are no tokens, no
other routes, no embedding of other tables, and few operators of filters.
"""

import contextlib
import http.server
import json
import threading
from urllib.parse import parse_qsl, urlsplit

import psycopg
from psycopg import sql

COMPARISONS = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "like": "like", "ilike": "ilike"}
NOT_FILTERS = {"select", "order", "limit", "offset"}


class Refused(Exception):
    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.body = status, {"code": code, "message": message, "details": None, "hint": None}


def function(connection, name, given):
    """The one function of this name that takes arguments of these names: all that have no default, and no others."""
    found = connection.execute("""
        select p.oid, array_agg(a.name order by n), array_agg(pg_catalog.format_type(a.type, null) order by n)
          from pg_proc p join pg_namespace s on s.oid = p.pronamespace,
               unnest(p.proargtypes, p.proargnames[1:p.pronargs]) with ordinality a (type, name, n)
         where p.proname = %s and s.nspname = 'public' group by p.oid
        having array_agg(a.name)::text[] @> %s and %s::text[] @> (array_agg(a.name order by n))[1:min(p.pronargs - p.pronargdefaults)]""",
        [name, list(given), list(given)]).fetchall()
    if not found:
        raise Refused(404, "PGRST202", f"no function public.{name}({', '.join(sorted(given))})")
    if len(found) > 1:
        raise Refused(300, "PGRST203", f"more than one function public.{name}({', '.join(sorted(given))})")
    return {argument: kind for argument, kind in zip(found[0][1], found[0][2]) if argument in given}


def statement(name, types, query):
    """The statement of a request, and its parameters after the first, which is the JSON of the body."""
    parameters = []

    def parameter(value):
        parameters.append(value)
        return sql.Placeholder()

    def column(name):
        return sql.SQL("pgrst_source.{}").format(sql.Identifier(name.strip()))

    def condition(name, value):
        operator, _, operand = value.partition(".")
        if operator == "in":
            values = [parameter(item.strip('"')) for item in operand.strip("()").split(",")]
            return sql.SQL("{} in ({})").format(column(name), sql.SQL(", ").join(values))
        if operator == "is":
            return sql.SQL("{} is {}").format(column(name), sql.SQL({"null": "null", "true": "true", "false": "false"}[operand]))
        return sql.SQL("{} {} {}").format(column(name), sql.SQL(COMPARISONS[operator]), parameter(operand))

    def term(text):
        name, *ways = text.split(".")
        words = {"asc": "asc", "desc": "desc", "nullsfirst": "nulls first", "nullslast": "nulls last"}
        return sql.SQL(" ").join([column(name), *(sql.SQL(words[way]) for way in ways)])

    options = dict(query)
    selected = [column(name) for name in options.get("select", "").split(",") if name and name != "*"]
    rows = sql.SQL("select {} from pgrst_source").format(sql.SQL(", ").join(selected) if selected else sql.SQL("pgrst_source.*"))
    conditions = [condition(name, value) for name, value in query if name not in NOT_FILTERS]
    if conditions:
        rows += sql.SQL(" where ") + sql.SQL(" and ").join(conditions)
    if "order" in options:
        rows += sql.SQL(" order by ") + sql.SQL(", ").join(map(term, options["order"].split(",")))
    if "limit" in options:
        rows += sql.SQL(" limit {}").format(parameter(int(options["limit"])))
    if "offset" in options:
        rows += sql.SQL(" offset {}").format(parameter(int(options["offset"])))
    names = [sql.Identifier(argument) for argument in types]
    return sql.SQL("""
        with pgrst_source as (
          select pgrst_call.* from (select {body}::json as json_data) pgrst_payload,
            lateral (select {names} from json_to_record(pgrst_payload.json_data) as _ ({typed}) limit 1) pgrst_body,
            lateral public.{function}({arguments}) pgrst_call)
        select pg_catalog.count(_postgrest_t) as page_total, coalesce(json_agg(_postgrest_t), '[]')::text as body
          from ({rows}) _postgrest_t""").format(
        body=sql.Placeholder(), names=sql.SQL(", ").join(names), rows=rows, function=sql.Identifier(name),
        typed=sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(a), sql.SQL(kind)) for a, kind in types.items()),
        arguments=sql.SQL(", ").join(sql.SQL("{0} := pgrst_body.{0}").format(argument) for argument in names)), parameters


def answer(connection, name, query, arguments, prefix=""):
    """The rows of a request; with the prefix `explain`, the lines of its plan."""
    text, parameters = statement(name, function(connection, name, arguments), query)
    # PostgREST runs stable functions in a read-only transaction, with the role of the request.
    with connection.transaction():
        connection.execute("set transaction read only")
        connection.execute("set local role anon")
        return connection.execute(sql.SQL(prefix) + text, [json.dumps(arguments), *parameters]).fetchall()


class _Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        arguments = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        url = urlsplit(self.path)
        name = url.path.removeprefix("/rest/v1/rpc/")
        try:
            with self.server.lock:
                body = answer(self.server.connection, name, parse_qsl(url.query), arguments)[0][1]
            self._send(200, body)
        except Refused as refused:
            self._send(refused.status, json.dumps(refused.body))
        except psycopg.Error as error:
            self._send(400, json.dumps({"code": error.sqlstate, "message": error.diag.message_primary,
                                        "details": error.diag.message_detail, "hint": error.diag.message_hint}))

    def _send(self, status, body):
        body = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(database):
    """Serves a database; the value is the URL that supabase-js takes. Statements are prepared, as PostgREST does."""
    with database.connect(prepare_threshold=0) as connection:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Request)
        server.connection, server.lock = connection, threading.Lock()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
