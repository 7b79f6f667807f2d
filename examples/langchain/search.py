"""LangChain: a vector store and a retriever without an embedding model in the program.

    pip install -r requirements.txt
    DATABASE_URL=postgresql://... python search.py
"""

import os

import psycopg
from langchain_core.documents import Document

from store import GteSmallStore

DOCUMENTS = [
    Document(id="leave", page_content="Employees have thirty days of leave a year.", metadata={"source": "handbook", "page": 4}),
    Document(id="coffee", page_content="The coffee machine is on the second floor.", metadata={"source": "handbook", "page": 9}),
    Document(id="printer", page_content="If the printer shows an error, switch it off and on.", metadata={"source": "faq"}),
]


def main():
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        store = GteSmallStore(connection)
        store.create()
        store.add_documents(DOCUMENTS)

        for document, score in store.similarity_search_with_score("how many holidays do I get?", k=2):
            print(f"{score:.2f}  {document.id}: {document.page_content}")

        found = store.similarity_search("how many holidays do I get?", k=1, filter={"source": "faq"})
        print("in the faq:", [document.id for document in found])

        retriever = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"k": 3, "score_threshold": 0.3})
        print("retrieved:", [document.id for document in retriever.invoke("the paper is stuck in the printer")])


if __name__ == "__main__":
    main()
