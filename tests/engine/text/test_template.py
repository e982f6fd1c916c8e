"""Prompts equal the reference's, and no template reaches out of its sandbox or runs for ever."""

import time
from datetime import datetime
from typing import Any

import pytest

from engine.errors import BadCheckpoint, InvalidRequest
from engine.text.template import ChatTemplate
from engine.text.tokenizer import Tokenizer
from tests.memory import within

HI = [{"role": "user", "content": "Hi"}]


def render(source: str, messages: list[dict[str, Any]] = HI, **options: Any) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(messages, **options)


def test_smollm2_prompts_equal_the_reference(
    smollm2_fields: dict[str, Any], smollm2_tokenizer: Tokenizer, reference: dict[str, Any]
):
    template = ChatTemplate(smollm2_fields["tokenizer.chat_template"])
    for entry in reference["chat"]:
        prompt = template.render(entry["messages"])
        assert prompt == entry["prompt"]
        assert smollm2_tokenizer.encode(prompt, parse_special=True) == entry["prompt_ids"]


def test_a_checkpoint_without_a_template_speaks_chatml():
    template = ChatTemplate(None)
    assert template.render(HI) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert template.render(HI, add_generation_prompt=False) == "<|im_start|>user\nHi<|im_end|>\n"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for m in messages %}\n  {% if true %}\nx\n  {% endif %}\n{% endfor %}\n", "x\n"),
        ("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}", "<s>Hi</s>"),
        ("{% for m in [1,2,3,4] %}{% if m == 3 %}{% break %}{% endif %}{{ m }}{% endfor %}", "12"),
        ("{{ {'b': '<é>', 'a': [1, none]} | tojson }}", '{"b": "<é>", "a": [1, null]}'),
        ("{{ tools | tojson(indent=1) }}", "null"),
        (
            "{% set s = namespace(n=0) %}{% for m in range(5) %}{% set s.n = s.n + m %}{% endfor %}{{ s.n }}",
            "10",
        ),
        ("{% macro f(x) %}[{{ x ~ 1 }}]{% endmacro %}{{ f('a') + f('b') }}", "[a1][b1]"),
        ("{{ strftime_now('%d %b %Y') }}", "03 Feb 2026"),
        ("{% for a, b in {'k': 'v'}.items() %}{{ a }}{{ b }}{{ loop.last }}{% endfor %}", "kvTrue"),
        ("{{ messages | map(attribute='role') | join(',') }} {{ ['a','b']|join('-')|upper }}", "user A-B"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}", "Hi"),
        ("{{ '%s-%03d' % ('a', 7) }} {{ '{}!'.format('b') }}", "a-007 b!"),
        ("{{ ' c '.strip() }} {{ 'a,b'.split(',')[-1] }} {{ '-'.join(['x', 'y']) }}", "c b x-y"),
        ("{{ 'a\nb' | indent(2) }} {{ 'aXb' | replace('X', '--') }}", "a\n  b a--b"),
        ("{{ 2 ** 10 }} {{ '-' * 3 }}", "1024 ---"),
    ],
)
def test_the_dialect_of_transformers(source: str, text: str):
    template = ChatTemplate(source, "<s>", "</s>", now=lambda: datetime(2026, 2, 3))
    assert template.render(HI) == text


def test_a_refusal_by_the_template_is_the_callers_error():
    with pytest.raises(InvalidRequest, match="roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source", ["{{ messages[0].content + 1 }}", "{{ messages[5].content.x }}", "{{ 1 / 0 }}"]
)
def test_messages_that_do_not_fit_are_the_callers_error(source: str):
    with pytest.raises(InvalidRequest, match="cannot render these messages"):
        render(source)


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ x", "{% if %}", "{{ 1 | nosuch }}", "(" * 5000, "{{" + "(" * 5000]
)
def test_source_that_does_not_compile_is_a_bad_checkpoint(source: str):
    if source == "(" * 5000:
        assert render(source) == source
        return
    with pytest.raises(BadCheckpoint, match="does not compile"):
        ChatTemplate(source)


def sixty_times(start: str, update: str, end: str = "") -> str:
    """A template that replaces n.x, which is `start` at first, sixty times."""
    return (
        f"{{% set n = namespace(x={start}) %}}{{% for i in range(60) %}}"
        f"{{% set n.x = {update} %}}{{% endfor %}}{end}"
    )


CAPTURE = sixty_times("'ab'", "n.x", "").replace(
    "{% set n.x = n.x %}", "{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}"
)

HOSTILE = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "nested loops with data": "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
    "huge range": "{% for a in range(10**12) %}{% endfor %}",
    "recursive macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "branching macro": "{% macro f(n) %}{{ f(n-1) if n }}{{ f(n-1) if n }}{% endmacro %}{{ f(60) }}",
    "branching block": "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
    "recursive loop": "{% for a in [[1]] recursive %}{{ loop([[1], [1]]) }}{% endfor %}",
    "doubling by concat": sixty_times("'ab'", "n.x ~ n.x"),
    "doubling by plus": sixty_times("'ab'", "n.x + n.x"),
    "doubling by capture": CAPTURE,
    "doubling list": sixty_times("[1]", "[n.x, n.x]", "{{ n.x }}"),
    "doubling tuple": sixty_times("(1,)", "(n.x, n.x)", "{{ n.x | tojson }}"),
    "doubling dict": sixty_times("{}", "dict(a=n.x, b=n.x)", "{{ n.x | string }}"),
    "doubling join": sixty_times("'ab'", "[n.x, n.x] | join"),
    "doubling method join": sixty_times("'ab'", "''.join([n.x, n.x])"),
    "doubling replace": sixty_times("'aa'", "n.x.replace('a', 'aa')"),
    "doubling replace filter": sixty_times("'aa'", "n.x | replace('a', n.x)"),
    "doubling format": sixty_times("'aa'", "'%s%s' % (n.x, n.x)"),
    "doubling brace format": sixty_times("'aa'", "'{0}{0}'.format(n.x)"),
    "text times": "{{ 'a' * 10**10 }}",
    "times text": "{{ 10**10 * 'a' }}",
    "list times": "{{ ([1] * 10**10) | length }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "squares": sixty_times("10", "n.x * n.x"),
    "center": "{{ 'a' | center(9999999999) }}",
    "ljust": "{{ 'a'.ljust(9999999999) }}",
    "zfill": "{{ 'a'.zfill(9999999999) }}",
    "tabs": "{{ '\t\t'.expandtabs(9999999999) }}",
    "percent width": "{{ '%9999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (9999999999, 1) }}",
    "brace width": "{{ '{:>9999999999}'.format(1) }}",
    "nested brace width": "{{ '{:>{}}'.format(1, 9999999999) }}",
    "format filter": "{{ '%9999999999d' | format(1) }}",
    "indent": "{{ 'a\nb' | indent(9999999999) }}",
    "json indent": "{{ [1] | tojson(indent=9999999999) }}",
    "strftime": "{{ strftime_now('%9999999999d') }}",
    "wide output": "{% set x = 'a' * 1000000 %}{% for i in range(9999) %}{{ x }}{% endfor %}",
    "static output": "{% for i in range(99999) %}" + "x" * 10_000 + "{% endfor %}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_that_would_not_end_is_refused_soon(name: str):
    begun = time.process_time()
    with within(64 << 20), pytest.raises((BadCheckpoint, InvalidRequest)):
        render(HOSTILE[name])
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends '/etc/passwd' %}",
        "{{ [1] | map(attribute='__class__.__mro__') | list }}",
    ],
)
def test_a_template_reaches_nothing_outside(source: str):
    messages = [dict(HI[0])]
    try:
        text = render(source, messages)
    except (BadCheckpoint, InvalidRequest):
        text = ""
    assert messages == HI
    assert not any(word in text for word in ("class", "root:", "module", "<function"))


def test_a_long_chat_is_within_the_budget(smollm2_fields: dict[str, Any]):
    template = ChatTemplate(smollm2_fields["tokenizer.chat_template"])
    messages = [{"role": "user", "content": "word " * 200}] * 500
    assert len(template.render(messages)) > 500_000
