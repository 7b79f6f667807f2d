// supabase-js: the search functions by rpc(). Any server with PostgREST answers them.
//
//   npm ci
//   SUPABASE_URL=https://... SUPABASE_KEY=... node search.mjs
//
// setup.sql makes the tables.

import { createClient } from '@supabase/supabase-js';

const supabase = createClient(process.env.SUPABASE_URL, process.env.SUPABASE_KEY, { auth: { persistSession: false } });

async function rows(request) {
  const { data, error } = await request;
  if (error) throw new Error(`${error.message} ${error.hint ?? ''}`);
  return data;
}

// The text goes to the database as it is. `filter` comes before the count: this finds two English rows if there are two.
// A filter behind the call, .eq('lang', 'en'), takes rows away from those that were found.
const found = await rows(supabase
  .rpc('search_docs', { search: 'I cannot log in', match_count: 2, filter: { lang: 'en' } })
  .select('title, similarity'));
for (const { title, similarity } of found) console.log(`${similarity.toFixed(2)}  ${title}`);

// The call of the tutorial. With match_count the index serves it. Without, .limit(3) does not reach the index, and the
// table is read.
const [nearest] = await rows(supabase
  .rpc('query_embeddings', { search: 'when do you bill me?', match_threshold: 0.1, match_count: 3 })
  .select('content, embedding')
  .limit(1));
console.log(nearest.content);

// The same function for a vector, here that of a row: rows like it. The names of the arguments choose the form.
const like = await rows(supabase
  .rpc('query_embeddings', { embedding: nearest.embedding, match_threshold: null, match_count: 3 })
  .select('content')
  .neq('content', nearest.content));
console.log(`next to it: ${like[0].content}`);
