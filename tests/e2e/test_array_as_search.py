"""embed_query refuses an array of numbers, which drivers make of a vector, and takes every other text in braces."""

import psycopg
import pytest

from measure import one


@pytest.mark.parametrize("text", ["{0.1,0.2}", '{"0.1","0.2"}', " { 0.1 , -2e-3 } ", "{1}", "{" + ",".join(["0.05"] * 384) + "}"])
def test_an_array_of_numbers_is_refused(connection, text):
    with pytest.raises(psycopg.errors.InvalidParameterValue) as error:
        connection.execute("select embed_query(%s)", [text])
    assert error.value.diag.message_primary == "search text is an array of numbers"
    assert "::real[]::vector" in error.value.diag.message_hint


@pytest.mark.parametrize("text", ['{"cat","dog"}', "{cat,0.2}", "{}", "{0.1} see note", "{0.1,}", "{{0.1,0.2}}", '{"}', "0.1,0.2",
                                  "{" + ",".join(["1"] * 16001) + "}"])
def test_other_texts_are_searches(connection, text):
    assert one(connection, "select embed_query(%s) = embed(%s)", [text, text])


def test_the_cast_of_the_hint(connection):
    assert one(connection, "select '{0.1,0.2}'::real[]::vector")  == "[0.1,0.2]"
