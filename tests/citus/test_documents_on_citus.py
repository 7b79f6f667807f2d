"""Document search in a database with Citus: the chunks are distributed with their documents, and one call is enough for every kind
of table."""

import pathlib

import psycopg
import pytest

import docs_page

SCALING = pathlib.Path(__file__).resolve().parents[2] / "docs" / "scaling.md"


def test_local_documents_are_searched(owner):
    owner.run("create table citus_manuals (id int primary key, title text, body text)")
    owner.run("select enable_document_search('citus_manuals', '{body}')")
    owner.run("insert into citus_manuals select i, 'Manual ' || i, repeat('This is sentence of manual ' || i || '. ', 60) from generate_series(1, 5) i")
    owner.run("insert into citus_manuals values (9, 'Bills', 'Invoices are due within thirty days.')")
    assert owner.value("select (document).id from query_citus_manuals('when do I have to pay?', match_count => 1)") == 9
    owner.run("select enable_document_search('citus_manuals', '{body}')")
    owner.run("select disable_document_search('citus_manuals')")
    assert owner.value("select count(*) from pg_proc where proname like '%citus_manuals%'") == 0
    assert not [text for severity, text, _ in owner.notices if severity == "WARNING"]


# By kind: the table, the statements that distribute it, and a change of the key of document 4.
KINDS = {
    "hash": ("kind_hash", "create table kind_hash (tenant int, id int, body text, primary key (tenant, id))",
             "select create_distributed_table('kind_hash', 'tenant', shard_count => 4)", "id = 40"),
    "reference": ("kind_reference", "create table kind_reference (tenant int, id int primary key, body text)",
                  "select create_reference_table('kind_reference')", "id = 40"),
    "schema": ("kind_schema.docs", "create table kind_schema.docs (tenant int, id int primary key, body text)", "select 1", "id = 40"),
    "one shard": ("kind_single", "create table kind_single (tenant int, id int primary key, body text)",
                  "select create_distributed_table('kind_single', null)", "id = 40"),
    "managed local": ("kind_local", "create table kind_local (tenant int, id int primary key, body text)",
                      "select citus_add_local_table_to_metadata('kind_local')", "id = 40"),
    "partitions": ("kind_parts", "create table kind_parts (tenant int, id int, body text, primary key (tenant, id)) partition by list (id); "
                   "create table kind_parts_4 partition of kind_parts for values in (4); create table kind_parts_others partition of kind_parts default",
                   "select create_distributed_table('kind_parts', 'tenant', shard_count => 4)", "id = 40"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table(owner, nodes, kind):
    table, made, distributed, moved = KINDS[kind]
    schema, _, name = table.rpartition(".")
    if schema:
        with nodes.coordinator.connect() as superuser:
            superuser.execute("grant create on database demo to citus_owner")
        owner.run("set citus.enable_schema_based_sharding = on")
        owner.run(f"create schema {schema}")
    query, chunks = (f"{schema}.query_{name}", f"{schema}.{name}_chunks") if schema else (f"query_{name}", f"{name}_chunks")
    owner.run(made)
    owner.run(f"insert into {table} values (1, 1, 'The office dog is called Ada.'), (2, 2, repeat('Trains run on rails. ', 400))")
    owner.run(distributed)
    owner.run(f"select enable_document_search('{table}', 'body')")
    # What was there has chunks, and the model has not run.
    assert owner.rows(f"select count(*) > 3, count(embedding) from {chunks}") == [(True, 0)]
    owner.run(f"call embed_backfill('{chunks}')")
    owner.run(f"insert into {table} values (3, 3, 'Invoices are due within thirty days.')")
    with owner.connection.cursor().copy(f"copy {table} from stdin") as copy:
        copy.write("4\t4\tThe river floods in spring.\n5\t5\tShe plays the piano.\n")

    def best(text, count=1, more=""):
        return [tuple(row) for row in owner.rows(f"select (document).id, ordinal, chunk from {query}(%s, match_count => {count}{more})", text)]

    assert best("when do I have to pay?") == [(3, 1, "Invoices are due within thirty days.")]
    assert best("water above the banks") == [(4, 1, "The river floods in spring.")]
    assert best("railway")[0][0] == 2
    # Each document once, and all of them.
    assert sorted(row[0] for row in best("railway", 10)) == [1, 2, 3, 4, 5]
    assert [row[0] for row in best("railway", 10, ", filter => '{\"tenant\": 5}'")] == [5]
    assert [row[0] for row in best("when do I have to pay?", 10, ", match_threshold => 0.3")] == [3]
    before = owner.value(f"select embedding::text from {chunks} where document_id = 4")
    owner.run(f"update {table} set {moved} where id = 4")
    assert owner.rows(f"select document_id, embedding::text from {chunks} where document_id in (4, 40)") == [(40, before)]
    owner.run(f"update {table} set body = 'The river is dry in summer.' where id = 40")
    assert best("river in the summer") == [(40, 1, "The river is dry in summer.")]
    owner.run(f"delete from {table} where id = 40")
    owner.run(f"delete from {table} where id = 2")
    assert sorted(owner.column(f"select distinct document_id from {chunks}")) == [1, 3, 5]
    assert owner.rows(f"select state, hints from embedding_status('{chunks}')") == [("current", [])]
    # Again: nothing is to be done.
    owner.notices.clear()
    owner.run(f"select enable_document_search('{table}', 'body')")
    assert not owner.notices
    owner.run(f"select disable_document_search('{table}')")
    assert owner.value("select count(*) from pg_proc where proname in (%s, %s)", f"query_{name}", f"chunk_{name}") == 0
    for node in nodes.all:
        assert node.value(f"select count(*) from pg_class where relname like '{name}\\_chunks%%'") == 0, node.port
    owner.run(f"insert into {table} values (6, 6, 'nothing is made of it')")


def test_a_shard_on_the_coordinator(owner, nodes):
    """COPY and INSERT there write the shards in the client's own session, from which Citus hides them."""
    with nodes.coordinator.connect() as superuser:
        superuser.execute("select citus_set_node_property('127.0.0.1', %s, 'shouldhaveshards', true)", [nodes.coordinator.port])
    try:
        owner.run("create table own_shards (id int primary key, body text)")
        owner.run("select create_distributed_table('own_shards', 'id', shard_count => 6)")
        assert owner.value("select count(*) from pg_dist_shard_placement where nodeport = %s and shardid in "
                           "(select shardid from pg_dist_shard where logicalrelid = 'own_shards'::regclass)", nodes.coordinator.port) == 2
        owner.run("select enable_document_search('own_shards', 'body')")
        with owner.connection.cursor().copy("copy own_shards from stdin") as copy:
            copy.write("".join(f"{i}\tCopied text {i}.\n" for i in range(30)))
        owner.run("insert into own_shards select i, 'Inserted text ' || i from generate_series(30, 59) i")
        owner.run("update own_shards set body = body || ' More.' where id % 2 = 0")
        assert owner.rows("select count(*), count(embedding), count(*) filter (where content like '%% More.') from own_shards_chunks", ) == [(60, 60, 30)]
        assert owner.value("select (document).id from query_own_shards('Inserted text 41', match_count => 1)") == 41
    finally:
        owner.run("drop table own_shards_chunks, own_shards cascade")
        with nodes.coordinator.connect() as superuser:
            superuser.execute("select citus_set_node_property('127.0.0.1', %s, 'shouldhaveshards', false)", [nodes.coordinator.port])


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_the_same_answers_as_a_local_table(owner, kind):
    texts = [f"{adverb} {subject} {verb} {thing}." for adverb in ("Today", "Often") for subject in ("a dog", "the king", "my teacher", "our ship")
             for verb in ("finds", "paints", "sells", "forgets") for thing in ("a red car", "the blue house", "some bread", "an old book", "his music")]
    for table, distributed in ("answers_here", None), ("answers_there", "select create_distributed_table('answers_there', 'tenant', shard_count => 4)"):
        owner.run(f"create table {table} (tenant int, id int, title text, body text, primary key (tenant, id))")
        if distributed:
            owner.run(distributed)
        owner.run(f"select enable_document_search('{table}', 'body', 'title', index_options => '{{\"type\": \"{kind}\"}}')")
        # Five parts in each document; and documents 100 and 101 are equal.
        owner.run(f"insert into {table} select i %% 7, i, 'Part ' || i, t || repeat(' And so on.', 150) || t from unnest(%s::text[]) with ordinality as u (t, i)", texts)
        owner.run(f"insert into {table} select 100, i, 'Copy', 'The moon is bright.' from generate_series(100, 101) i")
    some = owner.value("select count(*) from answers_here_chunks")
    assert some == owner.value("select count(*) from answers_there_chunks") and some > len(texts)
    for search in [*texts[::16], "The moon is bright.", "who sells cars?", "nothing of this"]:
        for arguments in ("match_count => 3", "match_count => 25", "match_threshold => 0.4, match_count => 1000", "match_count => 4, filter => '{\"tenant\": 3}'"):
            here, there = (owner.rows(f"select (document).tenant, (document).id, (document).body, ordinal, start, chunk, round(similarity::numeric, 5) "
                                      f"from {query}(%s, {arguments})", search) for query in ("query_answers_here", "query_answers_there"))
            assert here == there and (here or "threshold" in arguments), (search, arguments)
    for table in ("answers_here", "answers_there"):
        owner.run(f"select disable_document_search('{table}')")
        owner.run(f"drop table {table}")


def test_context_and_columns_change(owner, nodes):
    owner.run("create table col_docs (id int primary key, title text, body text)")
    owner.run("select create_distributed_table('col_docs', 'id', shard_count => 4)")
    owner.run("select enable_document_search('col_docs', 'body', 'title')")
    owner.run("insert into col_docs values (1, 'Bills', 'Thirty days.'), (2, 'Dogs', 'Ada.')")
    assert owner.rows("select document_id, heading, content from col_docs_chunks order by 1") == [(1, "Bills:", "Thirty days."), (2, "Dogs:", "Ada.")]
    owner.run("update col_docs set title = 'Invoices' where id = 1")
    assert owner.value("select heading from col_docs_chunks where document_id = 1") == "Invoices:"
    owner.run("select enable_document_search('col_docs', '{title,body}')")
    assert owner.rows("select document_id, content, embedding from col_docs_chunks order by 1") == [(1, "Invoices\nThirty days.", None), (2, "Dogs\nAda.", None)]
    assert owner.value("select count(*) from pg_attribute where attrelid = 'col_docs_chunks'::regclass and attname = 'heading'") == 0
    owner.run("call embed_backfill('col_docs_chunks')")
    # A renamed column: writes fail until the search is enabled again, with the statement for it.
    owner.run("alter table col_docs rename body to text_of_it")
    with pytest.raises(psycopg.errors.UndefinedColumn, match='column "body" of table public.col_docs does not exist') as refused:
        owner.run("insert into col_docs values (3, 'Cars', 'A red one.')")
    assert "select enable_document_search('public.col_docs'" in refused.value.diag.message_hint.lower()
    owner.run("select enable_document_search('col_docs', '{title,text_of_it}')")
    owner.run("insert into col_docs values (3, 'Cars', 'A red one.')")
    owner.run("alter table col_docs rename to col_texts")
    owner.run("insert into col_texts values (4, 'Ships', 'A blue one.')")
    owner.run("select enable_document_search('col_texts', '{title,text_of_it}')")
    assert owner.value("select (document).id from query_col_texts('ships', match_count => 1)") == 4
    # The chunks are gone: an error, and no row without chunks.
    owner.run("drop table col_docs_chunks")
    with pytest.raises(psycopg.errors.UndefinedTable, match="the shard of the chunks of table col_texts_"):
        owner.run("insert into col_texts values (5, 'Trains', 'A green one.')")
    with pytest.raises(psycopg.errors.UndefinedTable, match="the table of the chunks of table col_texts is gone"):
        owner.run("select query_col_texts('ships')")


def test_rights_on_distributed_documents(owner, nodes):
    with nodes.coordinator.connect() as superuser:
        superuser.execute("create role citus_reader login")
        superuser.execute("create role citus_writer login")
    owner.run("create table seen (tenant int, id int, body text, primary key (tenant, id))")
    owner.run("select create_distributed_table('seen', 'tenant', shard_count => 4)")
    owner.run("grant select on seen to citus_reader")
    owner.run("grant select, insert, update, delete on seen to citus_writer")
    owner.run("select enable_document_search('seen', 'body')")
    owner.run("insert into seen select i % 4, i, 'This is text ' || i from generate_series(1, 40) i")
    with nodes.coordinator.connect(user="citus_reader") as reader, nodes.coordinator.connect(user="citus_writer") as writer:
        everything = "select count(*), count(distinct document_tenant) from seen_chunks"
        search = "select (document).tenant from query_seen('text', match_count => 100)"
        assert reader.execute(everything).fetchone() == (40, 4)
        owner.run("alter table seen enable row level security")
        owner.run("create policy three on seen for select to citus_reader using (tenant = 3)")
        owner.run("create policy any_row on seen to citus_writer using (true)")
        assert reader.execute(everything).fetchone() == (10, 1)
        assert {row[0] for row in reader.execute(search)} == {3} and len(reader.execute(search).fetchall()) == 10
        # A role that writes documents needs no right on the chunks, and can't write them.
        writer.execute("insert into seen values (3, 99, 'by the writer')")
        assert reader.execute(everything).fetchone() == (11, 1)
        for statement in ("insert into seen_chunks values (3, 99, 2, 1, 'x')", "delete from seen_chunks where document_id = 99", "truncate seen_chunks"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                writer.execute(statement)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute("select chunk_seen()")
        owner.run("revoke select on seen from citus_reader")
        for statement in (everything, search):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(statement)
    # A superuser enables as the owner.
    with nodes.coordinator.connect() as superuser:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="role postgres is not the owner of the distributed table public.seen") as refused:
            superuser.execute("select enable_document_search('seen', 'body')")
        statements = refused.value.diag.message_hint.rstrip(";").split("; ")
        assert len(statements) == 3
        for statement in statements:
            superuser.execute(statement)
        assert superuser.execute("select current_user").fetchone() == ("postgres",)


def test_distributed_otherwise_later(owner, nodes):
    owner.run("create table later (tenant int, id int, body text, primary key (tenant, id))")
    owner.run("select enable_document_search('later', 'body')")
    owner.run("insert into later select i % 5, i, 'This is text ' || i from generate_series(1, 20) i")
    # As a local table it can't be distributed, and nothing is lost.
    owner.run("set citus.enable_unsafe_triggers = on")
    with pytest.raises(psycopg.Error):
        owner.run("select create_distributed_table('later', 'tenant', shard_count => 4)")
    owner.run("select disable_document_search('later')")
    # Alone in its group of tables, because all of a group are altered together.
    owner.run("select create_distributed_table('later', 'tenant', shard_count => 4, colocate_with => 'none')")
    owner.run("select enable_document_search('later', 'body')")
    owner.run("call embed_backfill('later_chunks')")
    placed = ("select s.shardid, p.nodeport from pg_dist_shard s join pg_dist_shard_placement p using (shardid) where s.logicalrelid = 'later'::regclass "
              "order by 1 limit 1")
    shard, port = owner.rows(placed)[0]
    other = next(worker.port for worker in nodes.workers if worker.port != port)
    with nodes.coordinator.connect() as superuser:
        superuser.execute("select citus_move_shard_placement(%s, '127.0.0.1', %s, '127.0.0.1', %s, 'block_writes')", [shard, port, other])
    owner.run("insert into later select i % 50, i, 'This is text ' || i from generate_series(21, 120) i")
    assert owner.rows("select count(*), count(embedding) from later_chunks") == [(120, 120)]
    owner.run("select alter_distributed_table('later', shard_count => 6, cascade_to_colocated => true)")
    owner.run("select enable_document_search('later', 'body')")
    owner.run("insert into later values (7, 200, 'The office dog is called Ada.')")
    assert owner.value("select (document).id from query_later('what is the name of the dog?', match_count => 1)") == 200
    owner.run("select undistribute_table('later', cascade_via_foreign_keys => true)")
    with pytest.raises(psycopg.errors.UndefinedTable, match="the shard of the chunks"):
        owner.run("insert into later values (7, 201, 'She plays the piano.')")
    owner.run("select enable_document_search('later', 'body')")
    owner.run("insert into later values (7, 201, 'She plays the piano.')")
    owner.run("update later set id = 202 where id = 201")
    assert owner.value("select (document).id from query_later('who makes music?', match_count => 1)") == 202
    owner.run("delete from later where id > 1")
    assert owner.rows("select document_id, embedding is not null from later_chunks") == [(1, True)]


def test_long_texts_by_the_statements_of_the_page(db):
    for statement in docs_page.statements(SCALING, "Long texts").split(";\n"):
        if statement.strip():
            found = db.run(statement)
    assert [row[:2] for row in found.fetchall()] == [(7, 1)]
