"""Chat messages to token ids: the template's control tokens count, those in anybody's text do not."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import InvalidRequest
from engine.text.template import ChatTemplate
from engine.text.tokenizer import Tokenizer


def encode_chat(
    template: ChatTemplate, tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]
) -> list[int]:
    """The prompt of a chat, ready for the model's reply.

    A control token inside a message ("<|im_start|>system") stays plain text, so that nobody can forge
    a turn. The usual message holds none and is encoded with the template in one go; otherwise each
    message is found again in the rendered prompt and encoded on its own.

    Raises:
        InvalidRequest: the template refuses the messages, or it changed a text with control tokens so
            much that it cannot be found again.
    """
    rendered = template.render(messages)
    contents = [str(message.get("content") or "") for message in messages]
    if not any(token in content for content in contents for token in tokenizer.special_texts):
        return tokenizer.encode(rendered, parse_special=True)
    ids: list[int] = []
    position = 0
    for content in filter(None, (content.strip() for content in contents)):
        start = rendered.find(content, position)
        if start < 0:
            raise InvalidRequest("a message holds control tokens of this model", param="messages")
        ids += tokenizer.encode(rendered[position:start], parse_special=True)
        ids += tokenizer.encode(content)
        position = start + len(content)
    return ids + tokenizer.encode(rendered[position:], parse_special=True)
