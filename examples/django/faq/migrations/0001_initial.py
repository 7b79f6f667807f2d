import pgvector.django
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    operations = [
        # Once for each database, as a superuser.
        migrations.RunSQL('create extension if not exists "gte-small" cascade', migrations.RunSQL.noop),
        migrations.CreateModel(
            name="Question",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("title", models.CharField(max_length=200, unique=True)),
                ("body", models.TextField()),
                ("embedding", pgvector.django.VectorField(dimensions=384, editable=False, null=True)),
            ],
        ),
        # Repeat it in a later migration after a field was added or changed: search_faq_question returns the new columns then.
        # Before a table is deleted, disable it, because the functions return its rows.
        migrations.RunSQL("select enable_semantic_search('faq_question', 'title, body')",
                          "select disable_semantic_search('faq_question')"),
    ]
