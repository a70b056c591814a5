"""larder.Map: the extension's Map with scans and the asyncio form."""

from typing import Any, Iterator, Optional, Tuple, Union

from . import _larder

Bytes = Union[bytes, bytearray, memoryview, str]

_PAGE = 256  # keys a step of a scan


class Map(_larder.Map):
    __doc__ = _larder.Map.__doc__

    def keys(self, prefix: Bytes = b"", *, match: Optional[Bytes] = None) -> Iterator[bytes]:
        """The live keys that begin with prefix, or match a glob, in the order of their bytes.

        Each step is a snapshot of its own; what is written meanwhile may or may not be met.
        """
        yield from self._scan(prefix, match, False)

    def items(
        self, prefix: Bytes = b"", *, match: Optional[Bytes] = None
    ) -> Iterator[Tuple[bytes, bytes]]:
        """The same with their values."""
        yield from self._scan(prefix, match, True)

    def _scan(self, prefix: Bytes, match: Optional[Bytes], values: bool) -> Iterator[Any]:
        cursor = None
        while True:
            page, cursor = self._scan_page(
                prefix if match is None else match, match is not None, values, cursor, _PAGE
            )
            yield from page
            if cursor is None:
                return
