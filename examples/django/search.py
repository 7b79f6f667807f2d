"""Django's ORM: the app `faq` has the model and the migration.

    pip install -r requirements.txt
    DATABASE_URL=postgresql://... python search.py
"""

import os

import django
from django.core.management import call_command

QUESTIONS = {
    "How do I change my password?": "Open the account page and choose Security.",
    "Which cards do you accept?": "You can pay with Visa and Mastercard.",
    "Where is my parcel?": "The tracking number is in the message that we sent you.",
}


def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
    django.setup()
    call_command("migrate", verbosity=0)
    from faq.models import Question

    for title, body in QUESTIONS.items():
        Question.objects.get_or_create(title=title, defaults={"body": body})

    for question in Question.objects.search("I forgot my login", 2):
        print(f"{question.similarity:.2f}  {question.title}")

    nearest = Question.objects.filter(body__contains="You can").by_similarity("when does my order arrive?")[:1]
    print("of those with `You can`:", nearest[0].title)

    question = Question.objects.get(title="Where is my parcel?")
    question.body += " It is ours."
    question.save()
    before = question.embedding
    question.refresh_from_db(fields=["embedding"])
    print("embedding renewed:", question.embedding != before)
    question.body = QUESTIONS[question.title]
    question.save()


if __name__ == "__main__":
    main()
