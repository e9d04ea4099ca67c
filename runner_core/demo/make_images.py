"""Makes the demo's OME-Zarr plate from pictures that scikit-image ships.

This file is a script for the interpreter of the collected task package, where ngio and scikit-image
live; nothing of ours imports it. It takes a folder that exists and writes into it:

- `plate.zarr`: a plate of two rows and two columns, one image (c, z, y, x) per well;
- `flatfield.tif`: the illumination profile that every image was dimmed with;
- `images.json`: list of {path, attributes, types}, where path is below the folder; written last.

It prints one JSON object per image on stdout: {done, total, path}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ngio import create_empty_plate, create_ome_zarr_from_array
from skimage import color, data, filters, io

PLATE = "plate.zarr"
ROWS, COLUMNS = 224, 384  # the largest field that every picture holds uncut and unscaled
PLANES = 4
CAMERA_OFFSET = 100  # counts of a camera in the dark; the workflow subtracts them
FULL_SCALE = 4000  # counts of the brightest pixel
CORNER_DIMMING = 0.5  # share of the light that is missing in the corners
DEFOCUS_BLUR = 1.5  # pixels of Gaussian blur per plane away from the focus
DEFOCUS_DIMMING = 0.8  # share of the light that is left per plane away from the focus


def fields() -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield (well, name of the picture, field)."""
    nuclei = color.rgb2hed(data.immunohistochemistry())[..., 0]  # the haematoxylin stain
    yield "A/01", "tissue", nuclei[-ROWS:, -COLUMNS:]
    yield "A/02", "coins", data.coins()[-ROWS:, -COLUMNS:]
    yield "B/01", "cell", data.cell()[264 : 264 + ROWS, -COLUMNS:]
    yield "B/02", "galaxies", color.rgb2gray(data.hubble_deep_field())[:ROWS, :COLUMNS]


def flatfield() -> np.ndarray:
    """Return the share of the light that reaches each pixel: 1 in the middle, less towards the corners."""
    y = np.linspace(-1, 1, ROWS)[:, None]
    x = np.linspace(-1, 1, COLUMNS)[None, :]
    return 1 - CORNER_DIMMING * (x**2 + y**2) / 2


def normalised(field: np.ndarray) -> np.ndarray:
    """Return the field scaled to 0..1, a few outliers clipped."""
    low, high = np.percentile(field, [0.5, 99.5])
    return np.clip((field - low) / (high - low), 0, 1)


def stack_around(field: np.ndarray, *, focus: int) -> np.ndarray:
    """Return planes (z, y, x) as a microscope takes them: blurred and dimmed away from the focus."""
    planes = [
        filters.gaussian(field, DEFOCUS_BLUR * abs(z - focus)) * DEFOCUS_DIMMING ** abs(z - focus)
        for z in range(PLANES)
    ]
    return np.stack(planes)


def make_images(folder: Path) -> None:
    """Write the plate, the profile and the list of images into the folder."""
    light = flatfield()
    io.imsave(folder / "flatfield.tif", np.round(light * 65535).astype(np.uint16))
    plate = create_empty_plate(folder / PLATE, name="plate")
    images = []
    wells = list(fields())
    for index, (well, picture, field) in enumerate(wells):
        row, column = well.split("/")
        stack = stack_around(normalised(field), focus=index % PLANES) * light
        path = f"{PLATE}/{plate.add_image(row=row, column=column, image_path='0')}"
        image = create_ome_zarr_from_array(
            plate.get_image_store(row=row, column=column, image_path="0"),
            np.round(CAMERA_OFFSET + FULL_SCALE * stack).astype(np.uint16)[None],
            pixelsize=0.65,
            z_spacing=2.0,
            levels=2,
            channel_labels=["signal"],
            channel_wavelengths=["A01_C01"],
            overwrite=True,
        )
        table = image.build_image_roi_table("FOV_1")
        image.add_table("FOV_ROI_table", table, backend="csv")
        attributes = {"plate": PLATE, "well": row + column, "picture": picture}
        images.append({"path": path, "attributes": attributes, "types": {"is_3D": True}})
        progress = {"done": index + 1, "total": len(wells), "path": path}
        sys.stdout.write(json.dumps(progress) + "\n")
        sys.stdout.flush()
    (folder / "images.json").write_text(json.dumps(images, indent=2), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    make_images(parser.parse_args().folder)
