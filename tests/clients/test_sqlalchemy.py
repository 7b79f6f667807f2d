"""SQLAlchemy 2: examples/sqlalchemy, and what surprises."""

import pytest
from sqlalchemy import Text, cast, create_engine, func, literal, make_url, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from pgvector.sqlalchemy import VECTOR

LINES = [
    "0.57  Returns",
    "0.12  Delivery",
    "384 dimensions of Opening hours; next to it: Delivery",
    "embedding renewed: True",
    "above 0.4: ['Opening hours']",
]


class Base(DeclarativeBase):
    pass


class Row(Base):
    """As somebody maps a table who has not read the example: the embedding is a column like others."""

    __tablename__ = "crowd"
    id: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[str] = mapped_column(Text)
    kind: Mapped[int | None]
    embedding: Mapped[list[float] | None] = mapped_column(VECTOR(384))


@pytest.fixture
def engine(own_crowd):
    engine = create_engine(make_url(own_crowd.uri).set(drivername="postgresql+psycopg"), pool_size=2)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine):
    with Session(engine) as session:
        yield session


def test_the_example_prints_the_same_each_time(run, database, printed):
    printed(run("sqlalchemy", DATABASE_URL=database.uri), LINES)
    printed(run("sqlalchemy", DATABASE_URL=database.uri), LINES)


def of_text(session, content):
    return session.scalar(select(cast(func.embed(content), VECTOR(384))))


def test_an_object_reads_its_embedding_back(session):
    row = Row(content="a new row", kind=1)
    session.add(row)
    session.commit()
    assert row.embedding == of_text(session, "a new row")


def test_an_object_saved_again_has_the_vector_of_its_text(engine):
    """Two sessions read a row; both save it, with the vector that they read."""
    with Session(engine) as one, Session(engine) as two:
        first, second = one.get(Row, 1), two.get(Row, 1)
        stale = list(second.embedding)
        first.content = "the first writer's"
        one.commit()
        second.content, second.embedding = "the second writer's", stale[::-1]
        two.commit()
        two.refresh(second)
        assert second.embedding == of_text(two, "the second writer's")


def test_an_object_saved_without_its_vector_keeps_it(session):
    row = session.get(Row, 1)
    before = row.embedding
    row.embedding = None
    session.commit()
    assert row.embedding == before
    row.embedding, row.content = None, "another text"
    session.commit()
    assert row.embedding == of_text(session, "another text")


def test_a_vector_needs_a_cast(session):
    vector = of_text(session, "Invoices are due within thirty days.")
    call = func.query_crowd(cast(vector, VECTOR(384)), 0.9).table_valued("content")
    assert session.scalars(select(call.c.content)).all() == ["Invoices are due within thirty days."]
    # VECTOR alone is sent without its type, as a text.
    call = func.query_crowd(literal(vector, VECTOR(384)), 0.9).table_valued("content")
    with pytest.raises(DBAPIError, match="search text is a vector literal"):
        session.scalars(select(call.c.content)).all()


def test_a_list_of_texts_needs_a_cast(session):
    def embedded(texts):
        return session.scalar(select(cast(func.embed(texts), Text)))

    both = embedded(cast(["cat", "dog"], ARRAY(Text)))
    assert both.startswith('{"[') and both.count("[") == 2
    assert embedded(["cat", "dog"]).count("[") == 1


@pytest.mark.parametrize("method, uses_index", [("max_inner_product", True), ("l2_distance", False), ("cosine_distance", False)])
def test_only_the_inner_product_reaches_the_index(session, method, uses_index):
    distance = getattr(Row.embedding, method)
    for argument in (session.get(Row, 1).embedding, select(func.embed_query("pay")).scalar_subquery()):
        query = select(Row.content).order_by(distance(argument)).limit(3)
        statement = str(query.compile(session.bind, compile_kwargs={"literal_binds": True}))
        plan = "\n".join(session.connection().exec_driver_sql("explain " + statement).scalars())
        assert ("Index Scan using crowd_embedding_idx" in plan) == uses_index


def test_searches_of_a_pool_use_the_index(crowd):
    """psycopg prepares a statement at its sixth execution in a connection."""
    engine = create_engine(make_url(crowd.uri).set(drivername="postgresql+psycopg"), pool_size=2, max_overflow=0)
    found = func.search_crowd(text(":search"), 3).table_valued("content")
    with crowd.scanning(20):
        for number in range(10):
            with Session(engine) as one, Session(engine) as two:
                for session in (one, two):
                    rows = session.scalars(select(found.c.content), {"search": f"when must I pay number {number}?"}).all()
                    assert len(rows) == 3 and rows[0].startswith("Invoices")
        engine.dispose()
