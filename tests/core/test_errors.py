from core.errors import UserError


def test_an_error_is_one_line_of_where_what_and_how() -> None:
    assert str(UserError("is empty", where="a.json", how="draw some data")) == "a.json: is empty; draw some data"
    assert str(UserError("is empty")) == "is empty"
