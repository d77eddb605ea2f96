"""Names that are given out once."""

from __future__ import annotations


class Names:
    """Hands out unique names: `name`, then `name_1`, `name_2`, ..."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}

    def unique(self, name: str) -> str:
        """`name` itself the first time, with the next free number after that."""
        count = self._count.get(name, 0)
        self._count[name] = count + 1
        return name if not count else self.unique(f"{name}_{count}")
