\echo Use "ALTER EXTENSION "gte-small" UPDATE" to load this file. \quit

-- From 0.1.0 to 0.2.0. First what 0.1.0 has and 0.2.0 has not, or has in another form: all functions that only
-- the extension itself calls, and the type of a backfill's job. Functions that enable_semantic_search() made in
-- users' schemas call none of them. The rest of the update script is made of sql/extension (scripts/versions.py).

DROP FUNCTION @extschema@.gte_small_vector_schema();
DROP FUNCTION @extschema@.gte_small_check_target(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name);
DROP FUNCTION @extschema@.gte_small_trigger_name(pg_catalog.name);
DROP FUNCTION @extschema@.gte_small_search_functions(pg_catalog.regclass, pg_catalog.name[]);
DROP FUNCTION @extschema@.gte_small_noted_functions(pg_catalog.jsonb);
DROP FUNCTION @extschema@.gte_small_indexes(pg_catalog.regclass, pg_catalog.name);
DROP FUNCTION @extschema@.gte_small_config(pg_catalog.regconfig);
DROP FUNCTION @extschema@.gte_small_words(pg_catalog.name[], pg_catalog.regconfig, pg_catalog.text);
DROP FUNCTION @extschema@.gte_small_words_shown(pg_catalog.regclass, pg_catalog.name[], pg_catalog.regconfig);
DROP FUNCTION @extschema@.gte_small_make_indexes(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig);
DROP FUNCTION @extschema@.gte_small_make_index(pg_catalog.regclass, pg_catalog.text, pg_catalog.text);
DROP FUNCTION @extschema@.gte_small_drop_index(pg_catalog.regclass, pg_catalog.oid, pg_catalog.name);
DROP FUNCTION @extschema@.gte_small_finish_function(pg_catalog.regclass, pg_catalog.text, pg_catalog.text);
DROP FUNCTION @extschema@.gte_small_qualified(pg_catalog.regclass, pg_catalog.text);
DROP FUNCTION @extschema@.gte_small_make_search(pg_catalog.regclass, pg_catalog.name, pg_catalog.text);
DROP FUNCTION @extschema@.gte_small_make_hybrid(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.regconfig, pg_catalog.text);
DROP FUNCTION @extschema@.embed_backfill_block(pg_catalog.tid);
DROP FUNCTION @extschema@.embed_backfill_leaves(pg_catalog.regclass);
DROP FUNCTION @extschema@.embed_backfill_text(pg_catalog.name[], pg_catalog.text);
DROP FUNCTION @extschema@.embed_backfill_condition(pg_catalog.text, pg_catalog.name, pg_catalog.name[], pg_catalog.text);
DROP FUNCTION @extschema@.embed_backfill_count(@extschema@.embed_backfill_job, pg_catalog.bool);
DROP FUNCTION @extschema@.embed_backfill_columns(pg_catalog.regclass, pg_catalog.name);
DROP FUNCTION @extschema@.embed_backfill_jobs(pg_catalog.regclass, pg_catalog.int4, pg_catalog.bool, pg_catalog.name);
DROP FUNCTION @extschema@.embed_backfill_range(@extschema@.embed_backfill_job);
DROP FUNCTION @extschema@.embed_backfill_embed(@extschema@.embed_backfill_job, pg_catalog.text[]);
DROP FUNCTION @extschema@.embed_backfill_batch(@extschema@.embed_backfill_job);
DROP FUNCTION @extschema@.embed_backfill_position(@extschema@.embed_backfill_job, pg_catalog.tid, pg_catalog.tid[], pg_catalog.int4);
DROP FUNCTION @extschema@.embed_backfill_refused(@extschema@.embed_backfill_job, pg_catalog.int4, pg_catalog.text[], pg_catalog.tid);
DROP FUNCTION @extschema@.embed_backfill_account(@extschema@.embed_backfill_job, pg_catalog.float8, pg_catalog.timestamptz);
DROP FUNCTION @extschema@.embed_backfill_note_trigger(pg_catalog.regclass, pg_catalog.name);
DROP FUNCTION @extschema@.embed_backfill_note(@extschema@.embed_backfill_job, pg_catalog.jsonb, pg_catalog.text);
DROP FUNCTION @extschema@.embed_backfill_force_lock(@extschema@.embed_backfill_job, pg_catalog.int4);
DROP FUNCTION @extschema@.embed_backfill_force_begin(@extschema@.embed_backfill_job);
DROP FUNCTION @extschema@.embed_backfill_force_place(@extschema@.embed_backfill_job);
DROP FUNCTION @extschema@.embed_backfill_force_save(@extschema@.embed_backfill_job);
DROP FUNCTION @extschema@.embed_backfill_force_pass(@extschema@.embed_backfill_job);
DROP FUNCTION @extschema@.embed_backfill_check(pg_catalog.regclass, pg_catalog.int4, pg_catalog.bool);
DROP FUNCTION @extschema@.embedding_columns_gone(pg_catalog.regclass, pg_catalog.name[]);
DROP FUNCTION @extschema@.embed_backfill_tell(@extschema@.embed_backfill_job);
DROP FUNCTION @extschema@.embed_backfill_end(@extschema@.embed_backfill_job[]);
DROP FUNCTION @extschema@.embed_backfill_no_commit(pg_catalog.text);
DROP FUNCTION @extschema@.embed_backfill_anywhere(@extschema@.embed_backfill_job);
DROP FUNCTION @extschema@.embed_sample(pg_catalog.regclass, pg_catalog.int4);
DROP TYPE @extschema@.embed_backfill_job;

-- content is text as well, and there are options for the index.
DROP FUNCTION @extschema@.enable_semantic_search(pg_catalog.regclass, pg_catalog.name[], pg_catalog.name, pg_catalog.bool, pg_catalog.name, pg_catalog.regconfig);

-- These two have more columns.
DROP FUNCTION @extschema@.embed_model();
DROP FUNCTION @extschema@.embed_stats();
