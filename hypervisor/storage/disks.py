"""Disk files of machines: base image cache, qcow2 overlays, and safety inspection of images before use."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from oslo_utils.imageutils import format_inspector

from hypervisor.api.errors import HypervisorError, ImageUnusable
from hypervisor.api.protocol import ImageSource
from hypervisor.api.spec import DiskSpec, ImageRef, disk_bytes
from hypervisor.base.paths import MachinePaths, private_directory
from hypervisor.storage import qemu_img

GIB = 1 << 30
FICLONE = 0x40049409
# Formats that qemu uses directly; the others are converted to qcow2 once.
DIRECT = {"qcow2": "qcow2", "raw": "raw", "iso": "raw"}
CONVERTED = frozenset({"vmdk", "vdi", "vpc", "vhd", "vhdx"})
CONVERSION_SECONDS = 1800
FORMATTING_SECONDS = 300
_INSPECTORS: dict[str, Callable[[], format_inspector.FileInspector]] = {
    "qcow2": format_inspector.QcowInspector,
    "vmdk": format_inspector.VMDKInspector,
    "vdi": format_inspector.VDIInspector,
    "vhd": format_inspector.VHDInspector,
    "vhdx": format_inspector.VHDXInspector,
}


@dataclass(frozen=True)
class DiskFile:
    """A disk of a machine as files. `base` is the backing file of an overlay; None for a blank disk."""

    name: str
    path: Path
    format: str
    base: Path | None = None
    base_format: str | None = None
    read_only: bool = False
    cdrom: bool = False


@dataclass(frozen=True)
class Base:
    """A prepared base image."""

    path: Path
    format: str


@dataclass
class Disks:
    """Prepares disks. Thread-safe: concurrent launches from one image share one preparation."""

    bases: Path
    images: ImageSource
    _locks: dict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))
    _locks_guard: threading.Lock = field(default_factory=threading.Lock)

    def ensure(self, disk: DiskSpec, paths: MachinePaths) -> list[DiskFile]:
        """Return the files of one disk, created if missing. An ISO image becomes a CD-ROM and a blank disk."""
        is_cdrom = disk.cdrom or (disk.image is not None and disk.image.disk_format == "iso")
        is_alone = not is_cdrom and is_standalone(paths.disk(disk.name))
        base = None if disk.image is None or is_alone else self.ensure_base(disk.image)
        files: list[DiskFile] = []
        if base is None or not is_cdrom or disk.size_gib:
            path = paths.disk(disk.name)
            below = None if is_cdrom else base
            if not path.exists():
                size = disk_bytes(disk) if is_cdrom or disk.image is None else overlay_bytes(disk, disk.image)
                if disk.filesystem is not None and disk.image is None:
                    create_formatted(path, size, disk.filesystem, disk.name)
                else:
                    create_overlay(path, size, below)
            files.append(
                DiskFile(
                    name=disk.name,
                    path=path,
                    format="qcow2",
                    base=below.path if below else None,
                    base_format=below.format if below else None,
                )
            )
        if is_cdrom and base is not None:
            files.append(
                DiskFile(name=f"{disk.name}-cdrom", path=base.path, format=base.format, read_only=True, cdrom=True)
            )
        return files

    def ensure_base(self, image: ImageRef) -> Base:
        """Return the cached base image; fetch, verify, inspect and convert it if it is not cached.

        Raises ImageUnusable."""
        if image.disk_format in DIRECT:
            driver = DIRECT[image.disk_format]
        elif image.disk_format in CONVERTED:
            driver = "qcow2"
        else:
            raise ImageUnusable(f"Image {image.id} has the format {image.disk_format}, which is not bootable.")
        path = self.bases / f"{image.id}.{driver}"
        with self._lock(image.id):
            if not path.exists():
                private_directory(self.bases)
                self._prepare(image, path)
            os.utime(path)  # last use, for `evict`
        return Base(path, driver)

    def evict(self, is_needed: Callable[[str], bool], keep_bytes: int = 0) -> None:
        """Remove unneeded base images, least recently used first.

        The most recently used ones are kept up to `keep_bytes` in total while a tenth of the file system is free.
        `is_needed` must be true for an image before `ensure` is called with it.
        """
        left = keep_bytes if _has_room(self.bases) else 0
        for path in _newest_first(self.bases):
            image_id = path.name.removeprefix(".").split(".")[0]
            if is_needed(image_id):
                continue
            with self._lock(image_id), contextlib.suppress(FileNotFoundError):
                size = path.stat().st_blocks * 512
                if size <= left and not path.name.startswith("."):
                    left -= size
                elif not is_needed(image_id):
                    path.unlink()

    def _prepare(self, image: ImageRef, path: Path) -> None:
        temporary = path.with_name(f".{path.name}")
        temporary.unlink(missing_ok=True)
        try:
            source = self.images.local_path(image)
            _link_or_copy(source, temporary)
            _verify(image, temporary)
            inspect(temporary, image.disk_format)
            if image.disk_format in CONVERTED:
                converted = path.with_name(f".{path.name}.converted")
                converted.unlink(missing_ok=True)
                try:
                    _convert(image, temporary, converted)
                    os.rename(converted, temporary)
                finally:
                    converted.unlink(missing_ok=True)
            os.rename(temporary, path)
        except FileNotFoundError as error:
            raise ImageUnusable(f"Image {image.id} is gone.") from error
        except OSError as error:
            raise ImageUnusable(f"Image {image.id} cannot be cached: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self, image_id: str) -> Iterator[None]:
        with self._locks_guard:
            lock = self._locks[image_id]
        with lock:
            yield


def _newest_first(directory: Path) -> list[Path]:
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for path in directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[path] = path.stat().st_mtime
    return sorted(found, key=lambda path: -found[path])


def _has_room(directory: Path) -> bool:
    try:
        usage = shutil.disk_usage(directory)
    except FileNotFoundError:
        return False
    return usage.free > usage.total // 10


def overlay_bytes(disk: DiskSpec, image: ImageRef) -> int:
    """Size of the overlay: the requested size. Raises ImageUnusable when the image is larger."""
    if disk.size_gib and disk.size_gib * GIB < image.virtual_size_bytes:
        raise ImageUnusable(
            f"Image {image.id} needs a disk of {image.virtual_size_bytes} bytes, the machine has {disk.size_gib} GiB."
        )
    return max(disk.size_gib * GIB, image.virtual_size_bytes)


def is_standalone(path: Path) -> bool:
    """Whether an overlay exists without a backing file: a migration has copied the whole disk."""
    try:
        with path.open("rb") as file:
            header = file.read(16)
    except FileNotFoundError:
        return False
    return header[8:16] == bytes(8)


def create_overlay(path: Path, size_bytes: int, base: Base | None) -> None:
    """Create a qcow2 file atomically. The backing file is recorded but not opened."""
    if size_bytes <= 0:
        raise ImageUnusable(f"The disk {path.stem} has no size.")
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)
    words = ["create", "-q", "-f", "qcow2"]
    if base is not None:
        words += ["-u", "-b", str(base.path), "-F", base.format]
    with qemu_img.Run() as run:
        run([*words, run.create(temporary), str(size_bytes)], timeout_seconds=60)
    os.rename(temporary, path)


def create_formatted(path: Path, size_bytes: int, filesystem: str, label: str) -> None:
    """Create a qcow2 file with a file system atomically. Its content is trusted: no guest has written to it."""
    raw, temporary = path.with_name(f".{path.name}.raw"), path.with_name(f".{path.name}")
    try:
        with raw.open("wb") as file:
            file.truncate(size_bytes)
        raw.chmod(0o600)
        if filesystem == "swap":
            qemu_img.run(["mkswap", str(raw)], timeout_seconds=60)
        else:
            how = "nodiscard,lazy_itable_init=1,lazy_journal_init=1"
            qemu_img.run(
                ["mkfs.ext4", "-q", "-F", "-L", label, "-E", how, str(raw)], timeout_seconds=FORMATTING_SECONDS
            )
        temporary.unlink(missing_ok=True)
        with qemu_img.Run() as run:
            words = ["convert", "-q", "-f", "raw", "-O", "qcow2", run.lend(raw), run.create(temporary)]
            run(words, timeout_seconds=FORMATTING_SECONDS)
    finally:
        raw.unlink(missing_ok=True)
    os.rename(temporary, path)


def inspect(path: Path, disk_format: str) -> None:
    """Reject images that make qemu read other files of this host: backing files, data files, external extents.

    Raises ImageUnusable. Raw images are always opened as raw, so qemu interprets none of their content.
    """
    if disk_format in ("raw", "iso"):
        return
    name = {"vpc": "vhd"}.get(disk_format, disk_format)
    with _parsing(disk_format):
        inspector = _feed(_INSPECTORS[name](), path)
        inspector.finish()
        inspector.safety_check()


def inspect_overlay(disk: DiskFile) -> int:
    """Reject a qcow2 file whose header was changed to name a data file, or a backing file if it has no base.

    Returns its virtual size in bytes. Raises ImageUnusable.
    """
    with _parsing("qcow2"):
        inspector = format_inspector.QcowInspector()
        _feed(inspector, disk.path)
        if not inspector.format_match:
            raise ImageUnusable(f"The disk {disk.name} is not a qcow2 file.")
        try:
            inspector.check_data_file()
            inspector.check_unknown_features()
            if disk.base is None:
                inspector.check_backing_file()
        except format_inspector.SafetyViolation as error:
            raise ImageUnusable(f"The disk {disk.name} is refused: {error}.") from error
        return inspector.virtual_size


def _feed(inspector: format_inspector.FileInspector, path: Path) -> format_inspector.FileInspector:
    with path.open("rb") as file:
        while not inspector.complete and (chunk := file.read(1 << 16)):
            inspector.eat_chunk(chunk)
    return inspector


@contextlib.contextmanager
def _parsing(disk_format: str) -> Iterator[None]:
    try:
        yield
    except ImageUnusable:
        raise
    except format_inspector.SafetyCheckFailed as error:
        raise ImageUnusable(f"The image is refused: {', '.join(sorted(map(str, error.failures)))}.") from error
    except Exception as error:  # the inspectors raise any exception on malformed input
        raise ImageUnusable(f"The image is not a valid {disk_format} file: {error}") from error


def _link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file of the image store; reflink or copy it where links are impossible.

    The store may belong to an unprivileged API process, so the file must be a regular file of the directory's owner and
    no symbolic link. Raises ImageUnusable.
    """
    reader = os.fdopen(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    with reader:
        found = os.fstat(reader.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != source.parent.stat().st_uid:
            raise ImageUnusable(f"{source.name} in the image store is not a file of the store.")
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                raise
            _clone(reader, target)
        else:
            if not os.path.samestat(found, os.lstat(target)):
                target.unlink()
                raise ImageUnusable(f"{source.name} in the image store was replaced.")


def _clone(reader: BinaryIO, target: Path) -> None:
    with target.open("xb") as writer:
        os.fchmod(writer.fileno(), 0o600)
        try:
            fcntl.ioctl(writer, FICLONE, reader.fileno())
        except OSError:
            shutil.copyfileobj(reader, writer, 1 << 20)


def _verify(image: ImageRef, path: Path) -> None:
    if path.stat().st_size != image.size_bytes:
        raise ImageUnusable(f"Image {image.id} is {path.stat().st_size} bytes long, {image.size_bytes} were expected.")
    if image.sha512 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha512").hexdigest()
        if found != image.sha512.lower():
            raise ImageUnusable(f"Image {image.id} does not match its SHA-512 hash.")


def _convert(image: ImageRef, source: Path, target: Path) -> None:
    driver = {"vhd": "vpc"}.get(image.disk_format, image.disk_format)
    try:
        with qemu_img.Run() as run:
            words = ["convert", "-q", "-f", driver, "-O", "qcow2", run.lend_shared(source), run.create(target)]
            most = max(2 * image.virtual_size_bytes, GIB)
            run(words, timeout_seconds=CONVERSION_SECONDS, file_bytes=most)
    except HypervisorError as error:
        raise ImageUnusable(f"Image {image.id} cannot be converted from {image.disk_format}: {error}") from error
