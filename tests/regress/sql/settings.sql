-- The settings, once the library is loaded.
select vector_dims(embed('load the library'));
select name, setting, vartype, context, min_val, max_val, enumvals, boot_val, short_desc <> '' as described
from pg_settings where name like 'gte\_small.%' and name <> 'gte_small.model_path' order by name;
select name, vartype, context, boot_val, short_desc <> '' as described from pg_settings where name = 'gte_small.model_path';

set gte_small.memo_size = 0;
show gte_small.memo_size;
set gte_small.memo_size = -1;
set gte_small.memo_size = 'x';
set gte_small.on_truncate = warning;
show gte_small.on_truncate;
set gte_small.on_truncate = sometimes;
reset gte_small.memo_size;
reset gte_small.on_truncate;

-- The prefix is reserved.
set gte_small.no_such_setting = 1;

-- A plain role changes what concerns its own session, not the model.
set role gte_plain;
set gte_small.memo_size = 7;
set gte_small.on_truncate = error;
set gte_small.threads = 64;
set gte_small.max_threads = 64;
set gte_small.model_path = '/tmp';
reset role;
reset all;

-- A text of more tokens than the model reads.
set gte_small.on_truncate = silent;
select vector_dims(embed(repeat('a cat ', 500)));
set gte_small.on_truncate = warning;
select vector_dims(embed(repeat('a cat ', 500)));
set gte_small.on_truncate = error;
select vector_dims(embed(repeat('a cat ', 500)));
select vector_dims(embed('a cat'));
