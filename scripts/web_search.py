"""What the page asks of a database: its enabled tables, searches, the histogram, the words that matched, status, model.

SQL is put together from names that the catalogue gives, quoted there. All that comes from the browser is a parameter.
"""

import contextlib
import json
import re
import time
from dataclasses import dataclass

from web_database import Problem, Session

MOST_ROWS = 100
MOST_SEARCH = 10_000
# The histogram reads at most about so many pages and rows of a table.
SAMPLE_PAGES, SAMPLE_ROWS = 2_500, 5_000
# Of a similarity from -1 to 1.
BINS = 400
# A column with at most so many different values in the sample is a choice, others are a field to type in.
MOST_CHOICES = 12
CONTENT_SHOWN, VALUE_SHOWN = 3_000, 300
# The model's tokenizer separates at punctuation and around each of these characters, so a row is marked in these pieces.
PIECES = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]|[^\W_\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
MOST_PIECES = 20_000
KEPT_SECONDS = 10

# -- The catalogue --

# Every table of which a trigger fills an embedding column, one row per column. A table of chunks is named after the
# documents that they are of, and is searched by the function of the documents.
TABLES = """
select c.oid, n.nspname, c.relname, coalesce(d.target, c.oid::regclass)::text, k.embedding, quote_ident(k.embedding), to_json(k.content),
       k.note ->> 'text_search', gte_small.extension_schema(), q.rows_of,
       has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')
         and (d.target is null or has_table_privilege(d.target, 'select')),
       (select sum(greatest(p.reltuples, 0))::bigint from pg_class p
         where p.relkind <> 'p' and p.oid in (select c.oid union select t.relid from pg_partition_tree(c.oid) t)),
       coalesce(d.function, f.friendly), f.hybrid, v.operator, quote_ident(current_user),
       concat_ws(', ', d.target, format('%%I.%%I', n.nspname, c.relname)), quote_ident(n.nspname),
       d.target::oid, d.rows_of, to_json(d.content)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 cross join lateral (select distinct on (e.embedding) e.* from gte_small.embedding_columns(c.oid) e
                      order by e.embedding, e.trigger_name desc) k
 cross join lateral gte_small.qualified(c.oid) q
  left join lateral (
   select g.target, r.rows_of, s.search_functions[1]::regproc::text as function, s.arguments[1]::name[] as content
     from gte_small.document_keys(c.oid) g cross join lateral gte_small.document_search(g.target) s
    cross join lateral gte_small.qualified(g.target) r
    where s.chunks = c.oid) d on true
 cross join lateral (
   select min(p.oid::regproc::text) filter (where not 'item' = any (p.proargnames)) as friendly,
          min(p.oid::regproc::text) filter (where 'item' = any (p.proargnames)) as hybrid
     from gte_small.made_functions(c.oid, k.embedding) m join pg_proc p on p.oid = m
    where p.prorettype = 'record'::regtype) f
 cross join (select case when e.extnamespace::regnamespace::name = any (current_schemas(false)) then '<#>'
                         else format('operator(%%s.<#>)', e.extnamespace::regnamespace) end as operator
               from pg_extension e where e.extname = 'vector') v
 where c.relkind in ('r', 'p') and not c.relispartition and (%s::oid is null or c.oid = %s::oid)
   and exists (select from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal)
 order by n.nspname <> 'public', n.nspname, c.relname, k.embedding
"""
COLUMNS = """
select a.attname, quote_ident(a.attname), format_type(a.atttypid, a.atttypmod)
  from pg_attribute a
 where a.attrelid = %s::oid and a.attnum > 0 and not a.attisdropped
   and a.attname not in (select k.embedding from gte_small.embedding_columns(a.attrelid) k)
 order by a.attnum
"""
ROLE = ("select current_user, current_database(), current_setting('server_version'), "
        "(select extversion from pg_extension where extname = 'gte-small')")


@dataclass
class Table:
    """An embedding column of a table. The names in SQL are quoted and ready to be part of a statement of psycopg."""

    oid: str
    schema: str
    name: str
    label: str
    embedding: str
    embedding_sql: str
    content: list
    language: str
    extension: str
    rows_of: str
    readable: bool
    rows: int
    search: str
    hybrid: str
    operator: str
    role: str
    qualified: str
    schema_sql: str
    # Where the rows are chunks: the table of the documents, its rows, and its columns that were cut into chunks.
    documents: str
    documents_rows_of: str
    documents_content: list

    @property
    def embed_query(self) -> str:
        return "embed_query" if self.extension == "public" else f"{self.extension}.embed_query"

    def columns(self, session: Session) -> list:
        """(name, quoted name, type) of the columns of its rows, or of its documents, that hold no embedding."""
        return session.run(COLUMNS, [self.documents or self.oid]).rows

    def described(self) -> dict:
        return {"oid": self.oid, "schema": self.schema, "name": self.name, "label": self.label, "embedding": self.embedding,
                "content": self.content, "readable": self.readable, "rows": self.rows, "searchable": bool(self.search), "documents": bool(self.documents)}

    def require_rights(self) -> None:
        if not self.readable:
            raise Problem("rights", f"{self.role} may not read {self.label}", "Its rows are not shown.",
                          f"grant usage on schema {self.schema_sql} to {self.role}; "
                          f"grant select on {self.qualified} to {self.role};")

    def enabling(self) -> str:
        """The statement that gives it what it lacks."""
        columns = "{" + ",".join('"' + re.sub(r'(["\\])', r"\\\1", name) + '"' for name in self.content) + "}"
        target, content, embedding = (text.replace("'", "''") for text in (self.label, columns, self.embedding))
        return f"select enable_semantic_search('{target}', '{content}', embedding => '{embedding}');"

    def require(self, function: str) -> str:
        """The name of one of its search functions; raises Problem where the role can't search."""
        self.require_rights()
        if not function:
            raise Problem("database", f"{self.label} has no search functions for its column {self.embedding}", "",
                          self.enabling())
        return _name(function)


def _name(quoted: str) -> str:
    """A quoted name as part of a statement with parameters."""
    return quoted.replace("%", "%%")


def tables(session: Session, oid=None) -> list:
    try:
        found = session.run(TABLES, [oid, oid]).rows
    except Problem as problem:
        if "gte_small" in problem.message and problem.kind == "database":
            raise _without(session, problem) from None
        raise
    made = []
    for row in found:
        values = list(row)
        values[6], values[10], values[11] = json.loads(row[6]), row[10] == "t", int(row[11] or 0)
        values[-1] = json.loads(row[-1] or "[]")
        made.append(Table(*values))
    return made


def _without(session: Session, problem: Problem) -> Problem:
    """The error of a database that lacks the extension, or functions of this version of it."""
    version = session.run(ROLE).rows[0][3]
    if version is None:
        return Problem("database", "the extension gte-small is not in this database", problem.message, 'create extension "gte-small" cascade;')
    return Problem("database", f"gte-small {version} in this database is another version than this page needs", problem.message,
                   'alter extension "gte-small" update;')


def table(session: Session, oid, embedding) -> Table:
    """The embedding column that the page names; raises Problem if there is none."""
    if not (isinstance(oid, str) and re.fullmatch(r"[0-9]{1,10}", oid) and isinstance(embedding, str)):
        raise Problem("input", "no table is chosen")
    # One look at the catalogue takes longer than a search, and a search comes with each letter.
    kept = session.catalogue.get((oid, embedding))
    if kept and kept[0] > time.monotonic():
        return kept[1]
    for found in tables(session, oid):
        if found.embedding == embedding:
            if found.readable:
                session.catalogue[oid, embedding] = (time.monotonic() + KEPT_SECONDS, found)
            return found
    raise Problem("gone", "the table is not there any more, or its search was disabled", "", "Load the page again.")


def overview(session: Session) -> dict:
    session.catalogue.clear()
    role, database, server, extension = session.run(ROLE).rows[0]
    return {"role": role, "database": database, "server": server.split(" ")[0], "extension": extension,
            "timeout": session.timeout_ms / 1000, "tables": [found.described() for found in tables(session)]}


# -- Filters --

def filters(session: Session, chosen: Table) -> list:
    """The columns that can be filtered by, each with its few values or with examples of many."""
    chosen.require(chosen.search)
    found = []
    percent, read = share(session, chosen.documents or chosen.oid), True
    for column, quoted, shown_type in chosen.columns(session):
        if column in (chosen.documents_content if chosen.documents else chosen.content):
            continue
        try:
            category = session.run("select category from gte_small.filter_column(%s::oid, %s)",
                                   [chosen.documents or chosen.oid, column]).rows[0][0]
        except Problem as problem:
            if problem.kind in ("database", "input"):
                continue
            raise
        try:
            values = _values(session, chosen, quoted, percent) if read else []
        except Problem as problem:
            if problem.kind != "timeout":
                raise
            # A field takes a value that is typed. The next columns would take as long.
            values, read = [], False
        # A long value is no choice, and a part of it would find nothing.
        short = [value for value, _ in values if value is None or len(value) <= VALUE_SHOWN]
        few = len(short) == len(values) <= MOST_CHOICES and any(int(count) > 1 for _, count in values)
        values = short[:MOST_CHOICES]
        if few:
            values.sort(key=lambda value: _order(value, category))
        found.append({"column": column, "type": shown_type, "number": category == "N", "choice": few, "values": values})
    return found


def _values(session: Session, chosen: Table, quoted: str, percent: float) -> list:
    """The most frequent values of a column in a sample of its rows, and how often each is there; long ones are cut."""
    return session.run(
        f"select v.value, count(*) from (select left(e.{_name(quoted)}::text, {VALUE_SHOWN + 1}) as value "
        f"from {_name(chosen.documents_rows_of or chosen.rows_of)} e tablesample system (%s) repeatable (7) limit {SAMPLE_ROWS}) v "
        f"group by 1 order by 2 desc, 1 limit {MOST_CHOICES + 1}", [percent]).rows


def _order(value, category: str) -> tuple:
    """Numbers by their size, others by their text; NULL is the last."""
    if value is None:
        return (2, 0, "")
    with contextlib.suppress(ValueError):
        return (0, float(value) if category == "N" else 0, value)
    return (1, 0, value)


def share(session: Session, oid: str) -> float:
    """The percentage of a table's pages that a bounded sample reads."""
    pages, rows = session.run(
        "select coalesce(sum(pg_relation_size(p.oid)), 0)::bigint / current_setting('block_size')::bigint, "
        "coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint "
        "from (select %s::oid union select t.relid from pg_partition_tree(%s::oid) t) p (oid) "
        "join pg_class c on c.oid = p.oid and c.relkind <> 'p'",
        [oid, oid]).rows[0]
    return min(100.0, 100 * SAMPLE_PAGES / max(1, int(pages)), 100 * SAMPLE_ROWS / max(1, int(rows)))


# -- Searches --

@dataclass
class Search:
    """What the user asks, checked."""

    text: str
    count: int
    threshold: float
    filter: str

    @classmethod
    def asked(cls, body: dict) -> "Search":
        text, count, threshold, chosen = (body.get(key) for key in ("search", "count", "threshold", "filter"))
        if not isinstance(text, str) or not text.strip():
            raise Problem("input", "the search is empty")
        if len(text) > MOST_SEARCH:
            raise Problem("input", f"the search has more than {MOST_SEARCH} characters")
        if "\0" in text:
            raise Problem("input", "the search has a zero byte, which no text of PostgreSQL has")
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_ROWS:
            raise Problem("input", f"the number of rows is not from 1 to {MOST_ROWS}")
        if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not -1 <= threshold <= 1):
            raise Problem("input", "a threshold is a similarity, from -1 to 1")
        if not isinstance(chosen, dict):
            raise Problem("input", "a filter is a JSON object")
        return cls(text, count, threshold, json.dumps(chosen, ensure_ascii=False) if chosen else "")


def by_meaning(session: Session, chosen: Table, search: Search, words) -> dict:
    """search_<table>: the nearest rows."""
    if chosen.documents:
        return _documents(session, chosen, search, words)
    statement = f"select * from {chosen.require(chosen.search)}(%s, %s"
    parameters = [search.text, search.count]
    if search.threshold is not None:
        statement, parameters = statement + ", match_threshold => %s", [*parameters, search.threshold]
    if search.filter:
        statement, parameters = statement + ", filter => %s", [*parameters, search.filter]
    statement += ")"
    answer = session.run(statement, parameters)
    # The function gives another name to a column that is called as one of its arguments.
    columns = [name for name, _, _ in chosen.columns(session)]
    if len(columns) != len(answer.names) - 1:
        columns = answer.names[:-1]
    rows = [{"similarity": float(row[-1]), "semantic_rank": rank, **_shown_row(chosen, columns, row)}
            for rank, row in enumerate(answer.rows, 1)]
    return _part(session, answer, statement, parameters, rows, words)


def _documents(session: Session, chosen: Table, search: Search, words) -> dict:
    """query_<table> of document search: the nearest documents, each by its best chunk."""
    function = chosen.require(chosen.search)
    columns = [column for column in chosen.columns(session) if column[0] not in chosen.documents_content]
    wanted = "".join(f"(d.document).{_name(quoted)}, " for _, quoted, _ in columns)
    statement = f"select {wanted}d.ordinal, d.chunk, d.similarity\n  from {function}(%s, %s, %s"
    parameters = [search.text, search.threshold, search.count]
    if search.filter:
        statement, parameters = statement + ", filter => %s", [*parameters, search.filter]
    statement += ") d"
    answer = session.run(statement, parameters)
    names = [*(name for name, _, _ in columns), "chunk"]
    rows = [{"similarity": float(row[-1]), "semantic_rank": rank, "content": [_clip(row[-2], CONTENT_SHOWN)],
             "fields": [[name, _clip(value, VALUE_SHOWN)] for name, value in zip(names, row[:-2]) if value is not None]}
            for rank, row in enumerate(answer.rows, 1)]
    return _part(session, answer, statement, parameters, rows, words)


def by_words(session: Session, chosen: Table, search: Search, words) -> dict:
    """hybrid_<table> with no weight on the meaning: the rows that have words of the search."""
    return _hybrid(session, chosen, search, words, ", semantic_weight => 0", "\n where h.full_text_rank is not null")


def by_both(session: Session, chosen: Table, search: Search, words) -> dict:
    """hybrid_<table> as applications call it."""
    return _hybrid(session, chosen, search, words, "", "")


def _hybrid(session: Session, chosen: Table, search: Search, words, weights: str, condition: str) -> dict:
    if chosen.documents:
        raise Problem("unsupported", "documents are searched by meaning only", "enable_document_search makes no search by words.")
    function = chosen.require(chosen.hybrid)
    columns = chosen.columns(session)
    wanted = ", ".join(f"(h.item).{_name(quoted)}" for _, quoted, _ in columns)
    statement = (f"select {wanted},\n       h.full_text_rank, h.semantic_rank, h.score,\n"
                 f"       -((h.item).{_name(chosen.embedding_sql)} {_name(chosen.operator)} {_name(chosen.embed_query)}(%s)) as similarity\n"
                 f"  from {function}(%s, %s{weights}")
    parameters = [search.text, search.text, search.count]
    if search.filter:
        statement, parameters = statement + ", filter => %s", [*parameters, search.filter]
    statement += f") h{condition}"
    answer = session.run(statement, parameters)
    rows = []
    for row in answer.rows:
        words_rank, meaning_rank, score, similarity = row[-4:]
        rows.append({"full_text_rank": words_rank and int(words_rank), "semantic_rank": meaning_rank and int(meaning_rank),
                     "score": float(score), "similarity": None if similarity is None else min(1.0, float(similarity)),
                     **_shown_row(chosen, [name for name, _, _ in columns], row)})
    return _part(session, answer, statement, parameters, rows, words)


def _part(session: Session, answer, statement: str, parameters, rows: list, words) -> dict:
    words.mark(rows)
    return {"rows": rows, "seconds": answer.seconds, "statement": session.shown(statement, parameters)}


def _shown_row(chosen: Table, columns: list, row: list) -> dict:
    """A row's texts, and its other columns that are not NULL."""
    values = dict(zip(columns, row))
    texts = [values.get(name) for name in chosen.content]
    return {"content": [_clip(text, CONTENT_SHOWN) for text in texts if text is not None],
            "fields": [[name, _clip(value, VALUE_SHOWN)] for name, value in values.items()
                       if name not in chosen.content and value is not None]}


def _clip(text, most: int):
    return text if text is None or len(text) <= most else text[:most] + " …"


# -- The words that matched --

class Words:
    """The words of a search as the hybrid search knows them, and where they are in the rows."""

    def __init__(self, session: Session, chosen: Table, search: Search):
        self._session = session
        self._language = chosen.language or session.run("select get_current_ts_config()").rows[0][0]
        self._counted, self._common, self._typed = [], [], {}
        # A term is a stem; the page shows the word as it was typed.
        as_typed = ("(select p from unnest(%s::text[]) p where gte_small.words(%s::regconfig, p) operator(gte_small.@@@) t.term limit 1) "
                    "from unnest(gte_small.search_terms(%s::regconfig, %s)) t (term)")
        arguments = [list(dict.fromkeys(PIECES.findall(search.text)))[:MOST_PIECES], self._language, self._language, search.text]
        where = [chosen.oid, json.dumps(chosen.content), self._language]
        expression, indexed = session.run(
            "select gte_small.words_expression(t.oid, t.content, t.language, true), "
            "exists (select from gte_small.word_indexes(t.oid, t.content, t.language)) "
            "from (select %s::oid::regclass, array(select json_array_elements_text(%s))::name[], %s::regconfig) t (oid, content, language)",
            where).rows[0]
        # As the search counts them: a word in more than 200 rows has no weight of its own. Without the index this would
        # read the table, so there every word counts.
        count = (f"(select count(*) from (select from {_name(chosen.rows_of)} e "
                 f"where {_name(expression)} operator(gte_small.@@@) t.term limit 201) c)") if indexed == "t" else "0"
        for term, rows, typed in session.run(f"select t.term::text, {count}, {as_typed}", arguments).rows:
            (self._counted if int(rows) <= 200 else self._common).append(term)
            self._typed[term] = typed or _word(term)
        # A row with all words is found though each of them is common.
        self._marked = self._counted or self._common

    def described(self) -> dict:
        """The words that count and those that are too common, as they were typed."""
        counted, common = (list(dict.fromkeys(self._typed[term] for term in terms)) for terms in (self._counted, self._common))
        return {"counted": counted, "common": [word for word in common if word not in counted]}

    def mark(self, rows: list) -> None:
        """Replaces each text by its pieces, every second of which matched; adds the list of the words that matched."""
        pieces = {piece for row in rows for text in row["content"] for piece in PIECES.findall(text)}
        matched = set()
        if self._marked and pieces:
            matched = {row[0] for row in self._session.run(
                "select p from unnest(%s::text[]) p where exists (select from unnest(%s::text[]::tsquery[]) q "
                "where gte_small.words(%s::regconfig, p) operator(gte_small.@@@) q)",
                [sorted(pieces)[:MOST_PIECES], self._marked, self._language]).rows}
        for row in rows:
            found = dict.fromkeys(piece.lower() for text in row["content"] for piece in PIECES.findall(text) if piece in matched)
            row["words"] = list(found)
            row["content"] = [_segments(text, matched) for text in row["content"]]


def _segments(text: str, matched: set) -> list:
    """The text cut so that the segments at odd places matched."""
    cut, end = [""], 0
    for found in PIECES.finditer(text):
        if found.group() in matched:
            if found.start() == end and len(cut) > 1:
                # Two pieces without anything between them are one mark.
                cut[-2] += found.group()
            else:
                cut[-1] += text[end:found.start()]
                cut += [found.group(), ""]
            end = found.end()
    cut[-1] += text[end:]
    return cut


def _word(term: str) -> str:
    """The word of a query of one word."""
    return term[1:-1].replace("''", "'").replace("\\\\", "\\")


# -- The histogram --

def histogram(session: Session, chosen: Table, search: Search) -> dict:
    """How similar the table's rows are to the search: all rows of a small table, a sample of the pages of a large one."""
    chosen.require(chosen.search)
    percent = share(session, chosen.oid)
    answer = session.run(
        f"with q as materialized (select gte_small.embed_query(%s) as v),\n"
        f"s as materialized (select e.{_name(chosen.embedding_sql)} as v from {_name(chosen.rows_of)} e "
        f"tablesample system (%s) repeatable (7) limit {2 * SAMPLE_ROWS})\n"
        f"select least({BINS}, greatest(1, width_bucket(-gte_small.exact_distance(s.v, q.v), -1, 1, {BINS}))), count(*)\n"
        "  from s, q where s.v is not null group by 1 order by 1", [search.text, percent])
    bins = [[int(place) - 1, int(count)] for place, count in answer.rows]
    sampled = sum(count for _, count in bins)
    return {"bins": bins, "of": BINS, "sampled": sampled, "whole": percent == 100 and sampled < 2 * SAMPLE_ROWS,
            "rows": chosen.rows, "seconds": answer.seconds}


# -- Status, model --

def status(session: Session, chosen: Table) -> list:
    """embedding_status of the table, as a list of columns with their names."""
    chosen.require_rights()
    answer = session.run(f"select *, to_json(hints) as hints from {_name(chosen.extension)}.embedding_status(%s::oid)", [chosen.oid])
    found = []
    for row in answer.rows:
        named = dict(zip(answer.names, row))
        found.append({**named, "hints": json.loads(row[-1] or "[]")})
    return found


def model(session: Session) -> dict:
    return _only_row(session, "embed_model")


def selftest(session: Session) -> dict:
    return _only_row(session, "embed_selftest")


def _only_row(session: Session, function: str) -> dict:
    schema = session.run("select gte_small.extension_schema()").rows[0][0]
    answer = session.run(f"select * from {_name(schema)}.{function}()")
    return {"values": list(zip(answer.names, answer.rows[0])), "seconds": answer.seconds}
