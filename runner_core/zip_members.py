"""The members of a zip file: the names they go by, what the index says of them, and the bytes of each.

Nothing that a zip says is trusted. A name that could leave the folder is refused, and so is a member that is not a
plain file, shares its bytes or its name with another, or claims more than deflate can hold; a member's bytes are
counted and checked against size and CRC while they are read. When the index at the end is missing or broken, as in
a file cut short, the headers in front of the members tell what is still there.

Format: PKWARE's APPNOTE 6.3, sections 4.3 to 4.5; only the methods stored and deflate are read.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from runner_core.failures import PilothouseError

CHUNK = 1 << 20
"""Bytes that are held in memory at a time, of a member as packed and as unpacked."""

_HEADER = struct.Struct("<4s5H3L2H")  # signature .. lengths of name and extra field, 4.3.7
_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED = 0x1
_SIZES_FOLLOW = 0x8
_UTF8 = 0x800
_PLAIN_KINDS = {0, stat.S_IFREG, stat.S_IFDIR}
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_TOP_RATIO = 1032  # deflate cannot do better: 258 bytes from two bits
_IN_EXTRA = 0xFFFFFFFF  # the size is in the zip64 extra field

_UNFIT = re.compile(r"\A/|\A[A-Za-z]:|[\\\x00]|(?:\A|/)\.{0,2}(?:/|\Z)")
_ESCAPED = re.compile(r"[\udc80-\udcff\\\x00-\x1f\x7f]|(?<=\A[A-Za-z]):|%(?=[0-9A-F]{2})")
_ESCAPE = re.compile("%([0-9A-F]{2})")


class ArchiveError(PilothouseError):
    """A zip cannot be made, or is damaged."""


class Member(NamedTuple):
    """One file in a zip, as the index describes it. Sizes and `offset` (of its header) are bytes."""

    name: str
    encoding: str
    size: int
    packed: int
    crc: int
    offset: int
    deflated: bool
    date_time: tuple[int, int, int, int, int, int]

    @property
    def raw_name(self) -> bytes:
        """The name as it stands in the zip."""
        return self.name.encode(self.encoding)

    @property
    def modified(self) -> datetime | None:
        """When the file was last changed, to two seconds, in UTC; None for a date that is none."""
        return _in_utc(self.date_time)


@dataclass(frozen=True, slots=True)
class ZipIndex:
    """What a zip holds: members by name, names that are refused with the reason, and what is wrong with the whole."""

    members: dict[str, Member] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    damage: str = ""


def member_name(path: str) -> str:
    """The name that a file goes by in a zip and in lists, given its path relative to the job folder.

    The same text for all but odd names: bytes that are no UTF-8, control characters and what other systems read as
    a separator or a drive become `%XX`. Two paths never get one name; `raw_path` leads back.
    """
    return _ESCAPED.sub(lambda odd: f"%{ord(odd[0]) & 0xFF:02X}", path)


def raw_path(name: str) -> str | None:
    """The path that `member_name` gives this name, or None when it gives it to no path."""
    path = _ESCAPE.sub(_unescaped, name)
    return path if member_name(path) == name else None


def why_unfit(name: str) -> str:
    """Why a name is not one of a file inside a folder; empty when it is."""
    if not _UNFIT.search(name):
        return ""
    if "\\" in name or "\0" in name:
        return "has a backslash or a NUL in its name"
    if name.startswith("/"):
        return "is an absolute path"
    if ".." in name.split("/"):
        return "leads out of the folder"
    if name[1:2] == ":":
        return "begins with a drive letter"
    return "has an empty or dotted part in its name"


def read_index(file: BinaryIO) -> ZipIndex:
    """Read what an open zip holds. Never fails for what is in the file: `damage` says what is wrong with it."""
    damage = ""
    try:
        with zipfile.ZipFile(file) as opened:
            infos = opened.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError) as error:
        infos = list(_salvaged(file))
        damage = f"its index is broken ({error}); {len(infos)} files were found without it"
    return _sorted_out(infos, damage)


def member_chunks(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """Yield a member's bytes, at most `CHUNK` at a time; several readers may share the file.

    Raises `ArchiveError` as soon as the bytes are not what the index says, at the latest after the last of them.
    """
    packed = _packed_chunks(file, member)
    size = crc = 0
    for chunk in _inflated(packed, member) if member.deflated else packed:
        size += len(chunk)
        if size > member.size:
            raise _damaged(member, f"holds more than the {member.size} bytes it claims")
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if size < member.size:
        raise _damaged(member, f"holds {size} bytes and claims {member.size}")
    if crc != member.crc:
        raise _damaged(member, "has a wrong checksum")


def _unescaped(escape: re.Match[str]) -> str:
    byte = int(escape[1], 16)
    return chr(byte if byte < 0x80 else 0xDC00 + byte)


@lru_cache
def _in_utc(local: tuple[int, int, int, int, int, int]) -> datetime | None:
    """A time as zips hold it, local to whoever wrote it: taken as this host's."""
    try:
        return datetime(*local).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _damaged(member: Member, problem: str) -> ArchiveError:
    return ArchiveError(f"{member.name[:200]!r} in the zip is damaged: it {problem}")


def _sorted_out(infos: list[zipfile.ZipInfo], damage: str) -> ZipIndex:
    """Part the members that can be used from those that cannot."""
    index = ZipIndex(damage=damage)
    times_named = Counter(info.orig_filename for info in infos)
    overlapping = _overlapping(infos)
    for info in infos:
        name = info.orig_filename
        reason = _why_refused(info)
        if not reason and times_named[name] > 1:
            reason = "is in the zip more than once"
        if not reason and info.header_offset in overlapping:
            reason = "shares its bytes with another file"
        if reason:
            index.refused[name] = reason
        elif not name.endswith("/"):
            index.members[name] = _member(info)
    return index


def _member(info: zipfile.ZipInfo) -> Member:
    name = info.orig_filename
    return Member(
        name=name,
        encoding=_encoding(info),
        size=info.file_size,
        packed=info.compress_size,
        crc=info.CRC,
        offset=info.header_offset,
        deflated=info.compress_type == zipfile.ZIP_DEFLATED,
        date_time=info.date_time,
    )


def _encoding(info: zipfile.ZipInfo) -> str:
    return "utf-8" if info.flag_bits & _UTF8 else "cp437"


def _why_refused(info: zipfile.ZipInfo) -> str:
    if unfit := why_unfit(info.orig_filename.removesuffix("/")):
        return unfit
    if stat.S_IFMT(info.external_attr >> 16) not in _PLAIN_KINDS:
        return "is a link or another special file"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in _METHODS:
        return "is packed in a way other than deflate"
    if info.file_size > info.compress_size * _TOP_RATIO:
        return "claims a size that cannot be true"
    return ""


def _overlapping(infos: Iterable[zipfile.ZipInfo]) -> set[int]:
    """The offsets of members that begin before an earlier one ends, and of those earlier ones."""
    offsets: set[int] = set()
    last = reach = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        offset = info.header_offset
        if offset < reach:
            offsets |= {last, offset}
        end = offset + _HEADER.size + len(info.orig_filename) + info.compress_size
        if end > reach:
            last, reach = offset, end
    return offsets


def _packed_chunks(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """Yield a member's bytes as they are packed. The first read takes a small member whole, header and all."""
    name = member.raw_name
    block = os.pread(file.fileno(), _HEADER.size + len(name) + min(member.packed, CHUNK), member.offset)
    if len(block) < _HEADER.size or not block.startswith(_SIGNATURE):
        raise _damaged(member, "has no header")
    *_, name_length, extra_length = _HEADER.unpack_from(block)
    if block[_HEADER.size : _HEADER.size + name_length] != name:
        raise _damaged(member, "goes by another name in its header")
    head = _HEADER.size + name_length + extra_length
    block = block[head:]
    yield block
    position = member.offset + head + len(block)
    left = member.packed - len(block)
    while left:
        block = os.pread(file.fileno(), min(left, CHUNK), position)
        if not block:
            raise _damaged(member, "is cut short")
        yield block
        position += len(block)
        left -= len(block)


def _inflated(packed: Iterator[bytes], member: Member) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for block in packed:
            chunk = inflater.decompress(block, CHUNK)
            yield chunk
            while inflater.unconsumed_tail or (len(chunk) == CHUNK and not inflater.eof):
                chunk = inflater.decompress(inflater.unconsumed_tail, CHUNK)
                yield chunk
            if inflater.eof:
                return
    except zlib.error as error:
        raise _damaged(member, f"cannot be unpacked ({error})") from None
    raise _damaged(member, "is cut short")


def _salvaged(file: BinaryIO) -> Iterator[zipfile.ZipInfo]:
    """Yield the members that their own headers describe, from the start of the file to the first gap."""
    fd = file.fileno()
    length = os.fstat(fd).st_size
    offset = 0
    while (found := _header_at(fd, offset)) is not None:
        info, end = found
        if end > length:
            return
        yield info
        offset = end


def _header_at(fd: int, offset: int) -> tuple[zipfile.ZipInfo, int] | None:
    """The member whose header is at `offset`, and where its bytes end; None when no usable header is there."""
    block = os.pread(fd, _HEADER.size, offset)
    if len(block) < _HEADER.size or not block.startswith(_SIGNATURE):
        return None
    _, _, flags, method, time, date, crc, packed, size, name_length, extra_length = _HEADER.unpack(block)
    block = os.pread(fd, name_length + extra_length, offset + _HEADER.size)
    if flags & _SIZES_FOLLOW or len(block) < name_length + extra_length:
        return None
    info = zipfile.ZipInfo()
    info.flag_bits, info.compress_type, info.CRC, info.header_offset = flags, method, crc, offset
    info.orig_filename = block[:name_length].decode(_encoding(info), errors="backslashreplace")
    info.date_time = (
        *((date >> 9) + 1980, date >> 5 & 0xF, date & 0x1F),
        *(time >> 11, time >> 5 & 0x3F, (time & 0x1F) * 2),
    )
    if _IN_EXTRA in (packed, size):
        extra = block[name_length:]
        if len(extra) < 20 or extra[:2] != b"\x01\x00":
            return None
        size, packed = struct.unpack_from("<2Q", extra, 4)
    info.file_size, info.compress_size = size, packed
    return info, offset + _HEADER.size + name_length + extra_length + packed
