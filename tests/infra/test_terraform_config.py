"""What the checks of the Terraform configuration find: each name, wherever it occurs."""

from pathlib import Path

import pytest

from infra.checks.terraform_config import arguments, load

CONFIGURATION = """
variable "zones" {
  type        = list(string)
  description = "Zones."
}

locals {
  by_zone = { for zone in var.zones : zone => module.net.subnets[zone].id if zone != "" }
}

resource "aws_instance" "this" {
  for_each = local.by_zone

  name = "a-${data.aws_region.current.region}-${upper(each.key)}"
  size = aws_thing.it[0].sizes[var.index]["large"]

  dynamic "disk" {
    for_each = [1]

    content {
      gib = disk.value
    }
  }

  lifecycle {
    ignore_changes = [scaling.desired]
  }
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.tf").write_text(CONFIGURATION)
    return tmp_path


def test_finds_every_reference(folder: Path) -> None:
    """In an index, a template, a function's argument, a for expression's condition; ignore_changes names none."""
    assert {reference.path for reference in load(folder).references} == {
        ("var", "zones"),
        ("module", "net", "subnets", "id"),
        ("local", "by_zone"),
        ("data", "aws_region", "current", "region"),
        ("aws_thing", "it", "sizes"),
        ("var", "index"),
        ("disk", "value"),
    }


def test_knows_names_that_are_bound_locally(folder: Path) -> None:
    assert load(folder).bound == {"zone", "disk"}


def test_tells_blocks_from_attributes(folder: Path) -> None:
    given = arguments(load(folder).objects["resource", "aws_instance", "this"])
    assert {name for name, blocks in given.items() if blocks is None} == {"for_each", "name", "size"}
    assert [block["gib"] for block in given["disk"] or []] == ["${disk.value}"]
