import inspect

import pytest
from starlette.exceptions import HTTPException

from engine import errors
from serve.errors import ERROR_TABLE, HttpError, envelope, error_response, status_and_type

CASES = [
    (errors.ModelNotFound("no such model"), 404, "invalid_request_error", "model_not_found"),
    (errors.ContextLengthExceeded("too long"), 400, "invalid_request_error", "context_length_exceeded"),
    (errors.UnsupportedInput("an image"), 400, "invalid_request_error", "unsupported_input"),
    (errors.DocumentNotFound("no document"), 404, "invalid_request_error", "document_not_found"),
    (errors.UnsupportedDocument("a.exe", "no"), 415, "invalid_request_error", "unsupported_document"),
    (errors.EncryptedDocument("a.pdf", "no"), 422, "invalid_request_error", "encrypted_document"),
    (errors.ScannedDocument("a.pdf", "no"), 422, "invalid_request_error", "scanned_document"),
    (errors.DamagedDocument("a.pdf", "no"), 422, "invalid_request_error", "damaged_document"),
    (errors.DocumentTooLarge("a.pdf", "no"), 413, "invalid_request_error", "document_too_large"),
    (errors.Overloaded("busy"), 503, "overloaded_error", "overloaded"),
    (errors.FeatureDisabled("off"), 501, "server_error", "feature_disabled"),
    (HttpError(403, "no", code="host_not_allowed"), 403, "invalid_request_error", "host_not_allowed"),
    (HTTPException(404), 404, "invalid_request_error", "not_found"),
    (HTTPException(405), 405, "invalid_request_error", "method_not_allowed"),
    (ZeroDivisionError("secret"), 500, "server_error", "internal_error"),
]


@pytest.mark.parametrize(("error", "status", "kind", "code"), CASES, ids=lambda case: type(case).__name__)
def test_each_error_has_its_status_type_and_code(error, status, kind, code):
    assert status_and_type(error) == (status, kind)
    body = envelope(error)["error"]
    assert (body["type"], body["code"]) == (kind, code)
    assert set(body) == {"message", "type", "param", "code"}


def test_no_error_of_the_engine_falls_through_to_the_last_row():
    leaves = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if not kind.__subclasses__()]
    assert len(leaves) > 10
    missing = [kind for kind in leaves if not set(kind.__mro__[:-4]) & set(ERROR_TABLE)]
    assert missing == []


def test_what_an_unknown_error_says_stays_in_the_log():
    assert "secret" not in str(envelope(ZeroDivisionError("secret"), request_id="req_1"))
    assert "req_1" in str(envelope(ZeroDivisionError("secret"), request_id="req_1"))


def test_headers_of_an_http_exception_are_kept():
    assert error_response(HTTPException(405, headers={"Allow": "GET"})).headers["allow"] == "GET"
