"""drizzle-orm: examples/drizzle, and what surprises."""

import pytest

LINES = [
    "0.48  Lemonade",
    "0.21  Tomato soup",
    "breakfast: Pancakes",
    "384 dimensions of Lemonade",
    "2 vectors of two texts",
]

SCHEMA = """
import { cosineDistance, eq, innerProduct, l2Distance, sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { integer, pgTable, text, vector } from 'drizzle-orm/pg-core';
const crowd = pgTable('crowd', {
  id: integer().primaryKey().generatedAlwaysAsIdentity(), content: text(), kind: integer(), embedding: vector({ dimensions: 384 }),
});
const db = drizzle(process.env.DATABASE_URL);
const one = async (id) => (await db.select().from(crowd).where(eq(crowd.id, id)))[0];
const right = async (id) => (await db.execute(sql`select embedding = embed(content) as right from crowd where id = ${id}`)).rows[0].right;
"""
END = "await db.$client.end();"


def test_the_example_prints_the_same_each_time(run, database, printed):
    printed(run("drizzle", DATABASE_URL=database.uri), LINES)
    printed(run("drizzle", DATABASE_URL=database.uri), LINES)


def test_objects_saved_whole_have_the_vector_of_their_text(javascript, own_crowd):
    assert javascript("drizzle", SCHEMA + """
        const save = async ({ id, ...rest }) => (await db.update(crowd).set(rest).where(eq(crowd.id, id)).returning())[0];
        const [made] = await db.insert(crowd).values({ content: 'a new row' }).returning();
        tell([made.embedding.length, await right(made.id)]);
        const first = await one(made.id), second = await one(made.id);
        await save({ ...first, content: "the first writer's" });
        const saved = await save({ ...second, content: "the second writer's" });
        tell([await right(made.id), saved.embedding.some((number, i) => number !== second.embedding[i])]);
        await save({ ...saved, embedding: null });
        tell(await right(made.id));
        await save({ ...saved, content: 'another text', embedding: null });
        tell(await right(made.id));
        """ + END, DATABASE_URL=own_crowd.uri) == [[384, True], [True, True], True, True]


@pytest.mark.parametrize("function, uses_index", [("innerProduct", True), ("l2Distance", False), ("cosineDistance", False)])
def test_only_the_inner_product_reaches_the_index(javascript, crowd, function, uses_index):
    told = javascript("drizzle", SCHEMA + f"""
        const {{ embedding }} = await one(1);
        for (const argument of [embedding, sql`(select embed_query(${{'pay'}}))`]) {{
          const query = db.select({{ content: crowd.content }}).from(crowd).orderBy({function}(crowd.embedding, argument)).limit(3);
          const plan = (await db.execute(sql`explain ${{query}}`)).rows.map((row) => row['QUERY PLAN']).join(' ');
          tell([plan.includes('Index Scan using crowd_embedding_idx'), (await query).length]);
        }}
        """ + END, DATABASE_URL=crowd.uri)
    assert told == [[uses_index, 3]] * 2


def test_an_array_is_a_list_of_parameters_without_sql_param(javascript, crowd):
    assert javascript("drizzle", SCHEMA + """
        const texts = ['cat', 'dog'];
        const rows = async (query) => (await db.execute(query)).rows;
        tell((await rows(sql`select cardinality(embed(${sql.param(texts)}::text[])) as n`))[0].n);
        tell(await rows(sql`select cardinality(embed(${texts}::text[])) as n`).then(() => 'not refused', () => 'refused'));
        const { embedding } = await one(1);
        const literal = JSON.stringify(embedding);
        tell((await rows(sql`select content from query_crowd(${literal}::vector, 0.9, 1)`)).length);
        tell(await rows(sql`select content from query_crowd(${literal}, 0.9, 1)`).catch((error) => error.cause.message));
        """ + END, DATABASE_URL=crowd.uri) == [2, "refused", 1, "search text is a vector literal"]


def test_prepared_statements_use_the_index(javascript, crowd):
    with crowd.scanning(12):
        assert javascript("drizzle", SCHEMA + """
            const prepared = db.select({ content: crowd.content }).from(crowd)
              .orderBy(sql`${crowd.embedding} <#> (select embed_query(${sql.placeholder('search')}))`).limit(3).prepare('searches');
            for (let number = 0; number < 12; number++) {
              const found = await prepared.execute({ search: `when must I pay number ${number}?` });
              if (found.length !== 3 || !found[0].content.startsWith('Invoices')) tell(found);
            }
            """ + END, DATABASE_URL=crowd.uri) == []
