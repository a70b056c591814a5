"""What a fill may return beside bytes and None."""

from typing import Any


class Filled:
    """A value with a policy of its own: Filled(value, ttl=60, tags=["news"]).

    value None is a negative entry: the origin has none.
    """

    __slots__ = ("value", "policy")

    def __init__(self, value: Any, **policy: Any) -> None:
        self.value = value
        self.policy = policy


class Skip:
    """A value for this caller that is not for the cache."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value
