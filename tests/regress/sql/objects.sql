-- What the extension consists of: signatures, planner attributes, comments.
select p.oid::regprocedure as function, pg_get_function_result(p.oid) as result, l.lanname as language,
       p.provolatile as volatile, p.proisstrict as strict, p.proparallel as parallel, p.procost as cost, p.prosecdef as definer
from pg_depend d join pg_extension e on e.oid = d.refobjid join pg_proc p on p.oid = d.objid join pg_language l on l.oid = p.prolang
where e.extname = 'gte-small' and d.deptype = 'e' and d.classid = 'pg_proc'::regclass
order by p.oid::regprocedure::text collate "C";

-- Every object of the extension says what it is. Newer servers count the array types that come with types.
select pg_describe_object(d.classid, d.objid, d.objsubid) as without_comment
from pg_depend d join pg_extension e on e.oid = d.refobjid
where e.extname = 'gte-small' and d.deptype = 'e' and obj_description(d.objid, d.classid::regclass::name) is null
  and not exists (select from pg_type where d.classid = 'pg_type'::regclass and oid = d.objid and typcategory = 'A')
order by 1;

select obj_description(oid, 'pg_extension') is not null as extension_has_comment, extversion, extrelocatable
from pg_extension where extname = 'gte-small';

-- Columns of the two row functions.
select column_name, data_type from (
    select unnest(proargnames) as column_name, format_type(unnest(proallargtypes), null) as data_type, generate_subscripts(proargnames, 1) as n
    from pg_proc where proname = 'embed_model') c order by n;
select column_name, data_type from (
    select unnest(proargnames) as column_name, format_type(unnest(proallargtypes), null) as data_type, generate_subscripts(proargnames, 1) as n
    from pg_proc where proname = 'embed_stats') c order by n;

-- Anybody may embed and look; nothing else was granted.
select p.oid::regprocedure as function, has_function_privilege('gte_plain', p.oid, 'execute') as plain
from pg_depend d join pg_extension e on e.oid = d.refobjid join pg_proc p on p.oid = d.objid
where e.extname = 'gte-small' and d.deptype = 'e' and d.classid = 'pg_proc'::regclass
order by p.oid::regprocedure::text collate "C";
