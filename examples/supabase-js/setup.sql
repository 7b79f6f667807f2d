-- The tables of the examples supabase-js and postgrest-py. Run sql/embeddings.sql before: it makes the table `embeddings`.
--
-- The roles are those of Supabase. docs/security.md has what they need where PUBLIC has no privileges.

-- In one transaction, so that a second run changes nothing.
begin;

create table docs (
  id bigint generated always as identity primary key,
  lang text not null,
  title text not null,
  content text not null
);
select enable_semantic_search('docs', 'title, content');

-- Everybody may read. Search functions run with the rights of the caller, so policies apply to them.
alter table docs enable row level security;
create policy docs_read on docs for select to anon, authenticated using (true);
create policy embeddings_read on embeddings for select to anon, authenticated using (true);
grant select on docs, embeddings to anon, authenticated;

insert into docs (lang, title, content) values
  ('en', 'Passwords', 'Choose "Forgot password" on the login page. We send you a link.'),
  ('en', 'Invoices', 'Invoices are sent on the first day of the month.'),
  ('de', 'Passwörter', 'Wer das Passwort vergessen hat, bekommt einen neuen Link.'),
  ('en', 'Holidays', 'The office is closed between Christmas and New Year.');
insert into embeddings (content) select title || ': ' || content from docs where lang = 'en';

commit;
