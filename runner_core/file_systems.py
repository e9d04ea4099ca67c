"""Which file system a path lives on, and whether that is a network one.

Linux lists its mounts in `/proc/self/mountinfo` (proc(5)). Where that file is missing, every path is on one
mount of unknown type, which counts as local.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_MOUNTINFO = Path("/proc/self/mountinfo")

# fmt: off
_NETWORK_TYPES = frozenset({
    # from a file server
    "9p", "afpfs", "afs", "cifs", "coda", "davfs", "davfs2", "ncpfs", "nfs", "nfs4", "smb3", "smbfs", "sshfs",
    # parallel, or on disks that several hosts share
    "beegfs", "beegfs_nodev", "ceph", "ceph-fuse", "eosxd", "gfs2", "glusterfs", "gpfs", "juicefs", "lizardfs",
    "lustre", "mfs", "ocfs2", "orangefs", "panfs", "pvfs2", "quobyte", "seaweedfs", "wekafs",
    # in front of an object store
    "cvmfs2", "gcsfuse", "goofys", "mount-s3", "rclone", "s3fs",
    # from the host of a virtual machine
    "prl_fs", "vboxsf", "virtiofs", "vmhgfs", "vmhgfs-fuse",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system: where it is mounted, its type (`ext4`, `nfs4`) and what is mounted there."""

    point: str
    fs_type: str
    source: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of mountinfo; `parent` is the mount that this one was put onto."""

    id: str
    parent: str
    mount: Mount


def mount_under(path: Path) -> Mount:
    """The mount that holds `path`, or that will once it is made, on this machine and now."""
    # The path comes first: looking at it is what makes an automounter mount.
    real = os.path.realpath(path)
    try:
        text = _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        text = ""
    return mount_of(real, text)


def mount_of(path: str | Path, mountinfo_text: str) -> Mount:
    """The mount that holds `path` according to the text of a mountinfo file.

    Symbolic links are followed; a path that does not exist yet belongs to the mount of its nearest existing
    parent. The walk goes from mount to mount as the kernel's does, since a mount can be hidden by a later one
    on a folder above it and is listed all the same.
    """
    real = os.path.realpath(path)
    entries = _entries(mountinfo_text)
    ids = {entry.id for entry in entries}
    found = Mount(point="/", fs_type="unknown", source="")
    crossed = [entry for entry in entries if entry.parent not in ids or entry.parent == entry.id]
    while holding := [entry for entry in crossed if _is_inside(real, entry.mount.point)]:
        first = min(holding, key=lambda entry: len(entry.mount.point))
        found = first.mount
        crossed = [entry for entry in entries if entry.parent == first.id and entry.id != first.id]
    return found


def is_network(fs_type: str) -> bool:
    """Whether several hosts can hold a file system of this type at a time (`nfs4`, `lustre`, `fuse.sshfs`)."""
    return fs_type.removeprefix("fuse.") in _NETWORK_TYPES


def _entries(text: str) -> list[_Entry]:
    """The lines that can be read; names in them hold no plain space or newline, these are escaped."""
    entries = []
    for line in text.split("\n"):
        before, dash, after = line.partition(" - ")
        fields, file_system = before.split(" "), after.split(" ")
        if not dash or len(fields) < 5 or len(file_system) < 2:
            continue
        mount = Mount(_unescaped(fields[4]), file_system[0], _unescaped(file_system[1]))
        entries.append(_Entry(id=fields[0], parent=fields[1], mount=mount))
    return entries


def _unescaped(name: str) -> str:
    r"""Turn octal escapes back: `\040` is a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
