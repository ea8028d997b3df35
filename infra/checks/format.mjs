// Formats Terraform files as `terraform fmt` does: node format.mjs [--check] FOLDER
// With --check nothing is written; files that differ are named, and the exit code is 1.

import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { format } from "@cdktn/hcl-tools";

const given = process.argv.slice(2);
const check = given.includes("--check");
const folder = given.find((argument) => !argument.startsWith("--"));

const entries = await readdir(folder, { recursive: true, withFileTypes: true });
const files = entries
  .filter((entry) => entry.isFile() && /\.(tf|hcl|tfvars(\.example)?)$/.test(entry.name))
  .map((entry) => join(entry.parentPath, entry.name))
  .filter((path) => !path.includes(".terraform"))
  .sort();
if (files.length === 0) throw new Error(`${folder}: no Terraform files`);

const stale = [];
for (const path of files) {
  const text = await readFile(path, "utf8");
  const formatted = await format(text);
  if (formatted === text) continue;
  stale.push(path);
  if (!check) await writeFile(path, formatted);
}
if (check) for (const path of stale) console.error(`${path}: not formatted; run make format-infra`);
process.exit(check && stale.length > 0 ? 1 : 0);
