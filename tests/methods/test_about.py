"""Making methods from their names, as the command line does, and what is told of them."""

from typing import Literal

import pytest

import cutback
from cutback.errors import UnknownName, UserMistake
from cutback.methods import About, Method, Setting, describe, make_method, methods
from tests.helpers import chain, image


class Told(Method):
    """Does nothing but remember what it is given.

    Args:
        graph: the model.
        rate: how fast:
            very.
        often: how often.

    Raises:
        UserMistake: never.
    """

    about = About("None", "Nobody et al.", 2020, "nowhere", cuts=False, budget="none", needs=("loader",))
    finished = True

    def __init__(
        self,
        graph,
        *,
        optimizers=(),
        loader: list[int],
        rate: float,
        often: int = 3,
        plain: bool = False,
        word: str = "x",
        kind: Literal["a", "b"] = "a",
        perhaps: int | None = None,
        called: dict[str, int] | None = None,
    ) -> None:
        super().__init__(graph, optimizers=optimizers)
        self.given = {"loader": loader, "rate": rate, "often": often, "plain": plain, "word": word}
        self.given |= {"kind": kind, "perhaps": perhaps, "called": called}


@pytest.fixture(autouse=True)
def told(monkeypatch):
    list(methods)  # filled
    monkeypatch.setitem(methods._entries, "told", Told)


@pytest.fixture(scope="module")
def graph():
    return cutback.trace(chain((4,)), image())


def test_settings_are_the_keyword_arguments_that_can_be_written():
    assert describe("told").settings == (
        Setting("rate", "float", None, required=True, meaning="how fast: very."),
        Setting("often", "int", 3, required=False, meaning="how often."),
        Setting("plain", "bool", False, required=False),
        Setting("word", "str", "x", required=False),
        Setting("kind", "Literal['a', 'b']", "a", required=False),
        Setting("perhaps", "int | None", None, required=False),
    )


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [
        ("often", "7", 7),
        ("plain", "yes", True),
        ("plain", "false", False),
        ("word", "7", "7"),
        ("kind", "b", "b"),
        ("perhaps", "none", None),
        ("perhaps", "4", 4),
        ("rate", "1e-3", 1e-3),
        ("often", 9, 9),
    ],
)
def test_text_is_read_as_the_type_of_the_setting(graph, setting, text, value):
    made = make_method("told", graph, settings={"rate": "1", setting: text}, given={"loader": [1]})
    assert made.given[setting] == value
    assert type(made.given[setting]) is type(value)


@pytest.mark.parametrize(
    ("settings", "given", "kind", "message"),
    [
        ({"rate": "1", "oftn": "2"}, {"loader": [1]}, UnknownName, "no setting called 'oftn'; did you mean 'often'"),
        ({"rate": "1", "called": "2"}, {"loader": [1]}, UnknownName, "no setting called 'called'"),
        (
            {"rate": "fast"},
            {"loader": [1]},
            UserMistake,
            "rate of method 'told' is 'fast'; write a value of type float",
        ),
        ({}, {"loader": [1]}, UserMistake, "'told' needs rate"),
        ({"rate": "1"}, {"loader": None}, UserMistake, "'told' needs loader"),
        ({"rate": "1"}, {"loader": [1], "budget": "macs=50%"}, UserMistake, "'told' takes no budget"),
    ],
)
def test_mistakes_are_told(graph, settings, given, kind, message):
    with pytest.raises(kind, match=message):
        make_method("told", graph, settings=settings, given=given)


def test_what_a_method_does_not_take_is_left_out(graph):
    made = make_method("told", graph, settings={"rate": "1"}, given={"loader": [1], "evaluate": len, "loss": len})
    assert made.given["loader"] == [1]


def test_an_unknown_method_lists_near_ones():
    with pytest.raises(UnknownName, match="no method is called 'tol'; did you mean 'told'"):
        describe("tol")
