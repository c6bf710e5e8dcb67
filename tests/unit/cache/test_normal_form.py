"""The gate: what may share an answer, what never may, and that it does not matter which of two comes first."""

from __future__ import annotations

import string

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from app.cache.normal_form import MAX_CHARACTERS, differs, normal_form, question_key

SAME = [
    ("What is the refund policy?", "what's the refund policy"),
    ("What is the refund policy?", "Tell me the refund policy, please"),
    ("What is the refund policy?", "refund policy"),
    ("What is the refund policy?", "Could you please tell me what the refund policy is?"),
    ("What is the refund policy?", "Hi team, what is the refund policy? Cheers"),
    ("What is the refund policy?", "um what is the refund policy"),
    ("What is the refund policy?", "  WHAT IS THE\trefund   policy??? "),
    ("What is the refund policy?", "whats the refund policy"),
    ("the requirements for a visa", "visa requirements"),
    ("Which browsers are supported?", "what browser is supported"),
    ("How do I reset my password?", "how to reset a password"),
    ("Installing the driver", "How can one install a driver?"),
    ("price of 10MB", "price of 10 MB"),
    ("Is TCP vs UDP old?", "is TCP versus UDP old"),
    ("How do I reset my password?", "how can we reset our passwords"),
    ("What is the difference between TCP and UDP?", "difference between UDP and TCP"),
    ("What does ERR-4711 mean?", "meaning of err-4711"),
    ("What symptoms does measles have?", "symptoms of measles"),
    ("What requirements are there for a visa?", "requirements for a visa"),
    ("How much does the plan cost?", "cost of the plan"),
    ("What time does the shop open?", "at what time do the shops open"),
    ("On trains, is there a discount for students?", "Is there a discount for students on trains?"),
    ('Who said "I have a dream"?', "who said “I have a dream”"),
    ("Wie setze ich mein Passwort zurück?", "wie setze ich mein passwort zurück"),
    ("如何重置密码？", "如何重置密码"),
    ("Où est la gare ?", "où est la gare"),
]

DIFFERENT = [
    ("Which drugs are safe?", "Which drugs are not safe?", "negation"),
    ("Why does it respond?", "Why doesn't it respond?", "negation"),
    ("install with internet access", "install without internet access", "negation"),
    ("limit of 5 MB", "limit of 50 MB", "numbers"),
    ("limit of 5 MB", "limit of 5 GB", "words"),
    ("revenue in 2021", "revenue in 2022", "numbers"),
    ("10 degrees", "-10 degrees", "numbers"),
    ("a dose of .5", "a dose of 5", "numbers"),
    ("5% of it", "5 of it", "numbers"),
    ("error ERR-4711", "error ERR-4712", "codes"),
    ("version 2.19.1", "version 2.19.2", "numbers"),
    ("first amendment", "second amendment", "words"),
    ("cp -r", "cp -R", "words"),
    ("learn C", "learn C++", "words"),
    ('find "red wine" glasses', "find red wine glasses", "quoted"),
    ('documents with "data loss"', 'documents with "data leak"', "quoted"),
    ("trains from Rome to Milan", "trains from Milan to Rome", "order"),
    ("Did Google acquire YouTube?", "Did YouTube acquire Google?", "order"),
    ("effect of heat on pressure", "effect of pressure on heat", "order"),
    ("before the surgery", "after the surgery", "words"),
    ("enable the proxy", "disable the proxy", "words"),
    ("Is A a subset of B?", "Is B a subset of A?", "order"),
    ("Who founded it?", "When was it founded?", "words"),
    ("How many people came?", "Which people came?", "words"),
    ("Is the sky blue?", "Why is the sky blue?", "words"),
    ("How do I renew it?", "When do I renew it?", "words"),
    ("Can I smoke here?", "Must I smoke here?", "words"),
    ("I should sign", "I must sign", "words"),
    ("Who is the chief?", "Who was the chief?", "words"),
    ("the fast route", "the faster route", "words"),
    ("refund policy", "refund policy for students", "words"),
    ("all of the employees", "some of the employees", "words"),
    ("visa for Germany", "visa from Germany", "words"),
    ("capital of Austria", "capital of Australia", "words"),
    ("Who directed Alien?", "Who directed Aliens?", "words"),
    ("hepatitis A symptoms", "hepatitis symptoms", "words"),
    ("foods with vitamin a", "foods with vitamin", "words"),
    ("open at 8 am", "open at 8 pm", "words"),
    ("What is IT?", "What is it?", "words"),
    ("glass of wine", "wine glass", "words"),
    ("how to say please", "how to say thank you", "words"),
    ("how to say please", "how to say", "words"),
    ("hello world in python", "world in python", "words"),
    ("list price of a car", "price of a car", "words"),
    ("How do I forward your mail to my address?", "How do I forward my mail to your address?", "order"),
    ("How do I block your number?", "How do I block my number?", "words"),
    ("How do you ship a parcel?", "How do I ship a parcel?", "words"),
    ("update policy", "How do I update the policy?", "words"),
    ("policy for Ireland", "policy of Ireland", "words"),
    ("What rhymes with please?", "What rhymes with thanks?", "words"),
    ("production cost", "production price", "words"),
    ("When does the airport open?", "What time does the airport open?", "words"),
    ("a sign of potential in tissue", "a sign of potential into tissue", "words"),
    ("What is in the file that was signed?", "What was in the file that is signed?", "words"),
    ("new goods", "a new good", "words"),
    ("custom duties", "customs duties", "words"),
    ("Darf ich hier rauchen?", "Darf ich hier nicht rauchen?", "words"),
    ("precios antes de 2010", "precios después de 2010", "words"),
    ("ऊपर जाने का रास्ता", "नीचे जाने का रास्ता", "words"),
    ("他是学生", "他不是学生", "words"),
    ("السعر", "السعرُ", "words"),
    ("Où est la gare ?", "where is the station", "words"),
    ("in Maßen trinken", "in Massen trinken", "words"),
    ("cours de français", "cour de français", "words"),
    ("US visas", "us visas", "words"),
    ("What does the WHO say?", "What does the who say?", "words"),
    ("What is -5?", "What is 5?", "numbers"),
    ("What is 5!", "What is 5?", "numbers"),
    ("10⁵ units", "105 units", "numbers"),
    ("5½ miles", "51/2 miles", "numbers"),
    ("1.5 litres", "15 litres", "numbers"),
    ("on 2024-05-06", "on 2024-06-05", "numbers"),
    ("a 5 Mb link", "a 5 MB link", "words"),
    ("plan of 10MB", "plan of 10GB", "words"),
    ("blood group A-", "blood group A", "words"),
    ("differences of C# and C", "differences of C++ and C", "words"),
    ("is it 😀", "is it 😢", "words"),
    ("a few people came", "few people came", "words"),
    ("a level results", "level results", "words"),
    ("population mean", "meaning of population", "words"),
    ("What requirements are there for people who have cars?", "requirements for people who cars", "words"),
    ("who's car is it", "whose car is it", "words"),
    ("thieves' cant", "thieves can't", "negation"),
    ("", "what is it", "unread"),
    ('laws of "data loss"', 'laws of "data_loss"', "quoted"),
    ("A is a subset of B", "Is a subset of B?", "words"),
    ("vitamins c and a deficiency of dogs", "vitamins c and deficiency of dogs", "words"),
    ("buying guide", "How do I buy a guide?", "words"),
    ("delete key", "How do I delete a key?", "words"),
    ("Smith vs Jones", "Jones vs Smith", "order"),
    ("cost of capital", "capital cost", "words"),
    ("lyrics of Dido, Thank You", "lyrics of Dido", "words"),
    ("good is the enemy of great", "Is the enemy of great?", "words"),
    ("shops of Marks and Spencer", "shops of Mark and Spencer", "words"),
    ("Marks and Spencer shops of Rome", "Mark and Spencer shops of Rome", "words"),
    ("please", "please", "unread"),
    ("Hi, thanks a lot!", "Hi, thanks a lot!", "unread"),
    ("?!", "?!", "unread"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_question_in_other_words(one: str, other: str) -> None:
    assert differs(one, other) is None, (normal_form(one), normal_form(other))
    assert differs(other, one) is None


@pytest.mark.parametrize(("one", "other", "reason"), DIFFERENT)
def test_another_question_in_nearly_the_same_words(one: str, other: str, reason: str) -> None:
    assert differs(one, other) == reason
    assert differs(other, one) == reason


def test_queries_that_are_too_long_are_never_the_same() -> None:
    text = "word " * MAX_CHARACTERS
    assert differs(text, text) == "unread"
    assert differs(text[:MAX_CHARACTERS], text[:MAX_CHARACTERS]) is None


def test_half_a_character_is_read_like_any_other() -> None:
    assert differs("half a \ud83c", "Half a \ud83c?") is None
    assert question_key("half a \ud83c") == question_key("Half a \ud83c?")
    assert differs("half a \ud83c", "half a \ud83d") == "words"


UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
KNOWN = st.sampled_from([text for pair in SAME + [pair[:2] for pair in DIFFERENT] for text in pair])
TEXT = st.text(max_size=80)
SENTENCES = st.lists(
    st.sampled_from(
        """what is the a an of for to in how do does did i you my your can must not who when was are 5 2022 $10 10km
        policy policies "red wine" ERR-4711 V2.1 IT us US please thanks hello Rome from between and vs difference
        don't what's users' may march 9th second -r .5 C++ , ? . there have cost mean vitamin A B""".split()  # noqa: SIM905
    ),
    max_size=14,
).map(" ".join)


@UNHURRIED
@given(TEXT | SENTENCES)
def test_a_query_is_the_same_as_itself(text: str) -> None:
    assert differs(text, text) == (None if normal_form(text) else "unread")


@UNHURRIED
@given(TEXT | SENTENCES, TEXT | SENTENCES)
def test_it_does_not_matter_which_comes_first(one: str, other: str) -> None:
    assert differs(one, other) == differs(other, one)


@UNHURRIED
@given(KNOWN | SENTENCES, KNOWN | SENTENCES)
def test_the_key_is_shared_exactly_where_nothing_differs(one: str, other: str) -> None:
    assume(normal_form(one) and normal_form(other))
    assert (question_key(one) == question_key(other)) == (differs(one, other) is None)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_question_has_one_key(one: str, other: str) -> None:
    assert question_key(one) == question_key(other) is not None


@UNHURRIED
@given(SENTENCES, st.data())
def test_another_digit_is_another_question(text: str, data: st.DataObject) -> None:
    places = [place for place, character in enumerate(text) if character in string.digits]
    assume(places)
    place = data.draw(st.sampled_from(places))
    digit = data.draw(st.sampled_from([digit for digit in string.digits if digit != text[place]]))
    assert differs(text, text[:place] + digit + text[place + 1 :]) is not None


@UNHURRIED
@given(SENTENCES, st.integers(min_value=0, max_value=99_999), st.integers(min_value=0, max_value=99_999))
def test_numbers_are_never_confused(text: str, one: int, other: int) -> None:
    assume(one != other)
    assert differs(f"{text} {one}", f"{text} {other}") is not None


@UNHURRIED
@given(SENTENCES.filter(lambda text: normal_form(text) is not None and '"' not in text))
def test_a_not_in_front_of_the_last_word_makes_another_question(text: str) -> None:
    words = text.split()
    assert differs(text, " ".join([*words[:-1], "not", words[-1]])) is not None
