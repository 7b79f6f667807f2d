"""`make fidelity`: compares the quality of search through SQL with the published figures of all-MiniLM-L6-v2.

The data is XQuAD English (scripts/xquad.py): 1190 questions, 240 paragraphs, one right paragraph for each question. SQL
on a throw-away server embeds and searches it, exactly (without an index), in f32 and in bf16. The exit code says whether
both are near the published figures.

It also prints what suggest_threshold() returns for the paragraphs, and which pairs of a question and a paragraph have a
higher cosine.
"""

import json
import math
import time
from pathlib import Path

import scripts_path  # noqa: F401

import model
import postgres
import state
import throwaway
import xquad
from session import Session
from state import Failure

# The figures of sentence-transformers on the same data, and the allowed difference.
PUBLISHED = {"nDCG@10": (0.94357, 0.003), "recall@1": (0.88523, 0.005)}
PRECISIONS = ("f32", "bf16")
FOUND = 10


def load(session: Session, table: str, rows: dict) -> None:
    values = ",\n".join(f"({postgres.quote_literal(i)}, {postgres.quote_literal(text)})" for i, text in rows.items())
    session.run(f"create table {table} (id text primary key, content text not null, embedding vector(384));\n"
                f"insert into {table} (id, content) values\n{values};")


def search(session: Session, precision: str) -> tuple:
    """Embeds everything and searches every question: (ids found by question, best first; seconds; kernels)."""
    session.run(f"set gte_small.precision = '{precision}';")
    used, kernels = session.value("select precision || ' ' || kernels from embed_model()").split()
    if used != precision:
        raise Failure(f"the server runs {used} instead of {precision}, so {precision} was not measured")
    began = time.monotonic()
    for table in ("paragraphs", "questions"):
        session.run(f"update {table} set embedding = embed(content);")
    seconds = time.monotonic() - began
    answer = session.value(
        "select json_object_agg(q.id, (select json_agg(id order by distance, id) from "
        f"(select p.id, p.embedding <=> q.embedding as distance from paragraphs p order by 2, 1 limit {FOUND}) as best)) "
        "from questions q")
    return json.loads(answer), seconds, kernels


def measure(found: dict, grades: dict) -> dict:
    """nDCG@10 and recall@1, means over the questions."""
    gains, recalls = [], []
    for question, right in grades.items():
        ranked = found[question]
        gain = sum(right.get(paragraph, 0) / math.log2(rank + 2) for rank, paragraph in enumerate(ranked[:FOUND]))
        best = sorted(right.values(), reverse=True)[:FOUND]
        gains.append(gain / sum(grade / math.log2(rank + 2) for rank, grade in enumerate(best)))
        recalls.append((ranked[0] in right) / len(right))
    return {"nDCG@10": sum(gains) / len(gains), "recall@1": sum(recalls) / len(recalls)}


def compare(session: Session, data: Path) -> bool:
    paragraphs, questions = xquad.texts(data / "corpus.jsonl"), xquad.texts(data / "queries.jsonl")
    grades = xquad.relevant(data / "qrels.tsv")
    load(session, "paragraphs", paragraphs)
    load(session, "questions", questions)
    print(f"XQuAD English, {len(paragraphs)} paragraphs, {len(grades)} questions, {model.MINILM}, exact search")
    print("".join([f"{'':<22}", *(f"{name:>10}" for name in PUBLISHED), f"{'off by':>20}"]))
    print("".join([f"{'published':<22}", *(f"{value:>10.5f}" for value, _ in PUBLISHED.values())]))
    near = True
    for precision in PRECISIONS:
        found, seconds, kernels = search(session, precision)
        figures = measure(found, grades)
        off = {name: figures[name] - value for name, (value, _) in PUBLISHED.items()}
        near &= all(abs(off[name]) <= allowed for name, (_, allowed) in PUBLISHED.items())
        print("".join([f"{f'{precision} ({kernels})':<22}", *(f"{value:>10.5f}" for value in figures.values()),
                       *(f"{apart:>+10.5f}" for apart in off.values()), f"   embedded in {seconds:.1f} s"]), flush=True)
    allowed = ", ".join(f"{name} {most}" for name, (_, most) in PUBLISHED.items())
    threshold(session, grades)
    print(f"{'within' if near else 'NOT within'} what is allowed ({allowed})")
    return near


def threshold(session: Session, grades: dict) -> None:
    """The threshold that is suggested for the paragraphs, and the shares of pairs above it."""
    pairs = ", ".join(f"({postgres.quote_literal(question)}, {postgres.quote_literal(paragraph)})"
                      for question, right in grades.items() for paragraph in right)
    session.run("set client_min_messages = warning; select enable_semantic_search('paragraphs', with_index => false);\n"
                f"create temporary table relevant as select * from (values {pairs}) v (question, paragraph);")
    # It takes a sample of 400 rows, which are all of them.
    suggested = session.value("select suggest_threshold('paragraphs')")
    right, wrong = session.value(
        f"select avg((cosine > {suggested})::int) filter (where is_right) || ' ' || avg((cosine > {suggested})::int) filter (where not is_right) from ("
        "select 1 - (q.embedding <=> p.embedding) as cosine, exists (select from relevant r where (r.question, r.paragraph) = (q.id, p.id)) "
        "as is_right from questions q, paragraphs p) pairs").split()
    unrelated = session.value("select avg(1 - (p.embedding <=> o.embedding)) from paragraphs p, paragraphs o where p.id < o.id")
    print(f"suggest_threshold: {suggested}; above it are {float(right):.1%} of the right pairs and {float(wrong):.1%} of the wrong ones; "
          f"two paragraphs have {float(unrelated):.2f} on average", flush=True)


def main() -> int:
    data = xquad.data_directory()
    with throwaway.measured("fidelity") as (cluster, _), Session(cluster, "postgres") as session:
        return 0 if compare(session, data) else 1


if __name__ == "__main__":
    state.verb(main)
