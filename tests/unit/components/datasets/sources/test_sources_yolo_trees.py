"""Any data set that the YOLO format allows is read as it was written: names, folders, places of labels, numbers."""

import json
import tempfile
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from components.datasets.raw import RawDataset
from components.datasets.sources import yolo_dir
from yolo_core.progress import silent

Numbers = tuple[int, ...]
SCALE = 4096  # fractions are n / 4096, which floats hold exactly, as they do the corners that follow

# Names that differ in how they are written, or come to the same when joined by "_".
close = st.sampled_from(["a", "A", "0", "a_b", "b_0", "b", "é", "e\u0301", "a b", "a%20b", "a_b_0"])
others = st.text("abAB01éß -_%#'.", min_size=1, max_size=4).filter(lambda text: text.strip(" .") == text)
parts = close | others
folders = st.lists(parts | st.just("images"), max_size=3).map("/".join)
endings = st.sampled_from([".jpg", ".JPG", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tiff", ".PNG"])
sizes = st.integers(1, SCALE)
boxes = st.tuples(st.integers(0, 3), st.integers(0, SCALE), st.integers(0, SCALE), sizes, sizes)


@dataclass(frozen=True)
class Image:
    split: str
    folder: str
    stem: str
    ending: str
    boxes: list[Numbers] | None
    """Class, centre, size; None without a label file."""
    beside: bool

    @property
    def path(self) -> str:
        return str(Path("images", self.split, self.folder, self.stem + self.ending))

    @property
    def label(self) -> str:
        top = "images" if self.beside else "labels"
        return str(Path(top, self.split, self.folder, f"{self.stem}.txt"))


images = st.builds(
    Image,
    split=st.sampled_from(["train", "val"]),
    folder=folders,
    stem=parts,
    ending=endings,
    boxes=st.none() | st.lists(boxes, max_size=4, unique=True),
    beside=st.booleans(),
)
ONE = [(0, 2048, 2048, 8, 8)]
# Both splits; names equal when joined by "_"; names that differ in case, of which one has no labels.
ALWAYS = [Image(split, "", "one", ".jpg", ONE, False) for split in ("train", "val")] + [
    Image("train", folder, stem, ".jpg", rows, False)
    for folder, stem, rows in (("x/a", "b_0", ONE), ("x/a_b", "0", []), ("y", "a", ONE), ("y", "A", None))
]
trees = st.lists(images, min_size=2, max_size=12, unique_by=lambda image: Path(image.label).parts[1:])
names = st.lists(st.text("nyo01:~é -x", min_size=1, max_size=6).map(str.strip), min_size=4, max_size=4, unique=True)


def spelled(draw: st.DrawFn, value: Decimal) -> str:
    """A number in one of the ways in which `float` reads it back exactly."""
    text = format(value, "f")
    short = text.removeprefix("0") if text not in ("0", "1") else text
    mantissa, exponent = f"{value:.20E}".split("E")
    ways = [text, f"{text}0" if "." in text else f"{text}.", short, f"+{short}", f"{mantissa}e{exponent}", f"0{text}"]
    return draw(st.sampled_from(ways))


def written(draw: st.DrawFn, rows: list[Numbers]) -> bytes:
    """A label file with whatever blanks, line ends and encoding its writer likes."""
    blank = st.sampled_from([" ", "\t", "  ", " \t"])
    edge = st.sampled_from(["", " ", "\t"])
    lines = []
    for index, *values in rows:
        words = [draw(st.sampled_from([f"{index}", f"{index}.0", f"0{index}"]))]
        words += [spelled(draw, Decimal(value) / SCALE) for value in values]
        lines.append(draw(edge) + "".join(word + draw(blank) for word in words[:-1]) + words[-1] + draw(edge))
        lines += [""] * draw(st.integers(0, 1))
    text = draw(st.sampled_from(["\n", "\r\n"])).join(lines) + draw(st.sampled_from(["", "\n", "\r\n", " "]))
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))


def listed(draw: st.DrawFn, path: str, root: Path) -> str:
    return draw(st.sampled_from([path, f"./{path}", str(root / path), path.replace("/", "\\")]))


def write(draw: st.DrawFn, tree: list[Image], classes: list[str], root: Path) -> None:
    """The tree, described by classes.txt, by a data.yaml with folders, or by one with list files."""
    for image in tree:
        for path, data in ((image.path, b""), (image.label, image.boxes and written(draw, image.boxes))):
            if data is not None:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(data or b"")
    kind = draw(st.sampled_from(["classes", "folders", "lists"]))
    if kind == "classes":
        (root / "classes.txt").write_text("\n".join(classes), encoding="utf-8")
        return
    places: dict[str, object] = {split: f"images/{split}" for split in ("train", "val")}
    if kind == "lists":
        for split in places:
            lines = [listed(draw, image.path, root) for image in tree if image.split == split]
            (root / f"{split}.txt").write_text("\r\n".join(draw(st.permutations(lines))), encoding="utf-8")
            places[split] = [f"{split}.txt"]
    (root / "data.yaml").write_text(json.dumps({**places, "names": classes, "nc": len(classes)}))


def found(raw: RawDataset, root: Path) -> dict[str, list[tuple]]:
    """Class and box of each label, by the path of the image."""
    by_image: dict[str, list[tuple]] = {}
    for split in raw.splits.values():
        assert split.quarantined == []
        paths = {image.id: image.path.relative_to(root).as_posix() for image in split.images}
        by_image |= {path: [] for path in paths.values()}
        for box in split.boxes:
            assert isinstance(box.image_id, int)
            by_image[paths[box.image_id]].append((box.category_id, box.xywh))
    return by_image


def expected(image: Image) -> list[tuple]:
    rows = [(index, *(value / SCALE for value in values)) for index, *values in image.boxes or []]
    return [(index, (cx - w / 2, cy - h / 2, w, h)) for index, cx, cy, w, h in rows]


@settings(deadline=None, max_examples=60)
@given(st.data(), trees, names)
def test_a_tree_is_read_as_it_was_written(data, tree, classes):
    tree += ALWAYS
    if "" in classes:  # a blank line at the end is no class
        classes = [name or "blank" for name in classes]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "images/set")
        root.mkdir(parents=True)
        write(data.draw, tree, classes, root)
        raw = yolo_dir.read(root, silent)
        assert found(raw, root) == {image.path: expected(image) for image in tree}
        assert [(record["id"], record["name"]) for record in raw.categories] == list(enumerate(classes))
        for split in raw.splits.values():
            prepared = [image.name for image in split.images]
            assert len(set(prepared)) == len(prepared)
