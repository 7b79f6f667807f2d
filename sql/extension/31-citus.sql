-- Tables that Citus distributes over several servers.
--
-- Citus plans the statements that name such a table. It plans no SQL function with parameters, no empty select
-- list and no subquery with a LIMIT over several shards. The place of a row (tableoid, ctid) is not unique over shards. So in a
-- database with Citus all search functions are PL/pgSQL, and find rows by whole rows or by their key.

CREATE FUNCTION gte_small.on_citus() RETURNS pg_catalog.bool
  LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
  AS $body$ SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') $body$;
COMMENT ON FUNCTION gte_small.on_citus() IS
  'part of enable_semantic_search: whether this database has Citus';

-- PL/pgSQL plans a statement when it is reached: the catalogues of Citus are looked up only where there are any.
CREATE FUNCTION gte_small.is_distributed(target pg_catalog.regclass) RETURNS pg_catalog.bool
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  IF NOT gte_small.on_citus() THEN
    RETURN false;
  END IF;
  RETURN EXISTS (SELECT FROM pg_dist_partition p WHERE p.logicalrelid = target);
END
$body$;
COMMENT ON FUNCTION gte_small.is_distributed(pg_catalog.regclass) IS
  'part of enable_semantic_search: whether Citus plans the statements on a table';

CREATE FUNCTION gte_small.is_shard(target pg_catalog.regclass) RETURNS pg_catalog.bool
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  IF NOT gte_small.on_citus() THEN
    RETURN false;
  END IF;
  RETURN relation_is_a_known_shard(target);
END
$body$;
COMMENT ON FUNCTION gte_small.is_shard(pg_catalog.regclass) IS
  'part of embed_verify: whether a table is a shard of a distributed table';

-- Sets for this transaction what Citus asks for before it changes triggers and several shards at once, and returns
-- the earlier values for citus_settings_back(). What is made for a table that is not distributed stays on this node:
-- Citus would warn for each function that workers don't have the table. NULL in a database without Citus.
CREATE FUNCTION gte_small.citus_settings(target pg_catalog.regclass) RETURNS pg_catalog.text[]
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  names CONSTANT text[] := '{citus.enable_unsafe_triggers,citus.multi_shard_modify_mode,citus.enable_metadata_sync}';
  former text[];
BEGIN
  IF gte_small.on_citus() THEN
    former := ARRAY(SELECT current_setting(n) FROM unnest(names) n);
    IF gte_small.is_distributed(target) THEN
      PERFORM set_config(names[1], 'on', true), set_config(names[2], 'sequential', true);
    ELSE
      PERFORM set_config(names[3], 'off', true);
    END IF;
  END IF;
  RETURN former;
END
$body$;
COMMENT ON FUNCTION gte_small.citus_settings(pg_catalog.regclass) IS
  'part of enable_semantic_search: the settings under which Citus makes triggers on a distributed table';

CREATE FUNCTION gte_small.citus_settings_back(former pg_catalog.text[]) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
BEGIN
  IF former IS NOT NULL THEN
    PERFORM set_config('citus.enable_unsafe_triggers', former[1], true), set_config('citus.multi_shard_modify_mode', former[2], true),
            set_config('citus.enable_metadata_sync', former[3], true);
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.citus_settings_back(pg_catalog.text[]) IS
  'part of enable_semantic_search: undoes citus_settings()';
