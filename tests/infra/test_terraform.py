"""The Terraform configuration is consistent, as far as can be checked without Terraform and without an account."""

import json
import re
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

from infra.checks import module_docs
from infra.checks.terraform_config import Config, arguments, expression, load, references, unquoted

TERRAFORM = Path(__file__).parents[2] / "infra" / "terraform"
SCHEMA = json.loads(Path(__file__).with_name("provider_schema.json").read_text(encoding="utf-8"))["kinds"]
FOLDERS = module_docs.folders()
META = {"count", "for_each", "provider", "depends_on", "lifecycle", "provisioner", "connection", "timeouts"}
MODULE_META = {"source", "version", "count", "for_each", "providers", "depends_on"}
OF_TERRAFORM = {"terraform_data": {"input", "triggers_replace"}}

each_folder = pytest.mark.parametrize(
    "config", FOLDERS, ids=[str(folder.relative_to(TERRAFORM)) for folder in FOLDERS], indirect=True
)


@pytest.fixture
def config(request: pytest.FixtureRequest) -> Config:
    """The folder's files, read by a test and not while the tests are collected, which each process does."""
    return load(request.param)


@each_folder
def test_has_the_files_of_a_module(config: Config) -> None:
    files = {path.name for path in config.folder.iterdir()}
    assert {"main.tf", "variables.tf", "outputs.tf", "versions.tf", "README.md"} <= files


@each_folder
def test_readme_lists_the_inputs_and_outputs(config: Config) -> None:
    readme = (config.folder / "README.md").read_text(encoding="utf-8")
    assert readme == module_docs.documented(config, readme), "run make format-infra"


@each_folder
def test_every_variable_is_typed_and_described(config: Config) -> None:
    lacking = {name for name, body in config.variables.items() if not {"type", "description"} <= body.keys()}
    assert not lacking


@each_folder
def test_every_number_has_a_range(config: Config) -> None:
    unchecked = {name for name in config.variables if _has_number(config, name) and not _has_range(config, name)}
    assert not unchecked, "give each a validation block, here or in the module it is handed to"


@each_folder
def test_every_output_is_described(config: Config) -> None:
    assert not {name for name, body in config.outputs.items() if "description" not in body}


@each_folder
def test_every_variable_and_local_is_used(config: Config) -> None:
    used = {reference.path[:2] for reference in config.references if reference.file != "variables.tf"}
    assert not {("var", name) for name in config.variables} - used
    assert not {("local", name) for name in config.locals} - used


@each_folder
def test_every_reference_names_something(config: Config) -> None:
    wrong = [str(reference) for reference in config.references if not _exists(config, reference.path)]
    assert not wrong


@each_folder
def test_every_module_gets_what_it_declares(config: Config) -> None:
    for name, body in config.modules.items():
        declared = config.callee(name).variables
        needed = {variable for variable, block in declared.items() if "default" not in block}
        given = {argument for argument in body if not argument.startswith("__")} - MODULE_META
        assert needed <= given <= declared.keys(), f"module {name}"


@each_folder
def test_every_argument_is_in_the_schema_of_its_provider(config: Config) -> None:
    for (mode, kind, name), body in config.objects.items():
        if kind in OF_TERRAFORM:
            assert arguments(body).keys() <= OF_TERRAFORM[kind] | META, name
        else:
            _check(SCHEMA[f"{mode}.{kind}"], body, f"{mode} {kind}.{name}", META)
    for name, body in config.providers:
        _check(SCHEMA[f"provider.{name}"], body, f"provider {name}", {"alias"})


@each_folder
def test_heredocs_hold_no_expressions(config: Config) -> None:
    unseen = [text for text in config.heredocs if "${" in text or "%{" in text]
    assert not unseen, "the checks here cannot see into them"


@each_folder
def test_no_interpolation_is_escaped_by_mistake(config: Config) -> None:
    """`$${name}` is the text ${name}: a dollar before a value is written with format()."""
    assert not [path.name for path in config.folder.glob("*.tf") if "$${" in path.read_text(encoding="utf-8")]


@each_folder
def test_third_party_charts_are_pinned(config: Config) -> None:
    for (_, kind, name), body in config.objects.items():
        if kind == "helm_release" and "repository" in body:
            assert re.fullmatch(r"\d+\.\d+\.\d+", unquoted(body.get("version"))), name


@each_folder
def test_versions_allow_the_provider_of_the_schema(config: Config) -> None:
    known = json.loads(Path(__file__).with_name("provider_schema.json").read_text(encoding="utf-8"))["providers"]
    text = (config.folder / "versions.tf").read_text(encoding="utf-8")
    stated = dict(re.findall(r'source  = "hashicorp/(\w+)"\s+version = "(?:~>|>=) ([\d.]+)', text))
    for provider, lowest in stated.items():
        assert known[provider].split(".")[:2] >= lowest.split(".")[:2]


@pytest.mark.parametrize("path", sorted(TERRAFORM.rglob("*.tftest.hcl")), ids=lambda path: path.name)
def test_test_files_name_what_their_module_has(path: Path) -> None:
    """`terraform test` runs them where available; here their names are checked."""
    config = load(path.parents[1])
    tree = hcl2.parses(path.read_text(encoding="utf-8"))
    parsed = hcl2.serialize(tree)
    for variables in parsed.get("variables", []):
        assert {name for name in variables if not name.startswith("__")} <= config.variables.keys()
    needed = {name for name, block in config.variables.items() if "default" not in block}
    assert needed <= {name for variables in parsed.get("variables", []) for name in variables}
    assert parsed["run"]
    assert not [path for path in references(tree) if not _exists(config, path, bound=True)]


def test_templates_get_the_variables_they_name() -> None:
    call = re.compile(r'templatefile\("\$\{path\.module\}/([^"]+)", \{(.*?)\n  \}\)', re.DOTALL)
    calls = [
        (folder / name, given)
        for folder in FOLDERS
        for path in folder.glob("*.tf")
        for name, given in call.findall(path.read_text(encoding="utf-8"))
    ]
    assert len(calls) == len(list(TERRAFORM.rglob("*.tftpl")))
    for template, given in calls:
        named = set(re.findall(r"\$\{(\w+)\}", template.read_text(encoding="utf-8")))
        assert named == set(re.findall(r"^\s+(\w+)\s+=", given, re.MULTILINE))


def test_the_overlay_of_kubeflow_pipelines_is_yaml() -> None:
    template = (TERRAFORM / "modules/kubeflow/templates/kustomization.yaml.tftpl").read_text(encoding="utf-8")
    overlay = yaml.safe_load(re.sub(r"\$\{(\w+)\}", r"some-\1", template))
    launcher = yaml.safe_load(overlay["patches"][0]["patch"])[0]["value"]
    assert launcher["defaultPipelineRoot"] == "some-root"
    assert yaml.safe_load(launcher["providers"])["s3"]["default"]["credentials"] == {"fromEnv": True}


def test_the_release_of_kubeflow_is_that_of_the_client() -> None:
    lock = (TERRAFORM.parents[1] / "requirements.lock").read_text(encoding="utf-8")
    client = re.search(r"^kfp==(\S+)", lock, re.MULTILINE)
    assert client
    assert unquoted(load(TERRAFORM / "modules/kubeflow").variables["kfp_version"]["default"]) == client[1]


def _has_number(config: Config, name: str) -> bool:
    return expression(config.variables[name]["type"]) == "number"


def _has_range(config: Config, name: str) -> bool:
    """A validation of its own, or of the module variable that it is passed to unchanged."""
    if "validation" in config.variables[name]:
        return True
    return any(
        expression(value) == f"var.{name}" and _has_range(config.callee(module), argument)
        for module, body in config.modules.items()
        for argument, value in body.items()
        if argument not in MODULE_META
    )


def _exists(config: Config, path: tuple[str, ...], bound: bool = False) -> bool:
    root, name, *rest = path
    match root:
        case "var":
            return name in config.variables
        case "local":
            return name in config.locals
        case "module":
            return name in config.modules and (not rest or rest[0] in config.callee(name).outputs)
        case "output":
            return name in config.outputs
        case "data" | "ephemeral":
            return len(path) > 2 and _has_attribute(config, (root, name, rest[0]), rest[1:])
    if root.startswith(("aws_", "helm_", "terraform_data")):
        return _has_attribute(config, ("resource", root, name), rest)
    return bound or root in config.bound


def _has_attribute(config: Config, address: tuple[str, str, str], path: list[str]) -> bool:
    if address not in config.objects:
        return False
    if address[1] in OF_TERRAFORM:
        return True
    inside: Any = SCHEMA[f"{address[0]}.{address[1]}"]
    for name in path:
        if name not in inside:
            return False
        if not isinstance(inside[name], dict):
            return True  # a map, or a value
        inside = inside[name]["inside"]
    return True


def _check(schema: dict[str, Any], body: dict[str, Any], where: str, allowed: set[str]) -> None:
    """Every argument is known and settable, blocks are blocks, and what is required is there."""
    given = arguments(body)
    needed = {name for name, entry in schema.items() if _need(entry) == "required"}
    assert needed <= given.keys(), f"{where} lacks {needed - given.keys()}"
    for name, blocks in given.items():
        if name in allowed:
            continue
        assert name in schema, f"{where} has no argument {name}"
        entry = schema[name]
        assert _need(entry) != "computed", f"{where}: {name} cannot be set"
        is_block = isinstance(entry, dict) and entry["block"]
        assert (blocks is not None) == is_block, f"{where}: {name} is {'a' if is_block else 'no'} block"
        nested = [body[name]] if isinstance(entry, dict) and isinstance(body.get(name), dict) else blocks or []
        for block in nested:
            _check(entry["inside"], block, f"{where}.{name}", set())


def _need(entry: Any) -> str:
    return entry["need"] if isinstance(entry, dict) else entry
