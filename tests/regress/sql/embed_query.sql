-- embed_query is embed for search boxes.
select embed_query('how to boil an egg') = embed('how to boil an egg') as same;
select embed_query(null) is null as null_is_null;
select embed_query('[1] see note') = embed('[1] see note') as a_search;
select embed_query('[]') = embed('[]') as a_search;
select embed_query('[1,2,three]') = embed('[1,2,three]') as a_search;

-- A blank string is a mistake in a search box.
select embed_query('');
select embed_query(E' \t\n ');

-- So is a vector that an untyped parameter brought here.
select embed_query('[0.1,0.2,0.3]');
select embed_query(E' [1, -2.5e-3,\n4] ');

do $$
begin
    perform embed_query('[1,2]');
exception when invalid_parameter_value then
    raise notice 'sqlstate %', sqlstate;
end $$;
