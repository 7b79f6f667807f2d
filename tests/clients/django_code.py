"""Runs a piece of Python code in a Django project: `django_code.py CODE`, in the directory of the project."""

import os
import sys

sys.path.insert(0, os.getcwd())

import django  # noqa: E402

django.setup()
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.db.models import Value  # noqa: E402
from faq.models import Question  # noqa: E402

exec(sys.argv[1], {"Question": Question, "Value": Value, "call_command": call_command, "connection": connection})
