"""The catalogue of an extension as lines of text, without OIDs and in a fixed order.

Two databases have the same extension if the lines are equal, however it came to that state.
"""

# Names are qualified, except those of pg_catalog.
PATH = "set local search_path = pg_catalog, pg_temp"

MEMBERS = """
create temporary table member on commit drop as
select d.classid, d.objid, (pg_identify_object(d.classid, d.objid, 0)).type || ' '
       || (pg_identify_object(d.classid, d.objid, 0)).identity as name
  from pg_depend d join pg_extension e on e.oid = d.refobjid
 where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e' and e.extname = %s
"""

# Rights in the order of their text. NULL means the default, and is not the same as the default written out: a dump
# tells them apart.
RIGHTS = "(select string_agg(a::text, ', ' order by a::text) from unnest({}) a)"

# One query for each kind of object: what pg_identify_object leaves out.
DETAILS = {
    "pg_proc": "select m.name, concat_ws(E'\\n', pg_get_userbyid(o.proowner), {rights}, "
               "case when o.prokind <> 'a' then pg_get_functiondef(o.oid) end) "
               "from member m join pg_proc o on o.oid = m.objid".format(rights=RIGHTS.format("o.proacl")),
    "pg_type": "select m.name, concat_ws(E'\\n', pg_get_userbyid(o.typowner), {rights}, o.typtype, o.typcategory, o.typlen, "
               "o.typinput, o.typoutput, o.typreceive, o.typsend, o.typmodin, o.typmodout, o.typdefault, "
               "format_type(o.typbasetype, o.typtypmod), o.typelem::regtype, "
               "(select string_agg(pg_get_constraintdef(c.oid), ', ' order by c.conname) from pg_constraint c where c.contypid = o.oid), "
               "(select string_agg(e.enumlabel, ', ' order by e.enumsortorder) from pg_enum e where e.enumtypid = o.oid), "
               "(select string_agg(concat_ws(' ', a.attnum, a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum) "
               "from pg_attribute a where a.attrelid = o.typrelid and not a.attisdropped)) "
               "from member m join pg_type o on o.oid = m.objid".format(rights=RIGHTS.format("o.typacl")),
    "pg_namespace": "select m.name, concat_ws(E'\\n', pg_get_userbyid(o.nspowner), {rights}) "
                    "from member m join pg_namespace o on o.oid = m.objid".format(rights=RIGHTS.format("o.nspacl")),
    "pg_class": "select m.name, concat_ws(E'\\n', pg_get_userbyid(o.relowner), {rights}, o.relkind, o.relpersistence, o.reloptions, "
                "case when o.relkind in ('v', 'm') then pg_get_viewdef(o.oid) end, "
                "(select string_agg(concat_ws(' ', a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated, "
                "a.attidentity, pg_get_expr(d.adbin, d.adrelid)), ', ' order by a.attnum) from pg_attribute a left join pg_attrdef d "
                "on d.adrelid = a.attrelid and d.adnum = a.attnum where a.attrelid = o.oid and a.attnum > 0 and not a.attisdropped), "
                "(select string_agg(pg_get_indexdef(i.indexrelid), ', ' order by i.indexrelid::regclass::text) from pg_index i where i.indrelid = o.oid), "
                "(select string_agg(pg_get_constraintdef(c.oid), ', ' order by c.conname) from pg_constraint c where c.conrelid = o.oid), "
                "(select string_agg(pg_get_triggerdef(t.oid), ', ' order by t.tgname) from pg_trigger t where t.tgrelid = o.oid and not t.tgisinternal)) "
                "from member m join pg_class o on o.oid = m.objid".format(rights=RIGHTS.format("o.relacl")),
    "pg_operator": "select m.name, concat_ws(E'\\n', pg_get_userbyid(o.oprowner), o.oprresult::regtype, o.oprcom::regoperator, o.oprnegate::regoperator, "
                   "o.oprcode, o.oprrest, o.oprjoin, o.oprcanmerge, o.oprcanhash) from member m join pg_operator o on o.oid = m.objid",
    "pg_opclass": "select m.name, concat_ws(E'\\n', pg_get_userbyid(o.opcowner), (pg_identify_object('pg_opfamily'::regclass, o.opcfamily, 0)).identity, "
                  "o.opcintype::regtype, o.opcdefault, o.opckeytype::regtype) from member m join pg_opclass o on o.oid = m.objid",
    "pg_opfamily": "select m.name, concat_ws(E'\\n', pg_get_userbyid(o.opfowner), "
                   "(select string_agg(pg_describe_object('pg_amop'::regclass, a.oid, 0), ', ' order by a.amopstrategy, a.amopopr::regoperator::text) "
                   "from pg_amop a where a.amopfamily = o.oid), "
                   "(select string_agg(pg_describe_object('pg_amproc'::regclass, a.oid, 0), ', ' order by a.amprocnum, a.amproc::regprocedure::text) "
                   "from pg_amproc a where a.amprocfamily = o.oid)) from member m join pg_opfamily o on o.oid = m.objid",
    "pg_cast": "select m.name, concat_ws(E'\\n', o.castfunc::regprocedure, o.castcontext, o.castmethod) from member m join pg_cast o on o.oid = m.objid",
}

FOR_ALL = {
    "comment": "select m.name, coalesce(obj_description(m.objid, c.relname), '(none)') from member m join pg_class c on c.oid = m.classid",
    "first rights": "select m.name, concat_ws(' ', p.privtype, " + RIGHTS.format("p.initprivs") + ") from member m "
                    "join pg_init_privs p on p.classoid = m.classid and p.objoid = m.objid",
    # What DROP follows, and the order of a dump.
    "depends": "select m.name, concat_ws(' ', d.deptype, (i).type, (i).identity) from member m "
               "join pg_depend d on d.classid = m.classid and d.objid = m.objid "
               "cross join lateral (select pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) as i) as refers",
}

EXTENSION = """
select concat_ws(' ', e.extname, e.extversion, e.extnamespace::regnamespace, e.extrelocatable, pg_get_userbyid(e.extowner),
       (select string_agg(c::regclass::text, ', ' order by c::regclass::text) from unnest(e.extconfig) c), e.extcondition,
       obj_description(e.oid, 'pg_extension'))
  from pg_extension e where e.extname = %s
"""


def lines(connection, extension="gte-small"):
    """Every fact about the extension and its members that another database could have otherwise."""
    with connection.transaction():
        connection.execute(PATH)
        connection.execute(MEMBERS, [extension])
        kinds = {kind for kind, in connection.execute("select distinct c.relname::text from member m join pg_class c on c.oid = m.classid")}
        # A kind of object that nobody compares would be a gap in the comparison.
        assert kinds <= DETAILS.keys(), f"add to DETAILS: {kinds - DETAILS.keys()}"
        said = ["extension " + connection.execute(EXTENSION, [extension]).fetchone()[0]]
        for kind in sorted(kinds):
            said += _facts(connection, "is", f"{DETAILS[kind]} where m.classid = '{kind}'::regclass")
        for what, query in FOR_ALL.items():
            said += _facts(connection, what, query)
    return sorted(said)


def _facts(connection, what, query):
    # Each line of a definition begins with the object's name, for the reader of a diff.
    return [f"{name} {what}: {fact}".replace("\n", f"\n{name} | ") for name, fact in connection.execute(query)]


def as_text(connection, extension="gte-small"):
    """The lines one below the other, for a diff."""
    return "\n".join(lines(connection, extension)).splitlines()
