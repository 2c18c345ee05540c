#!/usr/bin/env python3
"""Writes what Jinja2, set up as transformers sets it up, makes of our test templates.

usage: make_template_cases.py            writes data/template_expected.json and
                                         data/template_snippets.json
       make_template_cases.py --check    compares them with a fresh run instead: exit status 1 and
                                         the names of what differs, or 77 without Jinja2
"""
import datetime
import json
import pathlib
import sys

try:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox
except ImportError:
    print("skipped: this Python has no jinja2")
    sys.exit(77)

import template_snippets

DATA = pathlib.Path(__file__).resolve().parent / "data"
NOW = datetime.datetime(2024, 7, 26, 13, 5, 9)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
# What the template raises on purpose or the sandbox says is compared word by word; of other errors
# only that there is one, since their words are Python's own.
WORDED_ERRORS = ("TemplateError", "UndefinedError", "SecurityError")


class Generation(jinja2.ext.Extension):
    """{% generation %} blocks: the body, run as a function of its own."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_render_body")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _render_body(self, caller):
        return caller()


def make_environment():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols])

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = NOW.strftime
    return environment


ENVIRONMENT = make_environment()


def render(source, variables):
    """{"output"} or {"error": "parse" or "render"}, with the message if its words count."""
    try:
        template = ENVIRONMENT.from_string(source)
    except (jinja2.exceptions.TemplateSyntaxError, SyntaxError):
        return {"error": "parse"}
    try:
        return {"output": template.render(**variables)}
    except Exception as error:  # whatever Python raises for a broken operation
        result = {"error": "render"}
        if type(error).__name__ in WORDED_ERRORS:
            result["message"] = str(error)
        return result


def render_conversation(source, conversation):
    return render(source, {
        "documents": None,
        **TOKENS,
        **conversation.get("variables", {}),
        "messages": conversation["messages"],
        "tools": conversation.get("tools"),
        "add_generation_prompt": conversation.get("add_generation_prompt", False),
    })


def make_expected():
    conversations = json.loads((DATA / "template_conversations.json").read_text(encoding="utf-8"))
    expected = {}
    for path in sorted((DATA / "templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        expected[path.stem] = {name: render_conversation(source, conversation)
                               for name, conversation in conversations.items()}
    return expected


def make_snippets():
    variables = template_snippets.VARIABLES
    return {
        "variables": variables,
        "cases": [{"source": source, **render(source, variables)}
                  for source in template_snippets.snippets()],
    }


def describe_differences(name, old, new):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            yield from describe_differences(f"{name}/{key}", old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new)):
            yield from describe_differences(f"{name}[{i}]", a, b)
    elif old != new:
        yield f"{name}: committed {old!r}, Jinja2 {jinja2.__version__} gives {new!r}"


def main():
    made = {"template_expected.json": make_expected(), "template_snippets.json": make_snippets()}
    if sys.argv[1:] == ["--check"]:
        differences = []
        for name, new in made.items():
            old = json.loads((DATA / name).read_text(encoding="utf-8"))
            # Through JSON, so that both sides have its types.
            differences += describe_differences(name, old, json.loads(json.dumps(new)))
        print("\n".join(differences) or f"the same as Jinja2 {jinja2.__version__}")
        return 1 if differences else 0
    for name, new in made.items():
        text = json.dumps(new, ensure_ascii=False, indent=1) + "\n"
        (DATA / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
