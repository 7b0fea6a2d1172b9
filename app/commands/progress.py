"""Progress bar on terminals; one final line in logs."""

import sys
import time
from typing import TextIO

WIDTH = 40
REDRAW_SECONDS = 0.1


class Progress:
    """Shows transferred bytes, the share of `total` if it is known, and the rate."""

    def __init__(self, what: str, total: int | None, out: TextIO = sys.stderr) -> None:
        self._what, self._total, self._out = what, total, out
        self._count = 0
        self._start = self._drawn = time.monotonic()

    def advance(self, count: int) -> None:
        """Add `count` bytes."""
        self._count += count
        now = time.monotonic()
        if self._out.isatty() and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._out.write(f"\r{self._line()}")
            self._out.flush()

    def end(self) -> None:
        """Print the final line."""
        self._out.write(f"\r{self._line()}\n" if self._out.isatty() else f"{self._line()}\n")
        self._out.flush()

    def _line(self) -> str:
        seconds = max(time.monotonic() - self._start, 0.001)
        speed = f"{mib(self._count)} MiB, {self._count / seconds / (1 << 20):.0f} MiB/s"
        if not self._total:
            return f"{self._what}  {speed}"
        share = min(1.0, self._count / self._total)
        bar = "█" * round(share * WIDTH) + "░" * (WIDTH - round(share * WIDTH))
        return f"{self._what}  {bar} {share:4.0%}  {speed}"


def mib(count: int) -> str:
    """Format bytes in MiB, with one decimal below 100 MiB."""
    return f"{count / (1 << 20):.1f}" if count < 100 << 20 else f"{count / (1 << 20):.0f}"
