"""`POST /v1/decisions`: OpenAI's questions with given answers, about an image, by the image model.

A classifier chooses among its own classes, CLIP and SigLIP among any words; SigLIP also judges statements.
What a model cannot judge is refused question by question, as the API has it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from engine.errors import InvalidRequest, UnsupportedInput
from engine.vision.io import ImageFile, data_url_bytes
from engine.vision.limits import ImageLimits
from engine.vision.template import TEMPLATE
from serve.http.body import read_body
from serve.http.openapi import takes
from serve.http.services import services_of
from serve.routes.embeddings import image_limits
from serve.routes.images import run_on_images

if TYPE_CHECKING:
    from engine.vision.pipeline import ViT

__all__ = ["ROUTES"]

Words = Annotated[str, Field(min_length=1, max_length=1000)]
Judge: TypeAlias = Callable[[Sequence[str], str], list[float] | None]
"""Probabilities of labels, put into a template; None where the model cannot tell."""


class TextPart(BaseModel):
    type: Literal["input_text"]
    text: Words


class ImagePart(BaseModel):
    """`image_url` is a `data:` URL in base64; nothing is fetched from other addresses."""

    type: Literal["input_image"]
    image_url: str


class Message(BaseModel):
    role: Literal["user"]
    content: list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]


class Choice(BaseModel):
    value: str | bool
    description: Words | None = None

    @property
    def words(self) -> str:
        return self.description or str(self.value)


class Level(BaseModel):
    label: Words
    description: Words | None = None


class Predicate(BaseModel):
    type: Literal["predicate"]
    instructions: Words | list[TextPart]
    name: str | None = None


class ChoiceQuestion(BaseModel):
    type: Literal["choice"]
    instructions: Words | list[TextPart]
    choices: Annotated[list[Choice], Field(min_length=2, max_length=255)]
    name: str | None = None


class ScoreQuestion(BaseModel):
    type: Literal["score"]
    instructions: Words | list[TextPart]
    levels: Annotated[list[Level], Field(min_length=2, max_length=255)]
    name: str | None = None


Question: TypeAlias = Annotated[Predicate | ChoiceQuestion | ScoreQuestion, Field(discriminator="type")]


class DecisionRequest(BaseModel):
    """`input`: user messages that hold one image. A classifier's choices must be classes of its own; CLIP and
    SigLIP take any. Instructions with `{}` say where the choice goes in the sentence that is compared."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: str | list[Message]
    questions: Annotated[list[Question], Field(min_length=1, max_length=400)]
    model: str | None = None

    def image(self) -> ImageFile:
        """Raises UnsupportedInput, or InvalidRequest for what is no data URL."""
        messages = [] if isinstance(self.input, str) else self.input
        parts = [part for message in messages for part in message.content]
        if len(parts) != 1 or not isinstance(parts[0], ImagePart):
            raise UnsupportedInput(
                "the image model decides about one image: send one input_image and no text beside it",
                param="input",
            )
        return ImageFile("the image", data_url_bytes(parts[0].image_url, param="input"), "input")


@takes(DecisionRequest)
async def decide(request: Request) -> JSONResponse:
    """Answers questions about an image with probabilities of the given answers."""
    body = await read_body(request, DecisionRequest)
    model = services_of(request).runtime.vision_engine(body.model)
    image, limits = body.image(), image_limits(request)
    answers = await run_on_images(request, "decide", _answers, model.vision, image, body.questions, limits)
    return JSONResponse({"answers": answers, "model": model.name, "usage": _USAGE})


def _answers(
    model: "ViT", image: ImageFile, questions: Sequence[Any], limits: ImageLimits
) -> list[dict[str, Any]]:
    judge = _chosen_words(model, image, limits) if model.reads_texts else _own_classes(model, image, limits)
    return [
        {"name": question.name, **_answer(question, model, judge, f"questions[{place}]")}
        for place, question in enumerate(questions)
    ]


def _answer(question: Any, model: "ViT", judge: Judge, at: str) -> dict[str, Any]:
    said = _text(question.instructions)
    if isinstance(question, Predicate):
        found = judge([said], "{}") if model.judges_each else None
        return {"type": "refusal"} if found is None else {"type": "predicate", "probability": found[0]}
    template = said if "{}" in said else TEMPLATE
    if isinstance(question, ScoreQuestion):
        found = judge([level.description or level.label for level in question.levels], template)
        return {"type": "refusal"} if found is None else _score(question, _shares(found))
    found = judge([choice.words for choice in question.choices], template)
    if found is None:
        classes = ", ".join(model.labels[:20])
        raise InvalidRequest(
            f"{model.name} chooses among classes of its own: {classes}", param=f"{at}.choices"
        )
    return _choice(question, _shares(found))


def _choice(question: ChoiceQuestion, shares: Sequence[float]) -> dict[str, Any]:
    best = max(range(len(shares)), key=shares.__getitem__)
    return {
        "type": "choice",
        "choice": question.choices[best].value,
        "confidence": shares[best],
        "probabilities": [
            {"value": choice.value, "probability": share}
            for choice, share in zip(question.choices, shares, strict=True)
        ],
    }


def _score(question: ScoreQuestion, shares: Sequence[float]) -> dict[str, Any]:
    """Levels count from 0; the score is their mean by probability."""
    return {
        "type": "score",
        "score": sum(value * share for value, share in enumerate(shares)),
        "confidence": max(shares),
        "probabilities": [
            {"label": level.label, "value": value, "probability": share}
            for value, (level, share) in enumerate(zip(question.levels, shares, strict=True))
        ],
    }


def _chosen_words(model: "ViT", image: ImageFile, limits: ImageLimits) -> Judge:
    [vector] = model.embed([image], limits=limits)
    return lambda labels, template: [float(p) for p in model.judge(labels, template)(vector)]


def _own_classes(model: "ViT", image: ImageFile, limits: ImageLimits) -> Judge:
    [prediction] = model.predict([image], len(model.labels) or 1, limits=limits)
    known: Mapping[str, float] = {best.label.lower(): best.probability for best in prediction}

    def judge(labels: Sequence[str], template: str) -> list[float] | None:
        found = [known.get(label.lower()) for label in labels]
        return None if None in found else [p for p in found if p is not None]

    return judge


def _shares(found: Sequence[float]) -> list[float]:
    total = sum(found)
    return [p / total if total > 0 else 1 / len(found) for p in found]


def _text(instructions: str | list[TextPart]) -> str:
    return instructions if isinstance(instructions, str) else " ".join(part.text for part in instructions)


_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}
"""Tokens are of text: an image model reads none."""

ROUTES = [Route("/v1/decisions", decide, methods=["POST"])]
