"""Pascal VOC as its development kit, CVAT, LabelImg, Label Studio and Roboflow write it."""

from xml.sax.saxutils import escape

from exports.coco import label_studio_named, roboflow_named
from exports.pictures import Export, Picture

DATABASES = {
    "kit": "<source><database>The VOC2007 Database</database></source>",
    "edges": "<source><database>Unknown</database></source>",
    "studio": "<source><database>MyDatabase</database></source>",
    "roboflow": "<source><database>roboflow.com</database></source>",
}
SHIFTS = {"kit": (1, 0), "edges": (0, 0), "studio": (0, 0), "roboflow": (1, 1)}
"""Added to left and top, and to right and bottom."""
HEADER = '<?xml version="1.0" encoding="utf-8"?>'


def kit(export: Export) -> None:
    """With lists of whole subsets and of single classes."""
    for split, pictures in export.subsets.items():
        for picture in pictures:
            export.put(f"JPEGImages/{picture.file}", picture.data)
            export.put(f"Annotations/{picture.name}.{export.pick(['xml', 'xml', 'XML'])}", _xml(export, picture, "kit"))
        subset = split or "default"
        names = [picture.name for picture in export.shuffled(pictures)]
        export.put(f"ImageSets/Main/{subset}.txt", "".join(f"{name}\n" for name in names))
        export.put(f"ImageSets/Main/cat_{subset}.txt", "".join(f"{name} {export.pick([-1, 0, 1])}\n" for name in names))


def cvat(export: Export) -> None:
    """With a labelmap.txt; names with blanks stand in quotes."""
    for split, pictures in export.subsets.items():
        for picture in pictures:
            export.put(f"JPEGImages/{picture.file}", picture.data)
            export.put(f"Annotations/{picture.name}.xml", _xml(export, picture, "edges"))
        names = [f'"{one.name}"' if " " in one.name else one.name for one in export.shuffled(pictures)]
        export.put(f"ImageSets/Main/{split or 'default'}.txt", "".join(f"{name}\n" for name in names))
    labels = "".join(f"{name}:1,2,3::\n" for name in export.classes)
    export.put("labelmap.txt", f"# label:color_rgb:parts:actions\nbackground:0,0,0::\n{labels}")


def labelimg(export: Export) -> None:
    """Beside the images."""
    for picture in export.in_one_folder():
        export.put(picture.file, picture.data)
        export.put(f"{picture.name}.xml", _xml(export, picture, "edges"))


def label_studio(export: Export) -> None:
    (pictures,) = export.subsets.values()
    for picture in map(label_studio_named, pictures):
        export.put(f"images/{picture.file}", picture.data)
        export.put(f"Annotations/{picture.name}.xml", _xml(export, picture, "studio"))


def roboflow(export: Export) -> None:
    for split, pictures in export.subsets.items():
        folder = {"val": "valid", "": "train"}.get(split, split)
        for picture in map(roboflow_named, pictures):
            export.put(f"{folder}/{picture.file}", picture.data)
            export.put(f"{folder}/{picture.name}.xml", _xml(export, picture, "roboflow"))


def _xml(export: Export, picture: Picture, database: str) -> str:
    first, last = SHIFTS[database]
    objects = ""
    for index, x, y, w, h in picture.boxes:
        corners = {"xmin": x + first, "ymin": y + first, "xmax": x + w + last, "ymax": y + h + last}
        sides = "".join(f"<{side}>{_number(export, value)}</{side}>" for side, value in corners.items())
        objects += (
            f"<object><name>{escape(export.classes[index])}</name><pose>Unspecified</pose><truncated>1</truncated>"
            f"{export.pick(['<difficult>0</difficult>', ''])}<bndbox>{sides}</bndbox></object>\n"
        )
    name = export.pick([f"{picture.stem}{picture.ending}", picture.stem if database == "studio" else picture.file])
    width, height = picture.size
    return (
        f"{export.pick(['', HEADER])}<annotation>\n<folder>images</folder>"
        f"<filename>{escape(name)}</filename>{DATABASES[database]}"
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _number(export: Export, value: float) -> str:
    if value == int(value) and export.pick([True, False]):
        return str(int(value))
    return export.pick([f"{value:.2f}", repr(float(value)), f"{value:e}"])
