"""embed_backfill on the chunks of a document search: the same as on any table."""

import pytest

from backfills import notices, refused
from measure import counting, one
from test_documents import manuals, true_to_the_text  # noqa: F401  a fixture

CHUNKS = "manuals_chunks"
LEFT = f"select document_id, ordinal from {CHUNKS} where embedding is null order by 1, 2"
NAMED = "1 row of public.manuals_chunks.embedding could not be embedded: (document_id, ordinal)=(77, 1)"


@pytest.fixture
def deferred(manuals):  # noqa: F811
    manuals.execute("set gte_small.defer = on; insert into manuals (title, body) select 't' || i, 'body ' || i from generate_series(1, 500) i; reset gte_small.defer;"
                    "set gte_small.memo_size = 0")
    assert one(manuals, f"select missing from embedding_status('{CHUNKS}')") == 500
    manuals.execute(f"alter table {CHUNKS} add constraint fits check (document_id <> 77 or embedding is null or embedding = array_fill(0.051031, array[384])::vector) not valid")
    return manuals


def test_the_procedure_and_the_step(deferred):
    with counting(deferred) as counted:
        assert refused(deferred, f"call embed_backfill('{CHUNKS}')", "23514").message_primary == NAMED
    assert counted.texts == 500 and deferred.execute(LEFT).fetchall() == [(77, 1)]
    with notices(deferred) as heard:
        assert one(deferred, f"select embed_backfill_step('{CHUNKS}')") == 0
    assert heard == [("WARNING", NAMED)]
    deferred.execute(f"alter table {CHUNKS} drop constraint fits")
    assert one(deferred, f"select embed_backfill_step('{CHUNKS}')") == 1
    true_to_the_text(deferred)


def test_force(deferred):
    deferred.execute(f"set gte_small.own_vectors = on; update {CHUNKS} set embedding = array_fill(0.051031, array[384])::vector; reset gte_small.own_vectors")
    for _ in range(2):
        assert refused(deferred, f"call embed_backfill('{CHUNKS}', force => true)", "23514").message_primary == NAMED
        assert deferred.execute(f"select document_id from {CHUNKS} where embedding <> embed(content)").fetchall() == [(77,)]
    deferred.execute(f"alter table {CHUNKS} drop constraint fits")
    deferred.execute(f"call embed_backfill('{CHUNKS}', force => true)")
    true_to_the_text(deferred)
    assert one(deferred, f"select state from embedding_status('{CHUNKS}')") == "current"


def test_the_table_of_the_documents_is_not_filled_itself(deferred):
    assert "embedding column" in refused(deferred, "call embed_backfill('manuals')", "42703").message_primary
