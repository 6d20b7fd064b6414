"""Structured output and tool calling: whatever the model, the answers have the form that was asked for."""

import json
import re

import jsonschema
import openai
import pytest

from server import MODEL

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "likes": {"type": "array", "items": {"enum": ["tea", "rain", "books"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}
ASK = [{"role": "user", "content": "Describe a person as JSON."}]


def tool(name: str, **properties) -> dict:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": f"{name} something", "parameters": schema}}


CITY = {"type": "string", "maxLength": 12}
TOOLS = [tool("get_weather", city=CITY), tool("add", a={"type": "integer", "maximum": 99}, b={"enum": [1, 2, 3]})]


def chat(client, **options):
    return client.chat.completions.create(**{"model": MODEL, "messages": ASK, "max_tokens": 150, **options})


@pytest.mark.parametrize("seed", range(4))
def test_json_follows_its_schema(client, seed):
    schema = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = chat(client, response_format=schema, n=3, seed=seed, temperature=1.2)
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), PERSON)


def test_streamed_json_is_the_same(client):
    schema = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    whole = chat(client, response_format=schema, seed=3).choices[0].message.content
    stream = chat(client, response_format=schema, seed=3, stream=True)
    pieces = [choice.delta.content or "" for chunk in stream for choice in chunk.choices]
    assert "".join(pieces) == whole and len([piece for piece in pieces if piece]) > 5


def test_a_json_object_is_one(client):
    answer = chat(client, response_format={"type": "json_object"}, temperature=0, max_tokens=300)
    text = answer.choices[0].message.content
    assert text.startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("extra", [
    {"structured_outputs": {"regex": r"\d{3}-\d{2} [A-Z]+"}},
    {"guided_regex": r"\d{3}-\d{2} [A-Z]+"},
])
def test_text_follows_a_regular_expression(client, extra):
    answer = client.completions.create(model=MODEL, prompt="Number:", max_tokens=40, seed=1, extra_body=extra)
    text, reason = answer.choices[0].text, answer.choices[0].finish_reason
    pattern = r"\d{3}-\d{2} [A-Z]+"
    assert re.fullmatch(pattern, text) if reason == "stop" else re.match(pattern, text)


def test_a_choice_is_made(client):
    for seed in range(6):
        extra = {"structured_outputs": {"choice": ["yes", "no", "per\"haps\nnot"]}}
        answer = client.completions.create(model=MODEL, prompt="Is it?", max_tokens=20, seed=seed, extra_body=extra)
        assert answer.choices[0].text in ["yes", "no", "per\"haps\nnot"]


def test_text_follows_a_grammar(client):
    extra = {"structured_outputs": {"grammar": 'start: "SELECT " column ("," column)? " FROM t"\ncolumn: "a" | "b"'}}
    answer = client.completions.create(model=MODEL, prompt="SQL:", max_tokens=40, extra_body=extra)
    assert re.fullmatch(r"SELECT [ab](,[ab])? FROM t", answer.choices[0].text)


def arguments_of(call):
    schema = next(t["function"]["parameters"] for t in TOOLS if t["function"]["name"] == call.function.name)
    arguments = json.loads(call.function.arguments)
    jsonschema.validate(arguments, schema)
    return arguments


@pytest.mark.parametrize("seed", range(3))
def test_required_tools_are_called(client, seed):
    answer = chat(client, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, seed=seed)
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.type == "function" and call.id.startswith("call_")
    arguments_of(call)


def test_calls_may_be_parallel(client):
    for seed in range(8):
        answer = chat(client, tools=TOOLS, tool_choice="required", seed=seed, temperature=1.5, max_tokens=200)
        calls = answer.choices[0].message.tool_calls or []
        assert len({call.id for call in calls}) == len(calls)
        # The last one may have been cut off.
        complete = calls[:-1] if answer.choices[0].finish_reason == "length" else calls
        for call in complete:
            arguments_of(call)


def test_a_named_tool_is_called_and_its_answer_taken(client):
    named = {"type": "function", "function": {"name": "add"}}
    answer = chat(client, tools=TOOLS, tool_choice=named, seed=0)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "add" and answer.choices[0].finish_reason == "stop"
    result = {"role": "tool", "tool_call_id": call.id, "content": "3"}
    turn = [*ASK, answer.choices[0].message.model_dump(exclude_none=True), result]
    assert chat(client, messages=turn, tools=TOOLS, tool_choice="none", max_tokens=5).choices[0].message.tool_calls is None


def test_schemas_of_tools_may_refer_to_themselves(client):
    point = {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"], "additionalProperties": False}
    schema = {
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/Point"}},
        "required": ["at"],
        "additionalProperties": False,
        "$defs": {"Point": point},
    }
    tool = {"type": "function", "function": {"name": "move", "parameters": schema}}
    answer = chat(client, tools=[tool, *TOOLS], tool_choice={"type": "function", "function": {"name": "move"}}, seed=0)
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["at"]["x"] in (1, 2)


def test_streamed_calls_are_the_same(client):
    options = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "seed": 5}
    whole = chat(client, **options).choices[0]
    calls, reasons, pieces = {}, [], 0
    for chunk in chat(client, stream=True, **options):
        for choice in chunk.choices:
            reasons.append(choice.finish_reason)
            for delta in choice.delta.tool_calls or []:
                call = calls.setdefault(delta.index, {"name": "", "arguments": ""})
                call["name"] += delta.function.name or ""
                call["arguments"] += delta.function.arguments or ""
                pieces += 1
    assert pieces > 3, "arguments come as they are written"
    assert [reason for reason in reasons if reason] == ["tool_calls"]
    assert list(calls.values()) == [
        {"name": call.function.name, "arguments": call.function.arguments} for call in whole.message.tool_calls
    ]


@pytest.mark.parametrize("extra, says", [
    ({"structured_outputs": {"regex": "("}}, "grammar"),
    ({"structured_outputs": {"grammar": "start: nothing"}}, "grammar"),
    ({"structured_outputs": {"json": {"type": "widget"}}}, "grammar"),
    ({"structured_outputs": {"json": "no schema"}}, "structured_outputs.json"),
    ({"structured_outputs": {"choice": ["a"]}, "guided_regex": "a"}, "one of them"),
    ({"structured_outputs": {"regex": "a"}, "ignore_eos": True}, "ignore_eos"),
    ({"structured_outputs": {"regex": "(" * 300 + "a" + ")*" * 300}}, "grammar"),
    ({"structured_outputs": {"regex": "a" * 300_000}}, "at most"),
    ({"structured_outputs": {"json": {"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}}}, "multipleOf"),
    ({"structured_outputs": {"grammar": 'root ::= "yes" | "no"'}}, "Lark"),
])
def test_what_cannot_be_is_refused(client, extra, says):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=MODEL, prompt="Hi", max_tokens=4, extra_body=extra)
    assert says in refused.value.message
    assert client.completions.create(model=MODEL, prompt="Hi", max_tokens=1).choices


def chain(length: int) -> str:
    """A grammar whose every rule stands in the one before."""
    rules = "".join(f'r{at}: r{at + 1} | "x"\n' for at in range(length))
    return f'start: r0\n{rules}r{length}: "y"\n'


def doubled(length: int) -> dict:
    """A schema with 2 ** length ways to be followed."""
    next_one = lambda at: {"$ref": f"#/$defs/a{at}"}
    defs = {f"a{at}": {"anyOf": [next_one(at + 1), next_one(at + 1)]} for at in range(length)}
    return {"$defs": {**defs, f"a{length}": {"type": "string"}}, **next_one(0)}


@pytest.mark.parametrize("output", [
    {"regex": "((a{1,1000}){1,1000}){1,1000}"},
    {"regex": "(a|b)*a(a|b){2000}"},
    {"regex": "(.*a){40}.*"},
    {"regex": "(x+x+)+y"},
    {"regex": "a?" * 8000},
    {"regex": "a?" * 120_000},
    {"grammar": chain(800)},
    {"grammar": chain(8000)},
    {"grammar": 'start: e\ne: e e | e "+" e | "a" | "(" e ")"'},
    {"json": doubled(2000)},
    {"json": {"type": "string", "pattern": "a?" * 60_000}},
    {"json": {"type": "integer", "multipleOf": 9973}},
    {"choice": [f"c{at}" for at in range(30_000)]},
], ids=lambda output: str(output)[:40])
def test_expensive_ones_hold_nobody_up(client, output):
    """They are served or refused, and either way soon."""
    extra = {"structured_outputs": output}
    try:
        client.completions.create(model=MODEL, prompt="Hi", max_tokens=8, extra_body=extra, timeout=60)
    except openai.BadRequestError as refused:
        assert re.search("grammar|structured output|at most", refused.message)
    assert client.completions.create(model=MODEL, prompt="Hi", max_tokens=1).choices
