import os
from urllib.parse import parse_qsl, unquote, urlsplit

_url = urlsplit(os.environ["DATABASE_URL"])

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(_url.path[1:]),
        "USER": unquote(_url.username or ""),
        "PASSWORD": unquote(_url.password or ""),
        "HOST": _url.hostname or "",
        "PORT": _url.port or "",
        # What the URL has after `?`, for psycopg. Behind pgbouncer in transaction mode also set
        # DISABLE_SERVER_SIDE_CURSORS, as for any other application.
        "OPTIONS": dict(parse_qsl(_url.query)),
    }
}
INSTALLED_APPS = ["faq"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
