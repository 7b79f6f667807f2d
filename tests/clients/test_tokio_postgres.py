"""tokio-postgres with pgvector's types: examples/tokio-postgres, and what surprises."""

LINES = [
    "0.36  library",
    "0.22  pool",
    "next to the library: pool",
    "2 vectors of two texts",
]


def test_the_example_prints_the_same_each_time(run, database, printed):
    printed(run("tokio-postgres", DATABASE_URL=database.uri), LINES)
    printed(run("tokio-postgres", DATABASE_URL=database.uri), LINES)


def test_a_vector_needs_its_type(run, crowd):
    """The server tells the client the type of each parameter, and that of one without a cast is text."""
    invoices = "Invoices are due within thirty days."
    assert run("tokio-postgres", "traps", "vectors", DATABASE_URL=crowd.uri) == [
        f"cast: {invoices}", f"named: {invoices}", f"operator: {invoices}", "untyped: error serializing parameter 0"]


def test_an_array_needs_its_type(run, crowd):
    assert run("tokio-postgres", "traps", "array", DATABASE_URL=crowd.uri) == ["untyped: error serializing parameter 0"]


def test_prepared_statements_use_the_index(run, crowd):
    with crowd.scanning(48):
        assert run("tokio-postgres", "traps", "prepared", DATABASE_URL=crowd.uri) == ["12 right"] * 4
