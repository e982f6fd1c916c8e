"""Decisions about images over the wire, in the types of OpenAI's own client."""

import base64
from collections.abc import Iterator

import numpy as np
import pytest
from openai.types import Decision
from PIL import Image
from starlette.testclient import TestClient

from serve.app import create_app
from serve.config import Settings
from serve.runtime import Runtime
from tests.engine.vision.conftest import SAMPLE
from tests.engine.vision.odd_files import encoded
from tests.engine.vision.tiny_clip import clip_folder


def serving(**settings) -> Iterator[TestClient]:
    chosen = Settings(**settings)
    runtime = Runtime.ephemeral(chosen, with_chat=False)
    yield TestClient(create_app(runtime, chosen), base_url="http://localhost:8080")
    runtime.close()


@pytest.fixture(scope="module")
def client(minilm_path) -> Iterator[TestClient]:
    yield from serving()


@pytest.fixture(scope="module", params=["clip_small", "siglip_both"])
def of_words(request, minilm_path, tmp_path_factory) -> Iterator[tuple[str, TestClient]]:
    folder = clip_folder(tmp_path_factory.mktemp("models") / "tiny", request.param)
    for client in serving(vision_model=str(folder)):
        yield request.param, client


@pytest.fixture(scope="module")
def boot() -> list[dict]:
    data = encoded(Image.fromarray(np.load(SAMPLE)["images"][0]).resize((56, 56)), "PNG")
    address = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return [{"role": "user", "content": [{"type": "input_image", "image_url": address}]}]


def choice(*values, **more) -> dict:
    choices = [{"value": value} for value in values]
    return {"type": "choice", "instructions": "what is it?", "choices": choices, **more}


def message(**part) -> list[dict]:
    return [{"role": "user", "content": [part]}]


def ask(client, given, *questions) -> Decision:
    reply = client.post("/v1/decisions", json={"input": given, "model": None, "questions": list(questions)})
    assert reply.status_code == 200, reply.text
    return Decision.model_validate(reply.json(), strict=True)


def test_a_classifier_chooses_among_classes_of_its_own(client, boot):
    found = ask(client, boot, choice("Bag", "ankle boot", name="kind"), choice("dress", "coat"))
    first, second = found.answers
    assert (first.type, first.choice, first.name) == ("choice", "ankle boot", "kind")
    assert first.confidence > 0.9
    for answer in (first, second):
        assert sum(each.probability for each in answer.probabilities) == pytest.approx(1, abs=1e-6)
    assert found.model == "vit-fashion" and second.name is None


def test_what_a_classifier_cannot_judge_is_refused_question_by_question(client, boot):
    level = {"type": "score", "instructions": "how new?", "levels": [{"label": "old"}, {"label": "new"}]}
    predicate = {"type": "predicate", "instructions": "it is new", "name": "new"}
    found = ask(client, boot, level, choice("bag", "coat"), predicate)
    assert [answer.type for answer in found.answers] == ["refusal", "choice", "refusal"]
    assert found.answers[2].name == "new"


def test_clip_and_siglip_choose_among_any_words(of_words, boot):
    family, client = of_words
    level = {
        "type": "score",
        "instructions": "w1 {}",
        "levels": [{"label": "low", "description": "w3"}, {"label": "mid", "description": "w4"}],
    }
    predicate = {"type": "predicate", "instructions": "w5 w6"}
    picked = choice("w3", True, "w9")
    found = ask(client, boot, picked, level, predicate)
    chosen, scored, judged = found.answers
    assert [each.value for each in chosen.probabilities] == ["w3", True, "w9"]
    best = max(chosen.probabilities, key=lambda each: each.probability)
    assert chosen.choice == best.value and chosen.confidence == best.probability
    assert scored.score == pytest.approx(scored.probabilities[1].probability)
    assert judged.type == ("predicate" if family == "siglip_both" else "refusal")
    if family == "siglip_both":
        assert 0 <= judged.probability <= 1


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"input": "a text"}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": message(type="input_text", text="hi")}, 400, "input"),
        ({"input": message(type="input_image", image_url="http://a")}, 400, "input"),
        ({"input": message(type="input_image", image_url="aGk=")}, 415, "input"),
        ({"questions": []}, 400, "questions"),
        ({"questions": [choice("only")]}, 400, "questions[0].choice.choices"),
        ({"questions": [choice("bag", "coat"), choice("bag", "sofa")]}, 400, "questions[1].choices"),
        ({"model": "gpt-6-luna"}, 404, None),
    ],
)
def test_what_is_wrong_is_named(client, boot, change, status, param):
    body = {"input": boot, "questions": [choice("bag", "coat")], **change}
    reply = client.post("/v1/decisions", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param), reply.text
