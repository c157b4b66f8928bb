from core.errors import ECHOED, UserError, shown


def test_an_error_is_one_line_of_where_what_and_how() -> None:
    assert str(UserError("is empty", where="a.json", how="draw some data")) == "a.json: is empty; draw some data"
    assert str(UserError("is empty")) == "is empty"


def test_an_error_stays_one_line_whatever_it_names() -> None:
    assert str(UserError("a\nb", where="c\x1b[0m\ud800ü")) == "c\\x1b[0m\\ud800ü: a\\nb"


def test_a_long_value_is_shown_without_its_middle() -> None:
    text = shown("begin" + "x" * 1000 + "end")
    assert (text[:5], text[-3:], len(text)) == ("begin", "end", ECHOED)
    nested: list[object] = []
    for _ in range(900):
        nested = [nested]
    assert len(shown(nested)) < ECHOED
    assert shown([True, "a\n"]) == "[True, 'a\\n']"
