-- What a value is: the same code as in the trigger, for the backfill, the status and the searches.

CREATE FUNCTION gte_small.unit(embedding vector) RETURNS vector
  AS 'MODULE_PATHNAME', 'unit_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION gte_small.unit(vector) IS
  'part of the search functions: the vector scaled to unit length; itself if its length is within 0.001 of 1';

CREATE FUNCTION gte_small.is_unit(embedding vector) RETURNS pg_catalog.bool
  AS 'MODULE_PATHNAME', 'is_unit_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION gte_small.is_unit(vector) IS
  'part of embedding_status: whether the length of a vector is within 0.001 of 1';

CREATE FUNCTION gte_small.is_blank(content pg_catalog.text) RETURNS pg_catalog.bool
  AS 'MODULE_PATHNAME', 'is_blank_gte_small'
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION gte_small.is_blank(pg_catalog.text) IS
  'part of embed_backfill: whether a text is white space alone, which gets no embedding';

-- Around a statement: the trigger stores the vectors of its INSERT or UPDATE as they are and notes no foreign ones.
CREATE FUNCTION gte_small.own_write(target pg_catalog.regclass, inserts pg_catalog.bool) RETURNS pg_catalog.void
  AS 'MODULE_PATHNAME', 'own_write_gte_small'
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION gte_small.own_write(pg_catalog.regclass, pg_catalog.bool) IS
  'part of embed_backfill: the vectors that the next statement writes to a table are of the model in use';

CREATE FUNCTION gte_small.own_write_end() RETURNS pg_catalog.void
  AS 'MODULE_PATHNAME', 'own_write_end_gte_small'
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION gte_small.own_write_end() IS
  'part of embed_backfill: ends what own_write() began';

CREATE FUNCTION gte_small.note_lock(target pg_catalog.regclass, embedding pg_catalog.name) RETURNS pg_catalog.bool
  AS 'MODULE_PATHNAME', 'note_lock_gte_small'
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION gte_small.note_lock(pg_catalog.regclass, pg_catalog.name) IS
  'part of embed_verify: keeps foreign vectors out until the end of the transaction; false if some are being written';

CREATE FUNCTION gte_small.note_wrong(target pg_catalog.regclass, embedding pg_catalog.name) RETURNS pg_catalog.bool
  AS 'MODULE_PATHNAME', 'note_wrong_gte_small'
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION gte_small.note_wrong(pg_catalog.regclass, pg_catalog.name) IS
  'part of embed_verify: notes that a column has vectors which the model in use did not make; false if another session is changing the note';

CREATE FUNCTION gte_small.note_settle(target pg_catalog.regclass, embedding pg_catalog.name, verified pg_catalog.bool)
  RETURNS pg_catalog.bool
  AS 'MODULE_PATHNAME', 'note_settle_gte_small'
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION gte_small.note_settle(pg_catalog.regclass, pg_catalog.name, pg_catalog.bool) IS
  'part of embed_verify: notes that a column has no foreign vectors, or that all are of the model in use';
