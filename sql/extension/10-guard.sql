-- gte-small: the install script. It consists of the files of this directory, in the order of their names.
-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION "gte-small" CASCADE" to load this file. \quit

-- The script names the type vector without its schema, which it can't know on PostgreSQL 14 and 15.
-- A role that may create objects in a schema of the search_path could create another type of that
-- name, which would become the result type of functions that a superuser owns.
DO $check$
DECLARE
  vector_extension pg_catalog.oid;
  found pg_catalog.oid;
  operator_name pg_catalog.text;
BEGIN
  SELECT e.oid INTO vector_extension FROM pg_catalog.pg_extension e
   WHERE e.extname OPERATOR(pg_catalog.=) 'vector';
  found := pg_catalog.to_regtype('vector')::pg_catalog.oid;
  IF vector_extension IS NULL OR found IS NULL OR NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d
     WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid
       AND d.objid OPERATOR(pg_catalog.=) found
       AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid
       AND d.refobjid OPERATOR(pg_catalog.=) vector_extension
       AND d.deptype OPERATOR(pg_catalog.=) 'e') THEN
    RAISE EXCEPTION 'type "vector" is not the one of extension "vector"'
      USING ERRCODE = 'duplicate_object',
            DETAIL = 'Another type of that name comes first in the search path; the extension was not installed.',
            HINT = 'Drop or rename the other type, or install the extension into the schema of extension "vector".';
  END IF;
  FOREACH operator_name IN ARRAY ARRAY['<#>', '<=>', '<->'] LOOP
    found := pg_catalog.to_regoperator(operator_name OPERATOR(pg_catalog.||) '(vector,vector)')::pg_catalog.oid;
    IF found IS NULL OR NOT EXISTS (
      SELECT FROM pg_catalog.pg_depend d
       WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_operator'::pg_catalog.regclass::pg_catalog.oid
         AND d.objid OPERATOR(pg_catalog.=) found
         AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid
         AND d.refobjid OPERATOR(pg_catalog.=) vector_extension
         AND d.deptype OPERATOR(pg_catalog.=) 'e') THEN
      RAISE EXCEPTION 'operator % (vector, vector) is not the one of extension "vector"', operator_name
        USING ERRCODE = 'duplicate_object',
              DETAIL = 'Another operator of that name comes first in the search path; the extension was not installed.',
              HINT = 'Drop the other operator, or install the extension into the schema of extension "vector".';
    END IF;
  END LOOP;
END
$check$;
