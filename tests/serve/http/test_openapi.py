import json

from starlette.routing import Route

from serve.http.openapi import describe
from serve.routes import ask, chat, completions, documents, embeddings, models

GROUPS = (ask, chat, completions, documents, embeddings, models)
DOCUMENT = describe([route for group in GROUPS for route in group.ROUTES], version="1")


def test_every_route_and_method_is_described():
    paths = DOCUMENT["paths"]
    assert set(paths["/v1/documents/{id}"]) == {"get", "delete"}
    assert set(paths["/v1/documents"]) == {"get", "post"}
    assert "/v1/models/{id}" in paths
    page = paths["/v1/documents/{id}/pages/{page}"]["get"]["parameters"]
    assert [(one["name"], one["schema"]["type"]) for one in page] == [("id", "string"), ("page", "integer")]
    assert all(one["summary"] for path in paths.values() for one in path.values())


def test_bodies_point_at_schemas_that_are_there():
    text = json.dumps(DOCUMENT)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert {"ChatRequest", "EmbeddingRequest", "AskRequest", "CompletionRequest", "Error"} <= names
    assert names <= set(DOCUMENT["components"]["schemas"])


def test_an_upload_is_described_as_multipart():
    content = DOCUMENT["paths"]["/v1/documents"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data"}
    assert "requestBody" not in DOCUMENT["paths"]["/v1/documents"]["get"]


def test_hidden_routes_are_left_out():
    hidden = Route("/secret", lambda request: None, include_in_schema=False)
    assert describe([hidden], version="1")["paths"] == {}
