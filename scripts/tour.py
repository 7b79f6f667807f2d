"""The output of `make run`: statements as a user types them into psql, and psql's answers with their times."""

from session import Session

MISSION = "select content from query_embeddings(embed('maximum memory for query workspaces'), 0.8) limit 3;"

QUESTIONS = [
    "how do I see what a query is waiting for",
    "how big is my table on disk",
    # No row is about food: this shows the purpose of a threshold.
    "what is for lunch today?",
]

# The statement has the text twice and the model runs once: the memo answers the second time.
ASK = """select round(-(embedding <#> embed('{0}'))::numeric, 3) as similarity, content
from query_embeddings('{0}', (embed_model()).suggested_threshold) limit 3;"""

NEAREST = """select round(-(embedding <#> embed('{0}'))::numeric, 3) as nearest, content
from embeddings order by embedding <#> embed('{0}') limit 1;"""

# The new text is near other rows, because HNSW with its default ef_search may miss a single row far from all others.
UPDATED = "how do I stop a query that runs too long"
UPDATE = """update embeddings set content = 'stop a query that runs too long (function pg_cancel_backend)'
where content like '%(function pg_cancel_backend)';"""


def tell(text: str) -> None:
    if text:
        print(text, flush=True)


def typed(session: Session, sql: str) -> str:
    """Show a statement as a user types it, run it, show the answer."""
    tell("demo=# " + sql.replace("\n", "\ndemo-# "))
    answer = session.run(sql)
    tell(answer + "\n")
    return answer


def _ask(session: Session, sql: str, question: str) -> None:
    if "\n(0 rows)" in typed(session, sql):
        tell("-- nothing is that close; the nearest row:")
        typed(session, NEAREST.format(question))


def show(session: Session) -> None:
    # QUIET off, so that an UPDATE says how many rows it changed.
    session.run("\\timing on\n\\set QUIET off")
    tell("")
    typed(session, "select name, max_tokens, suggested_threshold, round(load_seconds::numeric, 2) as load_seconds\n"
                   "from embed_model();")
    typed(session, "select count(*), count(embedding) as embedded from embeddings;")
    _ask(session, MISSION, "maximum memory for query workspaces")
    tell("-- questions, at the threshold the model suggests")
    for question in QUESTIONS:
        _ask(session, ASK.format(question), question)
    tell("-- an UPDATE changes the answer, in the same transaction; the ROLLBACK takes both back")
    typed(session, "begin;")
    _ask(session, ASK.format(UPDATED), UPDATED)
    typed(session, UPDATE)
    _ask(session, ASK.format(UPDATED), UPDATED)
    typed(session, "rollback;")
    tell("Go on with your own questions:  make psql\nStop the server, keep the rows:  make stop")
