"""SQLAlchemy 2: a mapped class whose embedding the database keeps.

    pip install -r requirements.txt
    DATABASE_URL=postgresql://... python search.py
"""

import os

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import FetchedValue, Float, Integer, Select, Text, cast, column, create_engine, func, make_url, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

ARTICLES = {
    "Opening hours": "The shop is open from nine to six, on Saturdays until noon.",
    "Returns": "You can send goods back within thirty days and get your money.",
    "Delivery": "Parcels arrive two days after the order.",
}


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "articles"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(Text, unique=True)
    body: Mapped[str] = mapped_column(Text)
    # The trigger writes it. FetchedValue says so: it stays out of INSERT, and SQLAlchemy reads it back. Deferred: a query
    # for articles does not load 384 numbers for each. Otherwise an object that is saved again may write an old vector;
    # the trigger then embeds the new text all the same.
    embedding: Mapped[list[float] | None] = mapped_column(
        VECTOR(384), server_default=FetchedValue(), server_onupdate=FetchedValue(), deferred=True)


def prepare(engine):
    with engine.begin() as connection:
        # Once for each database, as a superuser. It also makes the type of the column.
        connection.execute(text('create extension if not exists "gte-small" cascade'))
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("select enable_semantic_search('articles', 'title, body')"))


def nearest(search: str, count: int) -> Select:
    """Articles with their similarity, as a query that can be joined and filtered further."""
    found = func.search_articles(search, count).table_valued(column("id", Integer), column("similarity", Float), name="found")
    return select(Article, found.c.similarity).join(found, found.c.id == Article.id).order_by(found.c.similarity.desc())


def like(article: Article, count: int) -> Select:
    """The articles nearest to one.

    max_inner_product is the operator of the index, <#>. l2_distance and cosine_distance give the same order and read the
    whole table.
    """
    return (select(Article).where(Article.id != article.id)
            .order_by(Article.embedding.max_inner_product(article.embedding)).limit(count))


def above(vector: list[float], threshold: float) -> Select:
    """Articles above a similarity to a vector. Without the cast the function would take it for a text."""
    found = func.query_articles(cast(vector, VECTOR(384)), threshold).table_valued(column("id", Integer), name="found")
    return select(Article).join(found, found.c.id == Article.id)


def main():
    # `postgresql://` alone means psycopg2 before SQLAlchemy 2.1.
    engine = create_engine(make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg"))
    prepare(engine)
    with Session(engine) as session:
        known = set(session.scalars(select(Article.title)))
        session.add_all(Article(title=title, body=body) for title, body in ARTICLES.items() if title not in known)
        session.commit()

        for article, similarity in session.execute(nearest("can I give back what I bought?", 2)):
            print(f"{similarity:.2f}  {article.title}")

        hours = session.scalars(select(Article).where(Article.title == "Opening hours")).one()
        print(f"{len(hours.embedding)} dimensions of {hours.title}; next to it: {session.scalars(like(hours, 1)).one().title}")

        # The text changes, and with it the embedding.
        before = hours.embedding
        hours.body = hours.body.replace("noon", "one")
        session.commit()
        print("embedding renewed:", hours.embedding != before)
        hours.body = ARTICLES[hours.title]
        session.commit()

        print("above 0.4:", [article.title for article in session.scalars(above(before, 0.4))])


if __name__ == "__main__":
    main()
