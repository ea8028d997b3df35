"""Training samples against the usual order of operations, their labels, and their randomness."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_folder import write_split
from hypothesis import given
from hypothesis import strategies as st

from yolo_core.data.coco import CacheSettings, DetectionDataset, load_split
from yolo_core.data.colour import jitter
from yolo_core.data.image import fitted, resize
from yolo_core.data.mosaic import training_sample as planar_sample
from yolo_core.data.sampling import SAMPLE, epoch_order, generator
from yolo_core.hyperparameters import Hyperparameters

SIZES = [(160, 120), (120, 160), (200, 90), (96, 96), (64, 150), (170, 128)]
COCO128 = Path(__file__).parents[4] / "shared" / "data" / "coco128"
STILL = Hyperparameters(hsv_h=0, hsv_s=0, hsv_v=0, translate=0, scale=0, flip_lr=0, mosaic=0)


def training_sample(*arguments, **options) -> tuple[np.ndarray, np.ndarray]:
    """The sample's planes as an image (H, W, 3)."""
    planes, labels = planar_sample(*arguments, **options)
    return planes.transpose(1, 2, 0), labels


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DetectionDataset:
    return load_split(write_split(tmp_path_factory.mktemp("mosaic"), SIZES), "train")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> DetectionDataset:
    if not COCO128.exists():
        pytest.skip(f"{COCO128} is not here")
    folder = tmp_path_factory.mktemp("coco128")
    (folder / "images").mkdir()
    (folder / "annotations").mkdir()
    (folder / "images" / "train").symlink_to(COCO128 / "images" / "train2017")
    source = COCO128 / "annotations" / "instances_train2017.json"
    (folder / "annotations" / "instances_train.json").symlink_to(source)
    return load_split(folder, "train").subset(16)


def in_public_order(
    data: DetectionDataset, hyp: Hyperparameters, size: int, seed: int, epoch: int, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same sample by the steps of public detectors, one after the other on whole canvases."""
    rng = generator(seed, SAMPLE, epoch, index)
    flip = rng.random() < hyp.flip_lr
    gains = 1 + rng.uniform(-1, 1, 3) * (hyp.hsv_h, hyp.hsv_s, hyp.hsv_v)
    mosaic = rng.random() < hyp.mosaic
    image, labels = _public_canvas(data, hyp, size, rng, index, mosaic)
    if mosaic and rng.random() < hyp.mixup:
        share = rng.beta(8, 8)
        other, more = _public_canvas(data, hyp, size, rng, int(rng.integers(len(data))), mosaic)
        image = (image * share + other * (1 - share)).round().astype(np.uint8)
        labels = np.concatenate([labels, more])
    image = by_tables(image, gains)
    if hyp.paste_in and rng.random() < hyp.paste_in:
        image, labels = _public_paste(image, labels, data, rng)
    if flip:
        image = image[:, ::-1]
        labels[:, [1, 3]] = size - labels[:, [3, 1]]
    centres, sides = (labels[:, 1:3] + labels[:, 3:]) / 2, labels[:, 3:] - labels[:, 1:3]
    return image, np.concatenate([labels[:, :1], centres, sides], axis=1)


def _public_canvas(data, hyp, size, rng, index, mosaic):
    """Resize every tile, paste it on the canvas, warp the canvas; labels class, xyxy_px in float64."""
    side = 2 * size if mosaic else size
    if mosaic and hyp.mosaic9 and rng.random() < hyp.mosaic9:
        indices = [index, *rng.integers(len(data), size=8)]
        sizes = [fitted(data.images[i].width, data.images[i].height, size) for i in indices]
        places = np.array(_ring(sizes, size)) - rng.integers(size, size=2)
        canvas, labels = _public_plane(data, side, indices, sizes, places)
    elif mosaic:
        canvas, labels = _public_four(data, size, rng, index)
    else:
        w, h = fitted(data.images[index].width, data.images[index].height, size)
        canvas, labels = _public_plane(data, side, [index], [(w, h)], [((size - w) // 2, (size - h) // 2)])

    scale = rng.uniform(1 - hyp.scale, 1 + hyp.scale)
    middle = rng.uniform(0.5 - hyp.translate, 0.5 + hyp.translate, 2) * size
    to_middle = np.array([[1, 0, -side / 2], [0, 1, -side / 2], [0, 0, 1]])
    grow = np.diag([scale, scale, 1])
    back = np.array([[1, 0, middle[0]], [0, 1, middle[1]], [0, 0, 1]])
    matrix = (back @ grow @ to_middle)[:2]
    image = cv2.warpAffine(canvas, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=(114, 114, 114))
    warped = (labels[:, 1:].reshape(-1, 2) @ matrix[:, :2].T + matrix[:, 2]).reshape(-1, 4)
    cut = warped.clip(0, size)
    (w0, h0), (w1, h1) = (warped[:, 2:] - warped[:, :2]).T, (cut[:, 2:] - cut[:, :2]).T
    with np.errstate(divide="ignore", invalid="ignore"):
        aspect = np.maximum(w1 / h1, h1 / w1)
        kept = (w1 > 2) & (h1 > 2) & (w1 * h1 / (w0 * h0) > 0.1) & (aspect < 20)
    return image, np.concatenate([labels[:, :1], cut], axis=1)[kept]


def _public_four(data, size, rng, index):
    """Four images around a random centre."""
    xc, yc = rng.integers(size // 2, size + size // 2, 2, endpoint=True)
    indices = [index, *rng.integers(len(data), size=3)]
    sizes = [fitted(data.images[i].width, data.images[i].height, size) for i in indices]
    around = ((-1, -1), (0, -1), (-1, 0), (0, 0))
    places = [(xc + dx * w, yc + dy * h) for (dx, dy), (w, h) in zip(around, sizes, strict=True)]
    return _public_plane(data, 2 * size, indices, sizes, places)


def _public_plane(data, side, indices, sizes, places):
    """The canvas with its tiles; labels class, xyxy_px in float64."""
    canvas = np.full((side, side, 3), 114, np.uint8)
    all_labels = []
    for i, (w, h), (x, y) in zip(indices, sizes, places, strict=True):
        record = data.images[i]
        tile = resize(data.load(i), w, h)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, side), min(y + h, side)
        if x0 < x1 and y0 < y1:
            canvas[y0:y1, x0:x1] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
        labels = data.labels[i].astype(np.float64)
        labels[:, 1:] *= np.tile([w / record.width, h / record.height], 2)
        labels[:, 1:] += np.tile([x, y], 2)
        all_labels.append(labels)
    labels = np.concatenate(all_labels)
    labels[:, 1:] = labels[:, 1:].clip(0, side)
    return canvas, labels


def _public_paste(image, labels, data, rng):
    """Cut objects out of whole mosaics, then put them into rectangles, one after the other."""
    size, objects = len(image), []
    for _ in range(30):
        canvas, found = _public_four(data, size, rng, int(rng.integers(len(data))))
        for row in found[rng.permutation(len(found))[: round(len(found) / 2)]]:
            x1, y1, x2, y2 = row[1:].clip(0, 2 * size - 1).astype(int)
            if x1 < x2 and y1 < y2:
                objects.append((row[0], canvas[y1:y2, x1:x2]))
        if not objects or len(objects) >= 30:
            break
    image = image.copy()
    fractions = [3 / 4] * 2 + [1 / 2] * 4 + [1 / 4] * 4 + [1 / 8] * 4 + [1 / 16] * 6
    for fraction, (tried, h, w, x, y, which) in zip(fractions, rng.random((20, 6)), strict=True):
        w, h = (1 + int(share * int(size * fraction)) for share in (w, h))
        x, y = (max(int(at * (size + 1)) - side // 2, 0) for at, side in ((x, w), (y, h)))
        w, h = min(w, size - x), min(h, size - y)
        corner, areas = labels[:, 1:3], (labels[:, 3:] - labels[:, 1:3]).prod(axis=1)
        shared = (np.minimum(labels[:, 3:], (x + w, y + h)) - np.maximum(corner, (x, y))).clip(0).prod(axis=1)
        if tried >= 0.8 or w <= 20 or h <= 20 or not objects or (shared >= 0.3 * areas).any():
            continue
        class_, pixels = objects[int(which * len(objects))]
        factor = min(w / pixels.shape[1], h / pixels.shape[0])
        w, h = int(pixels.shape[1] * factor), int(pixels.shape[0] * factor)
        if w > 10 and h > 10:
            image[y : y + h, x : x + w] = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_LINEAR)
            labels = np.concatenate([labels, [[class_, x, y, x + w, y + h]]])
    return image, labels


def _ring(sizes, s):
    """Corners of nine tiles on a canvas of 3 s: the first at (s, s), each further one beside the last, clockwise."""
    (w0, h0), places = sizes[0], [(s, s)]
    for number, (w, h) in enumerate(sizes[1:], start=1):
        (wp, hp), (xp, yp) = sizes[number - 1], places[-1]
        places.append(
            {
                1: (s, s - h),
                2: (s + wp, s - h),
                3: (s + w0, s),
                4: (s + w0, s + hp),
                5: (s + w0 - w, s + h0),
                6: (xp - w, s + h0),
                7: (s - w, s + h0 - h),
                8: (s - w, yp - h),
            }[number]
        )
    return places


def by_tables(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Colour jitter as in public detectors: one table of 256 values for each of hue, saturation and value."""
    values = np.arange(256)
    tables = [(values * gains[0]) % 180, (values * gains[1]).clip(0, 255), (values * gains[2]).clip(0, 255)]
    planes = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    jittered = [cv2.LUT(p, t.astype(np.uint8)) for p, t in zip(planes, tables, strict=True)]
    return cv2.cvtColor(cv2.merge(jittered), cv2.COLOR_HSV2RGB)


RECIPES = {
    "large": Hyperparameters(),
    "large, second stage": Hyperparameters(scale=0.8, mixup=1.0),
    "csp": Hyperparameters(scale=0.9, translate=0.1),
    "nine": Hyperparameters(mosaic9=1.0, translate=0.2, scale=0.3),
    "nine at times, mixed": Hyperparameters(mosaic9=0.5, mixup=0.5),
    "single image": Hyperparameters(mosaic=0.0, translate=0.2),
    "pasted into": Hyperparameters(mosaic=0.5, scale=0.9, paste_in=0.8),
}


@pytest.mark.parametrize("hyp", RECIPES.values(), ids=RECIPES)
def test_pixels_and_labels_equal_the_public_order(data, hyp):
    """They differ by rounding, and on the seams between tiles, where the public order blends the neighbours.

    These small samples with hard edges show both at their largest.
    """
    assert np.mean([_difference(data, hyp, 128, epoch, index) for epoch in range(4) for index in range(6)]) < 0.5


@pytest.mark.parametrize("size", [224, 416])
def test_photographs_equal_the_public_order(photographs, size):
    """Measured: 0.18 of 255 at 224 px, 0.11 at 416."""
    for hyp in RECIPES.values():
        assert np.mean([_difference(photographs, hyp, size, 0, index) for index in range(2)]) < 0.3


def _difference(data: DetectionDataset, hyp: Hyperparameters, size: int, epoch: int, index: int) -> float:
    """Mean absolute difference of the pixels; asserts that the labels are equal to float32 rounding."""
    image, labels = training_sample(data, hyp, size, 7, epoch, index)
    expected, expected_labels = in_public_order(data, hyp, size, 7, epoch, index)
    assert labels.dtype == np.float32
    np.testing.assert_allclose(labels, expected_labels, atol=1e-3)
    return float(np.abs(image.astype(int) - expected).mean())


def test_without_augmentation_the_sample_is_the_letterboxed_image(data):
    """160 x 120 at 80 px: 80 x 60, ten rows of grey above and below; boxes halve and move ten px down."""
    image, labels = training_sample(data, STILL, 80, 0, 0, 0)
    assert (image[:10] == 114).all()
    assert (image[70:] == 114).all()
    # To HSV and back costs up to a few units of rounding.
    np.testing.assert_allclose(image[10:70].astype(int), data.image(0, 80).astype(int), atol=6)
    x1, y1, x2, y2 = data.labels[0][:, 1:].T / 2
    whole = np.stack([(x1 + x2) / 2, (y1 + y2) / 2 + 10, x2 - x1, y2 - y1], axis=1)
    large = (whole[:, 2:] > 2).all(axis=1)
    assert large.any()
    np.testing.assert_allclose(labels[:, 1:], whole[large], rtol=1e-5)
    np.testing.assert_array_equal(labels[:, 0], data.labels[0][large, 0])


def test_tiles_neither_overlap_nor_leave_gaps(tmp_path):
    """Four plain images, each larger than what is seen: every pixel is one of the four colours, in four rectangles."""
    folder = write_split(tmp_path, [(64, 64)] * 4)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)
    for i, colour in enumerate(colours):
        cv2.imwrite(str(folder / "images" / "train" / f"{i}.png"), np.full((64, 64, 3), colour[::-1], np.uint8))
    plain = load_split(folder, "train")
    for index in range(40):
        hyp = STILL.replace(mosaic=1.0, scale=0.9, translate=0.4, flip_lr=0.5)
        image, _ = training_sample(plain, hyp, 64, 0, 0, index)
        known = (image[:, :, None] == np.vstack([colours, [[114, 114, 114]]])).all(axis=3)
        assert known.any(axis=2).all()
        drawn = ~known[:, :, 4]
        rows, columns = drawn.any(axis=1), drawn.any(axis=0)
        np.testing.assert_array_equal(drawn, rows[:, None] & columns)  # one rectangle: no gap between tiles


def test_flip_mirrors_pixels_and_labels(data):
    straight, turned = Hyperparameters(flip_lr=0.0, mixup=0.5), Hyperparameters(flip_lr=1.0, mixup=0.5)
    for index in range(6):
        image, labels = training_sample(data, straight, 96, 0, 0, index)
        mirrored, mirrored_labels = training_sample(data, turned, 96, 0, 0, index)
        assert np.abs(image[:, ::-1].astype(int) - mirrored).mean() < 0.1
        labels[:, 1] = 96 - labels[:, 1]
        np.testing.assert_allclose(mirrored_labels, labels, atol=1e-4)


def test_labels_are_inside_the_sample_and_worth_learning(data):
    for index in range(60):
        _, labels = training_sample(data, RECIPES["large, second stage"], 96, 1, 0, index)
        low, high = labels[:, 1:3] - labels[:, 3:] / 2, labels[:, 1:3] + labels[:, 3:] / 2
        assert (low >= -1e-4).all()
        assert (high <= 96 + 1e-4).all()
        assert (labels[:, 3:] > 2).all()
        assert (labels[:, 3:].max(axis=1) < 20 * labels[:, 3:].min(axis=1)).all()
        assert set(labels[:, 0]) <= {0, 1, 2}


def test_a_sample_is_a_function_of_seed_epoch_and_index_alone(tmp_path):
    folder = write_split(tmp_path, SIZES)
    hyp = Hyperparameters(mixup=0.5)

    def sample(data, epoch, index, seed=3):
        image, labels = training_sample(data, hyp, 64, seed, epoch, index)
        return image.tobytes(), labels.tobytes()

    keys = [(epoch, index) for epoch in range(3) for index in range(len(SIZES))]
    first = load_split(folder, "train")
    expected = {key: sample(first, *key) for key in keys}
    assert len(set(expected.values())) == len(keys)
    assert sample(first, 0, 0, seed=4) != expected[0, 0]
    np.random.default_rng().shuffle(keys)
    for cache in ("disk", "ram", "none"):
        again = load_split(folder, "train", cache=CacheSettings(cache, folder=tmp_path / "cache"))
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(lambda key, data=again: sample(data, *key) == expected[key], keys))


def test_an_index_beyond_the_dataset_is_the_same_image_with_new_draws(data):
    one = data.subset(1)
    hyp = Hyperparameters(mosaic=0.0)
    (first, _), (second, _) = training_sample(one, hyp, 64, 0, 0, 0), training_sample(one, hyp, 64, 0, 0, 1)
    assert (first != second).any()


def test_other_sizes_of_a_multi_scale_run_show_the_same_sample(data):
    """Draws are fractions of the size, but for the mosaic's centre, so a single image only grows."""
    hyp = Hyperparameters(mosaic=0.0, translate=0.1, scale=0.2)
    small, small_labels = training_sample(data, hyp, 96, 0, 0, 3)
    large, large_labels = training_sample(data, hyp, 192, 0, 0, 3, source_size=96)
    assert large.shape == (192, 192, 3)
    shrunk = cv2.resize(large, (96, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(int) - small).mean() < 4
    np.testing.assert_allclose(large_labels[:, 1:] / 2, small_labels[:, 1:], atol=1)


def test_draws_have_the_distributions_of_the_recipe(tmp_path):
    """A 20 x 20 box in the middle of a 100 x 100 image shows the scale by its width and the shift by its centre."""
    box = {"image_id": 100, "category_id": 3, "bbox": [40, 40, 20, 20]}
    one = load_split(write_split(tmp_path, [(100, 100)], annotations=[box]), "train")
    hyp = Hyperparameters(mosaic=0.0, scale=0.5, translate=0.2, flip_lr=0.5)
    found = np.concatenate([training_sample(one, hyp, 100, 5, 0, i)[1] for i in range(1500)])
    assert len(found) == 1500  # the box never leaves the sample
    x, y, width = found[:, 1], found[:, 2], found[:, 3]
    for values, low, high in ((width, 10, 30), (x, 30, 70), (y, 30, 70)):  # 20 x (1 -+ .5); 100 x (.5 -+ .2)
        expected = np.linspace(low, high, 11)[1:-1]  # deciles of a uniform distribution
        np.testing.assert_allclose(np.quantile(values, np.arange(0.1, 1, 0.1)), expected, atol=0.04 * (high - low))
        assert low - 1e-3 <= values.min()
        assert values.max() <= high + 1e-3
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.07
    assert abs(np.corrcoef(x, width)[0, 1]) < 0.07


def test_pasted_objects_leave_all_else_as_it_is(data):
    """Pixels outside their boxes, and the labels before theirs; each covers less than .3 of any label before it."""
    hyp, grown = Hyperparameters(mosaic=0.3), 0
    for index in range(20):
        image, labels = training_sample(data, hyp, 128, 2, 0, index)
        with_objects, all_labels = training_sample(data, hyp.replace(paste_in=1.0), 128, 2, 0, index)
        np.testing.assert_array_equal(all_labels[: len(labels)], labels)
        corners = np.concatenate(
            [all_labels[:, 1:3] - all_labels[:, 3:] / 2, all_labels[:, 1:3] + all_labels[:, 3:] / 2], axis=1
        )
        same = np.ones((128, 128), bool)
        for number in range(len(labels), len(all_labels)):
            x1, y1, x2, y2 = corners[number]
            assert min(x1, y1, 128 - x2, 128 - y2, x2 - x1 - 11, y2 - y1 - 11) >= 0  # inside, sides above 10 px
            same[int(y1) : int(y2), int(x1) : int(x2)] = False
            before = corners[:number]
            shared = np.minimum(before[:, 2:], (x2, y2)) - np.maximum(before[:, :2], (x1, y1))
            sides = before[:, 2:] - before[:, :2]
            assert (shared.clip(0).prod(axis=1) < 0.3 * sides.prod(axis=1) + 1e-2).all()
        np.testing.assert_array_equal(image[same], with_objects[same])
        grown += len(all_labels) > len(labels)
    assert grown > 5


def test_a_pasted_object_is_what_its_label_says(tmp_path):
    """Class 0 is a red box of 40 x 20 px, class 1 a blue one of 20 x 40: the pixels in each pasted box have the colour
    of its class and its sides the ratio of that class, to within the pixel that rounding down takes."""
    colours, shapes = [(255, 0, 0), (0, 0, 255)], [(40, 20), (20, 40)]
    boxes = [{"image_id": 100 + i, "category_id": (3, 7)[i], "bbox": [30, 30, *shapes[i]]} for i in range(2)]
    folder = write_split(tmp_path, [(100, 100)] * 2, annotations=boxes)
    for i, ((w, h), colour) in enumerate(zip(shapes, colours, strict=True)):
        picture = np.full((100, 100, 3), 200, np.uint8)
        picture[30 : 30 + h, 30 : 30 + w] = colour[::-1]
        cv2.imwrite(str(folder / "images" / "train" / f"{i}.png"), picture)
    two, seen = load_split(folder, "train"), set()
    for index in range(12):
        hyp = STILL.replace(paste_in=1.0, flip_lr=0.5)
        image, labels = training_sample(two, hyp, 100, 0, 0, index, source_size=(100, 50)[index % 2])
        for class_, cx, cy, w, h in labels[1:]:
            kind = int(class_)
            if abs(w / h - shapes[kind][0] / shapes[kind][1]) > 0.25:
                continue  # cut at the edge of its mosaic
            middle = image[int(cy - h / 4) : int(cy + h / 4), int(cx - w / 4) : int(cx + w / 4)]
            if (middle == colours[kind]).all():
                seen.add(kind)
    assert seen == {0, 1}


def test_objects_are_pasted_as_often_as_the_recipe_says(tmp_path):
    """One small box in the middle of one image: nearly every attempt finds a place. 600 x .15 = 90, deviation 8.7."""
    box = {"image_id": 100, "category_id": 3, "bbox": [48, 48, 6, 6]}
    one = load_split(write_split(tmp_path, [(100, 100)], annotations=[box]), "train")
    grown = sum(len(training_sample(one, STILL.replace(paste_in=0.15), 96, 0, 0, i)[1]) > 1 for i in range(600))
    assert abs(grown - 90) < 4 * 8.7


def test_without_objects_nothing_is_pasted(tmp_path):
    bare = load_split(write_split(tmp_path, [(64, 48)] * 2, annotations=[]), "train")
    image, labels = training_sample(bare, STILL.replace(paste_in=1.0), 64, 0, 0, 0)
    np.testing.assert_array_equal(image, training_sample(bare, STILL, 64, 0, 0, 0)[0])
    assert labels.shape == (0, 5)


@pytest.mark.parametrize("drawn", [(0, 64, 0, 40), (10, 50, 5, 30), (7, 8, 0, 40), (0, 0, 0, 0)])
def test_jitter_equals_tables_of_hue_saturation_and_value(drawn):
    """Noise holds every hue. OpenCV divides by tables of 12 bits, so a hue next to a tie may fall on its other side;
    and it rounds the last pixels of an image in another way, so this one ends with a whole vector.

    With the gain that is up to two steps of 180: 2 * 255 / 30 = 17 in the channel between the other two.
    """
    rng = np.random.default_rng(0)
    x0, x1, y0, y1 = drawn
    inside = (slice(y0, y1), slice(x0, x1))
    for _ in range(50):
        image = np.full((40, 64, 3), 114, np.uint8)
        image[inside] = rng.integers(0, 256, image[inside].shape, dtype=np.uint8)
        canvas = image.astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)
        gains = 1 + rng.uniform(-1, 1, 3) * (0.1, 0.9, 0.9)  # the widest ranges allowed: hue passes the circle's end
        planes = np.empty((3, 40, 64), np.uint8)
        jitter(planes, canvas, *drawn, *gains)
        difference = np.abs(planes.transpose(1, 2, 0).astype(int) - by_tables(image, gains))
        assert difference.mean() < 0.2
        assert (difference > 1).mean() < 0.02
        assert (difference > 18).mean() < 1e-3  # next to red, where the hue gain wraps around


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_gains_of_one_keep_colours_but_for_the_rounding_of_hsv(r, g, b):
    """Hue is kept to 2 degrees of 360: the channel between the other two is off by up to 255 / 60 and rounding."""
    planes = np.empty((3, 1, 1), np.uint8)
    jitter(planes, np.array([[r | g << 8 | b << 16]], np.uint32), 0, 1, 0, 1, 1, 1, 1)
    difference = np.abs(planes.reshape(3).astype(int) - (r, g, b))
    assert difference.max() <= 6
    assert planes.max() == max(r, g, b)


def test_the_order_of_an_epoch_is_a_permutation_of_its_own():
    first, second = epoch_order(10, 3, 0, 0), epoch_order(10, 3, 0, 1)
    assert first.shape == (3, 3)  # the tenth image is left out
    assert len(set(first.flat)) == 9
    assert set(first.flat) <= set(range(10))
    assert first.tolist() != second.tolist()
    assert first.tolist() == epoch_order(10, 3, 0, 0).tolist()


def test_a_dataset_smaller_than_a_batch_is_repeated_to_fill_it():
    """Three images in a batch of seven: twice all of them and one more, the repeats counted on by three."""
    order = epoch_order(3, 7, 0, 0)
    assert order.shape == (1, 7)
    assert sorted(order[0, :3]) == [0, 1, 2]
    np.testing.assert_array_equal(order[0, 3:6], order[0, :3] + 3)
    assert order[0, 6] == order[0, 0] + 6
