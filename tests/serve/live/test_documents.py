"""Documents and questions over HTTP."""

import pytest

PAGE = b"""<!doctype html><html><head><title>Lighthouse</title><script>ignored()</script></head><body>
<h1>The lighthouse of Veyra</h1>
<p>The lighthouse of Veyra was built in 1874 by the engineer Ilse Brandt.</p>
<p>Its lamp burns whale oil and can be seen from thirty kilometres away.</p>
</body></html>"""


@pytest.fixture
def document(http):
    answer = http.post("/v1/documents", files={"file": ("veyra.html", PAGE, "text/html")})
    assert answer.status_code == 200, answer.text
    yield answer.json()
    http.delete(f"/v1/documents/{answer.json()['id']}")


def test_an_upload_answers_with_id_name_pages_and_status(http, document):
    assert document.items() >= {"name": "veyra.html", "pages": 1, "status": "ready"}.items()
    assert http.get(f"/v1/documents/{document['id']}").json() == document
    assert document in http.get("/v1/documents").json()["data"]


def test_the_same_file_twice_is_one_document(http, document):
    again = http.post("/v1/documents", files={"file": ("veyra.html", PAGE)}).json()
    assert again["id"] == document["id"]


def test_an_answer_cites_a_page_on_which_its_quote_occurs(http, document):
    answer = http.post("/v1/ask", json={"question": "Who built the lighthouse of Veyra?"}).json()
    assert answer["answered"] is True
    assert set(answer) == {
        "question",
        "answered",
        "answer",
        "kind",
        "extractive",
        "generated",
        "citations",
    }
    best = answer["citations"][0]
    page = http.get(f"/v1/documents/{document['id']}/pages/{best['page']}").json()["text"]
    assert best["document"] == "veyra.html"
    assert page[best["start"] : best["end"]] == best["quote"]
    assert "Ilse Brandt" in best["quote"]


def test_what_is_not_in_the_documents_is_not_answered(http, document):
    body = {"question": "What is the boiling point of tungsten?", "generate": False}
    answer = http.post("/v1/ask", json=body).json()
    assert (answer["answered"], answer["citations"]) == (False, [])


def test_a_question_can_be_put_to_some_documents_only(http, document):
    soup = {"file": ("soup.md", b"# Soup\n\nBoil leeks for an hour.\n")}
    other = http.post("/v1/documents", files=soup).json()
    body = {"question": "Who built the lighthouse?", "document_ids": [other["id"]], "generate": False}
    assert http.post("/v1/ask", json=body).json()["answered"] is False
    missing = http.post("/v1/ask", json=body | {"document_ids": ["doc-unknown"]})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "document_not_found")
    assert http.delete(f"/v1/documents/{other['id']}").json() == {"id": other["id"], "deleted": True}
    assert http.get(f"/v1/documents/{other['id']}").status_code == 404


@pytest.mark.parametrize(
    ("name", "data", "status", "code"),
    [
        ("a.bin", bytes(range(256)) * 8, 415, "unsupported_document"),
        ("empty.pdf", b"", 422, "damaged_document"),
        ("cut.pdf", b"%PDF-1.7\n1 0 obj\n<<", 422, "damaged_document"),
        ("large.txt", b"x" * (2**21 + 2**16), 413, "request_too_large"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_one_line(http, name, data, status, code):
    answer = http.post("/v1/documents", files={"file": (name, data)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "\n" not in answer.json()["error"]["message"]
    assert all(record["name"] != name for record in http.get("/v1/documents").json()["data"])


@pytest.mark.parametrize(
    ("given", "kept"), [("../../etc/passwd.txt", "passwd.txt"), ("C:\\docs\\note.txt", "note.txt")]
)
def test_a_path_in_the_file_name_is_dropped(http, given, kept):
    record = http.post("/v1/documents", files={"file": (given, b"The note says that tea is ready.")}).json()
    assert record["name"] == kept
    http.delete(f"/v1/documents/{record['id']}")


def test_a_broken_form_is_400(http):
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = http.post("/v1/documents", content=b"--x\r\nno headers here", headers=headers)
    assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_a_form_without_the_part_named_file_is_400(http):
    answer = http.post("/v1/documents", files={"other": ("a.txt", b"x")})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
