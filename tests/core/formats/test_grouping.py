import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.formats.grouping import Grouping, group_name


@pytest.mark.parametrize(
    ("option", "group"),
    [("folder:1", "train"), ("folder:2", "0839"), ("folder:-1", "0839"), ("folder:3", None), ("column:scene", "a_b"),
     ("column:gone", None), ("column:number", "7")],
)  # fmt: skip
def test_a_group_is_a_folder_or_the_value_of_a_column(option: str, group: str | None) -> None:
    fields = {"scene": " a/b ", "number": 7, "nothing": None}
    assert Grouping.parse(option).group_of("train/0839/x.jpg", fields) == group


@pytest.mark.parametrize("option", ["", "folder:0", "folder:x", "column:", "building", "folder:"])
def test_any_other_option_is_one_line(option: str) -> None:
    with pytest.raises(UserError, match=r"is no grouping; write none, column:NAME or folder:N"):
        Grouping.parse(option)


@given(st.text() | st.integers() | st.floats(allow_nan=False))
def test_a_group_is_always_the_first_part_of_an_id(value: object) -> None:
    name = group_name(value)
    assert name is None or ("/" not in name and name.strip() == name not in ("", ".", ".."))
