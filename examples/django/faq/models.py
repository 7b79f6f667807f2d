from django.db import models
from django.db.models import Func, Value
from pgvector.django import MaxInnerProduct, VectorField


class EmbedQuery(Func):
    """The vector of a search, made by the database.

    A subquery of its own: then the model runs once for a query, whatever the plan.
    """

    template = "(select embed_query(%(expressions)s))"
    output_field = VectorField(dimensions=384)


class QuestionQuerySet(models.QuerySet):
    def by_similarity(self, text):
        """A queryset, to filter and slice.

        MaxInnerProduct is the operator of the index, <#>. L2Distance and CosineDistance give the same order and read the
        whole table.
        """
        return self.annotate(distance=MaxInnerProduct("embedding", EmbedQuery(Value(text)))).order_by("distance")


class QuestionManager(models.Manager.from_queryset(QuestionQuerySet)):
    def search(self, text, count=10):
        """`count` questions with their `similarity`, the most similar first."""
        return self.raw("select q.*, s.similarity from search_faq_question(%s, %s) s join faq_question q using (id)"
                        " order by s.similarity desc", [text, count])


class Question(models.Model):
    title = models.CharField(max_length=200, unique=True)
    body = models.TextField()
    # The trigger writes it. save() writes all fields, so an object may bring an old vector or None: the trigger embeds a
    # text that changed, and keeps the vector of one that did not. After save() call refresh_from_db(fields=["embedding"]).
    embedding = VectorField(dimensions=384, null=True, editable=False)

    objects = QuestionManager()
