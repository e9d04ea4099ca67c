"""Finds OME-Zarr images below a folder: plates with their wells, single images, OME-NGFF 0.1 to 0.5.

Metadata alone is read, with the standard library; arrays, labels and tables are never entered. Nothing found on disk
stops a scan: what is broken, unreadable or strange is reported, and the scan goes on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner_core.failures import BadInput, NotFound, quoted
from runner_core.images import Image, normalized_path
from runner_core.model import Json, Scalar

_MAX_METADATA_BYTES = 64 * 1024 * 1024
_OLD_AXES = ("t", "c", "z", "y", "x")  # up to 0.2, which did not write them down
_DIGITS = re.compile(r"(\d+)")


def scan_for_images(folder: Path, *, report: Callable[[str], None]) -> Iterator[Image]:
    """Find the images below a folder (or the folder's own), in an order that depends on names alone.

    Attributes: `plate` (the plate's folder), `well` (`B03`) and `acquisition` for images of plates. Types: `is_3D`,
    whether there is more than one plane; left out where that cannot be told. Links to folders are followed, each
    folder once. Raises `NotFound` if the folder is none.
    """
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise NotFound(f"cannot read the folder {quoted(folder)}: {error.strerror}") from None
    root = normalized_path(str(folder.absolute()))
    if not _is_text(root):
        raise BadInput(f"the folder's name is not UTF-8: {quoted(root)}")
    return _Scan(report).images_below(root)


class _Unusable(Exception):
    """A place in the tree that cannot be used, and why."""


@dataclass(frozen=True, slots=True)
class _Scan:
    report: Callable[[str], None]
    entered: set[tuple[int, int]] = field(default_factory=set)

    def images_below(self, folder: str) -> Iterator[Image]:
        """Walk down from a folder until it is an image, a plate, a well or an array."""
        waiting = [folder]
        while waiting:
            path = waiting.pop()
            try:
                status = Path(path).stat()
                if (status.st_dev, status.st_ino) in self.entered:
                    continue
                self.entered.add((status.st_dev, status.st_ino))
                names, subfolders = _listing(path)
            except OSError as error:
                self.report(f"cannot read {quoted(path)}: {error.strerror}")
                continue
            try:
                metadata = _group_metadata(path, names)
            except _Unusable as why:
                self.report(str(why))
                metadata = {}
            if metadata is None or "image-label" in metadata:
                continue
            if "plate" in metadata:
                yield from self.plate_images(path, metadata["plate"])
            elif "multiscales" in metadata:
                yield from self.image(path, metadata, {})
            elif "well" in metadata:
                yield from self.well_images(path, metadata["well"], plate=_name(path, up=2))
            else:
                waiting += [f"{path.rstrip('/')}/{name}" for name in reversed(self.storable(path, subfolders))]

    def storable(self, path: str, names: list[str]) -> list[str]:
        """The names that are text; others cannot be in an image list."""
        for name in names:
            if not _is_text(name):
                self.report(f"left out, because its name is not UTF-8: {quoted(f'{path}/{name}')}")
        return [name for name in names if _is_text(name)]

    def plate_images(self, path: str, plate: Any) -> Iterator[Image]:
        """The images of all wells that a plate lists."""
        for well in self.listed(path, plate, "wells"):
            well_path = f"{path}/{well['path']}"
            try:
                metadata = _open_group(well_path)
            except _Unusable as why:
                self.report(str(why))
                continue
            yield from self.well_images(well_path, metadata.get("well"), plate=_name(path))

    def well_images(self, path: str, well: Any, *, plate: str) -> Iterator[Image]:
        """The images that a well lists; its place in the plate is `<plate>/<row>/<column>`."""
        for item in self.listed(path, well, "images"):
            attributes: dict[str, Scalar] = {"plate": plate, "well": _name(path, up=1) + _name(path)}
            if isinstance(item.get("acquisition"), int):
                attributes["acquisition"] = item["acquisition"]
            image_path = f"{path}/{item['path']}"
            try:
                metadata = _open_group(image_path)
            except _Unusable as why:
                self.report(str(why))
                continue
            yield from self.image(image_path, metadata, attributes)

    def listed(self, path: str, group: Any, key: str) -> Iterator[Json]:
        """The items of a list in metadata that have a path, below the group itself."""
        items = group.get(key) if isinstance(group, dict) else None
        if not isinstance(items, list):
            self.report(f"broken metadata: {quoted(path)} does not list its {key}")
            return
        for item in items:
            place = item.get("path") if isinstance(item, dict) else None
            if isinstance(place, str) and _stays_below(place):
                yield item
            else:
                self.report(f"broken metadata: {quoted(path)} lists among its {key} what is no path: {quoted(place)}")

    def image(self, path: str, metadata: Json, attributes: dict[str, Scalar]) -> Iterator[Image]:
        """The image at a path, if its metadata says that it is one."""
        try:
            types = {"is_3D": _is_3d(path, metadata)}
        except _Unusable as why:
            self.report(str(why))
            if "multiscales" not in metadata:
                return
            types = {}
        yield Image(path, None, attributes, types)


def _is_text(name: str) -> bool:
    """Whether a name from the file system was UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stays_below(path: str) -> bool:
    """Whether a path in metadata leads to a place below its group, and can be written down."""
    return path.isprintable() and not {"", ".", ".."} & set(path.split("/"))


def _listing(path: str) -> tuple[set[str], list[str]]:
    """The names of a folder's files, and of its subfolders: not hidden ones, links last, numbers by value."""
    files: set[str] = set()
    subfolders: list[tuple[bool, str]] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if not _is_folder(entry):
                files.add(entry.name)
            elif not entry.name.startswith("."):
                subfolders.append((entry.is_symlink(), entry.name))
    return files, [name for _, name in sorted(subfolders, key=lambda item: (item[0], _natural(item[1])))]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A key that puts `2` before `10`; the name itself decides among equals such as `2` and `02`."""
    parts = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _DIGITS.split(name) if part]
    return parts, name


def _name(path: str, *, up: int = 0) -> str:
    """A component of a path, counted from its end."""
    parts = path.split("/")
    return parts[-1 - up] if up < len(parts) else ""


# --------------------------------------------------------------------------------------------------------------------
# Metadata


def _group_metadata(path: str, files: set[str]) -> Json | None:
    """What a folder says of itself as an OME-Zarr group; `{}` if nothing, `None` if it is an array."""
    if "zarr.json" in files:
        document = _read_json(f"{path}/zarr.json")
        if document.get("node_type") == "array":
            return None
        attributes = document.get("attributes")
        ome = attributes.get("ome") if isinstance(attributes, dict) else None
        return ome if isinstance(ome, dict) else {}
    if ".zarray" in files:
        return None
    return _read_json(f"{path}/.zattrs") if ".zattrs" in files else {}


def _open_group(path: str) -> Json:
    """The metadata of a group that other metadata names."""
    for names in ({"zarr.json"}, {".zattrs"}):
        try:
            return _group_metadata(path, names) or {}
        except FileNotFoundError:
            continue
    raise _Unusable(f"missing: {quoted(path)} is listed, and has no metadata")


def _read_json(path: str) -> Json:
    """A JSON object from a file.

    Raises `FileNotFoundError`, or `_Unusable` for anything else: unreadable, too large, not an object.
    """
    try:
        # Not blocking: a pipe of that name would otherwise be waited for.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            data = file.read(_MAX_METADATA_BYTES + 1)
        document = json.loads(data) if len(data) <= _MAX_METADATA_BYTES else None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _Unusable(f"cannot read {quoted(path)}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise _Unusable(f"broken metadata: {quoted(path)} is not JSON") from None
    if not isinstance(document, dict):
        raise _Unusable(f"broken metadata: {quoted(path)} is not a JSON object of ordinary size")
    return document


def _is_3d(path: str, metadata: Json) -> bool:
    """Whether an image has more than one plane, by its axes and the shape of its full-resolution array."""
    try:
        multiscale = metadata["multiscales"][0]
        dataset = multiscale["datasets"][0]["path"]
        axes = [axis["name"] if isinstance(axis, dict) else axis for axis in multiscale.get("axes", _OLD_AXES)]
        if "z" not in axes:
            return False
        if not _stays_below(dataset):
            raise ValueError(dataset)
        return int(_shape(f"{path}/{dataset}")[axes.index("z")]) > 1
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, FileNotFoundError):
        raise _Unusable(f"broken metadata: {quoted(path)} does not say what shape it has") from None


def _shape(array: str) -> list[Any]:
    try:
        document = _read_json(f"{array}/zarr.json")
    except FileNotFoundError:
        document = _read_json(f"{array}/.zarray")
    shape: list[Any] = document["shape"]
    return shape
