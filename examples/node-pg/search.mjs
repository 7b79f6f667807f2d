// Node's `pg`: the program writes and searches texts, the database embeds them.
//
//   npm ci
//   DATABASE_URL=postgresql://... node search.mjs

import pg from 'pg';
import pgvector from 'pgvector/pg';

const TICKETS = [
  'The app crashes when I open the settings.',
  'I was charged twice for my order.',
  'Please add a dark theme.',
];

// Sets up the database. CREATE EXTENSION once for each database, as a superuser.
const setup = new pg.Client(process.env.DATABASE_URL);
await setup.connect();
await setup.query('create extension if not exists "gte-small" cascade');
await setup.query('create table if not exists tickets (id int generated always as identity primary key, body text unique)');
await setup.query("select enable_semantic_search('tickets', 'body')");
await setup.end();

const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  // Each new connection learns to read vectors as arrays of numbers. Without it they are strings, '[0.1,…]'.
  onConnect: (client) => pgvector.registerTypes(client),
});

for (const ticket of TICKETS) {
  await pool.query('insert into tickets (body) values ($1) on conflict do nothing', [ticket]);
}

// The text goes to the database as it is. With a name, the statement is prepared once for each connection.
async function search(text, count) {
  const found = await pool.query({
    name: 'search tickets',
    text: 'select body, similarity from search_tickets($1, $2)',
    values: [text, count],
  });
  return found.rows;
}

for (const { body, similarity } of await search('somebody took too much money', 2)) {
  console.log(`${similarity.toFixed(2)}  ${body}`);
}

// A parameter has no type, and what has no type is a text. So a vector needs a cast, and toSql() writes it as PostgreSQL does.
const { rows: [ticket] } = await pool.query('select body, embedding from tickets where body like $1', ['The app%']);
const { rows: near } = await pool.query('select body from query_tickets($1::vector, null, 2) where body <> $2',
  [pgvector.toSql(ticket.embedding), ticket.body]);
console.log(`near "${ticket.body}": ${near[0].body}`);

// pg sends an array as '{"cat","dog"}'. Without the cast this string would be embedded, as one text.
const { rows: [{ vectors }] } = await pool.query('select embed($1::text[])::text[] as vectors', [['cat', 'dog']]);
console.log(`${vectors.length} vectors of two texts`);

await pool.end();
