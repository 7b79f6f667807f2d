"""Part "searches" of `make bench-sql`: the counted forms beside 0.1.0's inlined form, in interleaved rounds.

The vectors are random unit vectors around 300 centres, in a table of 20,000 rows and one of 200,000. Times are medians of
single statements over one connection, as psql times them; recall is the share of the 10 nearest rows that the form finds.
"""

import statistics

from state import say

SIZES = (20_000, 200_000)
QUERIES = 40
CENTRES = 300

FILL = """
set maintenance_work_mem = '2GB';
create table if not exists centres as
  select c, (select array_agg(random() - 0.5 + 0 * (c + n)) from generate_series(1, 384) n) as v from generate_series(1, {centres}) c;
drop table if exists {name};
create table {name} (id int primary key, content text, tenant int, indexed_tenant int, embedding vector(384));
insert into {name} select i, 'text ' || i, i % ({rows} / 10), i % ({rows} / 10),
  (select l2_normalize(array_agg(x.e + (random() - 0.5) * 0.7 + 0 * i)::vector(384))
     from unnest((select v from centres where c = 1 + i % {centres})) x (e)) from generate_series(1, {rows}) i;
create index on {name} (indexed_tenant);
select enable_semantic_search('{name}');
analyze {name};
-- What 0.1.0 generated.
create or replace function inlined_{name}(embedding vector, match_threshold float8, match_count int) returns setof {name}
  language sql stable parallel safe as $$
select (s.r).* from (
  select (e.*)::{name} as r, e.embedding operator(public.<#>) (select $1) as d
  from only {name} e order by d limit $3) s
where s.d operator(pg_catalog.<) operator(pg_catalog.-) coalesce($2, '-infinity')
order by s.d operator(pg_catalog.+) 0::pg_catalog.float8 $$;
drop table if exists queries_{name};
create table queries_{name} as select row_number() over () as n, embedding as v from (select embedding from {name} order by random() limit {queries}) q;
"""


def statements(name: str) -> dict:
    """The forms by name. The vector is a variable of psql, because PostgreSQL does not inline a subselect as argument."""
    forms = {}
    for count in (10, 100, 1000):
        forms[f"0.1.0, {count} rows"] = f"select * from inlined_{name}(:'v'::vector, null, {count})"
        forms[f"counted, {count} rows"] = f"select * from query_{name}(:'v'::vector, null, {count})"
    # A threshold that only the row itself is above.
    forms["two arguments, 0.99, LIMIT 3"] = f"select * from query_{name}(:'v'::vector, 0.99) limit 3"
    forms["two arguments, LIMIT 10"] = f"select * from query_{name}(:'v'::vector) limit 10"
    # Ten rows each.
    forms["counted, a tenant without an index"] = f"select * from query_{name}(:'v'::vector, null, 10, '{{\"tenant\": 7}}')"
    forms["counted, a tenant with an index"] = f"select * from query_{name}(:'v'::vector, null, 10, '{{\"indexed_tenant\": 7}}')"
    forms["counted, too few above the threshold"] = f"select * from query_{name}(:'v'::vector, 0.99, 10)"
    return forms


def times(bench, cluster, name: str, rounds: int) -> dict:
    """Milliseconds of each form: the statements of all forms in turn, over one connection, timed by psql."""
    found = {form: [] for form in statements(name)}
    lines = ["\\timing on", "\\o /dev/null", "set jit = off;"]
    for _ in range(rounds):
        for n in range(1, QUERIES + 1):
            lines.append(f"select v::text as v from queries_{name} where n = {n} \\gset")
            for form, sql in statements(name).items():
                lines.append(f"\\echo form {form}\n{sql};")
    output = cluster.psql("\n".join(lines), dbname="postgres")
    form = None
    for line in output.stdout.splitlines():
        if line.startswith("form "):
            form = line[5:]
        elif line.startswith("Time: ") and form:
            found[form].append(float(line.split()[1]))
            form = None
    return found


def recall(cluster, name: str, call: str) -> float:
    """Of the 10 nearest rows by the exact order, the share that the form finds, over all queries."""
    return float(cluster.psql(
        f"select avg(share) from queries_{name} q, lateral (select count(*) / 10.0 as share from ("
        f"select e.id from {name} e order by vector_negative_inner_product(e.embedding, q.v), e.id limit 10) exact "
        f"where id in (select f.id from {call.format(name)} f)) s", args=["-At"]).stdout.strip())


def searches(bench) -> None:
    cluster = bench.cluster
    for rows in SIZES:
        name = f"t{rows}"
        say(f"filling {rows} rows and building the indexes ...")
        cluster.psql(FILL.format(name=name, rows=rows, centres=CENTRES, queries=QUERIES))
        taken = times(bench, cluster, name, bench.times(3))
        median = {form: statistics.median(ms) for form, ms in taken.items()}
        for count in (10, 100, 1000):
            old, new = median[f"0.1.0, {count} rows"], median[f"counted, {count} rows"]
            met = (new <= old + 0.5 if rows == SIZES[0] else new <= 1.3 * old) if count == 10 else None
            target = "" if count > 10 else "<= + 0.5 ms" if rows == SIZES[0] else "<= 1.3 times"
            bench.record("searches", f"{rows} rows, the nearest {count}", f"{new:.2f} ms, 0.1.0's form {old:.2f}: {new / old:.2f} times",
                         target, met, rows=rows, count=count, ms=new, inlined_ms=old)
        for form in ("two arguments, LIMIT 10", "two arguments, 0.99, LIMIT 3", "counted, a tenant without an index", "counted, a tenant with an index",
                     "counted, too few above the threshold"):
            bench.record("searches", f"{rows} rows, {form}", f"{median[form]:.2f} ms", rows=rows, ms=median[form])
        old = recall(cluster, name, "inlined_{}(q.v, null, 10)")
        new = recall(cluster, name, "query_{}(q.v, null, 10)")
        bench.record("searches", f"{rows} rows, recall@10", f"{new:.3f}, 0.1.0's form {old:.3f}", ">= 0.93, and more than 0.1.0's",
                     new >= 0.93 and new >= old, rows=rows, recall=new, inlined_recall=old)
