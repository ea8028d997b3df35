"""Errors name arguments as the user knows them."""

import pickle

import pytest

from yolo_core.errors import BadArgument, BadFile, UserError, advised, known_as


def test_an_argument_is_named_as_the_user_knows_it():
    with pytest.raises(UserError, match=r"^train\.size = 100: must be a multiple of 32$"), known_as(size="train.size"):
        raise BadArgument("size", "= 100: must be a multiple of 32")


def test_the_innermost_name_stays():
    with pytest.raises(BadArgument) as caught, known_as(size="outer"), known_as(size="--size"):
        raise BadArgument("size", "= 1: too small")
    assert caught.value.argument == "--size"


def test_other_arguments_and_other_errors_pass():
    with pytest.raises(BadArgument, match=r"^batch = 3: odd$"), known_as(size="train.size"):
        raise BadArgument("batch", "= 3: odd")
    with pytest.raises(UserError, match=r"^size: plain$"), known_as(size="train.size"):
        raise UserError("size: plain")


def test_advice_ends_the_message_of_a_bad_file_alone():
    with pytest.raises(BadFile, match=r"^a\.json: cut short; make it again$"), advised("make it again"):
        raise BadFile("a.json: cut short")
    with pytest.raises(BadFile, match=r"^a\.json: cut short$"), advised(""):
        raise BadFile("a.json: cut short")
    with pytest.raises(UserError, match=r"^a\.json: not mine$"), advised("make it again"):
        raise UserError("a.json: not mine")


def test_errors_travel_between_processes():
    for error in (BadArgument("size", "= 1: odd"), BadFile("a.json: cut short")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))
