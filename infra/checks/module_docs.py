"""Write the tables of inputs and outputs in every README of infra/terraform: python -m infra.checks.module_docs."""

import re
import sys
from pathlib import Path

from infra.checks.terraform_config import Config, expression, load, unquoted

TERRAFORM = Path(__file__).parents[1] / "terraform"
BEGIN, END = "<!-- inputs and outputs: make format-infra -->", "<!-- end -->"


def documented(config: Config, readme: str) -> str:
    """The README with the tables between its marks regenerated."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{_tables(config)}{END}{after}"


def folders() -> list[Path]:
    """Every folder with its own configuration."""
    return sorted({path.parent for path in TERRAFORM.rglob("*.tf")})


def _tables(config: Config) -> str:
    inputs = [
        (f"`{name}`", _type(body["type"]), _default(body), unquoted(body["description"]))
        for name, body in sorted(config.variables.items())
    ]
    outputs = [(f"`{name}`", unquoted(body["description"])) for name, body in sorted(config.outputs.items())]
    return _table(("input", "type", "default", "meaning"), inputs) + "\n" + _table(("output", "meaning"), outputs)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    text = re.sub(r"^<<-?(\w+)\n(.*?)\n?\s*\1\s*$", r"\2", text, flags=re.DOTALL)
    return " ".join(text.split()).replace("|", "\\|")


def _type(value: object) -> str:
    """`map(object({...}))` without the fields: `map(object)`."""
    before, is_object, _ = expression(value).partition("object(")
    return f"`{before}object{')' * before.count('(')}`" if is_object else f"`{before}`"


def _default(body: dict) -> str:
    if "default" not in body:
        return "needed"
    default = body["default"]
    return f"`{' '.join(str(default).split())}`" if default is not None else "`null`"


def main() -> int:
    stale = []
    for folder in folders():
        readme = folder / "README.md"
        text = readme.read_text(encoding="utf-8")
        new = documented(load(folder), text)
        if new != text:
            stale.append(readme)
            if "--check" not in sys.argv:
                readme.write_text(new, encoding="utf-8")
    if "--check" in sys.argv:
        for readme in stale:
            print(f"{readme}: out of date; run make format-infra", file=sys.stderr)
        return bool(stale)
    return 0


if __name__ == "__main__":
    sys.exit(main())
