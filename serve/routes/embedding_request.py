"""The body of `POST /v1/embeddings`: texts, token ids, and images for models that read them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import InvalidRequest
from engine.vision.io import ImageFile, data_url_bytes

__all__ = ["EmbeddingRequest", "Encoding", "Item"]

MAX_INPUTS = 2048
"""OpenAI's limit of inputs per request."""

Encoding: TypeAlias = Literal["float", "base64"]
TokenIds = list[Annotated[int, Field(ge=0, le=2**31 - 1)]]
Item: TypeAlias = str | list[int] | ImageFile


class ImageUrl(BaseModel):
    url: str


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ImagePart(BaseModel):
    """`url` is a `data:` URL in base64; nothing is fetched from other addresses."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class EmbeddingRequest(BaseModel):
    """`input` may hold content parts as chats have them, each embedded by itself: images for a model that
    reads them. Ours are `truncate`, which cuts a text that is too long instead of refusing it, and
    `input_type`, which says what the texts are to a search, for models that want a prompt before each."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: str | list[str] | TokenIds | list[TokenIds] | list[str | Part]
    model: str | None = None
    encoding_format: Encoding = "float"
    dimensions: int | None = None
    truncate: bool = False
    input_type: Literal["query", "document"] | None = None

    def items(self) -> Sequence[Item]:
        """The inputs as a list of texts, token lists and images, none of them empty.

        Raises:
            InvalidRequest: no input, an empty one, too many, or an image that is no data URL.
        """
        listed: list[Any] = [self.input] if isinstance(self.input, str) else list(self.input)
        if listed and isinstance(listed[0], int):
            listed = [listed]
        if not 1 <= len(listed) <= MAX_INPUTS:
            raise InvalidRequest(f"input must hold 1 to {MAX_INPUTS} texts, not {len(listed)}", param="input")
        items = [_item(value, f"input[{index}]") for index, value in enumerate(listed)]
        empty = next((index for index, item in enumerate(items) if item == "" or item == []), None)
        if empty is not None:
            raise InvalidRequest(f"input[{empty}] is empty", param="input")
        return items


def _item(value: Any, name: str) -> Item:
    if isinstance(value, TextPart):
        return value.text
    if isinstance(value, ImagePart):
        return ImageFile(name, data_url_bytes(value.image_url.url, param=name), name)
    item: str | list[int] = value
    return item
