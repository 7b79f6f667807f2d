"""Questions of XQuAD have the same answers from a distributed table as from a local one, where the texts are beside the clone."""

import json

import pytest

import state

XQUAD = state.SHARED / "xquad"


def lines(name):
    return [json.loads(line) for line in (XQUAD / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.skipif(not XQUAD.is_dir(), reason="shared/data is not beside the clone")
def test_two_hundred_questions_have_the_same_answers(db):
    passages = [(number, number, line["text"]) for number, line in enumerate(lines("corpus.jsonl"))]
    for name in ("xquad_here", "xquad_there"):
        db.run(f"create table {name} (tenant int, id int, content text, primary key (tenant, id))")
    db.run("select create_distributed_table('xquad_there', 'tenant', shard_count => 8, colocate_with => 'none')")
    for name in ("xquad_here", "xquad_there"):
        db.run(f"select enable_semantic_search('{name}')")
        with db.connection.cursor().copy(f"copy {name} (tenant, id, content) from stdin") as copy:
            for row in passages:
                copy.write_row(row)
    questions = [line["text"] for line in lines("queries.jsonl")[::5]][:200]
    assert len(questions) == 200
    for form in ("select id, similarity from search_{}(%s, 10)", "select (item).id, full_text_rank, semantic_rank from hybrid_{}(%s, 10)"):
        for question in questions:
            here, there = (db.rows(form.format(name), question) for name in ("xquad_here", "xquad_there"))
            assert here == there and len(there) == 10, question
