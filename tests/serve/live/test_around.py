"""What surrounds the API: probes, the first page, the description, the access log, the short paths."""

import re

import pytest


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_probes_answer(http, path):
    assert http.get(path).status_code == 200


def test_the_first_page_and_its_files_are_served(http):
    assert "Tarsia" in http.get("/").text
    assert http.get("/favicon.ico").headers["content-type"] == "image/svg+xml"


def test_every_described_path_exists(http):
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        answer = http.request("PATCH", re.sub(r"{page}", "1", path).format(id="x"))
        assert answer.status_code == 405, path
        assert {method.upper() for method in methods} <= {"GET", "POST", "DELETE"}


def test_paths_work_without_the_prefix(http):
    assert http.get("/models").json() == http.get("/v1/models").json()
    assert http.post("/embeddings", json={"input": "a"}).json()["data"][0]["index"] == 0


def test_requests_are_logged_with_their_status_and_without_secrets(http, server):
    http.get("/v1/models?api_key=hunter2", headers={"authorization": "Bearer hunter3"})
    # The line is written after the response; the next request of the connection is begun after that.
    http.get("/livez")
    line = r'127\.0\.0\.1 - - \[.*\] "GET /v1/models\?api_key=\*\*\* HTTP/1.1" 200 \d+'
    assert re.search(line, server.log())
    assert "hunter" not in server.log()


def test_metrics_tell_about_requests_stages_slots_and_documents(http):
    http.get("/v1/models")
    text = http.get("/metrics").text
    for name in ("http_requests_total", "stage_duration_seconds", "chat_slots_total", "documents"):
        assert f"tarsia_{name}" in text


def test_metrics_tell_of_blocks_prefixes_preemptions_and_guesses(http, client):
    for question in ("Hello there.", "Hello again."):
        system = "You are a patient teacher of the history of lighthouses. " * 12
        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        client.chat.completions.create(model="smollm2-135m-instruct", messages=messages, max_tokens=2)
    lines = http.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("tarsia_chat_"))
    assert float(values["tarsia_chat_blocks_total"]) > float(values["tarsia_chat_blocks_cached"]) > 0
    assert float(values["tarsia_chat_prefix_hit_tokens"]) >= 64
    for name in ("blocks_held", "preemptions", "drafted_tokens", "accepted_tokens"):
        assert float(values[f"tarsia_chat_{name}"]) >= 0
