"""What a training would cost, estimated from the speed at which the champion was trained."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a training."""

    images: int
    """Images to train on, over all epochs."""
    hours: float | None
    """Duration; None when the speed is unknown."""
    price: float | None
    """In the currency of `retrain.price_per_hour`; None when the speed is unknown."""
    text: str
    """The estimate in words."""


def estimate(images: int, images_per_second: float | None, price_per_hour: float) -> Cost:
    """The cost of training on this many images. images_per_second: of the champion's training; None without one."""
    if images_per_second is None:
        return Cost(images, None, None, f"{images} training images, speed unknown")
    hours = images / images_per_second / 3600
    price = hours * price_per_hour
    text = f"{images} training images at {images_per_second:g} a second: {hours:.2g} hours, price {price:.2f}"
    return Cost(images, hours, price, text)
