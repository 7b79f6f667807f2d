-- Which plans reach the HNSW index, on 10,000 random unit vectors.
\set ECHO none
\i sql/embeddings.sql
set client_min_messages = warning;
\set ECHO all
drop index embeddings_embedding_idx;
select setseed(0.42) is not null as seeded;
insert into embeddings (content, embedding)
select 'row ' || i, l2_normalize((select array_agg(random() - 0.5 + 0 * (i + place)) from generate_series(1, 384) place)::vector(384))
from generate_series(1, 10000) i;
\set ECHO none
\i sql/embeddings.sql
\set ECHO all
analyze embeddings;
select model_runs from embed_stats();

-- The cost of embed would switch JIT on.
set jit = off;
set max_parallel_workers_per_gather = 0;

-- How a plan reads the table: its scan and sort nodes from top to bottom. Without the incremental sort by the key,
-- which only 17 and later can put on an index.
create function plan(statement text) returns setof text language plpgsql as $$
declare
    document json;
begin
    execute 'explain (format json, costs off) ' || statement into document;
    return query
    with recursive node(path, content) as (
        select array[0], document -> 0 -> 'Plan'
        union all
        select path || n::int, child
        from node, json_array_elements(content -> 'Plans') with ordinality as c(child, n)
    )
    select (content ->> 'Node Type') || coalesce(' ' || (content ->> 'Index Name'), ' on ' || (content ->> 'Relation Name'), '')
    from node
    where content ->> 'Node Type' in ('Index Scan', 'Seq Scan', 'Bitmap Heap Scan', 'Sort', 'Merge Append', 'Append', 'Limit', 'Function Scan')
    order by path;
end $$;

-- Constants: both kinds, both arities.
select plan($$ select content from query_embeddings(embed('a cat'), 0.8) limit 3 $$);
select plan($$ select content from query_embeddings('a cat', 0.8) limit 3 $$);
select plan($$ select content from query_embeddings(embed('a cat'), 0.8, 3) $$);
select plan($$ select content from query_embeddings('a cat', 0.8, 3) $$);
-- An outer condition is pushed down with two arguments.
select plan($$ select content from query_embeddings('a cat', 0.8) where id > 100 limit 3 $$);
select plan($$ select content, embedding <#> embed('a cat') from query_embeddings('a cat', 0.8) limit 3 $$);

-- Prepared: a custom plan and a generic one.
prepare two_vector(text, float8) as select content from query_embeddings(embed($1), $2) limit 3;
prepare two_text(text, float8) as select content from query_embeddings($1, $2) limit 3;
prepare three_vector(text, float8, int) as select content from query_embeddings(embed($1), $2, $3);
prepare three_text(text, float8, int) as select content from query_embeddings($1, $2, $3);
set plan_cache_mode = force_custom_plan;
select plan($$ execute two_vector('a cat', 0.8) $$);
select plan($$ execute two_text('a cat', 0.8) $$);
select plan($$ execute three_vector('a cat', 0.8, 3) $$);
select plan($$ execute three_text('a cat', 0.8, 3) $$);
set plan_cache_mode = force_generic_plan;
select plan($$ execute two_vector('a cat', 0.8) $$);
select plan($$ execute two_text('a cat', 0.8) $$);
select plan($$ execute three_vector('a cat', 0.8, 3) $$);
select plan($$ execute three_text('a cat', 0.8, 3) $$);
reset plan_cache_mode;

-- As an RPC gateway calls: arguments from a JSON body. With match_count the index serves it.
select plan($$ select r.content from (select '{"search": "a cat", "match_threshold": 0.8, "match_count": 3}'::json as body) payload,
    lateral json_to_record(payload.body) as args(search text, match_threshold float8, match_count int),
    lateral query_embeddings(search := args.search, match_threshold := args.match_threshold, match_count := args.match_count) r $$);
select plan($$ select r.content from (select '{"match_threshold": 0.8, "match_count": 3}'::json as body) payload,
    lateral json_to_record(payload.body) as args(embedding vector(384), match_threshold float8, match_count int),
    lateral query_embeddings(embedding := args.embedding, match_threshold := args.match_threshold, match_count := args.match_count) r $$);

-- Under row-level security.
grant select on embeddings to gte_reader;
grant execute on function plan(text) to gte_reader;
create policy first_half on embeddings for select to gte_reader using (id <= 5000);
set role gte_reader;
select plan($$ select content from query_embeddings('a cat', 0.8) limit 3 $$);
select plan($$ select content from query_embeddings('a cat', 0.8, 3) $$);
select count(*) from query_embeddings('a cat', -1, 10) where id > 5000;
reset role;

-- A partitioned table: one index per partition, merged.
create schema parted;
create table parted.embeddings (id bigint, content text, embedding vector(384)) partition by range (id);
create table parted.low partition of parted.embeddings for values from (0) to (5000);
create table parted.high partition of parted.embeddings for values from (5000) to (20000);
insert into parted.embeddings select id, content, embedding from embeddings;
\o /dev/null
select enable_semantic_search('parted.embeddings');
\o
analyze parted.embeddings;
select plan($$ select content from parted.query_embeddings('a cat', 0.8) limit 3 $$);
select plan($$ select content from parted.query_embeddings('a cat', 0.8, 3) $$);

-- A row is nearest to itself, by the index and by an exact scan.
select id from query_embeddings((select embedding from embeddings where id = 17), 0.8, 5);
set enable_indexscan = off;
select id from query_embeddings((select embedding from embeddings where id = 17), 0.8, 5);
