"""What `make run` shows: statements as one types them into psql, and psql's own answers with their times."""

from session import Session

MISSION = "select content from query_embeddings(embed('maximum memory for query workspaces'), 0.8) limit 3;"

QUESTIONS = [
    "how do I see what a query is waiting for",
    "how big is my table on disk",
    # Nothing here is about food: shows what a threshold is for.
    "what is for lunch today?",
]

# The text is there twice and the model runs once: the second finds the first in the memo.
ASK = """select round(-(embedding <#> embed('{0}'))::numeric, 3) as similarity, content
from query_embeddings('{0}', (embed_model()).suggested_threshold) limit 3;"""

NEAREST = """select round(-(embedding <#> embed('{0}'))::numeric, 3) as nearest, content
from embeddings order by embedding <#> embed('{0}') limit 1;"""

# Among its neighbours on purpose: HNSW may miss a lone row that is far from all others at its default ef_search.
UPDATED = "how do I stop a query that runs too long"
UPDATE = """update embeddings set content = 'stop a query that runs too long (function pg_cancel_backend)'
where content like '%(function pg_cancel_backend)';"""


def tell(text: str) -> None:
    if text:
        print(text, flush=True)


def typed(session: Session, sql: str) -> str:
    """Show a statement the way it looks when typed, run it, show the answer."""
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
