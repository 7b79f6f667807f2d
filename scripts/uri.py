"""The address of a cluster as a URI, for drivers other than libpq, which do not read `host=... port=...`."""

from urllib.parse import quote, urlencode

import postgres


def uri(cluster: postgres.Cluster, dbname: str, user: str = "postgres") -> str:
    """A URI with everything but the database in its query.

    The host is the directory of a Unix socket, which has no place before the path of a URI. A user without a host there
    (`postgresql://postgres@/demo`) is no URL for Rust's and JavaScript's parsers.
    """
    query = urlencode({"host": str(cluster.socket_dir), "port": postgres.PORT, "user": user}, quote_via=quote, safe="/")
    return f"postgresql:///{quote(dbname, safe='')}?{query}"
