"""What a test that waited in vain says."""

import re

import pytest
from deadline import becomes, eventually

from controlloop.client import UnreachableError

SOON_S = 0.05


def test_the_first_answer_that_will_do_is_given_back():
    answers = iter([[], ["a"], ["a", "b"], ["a", "b", "c"]])
    assert eventually(lambda: next(answers), that=lambda found: len(found) == 2) == ["a", "b"]
    assert eventually(lambda: next(answers)) == ["a", "b", "c"]


def test_what_was_there_in_the_end_is_told():
    with pytest.raises(AssertionError, match=re.escape("not within 0.05 s; last: ['a', 'b']")):
        eventually(lambda: ["a", "b"], SOON_S, that=lambda found: len(found) == 3)


def test_what_was_there_and_what_should_be_is_told():
    becomes(lambda: {"a": 1}, {"a": 1})
    with pytest.raises(AssertionError, match=re.escape("last: {'a': 1}; wanted: {'a': 2}")):
        becomes(lambda: {"a": 1}, {"a": 2}, SOON_S)


def test_nobody_answers_until_somebody_does():
    answers = iter([UnreachableError("no socket"), AssertionError("not yet"), "here"])

    def question():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert eventually(question) == "here"


def test_why_nobody_answered_is_told():
    def question():
        raise UnreachableError("no socket")

    with pytest.raises(AssertionError, match=r"last: UnreachableError.*no socket"):
        eventually(question, SOON_S)
