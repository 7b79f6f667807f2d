"""Django's ORM: examples/django, and what surprises. Django has one settings module for a process, so each test runs one."""

import pytest

LINES = [
    "0.39  How do I change my password?",
    "0.27  Where is my parcel?",
    "of those with `You can`: Which cards do you accept?",
    "embedding renewed: True",
]


def test_the_example_prints_the_same_each_time(run, database, printed):
    printed(run("django", DATABASE_URL=database.uri), LINES)
    printed(run("django", DATABASE_URL=database.uri), LINES)


@pytest.fixture(scope="module")
def after_the_example(run, server):
    """A template: the database that the example leaves."""
    database = server.create()
    run("django", DATABASE_URL=database.uri)
    yield database.name
    server.drop(database)


@pytest.fixture
def project(server, after_the_example):
    """A new database, as the example leaves it."""
    database = server.create(after_the_example)
    yield database
    server.drop(database)


@pytest.fixture
def shell(run, project):
    """Runs Python code in the example's project, and returns what it prints."""
    def execute(code):
        words = ["../../tests/clients/django_code.py", code]
        return run("django", *words, DATABASE_URL=project.uri, DJANGO_SETTINGS_MODULE="settings")

    return execute


HAS_THE_VECTOR_OF_ITS_TEXT = """
def right(question):
    with connection.cursor() as cursor:
        cursor.execute("select embedding = embed(concat_ws(E'\\\\n', title, body)) from faq_question where id = %s", [question.id])
        return cursor.fetchone()[0]
"""


def test_no_migration_is_missing(shell):
    assert shell("call_command('makemigrations', check=True, dry_run=True)") == ["No changes detected"]


def test_the_migration_can_be_reversed(shell, project):
    shell("call_command('migrate', 'faq', 'zero', verbosity=0)")
    assert project.value("select count(*) from pg_proc where proname like '%faq_question'") == 0
    assert project.value("select to_regclass('faq_question')") is None


def test_stale_objects_saved_in_turn_have_the_vector_of_their_text(shell):
    assert shell(HAS_THE_VECTOR_OF_ITS_TEXT + """
first, second = Question.objects.get(title__startswith="Where"), Question.objects.get(title__startswith="Where")
stale = first.embedding
first.body = "the first writer's"
first.save()
print(first.embedding == stale, right(first))
second.body = "the second writer's"
second.save()
print(second.embedding == stale, right(second))
second.refresh_from_db()
print(second.embedding == stale, second.body)
""") == ["True True", "True True", "False the second writer's"]


def test_an_object_saved_with_none_keeps_its_vector(shell):
    assert shell(HAS_THE_VECTOR_OF_ITS_TEXT + """
question = Question.objects.get(title__startswith="Where")
question.embedding = None
question.save()
print(right(question))
question.body = "another text"
question.save()
print(right(question))
Question.objects.bulk_create([Question(title="a title", body="of many")])
print(right(Question.objects.get(title="a title")))
Question.objects.filter(title="a title").update(body="updated")
print(right(Question.objects.get(title="a title")))
""") == ["True"] * 4


def test_only_the_inner_product_reaches_the_index(shell):
    """On three rows the planner reads the table, unless it is told not to."""
    assert shell("""
from pgvector.django import CosineDistance, L2Distance, MaxInnerProduct
from faq.models import EmbedQuery
with connection.cursor() as cursor:
    cursor.execute("set enable_seqscan = off")
uses = lambda questions: "Index Scan using faq_question_embedding_idx" in questions.explain()
print(uses(Question.objects.by_similarity("pay")[:2]))
for distance in MaxInnerProduct, CosineDistance, L2Distance:
    print(uses(Question.objects.order_by(distance("embedding", Question.objects.first().embedding))[:2]))
    print(uses(Question.objects.order_by(distance("embedding", EmbedQuery(Value("pay"))))[:2]))
""") == ["True", "True", "True", "False", "False", "False", "False"]


def test_a_slice_and_a_filter_return_their_count(shell):
    """Without match_count, a filter is pgvector's iterative scan: by default on where the extension is loaded."""
    assert shell("""
Question.objects.bulk_create([Question(title=f"title {n}", body=f"number {n}") for n in range(120)])
with connection.cursor() as cursor:
    cursor.execute("set enable_seqscan = off")
found = Question.objects.filter(body__startswith="number 1").by_similarity("When will it arrive?")[:20]
print("faq_question_embedding_idx" in found.explain(), len(found))
""") == ["True 20"]


def test_parameters_that_the_server_binds(shell):
    """OPTIONS of Django: the parameters bound by the server have types of their own, and psycopg prepares statements."""
    assert shell("""
from django.conf import settings
from django.db import connections
connection.close()
options = settings.DATABASES["default"]["OPTIONS"]
connections.settings["default"]["OPTIONS"] = {**options, "server_side_binding": True, "prepare_threshold": 0}
del connections["default"]
for number in range(12):
    found = Question.objects.search(f"I forgot my login {number}", 1)[0]
    nearest = Question.objects.by_similarity(f"I forgot my login {number}")[:1][0]
    assert found == nearest, number
print(found.title)
""") == ["How do I change my password?"]
