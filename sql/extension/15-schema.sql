-- The schema of the internal functions. The schema that the extension is installed in has the functions
-- that users call. Generated functions name only this schema, so they survive ALTER SCHEMA ... RENAME of
-- the other one.
DO $check$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) 'gte_small') THEN
    RAISE EXCEPTION 'schema "gte_small" exists'
      USING ERRCODE = 'duplicate_schema',
            DETAIL = 'The extension creates this schema for its internal functions; nothing was installed.',
            HINT = 'Rename or drop the schema, and install the extension into another one.';
  END IF;
END
$check$;

CREATE SCHEMA gte_small;
COMMENT ON SCHEMA gte_small IS
  'internal functions of the extension gte-small; the functions to call are in the extension''s own schema';
-- A search calls functions of this schema with the rights of whoever searches.
GRANT USAGE ON SCHEMA gte_small TO PUBLIC;
