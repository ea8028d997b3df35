"""YOLO as Ultralytics, Darknet, Roboflow, CVAT, Label Studio, LabelImg and FiftyOne write it."""

import json

import yaml

from exports.coco import label_studio_named, roboflow_named
from exports.pictures import Export, Picture


def ultralytics(export: Export) -> None:
    """A data.yaml with a folder or a list of folders for each split, or with list files."""
    kind = export.pick(["folders", "lists of folders", "list files"])
    places: dict[str, object] = {}
    for split, pictures in export.subsets.items():
        subset = split or "train"
        _put_labelled(export, pictures, f"images/{subset}/", f"labels/{subset}/")
        tops = {picture.folder.partition("/")[0] for picture in pictures}
        places[subset] = f"images/{subset}"
        if kind == "lists of folders" and "" not in tops:
            places[subset] = [f"images/{subset}/{top}" for top in sorted(tops)]
        elif kind == "list files":
            paths = [_listed(export, f"images/{subset}/{picture.file}") for picture in export.shuffled(pictures)]
            export.put(f"{subset}.txt", _lines(export, paths))
            places[subset] = export.pick([f"{subset}.txt", [f"{subset}.txt"]])
    path = export.pick([{}, {"path": "."}, {"path": str(export.root)}])
    export.put(export.pick(["data.yaml", "dataset.yaml"]), _yaml(export, {**path, **places}))


def _listed(export: Export, path: str) -> str:
    return export.pick([path, f"./{path}", f"{export.root}/{path}", path.replace("/", "\\")])


def darknet(export: Export) -> None:
    """obj.data with lists of absolute paths, or relative ones, of images that lie apart from their labels or beside."""
    lists = ""
    for split, pictures in export.subsets.items():
        key = {"val": "valid", "": "train"}.get(split, split)
        labels = export.pick([f"labels/{key}/", f"images/{key}/"])
        _put_labelled(export, pictures, f"images/{key}/", labels)
        paths = [_listed(export, f"images/{key}/{picture.file}") for picture in export.shuffled(pictures)]
        export.put(f"{key}.txt", _lines(export, paths))
        lists += f"{key}{export.pick([' = ', '='])}{export.pick(['', './', f'{export.root}/'])}{key}.txt\n"
    export.put("obj.data", f"classes={len(export.classes)}\n{lists}names = obj.names\nbackup = backup/\n")
    export.put("obj.names", _lines(export, export.classes))


def cvat(export: Export) -> None:
    """YOLO 1.1. Numbers have six decimals; paths start with a folder that the archive lacks."""
    lists, prefix = "", export.pick(["data/", ""])
    for split, pictures in export.subsets.items():
        key = {"val": "valid", "": "train"}.get(split, split)
        folder = f"obj_{key}_data/"
        _put_labelled(export, pictures, folder, folder, exact=False)
        export.put(f"{key}.txt", "".join(f"{prefix}{folder}{one.file}\n" for one in export.shuffled(pictures)))
        lists += f"{key} = {prefix}{key}.txt\n"
    export.put("obj.data", f"classes = {len(export.classes)}\n{lists}names = {prefix}obj.names\nbackup = backup/\n")
    export.put("obj.names", "".join(f"{name}\n" for name in export.classes))


def cvat_ultralytics(export: Export) -> None:
    """data.yaml with list files."""
    places = {}
    for split, pictures in export.subsets.items():
        subset = split or "train"
        _put_labelled(export, pictures, f"images/{subset}/", f"labels/{subset}/", exact=False)
        prefix = export.pick(["", "data/"])
        export.put(f"{subset}.txt", "".join(f"{prefix}images/{subset}/{picture.file}\n" for picture in pictures))
        places[subset] = f"{subset}.txt"
    export.put("data.yaml", _yaml(export, {"path": ".", **places}))


def roboflow(export: Export) -> None:
    """Paths in the data.yaml start above its folder."""
    places = {}
    for split, pictures in export.subsets.items():
        folder = {"val": "valid", "": "train"}.get(split, split)
        _put_labelled(export, list(map(roboflow_named, pictures)), f"{folder}/images/", f"{folder}/labels/")
        places[split or "train"] = f"../{folder}/images"
    export.put("data.yaml", _yaml(export, {**places, "roboflow": {"workspace": "me", "version": 1}}))


def roboflow_darknet(export: Export) -> None:
    for split, pictures in export.subsets.items():
        folder = {"val": "valid", "": "train"}.get(split, split) + "/"
        _put_labelled(export, list(map(roboflow_named, pictures)), folder, folder)
        export.put(f"{folder}_darknet.labels", "\n".join(export.classes))


def label_studio(export: Export) -> None:
    (pictures,) = export.subsets.values()
    _put_labelled(export, list(map(label_studio_named, pictures)), "images/", "labels/")
    export.put("classes.txt", "".join(f"{name}\n" for name in export.classes))
    categories = [{"id": index, "name": name} for index, name in enumerate(export.classes)]
    info = {"year": 2024, "version": "1.0", "contributor": "Label Studio"}
    export.put("notes.json", json.dumps({"categories": categories, "info": info}, indent=2))


def labelimg(export: Export) -> None:
    """Beside the images."""
    _put_labelled(export, export.in_one_folder(), "", "", exact=False)
    export.put("classes.txt", "".join(f"{name}\n" for name in export.classes))


def fiftyone(export: Export) -> None:
    """YOLOv5: dataset.yaml with paths that start with "./"."""
    places = {}
    for split, pictures in export.subsets.items():
        subset = split or "train"
        _put_labelled(export, pictures, f"images/{subset}/", f"labels/{subset}/")
        places[subset] = f"./images/{subset}/"
    export.put("dataset.yaml", _yaml(export, {"path": str(export.root), **places}))


def _yaml(export: Export, places: dict[str, object]) -> str:
    """As PyYAML writes it, or by hand with names in flow style."""
    count = len(export.classes)
    numbered = dict(enumerate(export.classes))
    names: object = export.pick([export.classes, numbered])
    if export.pick([True, False]):
        document = {**places, "nc": count, "names": names}
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=export.pick([True, False]))
    quoted = ", ".join(f"'{name}'" for name in export.classes)
    return f"{yaml.safe_dump(places, sort_keys=False)}\nnc: {count}\nnames: [{quoted}]\n"


def _put_labelled(export: Export, pictures: list[Picture], images: str, labels: str, *, exact: bool = True) -> None:
    """Images and their label files; a background has an empty one or none. exact: with all decimals."""
    for picture in pictures:
        export.put(f"{images}{picture.file}", picture.data)
        rows = [_row(export, picture, box, exact) for box in picture.boxes]
        if rows or export.pick([True, False]):
            export.put(f"{labels}{picture.name}.txt", _lines(export, rows))


def _row(export: Export, picture: Picture, box: tuple, exact: bool) -> str:
    index, x, y, w, h = box
    width, height = picture.size
    values = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
    if not exact:
        return " ".join([str(index), *(f"{value:.6f}" for value in values)])
    spelled = [export.pick([repr(value), f"{value:.17g}", f"{value:.12e}", f"{value:.9f}"]) for value in values]
    return export.pick([" ", "\t", "  "]).join([export.pick([str(index), f"{index}.0"]), *spelled])


def _lines(export: Export, lines: list[str]) -> str:
    """Lines as an editor on either system leaves them."""
    end = export.pick(["\n", "\r\n"])
    return end.join(lines) + export.pick(["", end])
