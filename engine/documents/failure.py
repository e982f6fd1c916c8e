"""The reasons why a file cannot be read, as the reading process reports them to its parent."""


class Unreadable(Exception):
    """Why one file is refused; `kind` is the name of a class in `engine.errors` under DocumentError."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


def damaged(reason: str) -> Unreadable:
    return Unreadable("DamagedDocument", reason)


def too_large(reason: str) -> Unreadable:
    return Unreadable("DocumentTooLarge", reason)


def unsupported(reason: str) -> Unreadable:
    return Unreadable("UnsupportedDocument", reason)


def encrypted(reason: str) -> Unreadable:
    return Unreadable("EncryptedDocument", reason)


def scanned(reason: str) -> Unreadable:
    return Unreadable("ScannedDocument", reason)
