-- Hybrid search: reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009) of the nearest vectors and
-- of the rows that share words with the search. The generated functions hybrid_... call this.
--
-- A word's weight grows with its rarity, unlike in ts_rank. On XQuAD English this full-text part alone has
-- nDCG@10 .97; OR with ts_rank_cd has .88, and AND has .28. It reads at most 201 rows per word from the index;
-- ts_rank would read and parse every row with a common word. A word in more than 200 rows does not count. If
-- more than 200 rows have all words, only those count that are among the nearest vectors. Rows with the same
-- words are ordered by similarity: their weights are added in one order, so that the sums are equal.
--
-- A row is identified by tableoid and ctid, which do not change within one statement. So the table needs no
-- key.

-- The words of a search, each as a query: the longest 32, because each of them is a look-up in the index.
CREATE FUNCTION gte_small.search_terms(language pg_catalog.regconfig, search pg_catalog.text) RETURNS pg_catalog.tsquery[]
  LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
  SELECT array_agg(format('''%s''', replace(replace(w.word, E'\\', E'\\\\'), '''', E'\\'''))::tsquery)
    FROM (SELECT word FROM unnest(tsvector_to_array(gte_small.words(language, left(search, 10000)))) AS u (word)
           ORDER BY length(word) DESC, word LIMIT 32) w
$body$;
COMMENT ON FUNCTION gte_small.search_terms(pg_catalog.regconfig, pg_catalog.text) IS
  'part of the hybrid search functions: the words of a search as queries';

-- The statement. $1, $2, $3 are the places of the nearest rows and their distances, $4 the vector, $5 the words,
-- $6 the number of rows that each half contributes, $7 and $8 the weights of words and meaning, $9 the constant k.
--
-- Each word is looked up in the full-text index. Where there is none, the words of each row are made once, in
-- one scan. With "complete", $1 and $2 are all rows that the caller may see, and no others are read.
CREATE FUNCTION gte_small.hybrid_statement(
    target pg_catalog.regclass, embedding pg_catalog.name, content pg_catalog.name[], language pg_catalog.regconfig,
    filter pg_catalog.jsonb, complete pg_catalog.bool)
  RETURNS pg_catalog.text
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
AS $body$
DECLARE
  rows_of CONSTANT text := (SELECT q.rows_of FROM gte_small.qualified(target) q);
  conditions CONSTANT text := gte_small.conditions(target, filter);
  words CONSTANT text := gte_small.words_expression(target, content, language, true);
  found_rows text;
BEGIN
  IF NOT complete AND EXISTS (SELECT FROM gte_small.word_indexes(target, content, language)) THEN
    found_rows := format($sql$
  from terms t cross join lateral (
    select e.tableoid as part, e.ctid as place, gte_small.exact_distance(e.%I, $4) as d from %s e
     where %s operator(gte_small.@@@) t.term%s limit 201) f$sql$, embedding, rows_of, words, conditions);
  ELSE
    found_rows := format($sql$
  from (select e.tableoid as part, e.ctid as place, gte_small.exact_distance(e.%I, $4) as d, %s as words
          from %s%s offset 0) f
  join terms t on f.words operator(gte_small.@@@) t.term$sql$, embedding, words,
      CASE WHEN complete THEN format('rows from (pg_catalog.unnest($1), pg_catalog.unnest($2)) c (part, place) join %s e '
                                     'on e.ctid operator(pg_catalog.=) c.place and e.tableoid operator(pg_catalog.=) c.part', rows_of)
           ELSE rows_of || ' e where true' END, CASE WHEN complete THEN ' where true' ELSE '' END || conditions);
  END IF;
  RETURN format($sql$
with semantic as materialized (
  select s.part, s.place, s.d, pg_catalog.rank() over (order by s.d) as position
    from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) s (part, place, d)
   where s.d is not null),
terms as materialized (
  select u.term, false as is_whole from pg_catalog.unnest($5) u (term)
  union all
  select pg_catalog.string_agg(u.term::pg_catalog.text, ' & ')::pg_catalog.tsquery, true from pg_catalog.unnest($5) u (term)),
found as materialized (
  select f.part, f.place, f.d, t.is_whole, pg_catalog.count(*) over (partition by t.term, t.is_whole) as n%1$s),
hits as (
  select f.part, f.place, f.d, pg_catalog.ln(1::pg_catalog.float8 operator(pg_catalog.+)
    (200::pg_catalog.float8 operator(pg_catalog./) f.n::pg_catalog.float8)) as weight
  from found f where f.n operator(pg_catalog.<=) 200
  union all
  select s.part, s.place, s.d, pg_catalog.ln(2::pg_catalog.float8)
  from semantic s join %2$s e on e.ctid operator(pg_catalog.=) s.place and e.tableoid operator(pg_catalog.=) s.part
  cross join terms t
  where t.is_whole and %3$s operator(gte_small.@@@) t.term
    and exists (select from found f where f.is_whole and f.n operator(pg_catalog.>) 200)),
full_text as (
  select h.part, h.place, pg_catalog.row_number() over (order by pg_catalog.sum(h.weight order by h.weight) desc, pg_catalog.min(h.d), h.part, h.place) as position
  from hits h group by h.part, h.place order by position limit $6)
select r.part, r.place, pg_catalog.max(r.full_text), pg_catalog.max(r.semantic), pg_catalog.sum(r.score)
from (
  select t.part, t.place, t.position as full_text, null::pg_catalog.int8 as semantic,
         $7 operator(pg_catalog./) ($9 operator(pg_catalog.+) t.position)::pg_catalog.float8 as score
  from full_text t
  union all
  select s.part, s.place, null, s.position, $8 operator(pg_catalog./) ($9 operator(pg_catalog.+) s.position)::pg_catalog.float8
  from semantic s) r
group by r.part, r.place$sql$, found_rows, rows_of, words);
END
$body$;
COMMENT ON FUNCTION gte_small.hybrid_statement(pg_catalog.regclass, pg_catalog.name, pg_catalog.name[], pg_catalog.regconfig, pg_catalog.jsonb, pg_catalog.bool) IS
  'part of the hybrid search functions: the statement that fuses both halves';

-- The places of the rows, their ranks and scores, in any order. See nearest_places() on search_path and SET.
CREATE FUNCTION gte_small.hybrid_places(
    target pg_catalog.regclass, embedding pg_catalog.name, key pg_catalog.name[], half pg_catalog.bool,
    content pg_catalog.name[], language pg_catalog.regconfig, search pg_catalog.text, wanted vector, most pg_catalog.int4, full_text_weight pg_catalog.float8,
    semantic_weight pg_catalog.float8, rrf_k pg_catalog.int4, filter pg_catalog.jsonb,
    OUT part pg_catalog.oid, OUT place pg_catalog.tid, OUT full_text_rank pg_catalog.int8, OUT semantic_rank pg_catalog.int8,
    OUT score pg_catalog.float8)
  RETURNS SETOF pg_catalog.record
  -- ROWS: at 1000, the default, the planner reads the whole table instead of some places.
  LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100 SET plan_cache_mode = force_custom_plan
AS $body$
DECLARE
  -- Both halves contribute more rows than are wanted: a row that is in both counts more than the first of one.
  depth CONSTANT pg_catalog.int4 := LEAST(GREATEST(2 OPERATOR(pg_catalog.*) most::pg_catalog.int8, 60), 2147483647)::pg_catalog.int4;
  nearest pg_catalog.record;
BEGIN
  IF most OPERATOR(pg_catalog.=) 0 OR wanted IS NULL THEN
    RETURN;
  END IF;
  SELECT * INTO nearest FROM gte_small.nearest_places(target, embedding, key, half, wanted, depth, 'infinity', filter, true);
  RETURN QUERY EXECUTE gte_small.hybrid_statement(target, embedding, content, language, filter, nearest.complete)
    USING nearest.parts, nearest.places, nearest.distances, wanted, gte_small.search_terms(language, search), depth,
          COALESCE(full_text_weight, 1), COALESCE(semantic_weight, 1), GREATEST(COALESCE(rrf_k, 60), 0);
END
$body$;
COMMENT ON FUNCTION gte_small.hybrid_places(pg_catalog.regclass, pg_catalog.name, pg_catalog.name[], pg_catalog.bool, pg_catalog.name[], pg_catalog.regconfig, pg_catalog.text, vector, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4, pg_catalog.jsonb) IS
  'part of the hybrid search functions: the places of the rows, their ranks and scores';
