"""Token ids to text as they arrive, a whole character at a time."""

import codecs
from collections.abc import Callable, Collection


class Detokenizer:
    """Turns the bytes of one stream of tokens into text that is valid UTF-8 at every step.

    Bytes of an unfinished character are held back until it ends; bytes that cannot be UTF-8 become
    U+FFFD as soon as that is certain. Tokens in `skip` (control tokens) add nothing.

    >>> detokenizer = Detokenizer(tokenizer.token_bytes, tokenizer.special_ids)
    >>> [detokenizer.push(token) for token in tokenizer.encode("🙂")]
    ['', '🙂']
    """

    def __init__(self, token_bytes: Callable[[int], bytes], skip: Collection[int] = ()) -> None:
        self._token_bytes = token_bytes
        self._skip = skip
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The characters that `token_id` completes, possibly none."""
        return "" if token_id in self._skip else self._decoder.decode(self._token_bytes(token_id))

    def flush(self) -> str:
        """What is left at the end of the stream: U+FFFD for an unfinished character, else nothing."""
        return self._decoder.decode(b"", final=True)
