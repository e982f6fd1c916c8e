"""The fields of a chat that have to do with tools, and OpenAI's structured outputs."""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import InvalidRequest
from engine.generate.constraint import Constraint
from engine.text.tool_calls import Tool, tool_constraint

__all__ = ["ResponseFormat", "ToolCall", "ToolChoice", "ToolField", "response_constraint", "tools_of"]

MOST_TOOLS = 64
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_ANYTHING = {"type": "object"}


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class FunctionField(_Part):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolField(_Part):
    type: Literal["function"]
    function: FunctionField


class NamedFunction(_Part):
    name: str


class NamedTool(_Part):
    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class CalledFunction(_Part):
    name: str
    arguments: str


class ToolCall(_Part):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction

    def for_template(self, place: str) -> dict[str, Any]:
        """As chat templates take it, with the arguments as an object."""
        try:
            arguments = json.loads(self.function.arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{place}: the arguments are no JSON: {error}", param=place) from error
        function = {"name": self.function.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


class JsonSchemaField(_Part):
    name: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")] = _ANYTHING


class ResponseFormat(_Part):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaField | None = None


def response_constraint(given: ResponseFormat) -> Constraint | None:
    """What a `response_format` asks of the reply. Raises InvalidRequest where the schema is missing."""
    if given.type == "text":
        return None
    if given.type == "json_object":
        return Constraint.json_schema(_ANYTHING)
    if given.json_schema is None:
        raise InvalidRequest("response_format.json_schema is missing", param="response_format")
    return Constraint.json_schema(given.json_schema.schema_)


def tools_of(
    fields: list[ToolField], choice: ToolChoice, parallel: bool
) -> tuple[list[Tool], Constraint | None]:
    """The tools that the model is told of, and what its reply must look like.

    Raises InvalidRequest: too many tools, two of one name, a choice that is not among them.
    """
    tools = [_tool(field.function, f"tools[{number}]") for number, field in enumerate(fields)]
    names = [tool.name for tool in tools]
    if len(tools) > MOST_TOOLS or len(set(names)) < len(names):
        raise InvalidRequest(
            f"tools must be at most {MOST_TOOLS}, each with a name of its own", param="tools"
        )
    if not tools or choice == "none":
        if not tools and choice not in ("none", "auto"):
            raise InvalidRequest("tool_choice needs tools", param="tool_choice")
        return [], None
    callable_ = tools
    if isinstance(choice, NamedTool):
        callable_ = [tool for tool in tools if tool.name == choice.function.name]
        if not callable_:
            reason = f"tool_choice names {choice.function.name[:64]!r}, which is not among the tools"
            raise InvalidRequest(reason, param="tool_choice")
    return tools, tool_constraint(callable_, required=choice != "auto", parallel=parallel)


def _tool(function: FunctionField, place: str) -> Tool:
    if not _NAME.fullmatch(function.name):
        reason = f"{place}.function.name must be 1 to 64 letters, digits, '_', '-' or '.'"
        raise InvalidRequest(reason, param=f"{place}.function.name")
    return Tool(function.name, function.description or "", function.parameters or _ANYTHING)
