-- sql/embeddings.sql: the tutorial's table, made once and kept by a second run.
\set ECHO none
\i sql/embeddings.sql
\set ECHO all
select column_name, data_type, is_nullable, is_identity, udt_name from information_schema.columns
where table_name = 'embeddings' order by ordinal_position;
select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'embeddings'::regclass and attname = 'embedding';
select relrowsecurity, relforcerowsecurity from pg_class where oid = 'embeddings'::regclass;
select indexname, indexdef from pg_indexes where tablename = 'embeddings' order by indexname;
select tgname, pg_get_triggerdef(oid) from pg_trigger where tgrelid = 'embeddings'::regclass;
select pg_get_function_arguments(oid) as arguments, pg_get_function_result(oid) as result, provolatile as volatile,
       proisstrict as strict, proparallel as parallel, prosecdef as definer, proconfig as config,
       obj_description(oid, 'pg_proc') is not null as described
from pg_proc where proname = 'query_embeddings' order by oid::regprocedure::text collate "C";
select d.objid::regprocedure as follows_the_extension
from pg_depend d join pg_extension e on e.oid = d.refobjid
where d.deptype = 'x' and e.extname = 'gte-small' and d.classid = 'pg_proc'::regclass order by d.objid::regprocedure::text collate "C";

insert into embeddings (content) values ('a cat sat on the mat'), ('stones in the garden');
select content from query_embeddings('a cat sat on the mat', 0.99);
select content from query_embeddings(embed('a cat sat on the mat'), 0.99) limit 3;
select content from query_embeddings('stones in the garden', null, 1);
select content from query_embeddings(embedding := embed('stones in the garden'), match_threshold := 0.99, match_count := 1);

-- A second run changes nothing.
create temporary table objects as
    select 'pg_class' as catalog, oid from pg_class where relname in ('embeddings', 'embeddings_embedding_idx')
    union all select 'pg_proc', oid from pg_proc where proname = 'query_embeddings';
create temporary table vectors as select id, content, embedding::text as embedding from embeddings;
set client_min_messages = warning;
\set ECHO none
\i sql/embeddings.sql
\set ECHO all
select catalog, count(*) as kept from objects o
where exists (select from pg_class where oid = o.oid and catalog = 'pg_class')
   or exists (select from pg_proc where oid = o.oid and catalog = 'pg_proc')
group by catalog order by catalog;
select count(*) as functions from pg_proc where proname = 'query_embeddings';
select count(*) as triggers from pg_trigger where tgrelid = 'embeddings'::regclass;
select count(*) as rows, bool_and(v.embedding is not distinct from e.embedding::text) as same from embeddings e join vectors v using (id);

-- An orthogonal vector at 0.8 finds nothing: the parameter is meant, not the column.
truncate embeddings;
insert into embeddings (content, embedding) select 'axis ' || axis, (select array_agg((place = axis)::int order by place)::vector(384) from generate_series(1, 384) place) from generate_series(1, 3) axis;
select content from query_embeddings((select array_agg((place = 200)::int order by place)::vector(384) from generate_series(1, 384) place), 0.8);
select content from query_embeddings((select array_agg((place = 2)::int order by place)::vector(384) from generate_series(1, 384) place), 0.8);
select content from query_embeddings((select array_agg((place = 200)::int order by place)::vector(384) from generate_series(1, 384) place), 0.8, 3);
select content from query_embeddings((select array_agg((place = 2)::int order by place)::vector(384) from generate_series(1, 384) place), 0.8, 3);

-- An untyped vector is text, and the text form says how to cast it.
select content from query_embeddings('[0.1,0.2]', 0.8);
select content from query_embeddings('', 0.8);
