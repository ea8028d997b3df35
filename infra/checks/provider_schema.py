"""Write tests/infra/provider_schema.json: the arguments of every provider block, resource and data source in use.

Terraform would ask the providers, which cannot be fetched without it. The CDK Terrain bindings of a provider are
generated from its schema and published as a Python package; this script reads them and keeps what the configuration
uses. Run it again after using a new kind of resource or updating a version:

    python -m infra.checks.provider_schema
"""

import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TypedDict

import hcl2

ROOT = Path(__file__).parents[2]
TERRAFORM = ROOT / "infra" / "terraform"
OUT = ROOT / "tests" / "infra" / "provider_schema.json"
PACKAGES = {"aws": "cdktn-provider-aws==25.8.1", "helm": "cdktn-provider-helm==15.1.0"}
NO_BLOCKS = {"helm"}  # nested values are attributes there, which the bindings do not show
BUILT_IN = {"terraform_data"}  # part of Terraform itself

# Lines of the generated JavaScript that carry the schema.
_CLASS = re.compile(r"^class (\w+) extends cdktn\.(\w+)")
_MEMBER = re.compile(r"^    // (\w+) - computed: (\w+), optional: (\w+), required: (\w+)")
_NESTED = re.compile(r"^    _\w+ = new (\w+)\(this, \"(\w+)\"")
_RETURNED = re.compile(r"^        return new (\w+)\(this, \"(\w+)\"")
_FUNCTION = re.compile(r"^function (\w+)ToHclTerraform\(")
_SYNTHESIS = re.compile(r"^    synthesizeHclAttributes\(\)")
_ARGUMENT = re.compile(r"^ {8,12}(\w+): \{$")
_BLOCK = re.compile(r"^\s+isBlock: true,")
_STORED = re.compile(r"^\s+storageClassType: \"(\w+)\"")


class Nested(TypedDict):
    """An argument that is an object, or several."""

    block: bool
    """Whether it is written as a block."""

    need: str
    """required, optional or computed."""

    inside: "Arguments"


Arguments = dict[str, str | Nested]  # by name; of what is no object, as `Nested.need`


class Schema(TypedDict):
    """The content of the file."""

    packages: dict[str, str]
    """Requirement by provider."""

    providers: dict[str, str]
    """Version by provider."""

    kinds: dict[str, Arguments]
    """By mode and kind, such as resource.aws_vpc."""


def main() -> None:
    used = sorted(_used())
    schema: Schema = {"packages": PACKAGES, "providers": {}, "kinds": {}}
    with tempfile.TemporaryDirectory() as folder:
        for provider, package in PACKAGES.items():
            bindings = _bindings(package, Path(folder))
            described = json.loads(_read(bindings, "package/package.json"))
            schema["providers"][provider] = described["cdktn"]["provider"]["version"]
            schema["kinds"][f"provider.{provider}"] = _kind(_read(bindings, "package/lib/provider/index.js"), provider)
            for mode, kind in used:
                if kind.startswith(f"{provider}_"):
                    source = _read(bindings, f"package/lib/{_folder(mode, kind, provider)}/index.js")
                    schema["kinds"][f"{mode}.{kind}"] = _kind(source, provider)
    OUT.write_text(_text(schema), encoding="utf-8")


def _text(schema: Schema) -> str:
    """JSON with one line per kind, for readable diffs."""
    lines = (
        f"{json.dumps(name)}: {json.dumps(kind, sort_keys=True)}" for name, kind in sorted(schema["kinds"].items())
    )
    body = ",\n".join(lines)
    rest = {key: value for key, value in schema.items() if key != "kinds"}
    return f'{json.dumps(rest)[:-1]},\n"kinds": {{\n{body}\n}}}}\n'


def _used() -> set[tuple[str, str]]:
    """(mode, kind) of everything in the configuration: ("resource", "aws_vpc"), ("data", "aws_region")."""
    found = set()
    for path in TERRAFORM.rglob("*.tf"):
        parsed = hcl2.loads(path.read_text(encoding="utf-8"))
        for mode in ("resource", "data", "ephemeral"):
            found |= {(mode, kind.strip('"')) for block in parsed.get(mode, []) for kind in block}
    return {(mode, kind) for mode, kind in found if kind not in BUILT_IN}


def _folder(mode: str, kind: str, provider: str) -> str:
    name = kind.replace("_", "-")
    return name.removeprefix(f"{provider}-") if mode == "resource" else f"{mode}-{name}"


def _bindings(package: str, folder: Path) -> tarfile.TarFile:
    """The JavaScript inside the package's wheel."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    subprocess.run(command, check=True)
    wheel = next(folder.glob(f"{package.split('==')[0].replace('-', '_')}-*.whl"))
    with zipfile.ZipFile(wheel) as opened:
        inner = next(name for name in opened.namelist() if name.endswith(".jsii.tgz"))
        return tarfile.open(fileobj=io.BytesIO(opened.read(inner)))


def _read(bindings: tarfile.TarFile, name: str) -> str:
    file = bindings.extractfile(name)
    assert file is not None, f"{name}: missing from the package"
    return file.read().decode()


def _kind(source: str, provider: str) -> Arguments:
    """The schema of one kind: name -> "required", "optional" or "computed", or for a nested object
    {"block": whether it is written as a block, "need": one of the three, "inside": its schema}."""
    members, nested, blocks, top = _parse(source)

    def describe(owner: str) -> Arguments:
        described: Arguments = {}
        for name, need in members.get(owner, {}).items():
            inner = nested.get((owner, name))
            if inner not in members:
                described[name] = need
            else:
                described[name] = {
                    "block": (owner, name) in blocks and provider not in NO_BLOCKS,
                    "need": need,
                    "inside": describe(inner),
                }
        return described

    return describe(top)


def _parse(
    source: str,
) -> tuple[dict[str, dict[str, str]], dict[tuple[str, str], str], set[tuple[str, str]], str]:
    """By class (without the suffix for its container): members, nested classes and blocks; and the top class."""
    members: dict[str, dict[str, str]] = {}
    nested: dict[tuple[str, str], str] = {}
    blocks: set[tuple[str, str]] = set()
    owner = argument = top = ""
    for line in source.splitlines():
        if line.startswith("//# sourceMappingURL"):
            continue
        if match := _CLASS.match(line):
            owner = _plain(match[1])
            if match[2] in (
                "TerraformResource",
                "TerraformDataSource",
                "TerraformProvider",
                "TerraformEphemeralResource",
            ):
                top = owner = match[1]
        elif match := _FUNCTION.match(line):
            owner = match[1][0].upper() + match[1][1:]
        elif match := _MEMBER.match(line):
            members.setdefault(owner, {})[match[1]] = _need(*match.groups()[1:])
        elif match := _NESTED.match(line) or _RETURNED.match(line):
            nested[owner, match[2]] = _plain(match[1])
        elif match := _ARGUMENT.match(line):
            argument = match[1]
        elif _BLOCK.match(line):
            blocks.add((owner, argument))
        elif match := _STORED.match(line):  # all that the bindings show of a provider's own blocks
            members.setdefault(owner, {}).setdefault(argument, "optional")
            nested.setdefault((owner, argument), _plain(match[1]))
    assert top, "no resource in the file"
    return members, nested, blocks, top


def _plain(name: str) -> str:
    return re.sub(r"(OutputReference|List|Map)$", "", name)


def _need(computed: str, optional: str, required: str) -> str:
    return "required" if required == "true" else "optional" if optional == "true" else "computed"


if __name__ == "__main__":
    main()
