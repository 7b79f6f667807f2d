"""LangChain: examples/langchain, and what surprises."""

import asyncio
import importlib.util

import psycopg
import pytest
from langchain_core.documents import Document

from conftest import EXAMPLES

LINES = [
    "0.36  leave: Employees have thirty days of leave a year.",
    "-0.04  coffee: The coffee machine is on the second floor.",
    "in the faq: ['printer']",
    "retrieved: ['printer']",
]


def test_the_example_prints_the_same_each_time(run, database, printed):
    printed(run("langchain", DATABASE_URL=database.uri), LINES)
    printed(run("langchain", DATABASE_URL=database.uri), LINES)


@pytest.fixture
def store(database):
    spec = importlib.util.spec_from_file_location("langchain_store", EXAMPLES / "langchain" / "store.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with database.connect() as connection:
        yield module.GteSmallStore.from_texts(
            ["a cat on a sofa", "a dog in a park", "an invoice"], None,
            [{"source": "pets", "page": 1}, {"source": "pets", "page": 2}, {"source": "office"}],
            ids=["cat", "dog", "invoice"], connection=connection, name="My Documents")


def ids(documents):
    return [document.id for document in documents]


def test_documents_come_back_as_they_were(store):
    assert store.similarity_search("kitten", k=1) == [
        Document(id="cat", page_content="a cat on a sofa", metadata={"source": "pets", "page": 1})]
    assert sorted(ids(store.get_by_ids(["dog", "invoice", "unknown"]))) == ["dog", "invoice"]


def test_a_document_added_again_is_replaced(store):
    store.add_documents([Document(id="cat", page_content="a bill to pay")])
    assert set(ids(store.similarity_search("invoice", k=2))) == {"cat", "invoice"}
    store.delete(["cat"])
    assert ids(store.similarity_search("a bill to pay", k=1)) == ["invoice"]
    store.delete()
    assert store.similarity_search("invoice") == []


def test_documents_with_and_without_an_id_can_be_added_together(store):
    added = store.add_documents([Document(id="bird", page_content="a bird in a tree"), Document(page_content="a fish in a pond")])
    assert added[0] == "bird" and added[1] and ids(store.similarity_search("fish", k=1)) == [added[1]]


def test_a_connection_that_would_not_commit_is_refused(store, database):
    with database.connect(autocommit=False) as connection, pytest.raises(ValueError, match="autocommit"):
        type(store)(connection)


def test_filters_are_of_columns(store):
    assert ids(store.similarity_search("kitten", filter={"source": ["office", "other"]})) == ["invoice"]
    # A key of the metadata is no column.
    with pytest.raises(psycopg.errors.UndefinedColumn):
        store.similarity_search("kitten", filter={"page": 1})


def test_thresholds_and_relevance(store):
    found = store.similarity_search_with_relevance_scores("kitten", k=3)
    assert ids(document for document, _ in found)[0] == "cat" and all(0 <= score <= 1 for _, score in found)
    scores = [score for _, score in store.similarity_search_with_score("kitten", k=3)]
    assert len(store.similarity_search("kitten", k=3, score_threshold=(scores[0] + scores[1]) / 2)) == 1


def test_the_asynchronous_methods(store):
    assert ids(asyncio.run(store.asimilarity_search("kitten", k=1))) == ["cat"]
    assert ids(asyncio.run(store.as_retriever(search_kwargs={"k": 1}).ainvoke("kitten"))) == ["cat"]


def test_a_search_by_a_vector_of_the_program_is_not_offered(store):
    with pytest.raises(NotImplementedError):
        store.similarity_search_by_vector([0.1] * 384)
