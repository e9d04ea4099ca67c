"""The mount that holds a path is found as the kernel would find it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner_core.file_systems import Mount, is_network, mount_of, mount_under

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard
40 27 0:40 / /home rw,relatime shared:2 master:1 - nfs4 server:/export/home rw,vers=4.2
41 40 254:1 / /home/me/scratch rw - xfs /dev/vdb rw
42 27 0:42 / /data\040sets\011and\134more rw - lustre mds@tcp:/a\040b rw
43 27 254:0 /srv/shared /bound rw - ext4 /dev/vda1 rw
44 27 0:44 / /remote rw - fuse.sshfs me@host: rw
50 27 0:50 / /covered/inner rw - nfs server:/inner rw
51 27 254:2 / /covered rw - ext4 /dev/vdc rw
60 27 0:60 / /stacked rw - ext4 /dev/vdd rw
61 60 0:61 / /stacked rw - cifs //server/share rw
""".lstrip()


@pytest.mark.parametrize(
    ("path", "point", "fs_type", "source"),
    [
        ("/", "/", "ext4", "/dev/vda1"),
        ("/nowhere/yet/store.db", "/", "ext4", "/dev/vda1"),
        ("/home", "/home", "nfs4", "server:/export/home"),
        ("/home/me/x", "/home", "nfs4", "server:/export/home"),
        ("/homely", "/", "ext4", "/dev/vda1"),
        ("/home/me/scratch/x", "/home/me/scratch", "xfs", "/dev/vdb"),
        ("/home/me/../../bound/x", "/bound", "ext4", "/dev/vda1"),
        ("/data sets\tand\\more/x", "/data sets\tand\\more", "lustre", "mds@tcp:/a b"),
        ("/remote/x", "/remote", "fuse.sshfs", "me@host:"),
    ],
)
def test_a_path_belongs_to_the_innermost_mount_above_it(path, point, fs_type, source):
    assert mount_of(path, MOUNTS) == Mount(point, fs_type, source)


def test_a_mount_on_the_same_folder_hides_the_one_below():
    assert mount_of("/stacked/x", MOUNTS).fs_type == "cifs"


def test_a_mount_above_hides_the_ones_that_were_there_before():
    assert mount_of("/covered/inner/x", MOUNTS).source == "/dev/vdc"


def test_symbolic_links_are_followed_also_to_what_does_not_exist_yet(tmp_path: Path):
    (tmp_path / "link").symlink_to("/home/me")

    assert mount_of(tmp_path / "link" / "new" / "store.db", MOUNTS).fs_type == "nfs4"


def test_lines_that_cannot_be_read_are_passed_over():
    assert mount_of("/home", "nonsense\n27 1 254:0 / /\n\n" + MOUNTS).fs_type == "nfs4"


def test_a_line_break_of_unicode_in_a_name_ends_no_line():
    text = "27 1 254:0 / / rw - ext4 /dev/vda1 rw\n28 27 0:1 / /a\x85b\u2028c rw - nfs server:/x rw"

    assert mount_of("/a\x85b\u2028c/x", text).fs_type == "nfs"


def test_where_no_mounts_are_listed_the_type_is_unknown_and_local():
    mount = mount_of("/home", "")

    assert mount == Mount("/", "unknown", "")
    assert not is_network(mount.fs_type)


def test_this_machine_is_asked_for_its_mounts():
    assert mount_under(Path("/proc/self/mountinfo")).fs_type == "proc"


@pytest.mark.parametrize(
    "fs_type",
    ["nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "ceph", "fuse.sshfs", "fuse.glusterfs", "9p", "wekafs"],
)
def test_network_file_systems_are_known(fs_type):
    assert is_network(fs_type)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "fuse.bindfs"])
def test_local_file_systems_are_told_apart(fs_type):
    assert not is_network(fs_type)
