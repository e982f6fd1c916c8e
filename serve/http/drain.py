"""The order to finish: known to the readiness probe, to new requests and to running streams."""

from collections.abc import Callable

__all__ = ["Drain"]


class Drain:
    """First `start` (no new work), later `expire` (running work has to end now). Event loop only.

    The server decides when; this object only tells. `on_expire` gives a function that unsubscribes.
    """

    def __init__(self) -> None:
        self.started = False
        self.expired = False
        self._callbacks: dict[object, Callable[[], None]] = {}

    def start(self) -> None:
        self.started = True

    def expire(self) -> None:
        self.started = self.expired = True
        for callback in list(self._callbacks.values()):
            callback()

    def on_expire(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back at the deadline, at once if it has passed."""
        key = object()
        self._callbacks[key] = callback
        if self.expired:
            callback()

        def unsubscribe() -> None:
            self._callbacks.pop(key, None)

        return unsubscribe
