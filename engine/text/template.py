"""Chat messages to one prompt string, by the jinja2 template a checkpoint brings."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateSyntaxError
from jinja2.exceptions import TemplateError

from engine.errors import BadCheckpoint, InvalidRequest
from engine.text.sandbox import (
    BoundedEnvironment,
    GenerationBlock,
    TemplateTooCostly,
    budgeted,
    spend_written,
)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The template of a checkpoint that brings none."""

_LONGEST_SOURCE = 1_000_000


class ChatTemplate:
    """A chat template as `transformers` renders it, in a sandbox with bounded work. Thread-safe.

    Args:
        source: jinja2 source; None means ChatML.
        bos, eos: the texts of those tokens, for templates that write them.
        now: the clock behind `strftime_now`.

    Raises BadCheckpoint if the source does not compile.

    >>> ChatTemplate(None, "", "").render([{"role": "user", "content": "Hi"}])
    '<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n'
    """

    def __init__(
        self,
        source: str | None,
        bos: str = "",
        eos: str = "",
        *,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.source = CHATML if source is None else source
        self._bos, self._eos = bos, eos
        self._template = _compile(self.source, now)
        self.knows_tools = re.search(r"\btools\b", self.source) is not None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The prompt. Encode it with `parse_special=True`.

        Raises InvalidRequest if the template refuses these messages and BadCheckpoint if it does
        too much work.
        """
        variables = {
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self._bos,
            "eos_token": self._eos,
        }
        try:
            with budgeted() as budget:
                parts = []
                for part in self._template.generate(**variables):
                    budget.spend(len(part))
                    parts.append(part)
        except _Refused as error:
            raise InvalidRequest(f"the chat template refuses: {error}", param="messages") from None
        except (TemplateTooCostly, RecursionError, MemoryError, OverflowError) as error:
            raise BadCheckpoint(f"the chat template cannot be used: {error}") from error
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            reason = f"the chat template cannot render these messages: {error}"
            raise InvalidRequest(reason, param="messages") from error
        return "".join(parts)


class _Refused(Exception):
    """The template called raise_exception."""


def _compile(source: str, now: Callable[[], datetime]) -> Template:
    if len(source) > _LONGEST_SOURCE:
        raise BadCheckpoint(f"the chat template has {len(source)} characters, more than {_LONGEST_SOURCE}")
    environment = BoundedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", GenerationBlock],
    )

    def strftime_now(text: str) -> str:
        if len(text) > 100 or any(char.isdigit() for char in text):
            raise TemplateTooCostly("strftime_now takes a plain format of at most 100 characters")
        return now().strftime(text)

    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": strftime_now}
    environment.filters["tojson"] = _tojson
    try:
        code = environment.compile_bounded(source)
    except (
        TemplateSyntaxError,
        RecursionError,
        MemoryError,
        SyntaxError,
        ValueError,
        OverflowError,
    ) as error:
        raise BadCheckpoint(f"the chat template does not compile: {error}") from error
    return Template.from_code(environment, code, environment.globals)


def _raise_exception(message: str) -> NoReturn:
    raise _Refused(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As `transformers` has it: jinja2's own would escape HTML characters."""
    if indent is not None and not 0 <= int(indent) <= 16:
        raise TemplateTooCostly("tojson indents by at most 16")
    spend_written(value)
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
