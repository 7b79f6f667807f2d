"""Node's pg with pgvector's types: examples/node-pg, and what surprises."""

LINES = [
    "0.23  I was charged twice for my order.",
    "0.06  Please add a dark theme.",
    'near "The app crashes when I open the settings.": I was charged twice for my order.',
    "2 vectors of two texts",
]

CLIENT = """
import pg from 'pg';
import pgvector from 'pgvector/pg';
const client = new pg.Client(process.env.DATABASE_URL);
await client.connect();
await pgvector.registerTypes(client);
const value = async (text, values) => Object.values((await client.query(text, values)).rows[0])[0];
const refused = async (text, values) => client.query(text, values).then(() => 'not refused', (error) => error.message);
"""
END = "await client.end();"


def test_the_example_prints_the_same_each_time(run, database, printed):
    printed(run("node-pg", DATABASE_URL=database.uri), LINES)
    printed(run("node-pg", DATABASE_URL=database.uri), LINES)


def test_an_array_is_one_text_without_a_cast(javascript, database):
    assert javascript("node-pg", CLIENT + """
        const both = await value('select embed($1::text[])::text[]', [['cat', 'dog']]);
        tell(both.length);
        tell(both[1] === await value('select embed($1)::text', ['dog']));
        tell(await value('select embed($1)::text', [['cat', 'dog']]) === await value('select embed($1)::text', ['{"cat","dog"}']));
        tell((await value('select embed($1::text[])::text[]', [[]])).length);
        tell(await value('select embed($1::text[])::text[]', [['cat', null]]).then((vectors) => vectors[1]));
        """ + END, DATABASE_URL=database.uri) == [2, True, True, 0, None]


def test_a_vector_needs_a_cast(javascript, crowd):
    told = javascript("node-pg", CLIENT + """
        const vector = await value("select embed('Invoices are due within thirty days.')");
        tell([Array.isArray(vector), vector.length]);
        tell(await value('select content from query_crowd($1::vector, 0.9, 1)', [pgvector.toSql(vector)]));
        tell(await value('select content from query_crowd(embedding => $1, match_threshold => 0.9, match_count => 1)',
                         [pgvector.toSql(vector)]));
        tell(await value('select content from crowd order by embedding <#> $1 limit 1', [pgvector.toSql(vector)]));
        tell(await refused('select content from query_crowd($1, 0.9, 1)', [pgvector.toSql(vector)]));
        // Without toSql() the array goes as '{"0.1","0.2",…}'.
        tell(await refused('select content from query_crowd($1, 0.9, 1)', [vector]));
        tell(await refused('select content from query_crowd($1::vector, 0.9, 1)', [vector]));
        """ + END, DATABASE_URL=crowd.uri)
    assert told[0] == [True, 384]
    assert told[1:4] == ["Invoices are due within thirty days."] * 3
    assert told[4] == "search text is a vector literal"
    assert told[5] == "search text is an array of numbers"
    assert told[6].startswith("invalid input syntax for type vector")


def test_numbers_are_numbers(javascript, crowd):
    """A count and a threshold have no type either; the function gives it to them. A similarity comes back as a number."""
    assert javascript("node-pg", CLIENT + """
        const { rows } = await client.query('select id, similarity from search_crowd($1, $2, $3, $4)',
                                            ['pay an invoice', 2, 0.3, { kind: 1 }]);
        tell([rows.length, typeof rows[0].id, typeof rows[0].similarity]);
        tell(await refused('select * from query_crowd($1, $2)', ['pay', 5]));
        """ + END, DATABASE_URL=crowd.uri) == [[1, "number", "number"], "match_threshold is 5"]


def test_named_statements_and_pools_use_the_index(javascript, crowd):
    """A named statement is prepared, so PostgreSQL may change to a generic plan after five executions."""
    with crowd.scanning(48):
        assert javascript("node-pg", """
            import pg from 'pg';
            const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 3 });
            const SEARCHES = {
              search: 'select content from search_crowd($1, 3)',
              counted: 'select content from query_crowd($1, null, 3)',
              limited: 'select content from query_crowd($1, null) limit 3',
              operator: 'select content from crowd order by embedding <#> (select embed_query($1)) limit 3',
            };
            for (const [name, text] of Object.entries(SEARCHES)) {
              const searches = Array.from({ length: 12 }, (_, number) => `when must I pay number ${number}?`);
              const found = await Promise.all(searches.map((search) => pool.query({ name, text, values: [search] })));
              tell(found.every(({ rows }) => rows.length === 3 && rows[0].content.startsWith('Invoices')));
            }
            await pool.end();""", DATABASE_URL=crowd.uri) == [True] * 4
