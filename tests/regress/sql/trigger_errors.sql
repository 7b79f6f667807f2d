-- How the trigger refuses: the fact, what to do, and nothing stored.
set client_min_messages = warning;
create table notes (id int, content text, embedding vector(384));
create function make(columns text, timing text default 'before insert or update', arguments text default '', level text default 'row')
returns void language plpgsql as $$
begin
    execute 'drop table if exists notes';
    execute format('create table notes (%s)', columns);
    execute format('create trigger zzz_gte_small_embedding %s on notes for each %s execute function embed_trigger(%s)', timing, level, arguments);
end $$;

-- Kinds of triggers.
select make('id int, content text, embedding vector(384)', 'after insert');
insert into notes values (1, 'a cat');
select make('id int, content text, embedding vector(384)', 'before insert', '', 'statement');
insert into notes values (1, 'a cat');
select make('id int, content text, embedding vector(384)', 'before delete');
insert into notes values (1, 'a cat');
delete from notes;
select make('id int, content text, embedding vector(384)', 'before truncate', '', 'statement');
truncate notes;
select embed_trigger();

-- Columns that are not there.
select make('id int, body text, embedding vector(384)');
insert into notes values (1, 'a cat');
select make('id int, content text, meaning vector(384)');
insert into notes values (1, 'a cat');
select make('id int, content text, embedding vector(384)', arguments => '''embedding'', ''Content''');
insert into notes values (1, 'a cat');

-- Columns of another type.
select make('id int, content json, embedding vector(384)');
insert into notes values (1, '{}');
select make('id int, content text, embedding vector(12)');
insert into notes values (1, 'a cat');
select make('id int, content text, embedding halfvec(384)');
insert into notes values (1, 'a cat');
select make('id int, content text, embedding text');
insert into notes values (1, 'a cat');
create domain meaning as vector(384);
select make('id int, content text, embedding meaning');
insert into notes values (1, 'a cat');

-- Columns that PostgreSQL computes.
select make('id int, base text, content text generated always as (base) stored, embedding vector(384)');
insert into notes (id, base) values (1, 'a cat');
select make('id int, content text, embedding vector(384) generated always as (embed(content)) stored');
insert into notes (id, content) values (1, 'a cat');

-- Arguments.
select make('id int, content text, embedding vector(384)', arguments => '''embedding''');
insert into notes values (1, 'a cat');

-- And a trigger as it should be.
select make('id int, content text, embedding vector(384)', arguments => '''embedding'', ''content''');
insert into notes values (1, 'a cat');
select id, embedding = embed(content) as embedded from notes;
