from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serve.http.drain import Drain
from serve.http.middleware.error_envelope import ErrorEnvelope
from serve.http.middleware.refuse_when_draining import RefuseWhenDraining


def test_new_work_is_refused_and_probes_are_answered_once_the_drain_began():
    drain = Drain()
    paths = [Route(path, lambda request: PlainTextResponse("in")) for path in ("/v1/models", "/readyz")]
    client = TestClient(ErrorEnvelope(RefuseWhenDraining(Starlette(routes=paths), drain)))
    assert client.get("/v1/models").status_code == 200
    drain.start()
    refused = client.get("/v1/models")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert client.get("/readyz").text == "in"


def test_callbacks_run_once_at_the_deadline_and_at_once_after_it():
    drain, called = Drain(), []
    forget = drain.on_expire(lambda: called.append("forgotten"))
    drain.on_expire(lambda: called.append("running"))
    forget()
    assert called == []
    drain.expire()
    drain.on_expire(lambda: called.append("late"))
    assert called == ["running", "late"]
