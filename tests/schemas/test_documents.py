"""The JSON Schemas and the AsyncAPI document say what the code does."""

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from referencing import Registry, Resource

import schemas
from schemas import (
    DATATYPES,
    DTYPES,
    JSON,
    DeadLetter,
    Reason,
    RecordError,
    Request,
    Result,
    Source,
    TopicTemplates,
    dead_letter_headers,
    decode_request,
    decode_result,
    encode_request,
    encode_result,
    headers,
    provenance,
)
from schemas.limits import DEFAULT_LIMITS
from tests.schemas import strategies
from tests.strategies import UNHURRIED

FOLDER = files(schemas)
NAMES = ("tensor", "request", "result", "record-headers", "dead-letter-headers")
DOCUMENTS: dict[str, Any] = {
    name: json.loads(FOLDER.joinpath("json", f"{name}.json").read_text("utf-8")) for name in NAMES
}
REGISTRY: Registry[Any] = Registry().with_resources(
    (f"{name}.json", Resource.from_contents(document)) for name, document in DOCUMENTS.items()
)
ASYNCAPI: dict[str, Any] = yaml.safe_load(FOLDER.joinpath("asyncapi.yaml").read_text("utf-8"))


def validator(name: str) -> jsonschema.Draft7Validator:
    """Make the validator of one of the schemas."""
    return jsonschema.Draft7Validator(DOCUMENTS[name], registry=REGISTRY)


@pytest.mark.parametrize("name", NAMES)
def test_the_schemas_are_schemas(name: str) -> None:
    """Each is valid JSON Schema and its own examples pass."""
    jsonschema.Draft7Validator.check_schema(DOCUMENTS[name])
    for example in DOCUMENTS[name].get("examples", ()):
        validator(name).validate(example)


def test_every_schema_in_the_folder_is_checked() -> None:
    """No schema is left out of these tests."""
    found = {path.name for path in FOLDER.joinpath("json").iterdir()}
    assert found == {f"{name}.json" for name in NAMES}


@UNHURRIED
@given(strategies.requests(is_json=True))
def test_what_producers_encode_is_valid(request_: Request) -> None:
    """Every encoded request passes its schema."""
    validator("request").validate(json.loads(encode_request(request_, JSON)))


@UNHURRIED
@given(strategies.results(is_json=True))
def test_what_subscribers_get_is_valid(result: Result) -> None:
    """Every encoded result passes its schema."""
    validator("result").validate(json.loads(encode_result(result, JSON)))


TENSOR = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize(
    "element", [True, None, "a", {}, [1.5, None], 1.5, -1, 2**64, 128, 2**16, 65519, 65520, -3e38, 1e39]
)
def test_decoder_and_schema_agree_on_elements(datatype: str, element: object) -> None:
    """For every datatype, an element passes the schema exactly if the decoder takes it."""
    document = {"inputs": [{**TENSOR, "datatype": datatype, "data": [element]}]}
    try:
        decode_request(json.dumps(document).encode(), JSON)
    except RecordError:
        is_taken = False
    else:
        is_taken = True
    assert validator("request").is_valid(document) == is_taken


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"inputs": []},
        {"inputs": [1]},
        {"id": 7, "inputs": [TENSOR]},
        {"id": "n" * 1025, "inputs": [TENSOR]},
        {"parameters": [], "inputs": [TENSOR]},
        {"inputs": [{**TENSOR, "name": str(number)} for number in range(257)]},
        {"inputs": [{**TENSOR, "name": None}]},
        {"inputs": [{**TENSOR, "name": "n" * 1025}]},
        {"inputs": [{**TENSOR, "datatype": "FP8"}]},
        {"inputs": [{**TENSOR, "shape": [-1]}]},
        {"inputs": [{**TENSOR, "shape": [1.5]}]},
        {"inputs": [{**TENSOR, "shape": 1}]},
        {"inputs": [{**TENSOR, "shape": [1] * 33}]},
        {"inputs": [{**TENSOR, "data": 1}]},
        *(
            {"inputs": [{name: TENSOR[name] for name in TENSOR if name != left}]}
            for left in ("datatype", "shape", "data")
        ),
    ],
)
def test_what_the_schema_refuses_the_decoder_refuses(document: object) -> None:
    """The schema's rules are the decoder's, limits included."""
    assert not validator("request").is_valid(document)
    with pytest.raises(RecordError):
        decode_request(orjson.dumps(document), JSON)


@UNHURRIED
@given(strategies.results(is_json=True), st.sampled_from(["model_name", "outputs"]))
def test_required_fields_of_results_are_required(result: Result, field: str) -> None:
    """Without one of them neither the schema nor the decoder takes a result."""
    document = json.loads(encode_result(result, JSON))
    del document[field]
    assert not validator("result").is_valid(document)
    with pytest.raises(RecordError):
        decode_result(orjson.dumps(document), JSON)


def test_datatypes_and_limits_are_those_of_the_code() -> None:
    """A datatype or a limit that changes in the code changes in the schemas."""
    tensor = DOCUMENTS["tensor"]
    assert tuple(tensor["properties"]["datatype"]["enum"]) == DATATYPES
    assert tuple(tensor["definitions"]) == DATATYPES
    assert tensor["properties"]["name"]["maxLength"] == DEFAULT_LIMITS.text_length_max
    assert tensor["properties"]["shape"]["maxItems"] == DEFAULT_LIMITS.rank_max
    for name, field in (("request", "inputs"), ("result", "outputs")):
        properties = DOCUMENTS[name]["properties"]
        assert properties["id"]["maxLength"] == DEFAULT_LIMITS.text_length_max
        assert properties[field]["maxItems"] == DEFAULT_LIMITS.tensors_max
    assert set(DTYPES) < set(tensor["definitions"])


def test_the_parameters_of_results_are_those_of_the_code() -> None:
    """Every parameter that is written is described, and no other."""
    written = provenance(Source("t", 0, 0), 1, 0, 0, "00" * 32)
    assert list(DOCUMENTS["result"]["properties"]["parameters"]["properties"]) == list(written)


def test_the_headers_of_dead_letters_are_those_of_the_code() -> None:
    """Every header that is written is described, every reason is known, and what may be absent is not required."""
    dead_letter = DeadLetter(
        reason=Reason.EXPIRED,
        error="E",
        message="m",
        attempts=0,
        source=Source("t", 0, 0),
        timestamp_ms=-1,
        model="m",
        model_version="1",
        omitted_size=9,
    )
    document = DOCUMENTS["dead-letter-headers"]
    full = {name: raw.decode() for name, raw in dead_letter_headers(dead_letter)}
    assert list(document["properties"]) == list(full)
    validator("dead-letter-headers").validate(full)
    least = dict(dead_letter_headers(replace(dead_letter, model=None, model_version=None, omitted_size=None)))
    assert document["required"] == list(least)
    assert document["properties"]["dead-letter-reason"]["enum"] == list(Reason)
    assert document["properties"]["dead-letter-message"]["maxLength"] == headers.MESSAGE_LENGTH_MAX


def test_the_headers_of_records_are_those_of_the_code() -> None:
    """The headers that the program reads are described."""
    assert list(DOCUMENTS["record-headers"]["properties"]) == [
        headers.CONTENT_TYPE,
        headers.EXPIRES_AT,
        headers.TRACEPARENT,
        headers.TRACESTATE,
    ]
    assert not validator("record-headers").is_valid({"expires-at": "soon"})


def _references(node: object) -> Iterator[str]:
    """Find every `$ref`."""
    if isinstance(node, dict):
        for key, inner in node.items():
            if key == "$ref":
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _references(inner)


def _resolve(reference: str) -> Any:
    """Follow a reference of the AsyncAPI document."""
    path, _, pointer = reference.partition("#")
    node: Any = json.loads(FOLDER.joinpath(path).read_text("utf-8")) if path else ASYNCAPI
    for step in pointer.split("/")[1:]:
        node = node[step]
    return node


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    """Nothing is referred to that is not there, the packaged schemas included."""
    references = list(_references(ASYNCAPI))
    assert len(references) > len(NAMES)
    for reference in references:
        assert isinstance(_resolve(reference), dict)


def test_the_asyncapi_document_describes_the_topics_of_the_code() -> None:
    """Addresses are the default templates; each operation has its channel, messages and direction."""
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    channels, templates = ASYNCAPI["channels"], TopicTemplates()
    assert {name: channel["address"] for name, channel in channels.items()} == {
        "requests": "{topic}",
        "results": templates.result,
        "deadLetters": templates.dead_letter,
    }
    for channel in channels.values():
        assert all(f"{{{parameter}}}" in channel["address"] for parameter in channel["parameters"])
    assert {
        (operation["action"], operation["channel"]["$ref"].rpartition("/")[2])
        for operation in ASYNCAPI["operations"].values()
    } == {("receive", "requests"), ("send", "results"), ("send", "deadLetters")}
    for operation in ASYNCAPI["operations"].values():
        for message in operation["messages"]:
            assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")


def test_the_asyncapi_document_has_the_packages_version_and_content_type() -> None:
    """The document is released with the package."""
    import tomllib

    project = tomllib.loads(FOLDER.joinpath("pyproject.toml").read_text("utf-8"))["project"]
    assert ASYNCAPI["info"]["version"] == project["version"]
    assert ASYNCAPI["defaultContentType"] == schemas.MSGPACK
