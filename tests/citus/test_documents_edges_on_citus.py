"""Document search on distributed tables: names, keys, foreign keys and shards that are out of the ordinary, and roles that try
to write as the owner."""

import psycopg
import pytest


def distributed(owner, table, columns, column, how="shard_count => 4"):
    owner.run(f"create table {table} ({columns})")
    owner.run(f"select create_distributed_table('{table}', '{column}', {how})")


def test_names_that_need_quotes(owner, nodes):
    table, chunks, query = '"We""ird %s Docs"', '"We""ird %s Docs_chunks"', '"query_We""ird %s Docs"'
    distributed(owner, table, '"Key 1" int, "a%b" text, ordinal int, "Body %I" text, primary key ("Key 1", "a%b", ordinal)', 'Key 1')
    owner.run(f"select enable_document_search('{table}', 'Body %I')")
    owner.run(f"insert into {table} select i, 'a%' || i, i, 'Number ' || i from generate_series(1, 20) i")
    assert owner.rows(f"select count(*), count(embedding) from {chunks}") == [(20, 20)]
    assert owner.value(f"""select (document)."a%b" from {query}('number', filter => '{{"a%b": "a%7"}}')""") == "a%7"
    owner.run(f"""update {table} set "a%b" = 'b%', ordinal = 100 + ordinal""")
    assert owner.rows(f"""select count(*), min(document_ordinal) from {chunks} where "document_a%b" = 'b%'""") == [(20, 101)]
    owner.run(f"select disable_document_search('{table}')")
    for node in nodes.all:
        assert node.value("select count(*) from pg_proc where proname like '%ird %'") == 0


def test_a_trigger_function_writes_for_its_documents_only(owner, nodes):
    """Citus sends no REVOKE for a name in quotes, so others may use the function."""
    with nodes.coordinator.connect() as superuser:
        superuser.execute("create role citus_stranger login")
        superuser.execute("grant create on schema public to citus_stranger")
    distributed(owner, '"Own"', "tenant int, id int, body text, primary key (tenant, id)", "tenant")
    owner.run("""select enable_document_search('"Own"', 'body')""")
    owner.run("""insert into "Own" select i, i, 'Text ' || i from generate_series(1, 8) i""")
    names = dict(owner.rows("""select s.shardid, p.nodeport from pg_dist_shard s join pg_dist_shard_placement p using (shardid)
                               where s.logicalrelid = '"Own"'::regclass"""))
    here = nodes.workers[0]
    elsewhere = next(shard for shard, port in names.items() if port != here.port)
    beside = next(shard for shard, port in names.items() if port == here.port)
    with here.connect(user="citus_stranger") as stranger:
        stranger.execute("set citus.enable_ddl_propagation = off")
        stranger.execute("set citus.enable_unsafe_triggers = on")
        stranger.execute("set citus.enable_manual_changes_to_shards = on")
        # A name that ends like that of a shard of this node, and the name of a shard of another node.
        for table in f'"stranger_{beside}"', f'"Own_{elsewhere}"':
            stranger.execute(f"create table {table} (tenant int, id int, body text)")
            stranger.execute(f"""create trigger gte_small_chunks after insert on {table} for each row execute function "chunk_Own"('{{body}}', '{{}}', '')""")
            with pytest.raises(psycopg.errors.UndefinedTable, match="the shard of the chunks"):
                stranger.execute(f"insert into {table} values (1, 1, 'Written by a stranger.')")
    assert owner.value("""select count(*) from "Own_chunks" where content like 'Written%'""") == 0
    # His triggers don't hinder the owner.
    owner.run("""select disable_document_search('"Own"')""")
    with here.connect(user="citus_stranger") as stranger:
        stranger.execute("set citus.enable_ddl_propagation = off")
        stranger.execute(f'drop table "stranger_{beside}", "Own_{elsewhere}"')


def test_keys_of_other_types_and_settings(owner):
    # The operators of type vector are in the schema of its extension.
    keys = {"vector(2)": ["[1,2]", "[3,4]"], "timestamptz": ["2024-12-25 10:00:00.123456+05", "0044-03-15 00:00:00+00 BC"], "float8": ["0.1", "0.30000000000000004"],
            "text": ["it's", 'a%b "c" \\ {x,y}'], "interval": ["1 mon 2 days 03:04:05.6", "-1 year"], "jsonb": ['{"a": "b\'c"}', "[1,2]"]}
    for number, (kind, values) in enumerate(keys.items()):
        table = f"edge_keys_{number}"
        distributed(owner, table, f"tenant int, k {kind}, body text, primary key (tenant, k)", "tenant")
        owner.run(f"select enable_document_search('{table}', 'body')")
        for tenant, value in enumerate(values):
            owner.run(f"insert into {table} values ({tenant}, %s::text::{kind}, 'Text {tenant}')", value)
        try:
            for setting in ("reset all", "set datestyle = 'german'", "set intervalstyle = 'sql_standard'", "set extra_float_digits = -10",
                            "set standard_conforming_strings = off"):
                owner.run(setting)
                assert owner.value(f"select count(*) from query_{table}('text')") == len(values), (kind, setting)
        finally:
            owner.run("reset all")


def test_foreign_keys_of_the_owner(owner, nodes):
    """A move of a shard makes its foreign keys anew, in the order of their names."""
    with nodes.coordinator.connect() as superuser:
        superuser.execute("create role citus_few_rows login")
    distributed(owner, "edge_tenants", "tenant int primary key, name text", "tenant", "shard_count => 4, colocate_with => 'none'")
    owner.run("insert into edge_tenants select i, 'tenant ' || i from generate_series(0, 9) i")
    distributed(owner, "edge_docs", "tenant int, id int, body text, primary key (tenant, id)", "tenant", "colocate_with => 'edge_tenants'")
    owner.run("grant select on edge_docs, edge_tenants to citus_few_rows")
    owner.run("select enable_document_search('edge_docs', 'body')")
    owner.run("alter table edge_docs enable row level security")
    owner.run("create policy one on edge_docs for select to citus_few_rows using (id = 1)")
    owner.run("insert into edge_docs select i % 5, i, 'Secret ' || i from generate_series(1, 20) i")
    owner.run("set citus.multi_shard_modify_mode = 'sequential'")
    owner.run("alter table edge_docs_chunks add constraint a_first foreign key (document_tenant) references edge_tenants")
    owner.run("reset citus.multi_shard_modify_mode")
    shards = owner.rows("select s.shardid, p.nodeport from pg_dist_shard s join pg_dist_shard_placement p using (shardid) where s.logicalrelid = 'edge_docs'::regclass")
    with nodes.coordinator.connect() as superuser:
        for shard, port in shards:
            other = next(worker.port for worker in nodes.workers if worker.port != port)
            superuser.execute("select citus_move_shard_placement(%s, '127.0.0.1', %s, '127.0.0.1', %s, 'block_writes')", [shard, port, other])
    with nodes.coordinator.connect(user="citus_few_rows") as reader:
        assert reader.execute("select document_id from edge_docs_chunks").fetchall() == [(1,)]
        assert reader.execute("select (document).id from query_edge_docs('secret', match_count => 100)").fetchall() == [(1,)]
    # Chunks that are made anew: those of all documents.
    owner.run("delete from edge_docs_chunks")
    owner.run("select enable_document_search('edge_docs', 'body')")
    assert owner.value("select count(distinct document_id) from edge_docs_chunks") == 20
    owner.notices.clear()
    owner.run("select refresh_semantic_search()")
    assert not [text for severity, text, _ in owner.notices if severity == "WARNING" and "edge_tenants" in text]


def test_disabled_with_a_shard_on_the_coordinator(owner, nodes):
    with nodes.coordinator.connect() as superuser:
        superuser.execute("select citus_set_node_property('127.0.0.1', %s, 'shouldhaveshards', true)", [nodes.coordinator.port])
    try:
        owner.run("create table edge_here (id int primary key, body text)")
        owner.run("select create_distributed_table('edge_here', 'id', shard_count => 6, colocate_with => 'none')")
        owner.run("select enable_document_search('edge_here', 'body')")
        owner.run("insert into edge_here select i, 'Text ' || i from generate_series(1, 12) i")
        owner.notices.clear()
        owner.run("select disable_document_search('edge_here')")
        assert not owner.notices
        owner.run("insert into edge_here select i, 'Text ' || i from generate_series(13, 24) i")
        for node in nodes.all:
            assert node.value("select count(*) from pg_proc where proname like '%edge\\_here'") == 0
    finally:
        owner.run("drop table edge_here cascade")
        with nodes.coordinator.connect() as superuser:
            superuser.execute("select citus_set_node_property('127.0.0.1', %s, 'shouldhaveshards', false)", [nodes.coordinator.port])


def test_renamed_columns_of_the_chunks(owner):
    distributed(owner, "edge_names", "tenant int, id int, body text, primary key (tenant, id)", "tenant")
    owner.run("select enable_document_search('edge_names', 'body')")
    for statement in "alter table edge_names_chunks rename document_id to doc", "alter table edge_names rename id to number":
        owner.run(statement)
        with pytest.raises(psycopg.errors.UndefinedColumn, match="does not exist, and the chunks of documents need it") as refused:
            owner.run("insert into edge_names values (1, 1, 'Text')")
        hint = refused.value.diag.message_hint
        assert hint == "On the coordinator: SELECT enable_document_search('public.edge_names', '{body}');"
        owner.run(hint.partition(": ")[2])
        owner.run("insert into edge_names values (1, 1, 'Text')")
        owner.run("delete from edge_names")
    owner.run("alter table edge_names_chunks rename ordinal to part")
    with pytest.raises(psycopg.errors.UndefinedColumn, match='column "ordinal" of table public.edge_names_chunks') as refused:
        owner.run("insert into edge_names values (1, 1, 'Text')")
    assert refused.value.diag.message_hint == "If it was renamed, give it this name again."


def test_the_trigger_goes_with_the_extension(owner, nodes):
    distributed(owner, "edge_depends", "tenant int, id int, body text, primary key (tenant, id)", "tenant")
    owner.run("select enable_document_search('edge_depends', 'body')")
    for worker in nodes.workers:
        # The table and its two shards.
        assert worker.value("select count(*) from pg_trigger t join pg_depend d on d.classid = 'pg_trigger'::regclass and d.objid = t.oid "
                            "where t.tgname like 'gte\\_small\\_chunks%' and d.refobjid = 'gte_small.document_mark'::regproc "
                            "and (select p.proname from pg_proc p where p.oid = t.tgfoid) = 'chunk_edge_depends'") == 3
    owner.notices.clear()
    owner.run("select enable_document_search('edge_depends', 'body')")
    assert not owner.notices
