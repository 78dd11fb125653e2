"""Lists, one page at a time."""

from typing import Generic, Literal, TypeVar

from schemas.base import Resource

Item = TypeVar("Item")


class Page(Resource, Generic[Item]):
    """`?limit=20&after=ID` gives the next one."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool = False
    last_id: str | None = None
