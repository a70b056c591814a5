"""origin.py: what the examples ask in place of a database: slow, and every call counted in a file, of
any number of processes together."""

import asyncio
import os


class Origin:
    """SHOP_ORIGIN_LOG: the file, a line a call; SHOP_ORIGIN_DELAY: seconds that an answer takes."""

    def __init__(self) -> None:
        self.file = os.environ.get("SHOP_ORIGIN_LOG")
        self.delay = float(os.environ.get("SHOP_ORIGIN_DELAY", "0.02"))

    def note(self, what: str) -> None:
        if self.file:
            with open(self.file, "a") as log:
                log.write(f"{what} {os.getpid()}\n")

    async def ask(self, what: str) -> None:
        self.note(what)
        await asyncio.sleep(self.delay)
