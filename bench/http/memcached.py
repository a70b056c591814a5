"""memcached.py: as much of memcached's text protocol as the benchmark needs, in an asyncio loop.

Debian 12 has clients for blocking code only (pymemcache, python-memcached, bmemcached). This one does less
than any of them, so what it costs is the least that memcached costs from a loop.
"""

import asyncio
from typing import List, Optional, Tuple

Connection = Tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    """Connections are made when all are busy, and kept; one that failed is closed."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._idle: List[Connection] = []

    async def get(self, key: bytes) -> Optional[bytes]:
        """The value, or None."""
        connection = reader, writer = await self._take()
        try:
            writer.write(b"get %b\r\n" % key)
            line = await reader.readline()
            value = None
            if line.startswith(b"VALUE "):
                value = (await reader.readexactly(int(line.split()[3]) + 2))[:-2]
                line = await reader.readline()
            if line != b"END\r\n":
                raise ConnectionError(f"memcached: {line!r}")
        except BaseException:
            writer.close()
            raise
        self._idle.append(connection)
        return value

    async def set(self, key: bytes, value: bytes, seconds: int) -> None:
        connection = reader, writer = await self._take()
        try:
            writer.write(b"set %b 0 %d %d\r\n%b\r\n" % (key, seconds, len(value), value))
            line = await reader.readline()
            if line != b"STORED\r\n":
                raise ConnectionError(f"memcached: {line!r}")
        except BaseException:
            writer.close()
            raise
        self._idle.append(connection)

    async def _take(self) -> Connection:
        if self._idle:
            return self._idle.pop()
        return await asyncio.open_connection(*self._address, limit=1 << 20)
