-- A vector of 384 dimensions and unit length.
select vector_dims(embed('a cat sat on the mat')), abs(vector_norm(embed('a cat sat on the mat')) - 1) < 1e-5 as unit;
select pg_typeof(embed('a cat')), pg_typeof(embed(array['a cat']));

-- NULL is NULL; empty and blank texts are texts.
select embed(null) is null as no_text, embed(null::text) is null as text, embed(null::text[]) is null as array;
select vector_dims(embed('')) as empty, abs(vector_norm(embed('')) - 1) < 1e-5 as unit, vector_dims(embed('   ')) as blank;
select embed('') = embed('   ') as blanks_add_nothing;

-- The same text, the same vector; another text, another vector.
select embed('a cat') = embed('a cat') as same, embed('a cat') = embed('a dog') as other;

-- Arrays: order and length are kept, NULL stays NULL.
select array_length(v, 1) as length, v[2] is null as second, v[1] = v[4] as equal_texts, v[1] = v[3] as other_texts
from embed(array['a cat', null, 'a much longer text about a dog', 'a cat']) v;
select n, max(abs(a - b)) <= 1e-6 as like_single
from unnest(array['cat', 'a much longer text about a dog and a cat', '', 'cat']) with ordinality t(content, n)
join unnest(embed(array['cat', 'a much longer text about a dog and a cat', '', 'cat'])) with ordinality e(v, n) using (n),
lateral unnest(v::real[], embed(content)::real[]) u(a, b)
group by n order by n;
select embed('{}'::text[]) as empty, embed(array[null, null]::text[]) as nulls;
select array_ndims(embed('{}'::text[])) as dimensions_of_empty;

-- The shape is kept too: dimensions and bounds.
select array_dims(v), v[2][2] is null as last, v[2][1] = embed('c') as third from embed('{{a,b},{c,null}}'::text[]) v;
select array_dims(embed('[5:6]={a,b}'::text[]));

-- Which form an argument takes.
select vector_dims(embed('cat'::varchar)) as varchar, vector_dims(embed('cat'::char(10))) as char, vector_dims(embed('cat'::name)) as name;
select embed('cat'::char(10)) = embed('cat') as padding_is_no_text;
select array_length(embed(array['cat']::varchar[]), 1) as varchar_array;
\set VERBOSITY terse
select embed('{"a": 1}'::json);
select embed(1);
select embed(array[1, 2]);
\set VERBOSITY default

-- In an index and a stored generated column.
create table notes (content text, embedding vector(384) generated always as (embed(content)) stored);
insert into notes (content) values ('a cat'), ('a dog'), (null);
-- pgvector wants to see the dimensions, and a function's result does not carry them.
create index on notes using hnsw ((embed(content)::vector(384)) vector_ip_ops);
select content, embedding = embed(content) as same from notes order by content;
