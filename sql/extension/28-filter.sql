-- The filter argument of searches: columns and their values as JSON.

-- The columns that a filter may name, with what the condition needs. A domain is compared as its base
-- type, because a value outside of the domain is no error but matches nothing.
CREATE FUNCTION gte_small.filter_column(
    target pg_catalog.regclass, key pg_catalog.text,
    OUT base pg_catalog.regtype, OUT type_name pg_catalog.text, OUT category pg_catalog.text, OUT equals pg_catalog.text)
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  attribute oid;
  operand oid;
  t record;
BEGIN
  -- As text: a cast to name would cut a long key to the name of another column.
  SELECT a.atttypid INTO attribute FROM pg_attribute a
   WHERE a.attrelid = target AND a.attname::text = key AND a.attnum > 0 AND NOT a.attisdropped;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'column "%" of relation "%" does not exist', key, target
      USING ERRCODE = 'undefined_column', DETAIL = 'The filter names it.',
            HINT = 'A filter has the form {"column": value}, with columns of the table.';
  END IF;
  LOOP
    SELECT p.oid, p.typname, p.typnamespace, p.typtype, p.typbasetype, p.typcategory, p.typdelim, p.typarray INTO t
      FROM pg_type p WHERE p.oid = attribute;
    EXIT WHEN t.typtype <> 'd';
    attribute := t.typbasetype;
  END LOOP;
  base := t.oid;
  category := t.typcategory;
  -- Not format_type: "character" without a length is character(1).
  type_name := format('%s.%I', t.typnamespace::regnamespace, t.typname);
  -- An operator that a B-tree index can serve. It is in the schema of the type.
  IF t.typtype IN ('b', 'e', 'r', 'm') AND t.typcategory <> 'A' AND t.typdelim = ',' AND t.typarray <> 0
     AND base NOT IN ('jsonb'::regtype, 'tsvector'::regtype, 'tsquery'::regtype) THEN
    operand := CASE t.typtype WHEN 'e' THEN 'anyenum'::regtype WHEN 'r' THEN 'anyrange'::regtype WHEN 'm' THEN 'anymultirange'::regtype
                              ELSE CASE base WHEN 'varchar'::regtype THEN 'text'::regtype ELSE base END END;
    SELECT format('operator(%s.=)', o.oprnamespace::regnamespace) INTO equals FROM pg_operator o
     WHERE o.oprname = '=' AND o.oprleft = operand AND o.oprright = operand AND o.oprcanmerge
       AND o.oprnamespace = CASE t.typtype WHEN 'b' THEN t.typnamespace ELSE 'pg_catalog'::regnamespace END;
  END IF;
  -- Vectors are ordered too, but a search is not for equal ones.
  IF equals IS NULL OR t.typnamespace <> 'pg_catalog'::regnamespace AND EXISTS (
       SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
        WHERE d.classid = 'pg_type'::regclass AND d.objid = base AND d.deptype = 'e' AND e.extname = 'vector') THEN
    RAISE EXCEPTION 'column "%" can''t be filtered by', key
      USING ERRCODE = 'feature_not_supported', DETAIL = format('It is of type %s.', format_type(base, NULL)),
            HINT = 'Write a WHERE around the form without match_count.';
  END IF;
END
$body$;
COMMENT ON FUNCTION gte_small.filter_column(pg_catalog.regclass, pg_catalog.text) IS
  'part of gte_small.conditions: the type and the operator of a column of a filter';

-- The text of a value in the type of a column, NULL if no row can have the value. "1" for an integer column is 1.
CREATE FUNCTION gte_small.filter_text(
    key pg_catalog.text, value pg_catalog.jsonb, base pg_catalog.regtype, type_name pg_catalog.text, category pg_catalog.text)
  RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  kind text := jsonb_typeof(value);
  content text;
  n numeric;
  valid bool;
BEGIN
  IF kind IN ('array', 'object') THEN
    RAISE EXCEPTION 'filter on column "%" is nested', key
      USING ERRCODE = 'invalid_parameter_value', DETAIL = format('A value of it is an %s.', kind),
            HINT = 'A value is a string, a number, true, false, null, or an array of these.';
  ELSIF kind = 'number' THEN
    n := value::numeric;
    -- jsonb keeps 1e100000 in ten bytes. Written out, a filter of one megabyte would take gigabytes.
    IF abs(n) >= 1e400 OR scale(n) > 1000 THEN
      IF category = 'N' AND base <> 'numeric'::regtype THEN
        RETURN NULL;
      END IF;
      RAISE EXCEPTION 'a number in the filter on column "%" is too long', key
        USING ERRCODE = 'invalid_parameter_value', DETAIL = 'It has 400 digits or more.', HINT = 'Write it as a string.';
    END IF;
  END IF;
  content := value #>> '{}';

  -- All strings are values of these.
  IF category = 'S' THEN
    RETURN CASE WHEN base = 'name'::regtype AND octet_length(content) > 63 THEN NULL ELSE content END;
  END IF;
  IF base IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'float4'::regtype, 'float8'::regtype) THEN
    IF kind = 'string' AND content ~ '^\s*[-+]?([0-9]{1,100}\.?[0-9]{0,100}|\.[0-9]{1,100})([eE][-+]?[0-9]{1,3})?\s*$' THEN
      n := content::numeric;
    END IF;
    IF n IS NOT NULL THEN
      RETURN CASE
        WHEN n = 0 OR base = 'float4'::regtype AND abs(n) BETWEEN 1.1754944e-38 AND 3.4028234e38
          OR base = 'float8'::regtype AND abs(n) BETWEEN 2.2250738585072014e-308 AND 1.797693134862315e308 THEN n::text
        WHEN base IN ('float4'::regtype, 'float8'::regtype) OR n <> trunc(n) THEN NULL
        WHEN abs(n + 0.5) < CASE base WHEN 'int2'::regtype THEN 32768 WHEN 'int4'::regtype THEN 2147483648 ELSE 9223372036854775808 END
          THEN trunc(n)::text END;
    END IF;
    valid := base IN ('float4'::regtype, 'float8'::regtype) AND lower(content) IN ('nan', 'infinity', '-infinity');
  ELSIF base = 'bool'::regtype THEN
    valid := lower(content) IN ('true', 'false', 't', 'f', 'yes', 'no', 'on', 'off', '1', '0');
  ELSIF base = 'uuid'::regtype THEN
    valid := content ~ '^\{?([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}\}?$';
  ELSIF category = 'E' THEN
    valid := EXISTS (SELECT FROM pg_enum e WHERE e.enumtypid = base AND e.enumlabel::text = content);
  ELSIF current_setting('server_version_num')::int4 >= 160000 THEN
    EXECUTE 'SELECT pg_input_is_valid($1, $2)' INTO valid USING content, type_name;
  ELSE
    -- An EXCEPTION block would be an error in a parallel worker: the search itself refuses the value.
    valid := true;
  END IF;
  IF NOT valid THEN
    RAISE EXCEPTION 'a value in the filter on column "%" is not of its type', key
      USING ERRCODE = 'invalid_parameter_value', DETAIL = format('"%s" is not of type %s.', "left"(content, 100), format_type(base, NULL)),
            HINT = 'Give a value that the column can have.';
  END IF;
  RETURN content;
END
$body$;
COMMENT ON FUNCTION gte_small.filter_text(pg_catalog.text, pg_catalog.jsonb, pg_catalog.regtype, pg_catalog.text, pg_catalog.text) IS
  'part of gte_small.conditions: a value of a filter in the notation of its column''s type';

-- The filter as SQL, for generated searches: ' and (...)' for each column of table e. It consists of
-- quoted names, quoted literals and names from the catalogue. The literals are typed, so that the planner can
-- choose an index and estimate. Conditions are executed with the rights of the caller of the search.
CREATE FUNCTION gte_small.conditions(target pg_catalog.regclass, filter pg_catalog.jsonb) RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  key text;
  value jsonb;
  one jsonb;
  col record;
  content text;
  contents text[];
  is_null bool;
  result text := '';
BEGIN
  IF filter IS NULL OR filter = '{}' THEN
    RETURN '';
  END IF;
  IF jsonb_typeof(filter) <> 'object' THEN
    RAISE EXCEPTION 'a filter is a JSON object, not %',
                    CASE jsonb_typeof(filter) WHEN 'array' THEN 'an array' ELSE 'a ' || jsonb_typeof(filter) END
      USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Nothing was searched.',
            HINT = 'Write {"column": value} or {"column": [value, value]}.';
  END IF;
  FOR key, value IN SELECT * FROM jsonb_each(filter) LOOP
    col := gte_small.filter_column(target, key);
    contents := '{}';
    is_null := false;
    FOR one IN SELECT * FROM jsonb_array_elements(CASE jsonb_typeof(value) WHEN 'array' THEN value ELSE jsonb_build_array(value) END) LOOP
      IF one = 'null' THEN
        is_null := true;
        CONTINUE;
      END IF;
      content := gte_small.filter_text(key, one, col.base, col.type_name, col.category);
      IF content IS NOT NULL THEN
        contents := contents || content;
      END IF;
    END LOOP;
    result := result || ' and (' || coalesce(concat_ws(' or ',
      CASE WHEN contents <> '{}' THEN format('e.%I %s any (%L::%s[])', key, col.equals, contents::text, col.type_name) END,
      CASE WHEN is_null THEN format('e.%I is null', key) END), '');
    IF contents = '{}' AND NOT is_null THEN
      result := result || 'false';
    END IF;
    result := result || ')';
  END LOOP;
  RETURN result;
END
$body$;
COMMENT ON FUNCTION gte_small.conditions(pg_catalog.regclass, pg_catalog.jsonb) IS
  'part of the search functions: a filter {"column": value} as SQL conditions on table e';
