"""Every error a caller of Tarsia may see. One tree; `serve.errors` maps it to HTTP once.

TarsiaError
├── ModelError
│   ├── ModelNotFound           no such alias or folder; says which command brings it
│   ├── UnsupportedModel        an architecture or tensor type we cannot run; names what we can
│   └── BadCheckpoint           damaged, truncated or lying weights, config or tokenizer
├── RequestError                the caller's input; `param` names the field
│   ├── InvalidRequest
│   ├── ContextLengthExceeded   prompt + max_tokens does not fit the model's context
│   ├── DocumentNotFound
│   ├── ImageNotFound
│   └── UnsupportedInput        well-formed, but not for this model (an image to a text model)
├── FileError                   a file that cannot be read; `file` names it
│   ├── DocumentError
│   │   ├── UnsupportedDocument     neither PDF, HTML nor text
│   │   ├── EncryptedDocument       needs a password
│   │   ├── ScannedDocument         pages are pictures: no text to index
│   │   ├── DamagedDocument         truncated, empty or malformed
│   │   └── DocumentTooLarge        over a limit: bytes, pages, time or memory
│   └── ImageError
│       ├── UnsupportedImage        not one of the formats that are read
│       ├── DamagedImage            truncated, empty or malformed
│       └── ImageTooLarge           over a limit: bytes, pixels, time or memory
├── Overloaded                  queue full or deadline passed; `retry_after` in seconds
├── Cancelled                   the caller left
├── FeatureDisabled             a part that is switched off or not installed
└── stores.errors.StoreError    (defined in `stores`)
"""


class TarsiaError(Exception):
    """Base of every error with a message fit for a user: one line, what is wrong and what to do."""

    code = "error"


class ModelError(TarsiaError):
    code = "model_error"


class ModelNotFound(ModelError):
    code = "model_not_found"


class UnsupportedModel(ModelError):
    code = "unsupported_model"


class BadCheckpoint(ModelError):
    code = "bad_checkpoint"


class RequestError(TarsiaError):
    """Raised for what the caller sent; `param` is the field's name, or None for the whole request."""

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidRequest(RequestError):
    code = "invalid_value"


class ContextLengthExceeded(RequestError):
    code = "context_length_exceeded"


class UnsupportedInput(RequestError):
    code = "unsupported_input"


class DocumentNotFound(RequestError):
    code = "document_not_found"


class ImageNotFound(RequestError):
    code = "image_not_found"


class FileError(TarsiaError):
    """Raised for one file; `file` is the name the caller gave it, also the start of the message.

    `param` is the field of a request that held it, where one did.
    """

    code = "file_error"
    param: str | None = None

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason

    def __reduce__(self) -> tuple[type["FileError"], tuple[str, str]]:
        return type(self), (self.file, self.reason)


class DocumentError(FileError):
    code = "document_error"


class UnsupportedDocument(DocumentError):
    code = "unsupported_document"


class EncryptedDocument(DocumentError):
    code = "encrypted_document"


class ScannedDocument(DocumentError):
    code = "scanned_document"


class DamagedDocument(DocumentError):
    code = "damaged_document"


class DocumentTooLarge(DocumentError):
    code = "document_too_large"


class ImageError(FileError):
    code = "image_error"


class UnsupportedImage(ImageError):
    code = "unsupported_image"


class DamagedImage(ImageError):
    code = "damaged_image"


class ImageTooLarge(ImageError):
    code = "image_too_large"


class Overloaded(TarsiaError):
    code = "overloaded"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Cancelled(TarsiaError):
    code = "cancelled"


class FeatureDisabled(TarsiaError):
    code = "feature_disabled"
