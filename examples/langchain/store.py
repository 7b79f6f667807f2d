"""A LangChain vector store over a table that gte-small embeds: the texts go to the database as they are.

No embedding model runs in the program, so the store has no `Embeddings`, and what needs one (search by a vector of the
program's, maximal marginal relevance) is left out.
"""

import uuid

import psycopg
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb


class GteSmallStore(VectorStore):
    """Documents in the table `name` (id, content, source, metadata). `source` is a column, because filters are of columns."""

    def __init__(self, connection: psycopg.Connection, name: str = "library"):
        # Without autocommit nothing here would commit: what was added would be gone at the end of the connection.
        if not connection.autocommit:
            raise ValueError("the store needs a connection with autocommit=True")
        self.connection = connection
        self.name = name

    def create(self):
        # Once for each database, as a superuser.
        self._run('create extension if not exists "gte-small" cascade')
        self._run("create table if not exists {table} (id text primary key, content text not null, source text, metadata jsonb)")
        self._run("create index if not exists {source} on {table} (source)")
        self._run("select enable_semantic_search({name})")

    def add_texts(self, texts, metadatas=None, *, ids=None, **_):
        texts = list(texts)
        # add_documents() passes None for a document without an id beside others that have one.
        ids = [i or str(uuid.uuid4()) for i in ids or [None] * len(texts)]
        metadatas = metadatas or [{} for _ in texts]
        rows = [(i, text, data.get("source"), Jsonb(data)) for i, text, data in zip(ids, texts, metadatas, strict=True)]
        # An upsert embeds each proposed row, also one that is there already. To load many known texts again, use MERGE.
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.executemany(self._sql("""
                insert into {table} (id, content, source, metadata) values (%s, %s, %s, %s)
                on conflict (id) do update set content = excluded.content, source = excluded.source, metadata = excluded.metadata"""),
                rows)
        return ids

    @classmethod
    def from_texts(cls, texts, embedding=None, metadatas=None, *, ids=None, connection, name="library", **_):
        store = cls(connection, name)
        store.create()
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def similarity_search_with_score(self, query, k=4, filter=None, score_threshold=None, **_):
        """Documents and their cosine. `filter` is of columns: {"source": "handbook"} or {"source": ["handbook", "faq"]}."""
        found = self._run("select * from {search}(%s, %s, %s, %s)", [query, k, score_threshold, Jsonb(filter or {})])
        return [(_document(row), row["similarity"]) for row in found.fetchall()]

    def similarity_search(self, query, k=4, **options):
        return [document for document, _ in self.similarity_search_with_score(query, k, **options)]

    def _select_relevance_score_fn(self):
        # LangChain wants 0 to 1. A cosine below 0 is as good as 0.
        return lambda cosine: max(0.0, cosine)

    def get_by_ids(self, ids, /):
        rows = self._run("select * from {table} where id = any(%s)", [list(ids)]).fetchall()
        return [_document(row) for row in rows]

    def delete(self, ids=None, **_):
        if ids is None:
            self._run("delete from {table}")
        else:
            self._run("delete from {table} where id = any(%s)", [list(ids)])
        return True

    def _sql(self, statement):
        table = sql.Identifier(self.name)
        # The argument of enable_semantic_search() is a name as in SQL, so one with capitals is quoted.
        return sql.SQL(statement).format(table=table, name=sql.Literal(table.as_string()),
                                         source=sql.Identifier(f"{self.name}_source_idx"),
                                         search=sql.Identifier(f"search_{self.name}"))

    def _run(self, statement, parameters=None):
        return self.connection.cursor(row_factory=dict_row).execute(self._sql(statement), parameters)


def _document(row):
    return Document(id=row["id"], page_content=row["content"], metadata=row["metadata"] or {})
