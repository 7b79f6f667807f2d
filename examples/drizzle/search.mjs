// drizzle-orm: a schema whose embedding the database keeps.
//
//   npm ci
//   DATABASE_URL=postgresql://... node search.mjs

import { eq, ne, sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { index, integer, pgTable, text, vector } from 'drizzle-orm/pg-core';

const recipes = pgTable('recipes', {
  id: integer().primaryKey().generatedAlwaysAsIdentity(),
  name: text().notNull().unique(),
  steps: text().notNull(),
  // The trigger writes it. An object that is saved whole may bring an old vector: the trigger embeds a text that changed.
  embedding: vector({ dimensions: 384 }),
}, (table) => [
  // enable_semantic_search() makes it. It stands here, so that the schema has what the database has.
  index('recipes_embedding_idx').using('hnsw', table.embedding.op('vector_ip_ops')),
]);

const RECIPES = [
  { name: 'Pancakes', steps: 'Mix flour, milk and eggs, and fry the batter in butter.' },
  { name: 'Tomato soup', steps: 'Cook tomatoes with onions and blend them.' },
  { name: 'Lemonade', steps: 'Press lemons and add cold water and sugar.' },
];

const db = drizzle(process.env.DATABASE_URL);

// In a project this is a migration of its own (`drizzle-kit generate --custom`). The extension once for each database, as a
// superuser.
await db.execute('create extension if not exists "gte-small" cascade');
await db.execute(`create table if not exists recipes
  (id integer primary key generated always as identity, name text not null unique, steps text not null)`);
await db.execute("select enable_semantic_search('recipes', 'name, steps')");

await db.insert(recipes).values(RECIPES).onConflictDoNothing();

// The vector of a search, made by the database. A subquery of its own: then the model runs once, whatever the plan.
const embedQuery = (search) => sql`(select embed_query(${search}))`;

// <#> is the operator of the index, and the negative similarity. l2Distance and cosineDistance give the same order and read
// the whole table; drizzle's innerProduct(column, vector) takes a vector of the program's.
const distance = (search) => sql`${recipes.embedding} <#> ${embedQuery(search)}`;

// A query like others. With `where`, pgvector goes on until it has the rows of `limit`: where the extension is loaded,
// hnsw.iterative_scan is on.
const drinks = await db
  .select({ name: recipes.name, similarity: sql`-(${distance('something to drink on a hot day')})`.mapWith(Number) })
  .from(recipes)
  .where(ne(recipes.name, 'Pancakes'))
  .orderBy(distance('something to drink on a hot day'))
  .limit(2);
for (const { name, similarity } of drinks) console.log(`${similarity.toFixed(2)}  ${name}`);

// By the function: the count is kept. `rows` are as pg returns them.
const { rows } = await db.execute(sql`select name from search_recipes(${'breakfast'}, ${1})`);
console.log(`breakfast: ${rows[0].name}`);

// What the trigger wrote comes back from the same statement.
const [saved] = await db.update(recipes).set({ steps: 'Serve cold.' }).where(eq(recipes.name, 'Lemonade')).returning();
console.log(`${saved.embedding.length} dimensions of ${saved.name}`);
await db.update(recipes).set({ steps: RECIPES[2].steps }).where(eq(recipes.id, saved.id));

// sql.param keeps an array together; ${texts} alone would be a list of parameters.
const texts = ['cat', 'dog'];
const embedded = await db.execute(sql`select cardinality(embed(${sql.param(texts)}::text[])) as count`);
console.log(`${embedded.rows[0].count} vectors of two texts`);

await db.$client.end();
