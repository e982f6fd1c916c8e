"""Images over the wire, by a real runtime with the model that ships."""

import base64
import io
import json
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from engine import Engine
from serve.app import create_app
from serve.config import Settings
from serve.routes.images import MAX_IMAGES
from serve.runtime import Runtime
from tests.engine.vision.conftest import SAMPLE
from tests.engine.vision.odd_files import bomb, encoded
from tests.engine.vision.tiny_clip import clip_folder


@pytest.fixture(scope="module")
def client(minilm_path) -> Iterator[TestClient]:
    settings = Settings(max_upload_bytes=3 << 20, max_body_bytes=1 << 16, max_image_pixels=1_000_000)
    runtime = Runtime.ephemeral(settings, with_chat=False)
    yield TestClient(create_app(runtime, settings), base_url="http://localhost:8080")
    runtime.close()


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return [
        encoded(Image.fromarray(piece).resize((56, 56)), "PNG") for piece in np.load(SAMPLE)["images"][:4]
    ]


def url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def test_json_and_files_give_the_engines_labels(client, files):
    expected = Engine.load("vit-fashion").classify(files, top_k=2)
    as_json = client.post("/v1/images/classify", json={"images": [*map(url, files)], "top_k": 2})
    parts = [("file", (f"{n}.png", data)) for n, data in enumerate(files)]
    as_form = client.post("/images/classify", files=parts, data={"top_k": "2"})
    assert as_json.status_code == as_form.status_code == 200, (as_json.text, as_form.text)
    assert as_json.json() == as_form.json()
    reply = as_json.json()
    assert (reply["model"], reply["usage"]) == ("vit-fashion", {"images": 4})
    for index, (item, wanted) in enumerate(zip(reply["data"], expected, strict=True)):
        assert item["index"] == index
        assert [each["label"] for each in item["labels"]] == [each.label for each in wanted]
        assert [each["probability"] for each in item["labels"]] == pytest.approx(
            [each.probability for each in wanted], abs=1e-5
        )


def test_vectors_come_in_the_shape_of_embeddings(client, files):
    expected = Engine.load("vit-fashion").embed(files)
    images = [*map(url, files)]
    floats = client.post("/v1/images/embed", json={"images": images}).json()
    packed = client.post("/v1/images/embed", json={"images": images, "encoding_format": "base64"}).json()
    assert floats["model"] == "vit-fashion" and [item["index"] for item in floats["data"]] == [0, 1, 2, 3]
    np.testing.assert_allclose([item["embedding"] for item in floats["data"]], expected, atol=1e-5)
    vectors = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in packed["data"]]
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize("method", ["saliency", "attention_rollout"])
def test_a_map_comes_as_json_or_as_a_picture(client, files, method):
    body = {"images": [url(files[0])], "method": method, "return_values": True}
    reply = client.post("/v1/images/saliency", json=body).json()
    assert (reply["object"], reply["method"], reply["height"], reply["width"]) == ("saliency", method, 56, 56)
    assert reply["label"] == ("ankle boot" if method == "saliency" else None)
    values = np.frombuffer(base64.b64decode(reply["values"]), "<f4").reshape(56, 56)
    assert values.min() >= 0 and values.max() == pytest.approx(1)
    picture = client.post("/v1/images/saliency", json=body, headers={"accept": "image/png"})
    assert picture.headers["content-type"] == "image/png"
    assert url(picture.content) == reply["overlay"]
    assert Image.open(io.BytesIO(picture.content)).size == (56, 56)


def test_uploads_may_be_larger_than_other_bodies(client):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8))
    reply = client.post("/v1/images/classify", files={"file": ("noise.png", encoded(noise, "PNG"))})
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    ("image", "status", "code", "words"),
    [
        (url(b"hello"), 415, "unsupported_image", "images[1]: is text"),
        (url(b"\x89PNG\r\n\x1a\n"), 422, "damaged_image", "images[1]: is damaged"),
        (url(bomb(1200)), 413, "image_too_large", "images[1]: is 1,200 x 1,200 pixels"),
        ("https://example.com/a.png", 400, "invalid_value", "not fetched"),
        ("file:///etc/passwd", 400, "invalid_value", "not fetched"),
        ("/etc/passwd", 400, "invalid_value", "base64"),
        ("data:image/png,abc", 400, "invalid_value", "base64"),
        ("", 422, "damaged_image", "is empty"),
    ],
)
def test_an_image_that_cannot_be_read_is_an_error_that_names_it(client, files, image, status, code, words):
    for path in ("classify", "embed"):
        reply = client.post(f"/v1/images/{path}", json={"images": [url(files[0]), image]})
        error = reply.json()["error"]
        assert (reply.status_code, error["code"], error["param"]) == (status, code, "images[1]"), error
        assert words in error["message"]


def test_a_file_that_cannot_be_read_is_named_as_it_was_sent(client):
    reply = client.post("/v1/images/classify", files={"file": ("notes.png", b"Dear all")})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (415, "file") and error["message"].startswith("notes.png: ")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("classify", {"images": []}, "images"),
        ("classify", {}, "images"),
        ("classify", {"images": ["aGk="] * (MAX_IMAGES + 1)}, "images"),
        ("classify", {"images": ["aGk="], "top_k": 0}, "top_k"),
        ("classify", {"images": [3]}, "images[0]"),
        ("embed", {"images": ["aGk="], "encoding_format": "hex"}, "encoding_format"),
        ("saliency", {"images": ["aGk="], "method": "guess"}, "method"),
        ("saliency", {"images": ["aGk=", "aGk="]}, "images"),
        ("classify", {"images": ["aGk="], "model": "all-minilm-l6-v2"}, "model"),
    ],
)
def test_other_mistakes_are_named_by_field(client, path, body, param):
    reply = client.post(f"/v1/images/{path}", json=body)
    assert reply.status_code == 400 and reply.json()["error"]["param"] == param, reply.text


def test_a_form_without_files_or_with_wrong_fields_is_refused(client, files):
    none = client.post("/v1/images/classify", files={"other": ("a.png", files[0])})
    wrong = client.post("/v1/images/classify", files={"file": ("a.png", files[0])}, data={"top_k": "many"})
    assert (none.status_code, none.json()["error"]["param"]) == (400, "images")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "top_k")


def test_the_model_is_listed_and_named_in_errors(client, files):
    listed = {item["id"]: item["kind"] for item in client.get("/v1/models").json()["data"]}
    assert listed["vit-fashion"] == "vision"
    unknown = client.post("/v1/images/classify", json={"images": [url(files[0])], "model": "resnet"})
    assert unknown.status_code == 404
    text = client.post("/v1/embeddings", json={"input": "a", "model": "vit-fashion"})
    assert text.status_code == 400 and "reads no texts" in text.json()["error"]["message"]


def test_the_description_of_the_api_has_the_routes_and_their_fields(client):
    described = client.get("/openapi.json").json()
    assert {"/v1/images/classify", "/v1/images/embed", "/v1/images/saliency"} <= set(described["paths"])
    assert "top_k" in json.dumps(described["components"]["schemas"]["ClassifyRequest"])


@pytest.fixture(scope="module")
def with_clip(minilm_path, tmp_path_factory) -> Iterator[TestClient]:
    folder = clip_folder(tmp_path_factory.mktemp("models") / "tiny-clip")
    settings = Settings(vision_model=str(folder))
    runtime = Runtime.ephemeral(settings, with_chat=False)
    yield TestClient(create_app(runtime, settings), base_url="http://localhost:8080")
    runtime.close()


def test_a_clip_model_chooses_among_any_labels(with_clip, files):
    body = {"images": [url(files[0])], "labels": ["w3", "w4 w5", "w6"], "template": "w1 {}"}
    as_json = with_clip.post("/v1/images/classify", json=body)
    form = {"labels": body["labels"], "template": body["template"]}
    as_form = with_clip.post("/v1/images/classify", files={"file": ("a.png", files[0])}, data=form)
    assert as_json.status_code == 200 and as_json.json() == as_form.json()
    [item] = as_json.json()["data"]
    assert {each["label"] for each in item["labels"]} == set(body["labels"])
    assert sum(each["probability"] for each in item["labels"]) == pytest.approx(1, abs=1e-5)


def test_embeddings_of_images_and_texts_lie_in_one_space(with_clip, files):
    image, text = {"type": "image_url", "image_url": {"url": url(files[0])}}, {"type": "text", "text": "w3"}
    reply = with_clip.post("/v1/embeddings", json={"input": [image, text, "w3", image], "model": "tiny-clip"})
    assert reply.status_code == 200, reply.text
    vectors = np.array([item["embedding"] for item in reply.json()["data"]])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[3], atol=1e-6)
    np.testing.assert_allclose(vectors[1], vectors[2], atol=1e-6)
    direct = with_clip.post("/v1/images/embed", json={"images": [url(files[0])]}).json()
    np.testing.assert_allclose(vectors[0], direct["data"][0]["embedding"], atol=1e-6)
    assert reply.json()["usage"]["prompt_tokens"] == 6


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        ("images/classify", {"images": ["IMAGE"]}, "model", "give labels"),
        ("images/classify", {"images": ["IMAGE"], "labels": []}, "labels", "texts"),
        ("images/classify", {"images": ["IMAGE"], "labels": ["a"], "template": "b"}, "template", "{}"),
        ("embeddings", {"model": "tiny-clip", "input": ["w3 " * 40]}, "input", "reads 16"),
        ("embeddings", {"model": "tiny-clip", "input": "w3", "dimensions": 5}, "dimensions", "24"),
        ("embeddings", {"input": ["PART"]}, "input", "reads no images"),
        ("embeddings", {"model": "tiny-clip", "input": ["w3", "BAD"]}, "input[1]", "not fetched"),
    ],
)
def test_what_a_clip_model_cannot_do_is_named(with_clip, files, path, body, param, words):
    swaps = {
        "IMAGE": url(files[0]),
        "PART": {"type": "image_url", "image_url": {"url": url(files[0])}},
        "BAD": {"type": "image_url", "image_url": {"url": "http://localhost/a.png"}},
    }
    for key in ("images", "input"):
        if isinstance(body.get(key), list):
            body = {**body, key: [swaps.get(value, value) for value in body[key]]}
    reply = with_clip.post(f"/v1/{path}", json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, param) and words in error["message"], error


def test_labels_for_a_model_of_images_alone_are_refused(client, files):
    reply = client.post("/v1/images/classify", json={"images": [url(files[0])], "labels": ["a cat"]})
    assert reply.status_code == 400 and "reads no texts" in reply.json()["error"]["message"]


def test_images_are_kept_found_listed_and_forgotten(client, files):
    parts = [("file", (f"{n}.png", data)) for n, data in enumerate(files)]
    kept = client.post("/v1/images", files=parts)
    assert kept.status_code == 200, kept.text
    named = client.post("/v1/images", json={"images": [url(files[1])], "names": ["pullover"]})
    assert named.json()["data"][0]["id"] == kept.json()["data"][1]["id"]
    found = client.post("/v1/images/search", json={"image": url(files[1]), "k": 2}).json()["data"]
    assert len(found) == 2 and found[0]["name"] == "pullover"
    assert found[0]["score"] == pytest.approx(1, abs=1e-5) and found[0]["score"] >= found[1]["score"]
    listed = client.get("/v1/images").json()["data"]
    assert sorted(item["name"] for item in listed) == ["0.png", "2.png", "3.png", "pullover"]
    gone = client.delete(f"/v1/images/{found[0]['id']}")
    assert gone.json() == {"id": found[0]["id"], "deleted": True}
    assert len(client.get("/v1/images").json()["data"]) == 3
    assert client.delete(f"/v1/images/{found[0]['id']}").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "image"),
        ({"image": "aGk=", "text": "w3"}, 400, "image"),
        ({"image": "aGk="}, 415, "image"),
        ({"image": "http://localhost/a.png"}, 400, "image"),
        ({"text": " "}, 400, "text"),
        ({"text": "w3", "k": 0}, 400, "k"),
        ({"text": "w3"}, 400, "model"),
    ],
)
def test_a_search_that_cannot_be_made_is_named(client, body, status, param):
    reply = client.post("/v1/images/search", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param), reply.text


def test_words_find_images_by_a_clip_model(with_clip, files):
    with_clip.post("/v1/images", files=[("file", (f"{n}.png", data)) for n, data in enumerate(files)])
    found = with_clip.post("/v1/images/search", json={"text": "w3 w5", "k": 3}).json()["data"]
    assert len(found) == 3 and found[0]["score"] >= found[1]["score"] >= found[2]["score"]


def test_names_of_another_number_are_refused(client, files):
    reply = client.post("/v1/images", json={"images": [url(files[0])], "names": ["a", "b"]})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "names")
