"""psycopg 3: the program writes and searches texts, the database embeds them.

    pip install -r requirements.txt
    DATABASE_URL=postgresql://... python search.py
"""

import os

import psycopg
from pgvector.psycopg import register_vector

MEMOS = [
    "Backups run every night at two.",
    "The office dog is called Ada.",
    "Invoices are due within thirty days.",
    "The canteen serves lunch from noon to two.",
]


def prepare(connection):
    # Once for each database, as a superuser.
    connection.execute('create extension if not exists "gte-small" cascade')
    connection.execute("create table if not exists memos (id int generated always as identity primary key, body text unique)")
    # Adds the column `embedding`, the trigger that fills it, indexes and search functions.
    connection.execute("select enable_semantic_search('memos', 'body')")


def write(connection, memo):
    """The vector that the trigger made comes back from the same statement, as a `Vector` after register_vector()."""
    return connection.execute(
        "insert into memos (body) values (%s) on conflict (body) do update set body = excluded.body returning embedding",
        (memo,)).fetchone()[0]


def search(connection, text, count):
    """The nearest memos with their similarity. The text goes to the database as it is."""
    return connection.execute("select body, similarity from search_memos(%s, %s)", (text, count)).fetchall()


def similar_to(connection, vector, count):
    """The memos nearest to a vector.

    A parameter without a type is a text, so a vector needs the type: a `Vector` has it after register_vector(), a list of
    numbers gets it by %s::vector.
    """
    return connection.execute("select id, body from query_memos(%s, null, %s)", (vector, count)).fetchall()


def embed_all(connection, texts):
    """One call for many texts is faster than many calls. A list needs the cast: without it, it is one text, `{cat,dog}`."""
    return connection.execute("select embed(%s::text[])", (texts,)).fetchone()[0]


def backfill(connection):
    """For rows that were there before. It commits as it goes, so it needs autocommit, which is not psycopg's default."""
    connection.commit()
    connection.autocommit = True
    connection.execute("call embed_backfill('memos')")
    connection.autocommit = False


def main():
    # Behind a pool of transactions (pgbouncer), pass prepare_threshold=None unless the pool keeps prepared statements.
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        prepare(connection)
        # After CREATE EXTENSION: it looks up the type. In a pool, call it for each new connection (`configure`).
        register_vector(connection)
        vectors = [write(connection, memo) for memo in MEMOS]
        backfill(connection)

        for body, similarity in search(connection, "when do I have to pay?", 2):
            print(f"{similarity:.2f}  {body}")

        print(f"{len(vectors[0].to_list())} dimensions; next to: {MEMOS[0]}")
        for _, body in similar_to(connection, vectors[0], 2)[1:]:
            print(f"      {body}")

        print(len(embed_all(connection, ["cat", "dog"])), "vectors of two texts")


if __name__ == "__main__":
    main()
