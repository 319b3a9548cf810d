import contextlib
import errno
import hashlib
import io
import os
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from ser import download, get_corpus, get_vectors
from ser.cli import UserError, explain
from ser.corpora import ravdess
from ser.download import fetch, unpack

CONTENT = bytes(range(256)) * 4000  # about 1 MB, several blocks
SIZE = len(CONTENT)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT, as badly as its attributes say; `asked` is the Range of each request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/corpus.zip"
        self.content = CONTENT
        self.knows_range = True
        self.range_shift = 0  # bytes by which the part sent is not the part asked for
        self.breaks_after = []  # bytes of the body, for each request in turn; then it holds
        self.tells_length = True
        self.stalls = []  # seconds before the body, for each request in turn; then none
        self.kind = "application/zip"
        self.answers = []  # HTTP codes in place of the file, for each request in turn
        self.asked = []
        self.asked_for_size = 0  # requests of HEAD; they take their turn in `answers` too

    def handle_error(self, request, client_address):
        pass  # broken connections are what these tests are about


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.answers:
            self.send_error(server.answers.pop(0))
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.knows_range else 0
        if start and start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            first = start + server.range_shift
            self.send_header("Content-Range", f"bytes {first}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Type", server.kind)
        if server.tells_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.stalls:
            self.wfile.flush()
            time.sleep(server.stalls.pop(0))
        if server.breaks_after:
            body = body[: server.breaks_after.pop(0)]
        self.wfile.write(body)  # and the connection closes

    def do_HEAD(self):
        self.server.asked_for_size += 1
        if self.server.answers:
            self.send_error(self.server.answers.pop(0))
            return
        self.send_response(200)
        self.send_header("Content-Type", self.server.kind)
        if self.server.tells_length:
            self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "WAIT", 0.0)
    monkeypatch.setattr(download, "BLOCK", 1 << 16)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "new" / "corpus.zip"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(server, dest):
    fetch(server.url, dest, SIZE, MD5)
    assert dest.read_bytes() == CONTENT
    fetch(server.url, dest, SIZE, MD5)
    assert server.asked == [None]
    assert names(dest.parent) == ["corpus.zip"]


def test_a_broken_download_goes_on_where_it_broke(server, dest):
    server.breaks_after = [300_000, 200_000]
    fetch(server.url, dest, SIZE, MD5)
    assert dest.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_a_download_that_was_stopped_goes_on_from_its_part(server, dest):
    dest.parent.mkdir()
    (dest.parent / "corpus.zip.part").write_bytes(CONTENT[:700_000])
    fetch(server.url, dest, SIZE, MD5)
    assert dest.read_bytes() == CONTENT
    assert server.asked == ["bytes=700000-"]


def test_one_that_was_stopped_at_its_last_byte_asks_for_nothing(server, dest):
    dest.parent.mkdir()
    (dest.parent / "corpus.zip.part").write_bytes(CONTENT)
    fetch(server.url, dest, SIZE, MD5)
    assert dest.read_bytes() == CONTENT
    assert server.asked == []


def test_a_server_that_ignores_range_sends_all_again(server, dest):
    server.knows_range = False
    server.breaks_after = [300_000]
    fetch(server.url, dest, SIZE, MD5)
    assert dest.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"]


def test_a_server_that_sends_another_part_is_not_believed(server, dest):
    server.breaks_after = [300_000]
    server.range_shift = 1
    fetch(server.url, dest, SIZE, MD5)
    assert dest.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", None]


def test_connections_that_bring_nothing_new_are_given_up(server, dest):
    server.breaks_after = [300_000] + [0] * 100
    with pytest.raises(UserError, match=f"interrupted at 300000 of {SIZE} bytes, 5 times in a row.*run the same"):
        fetch(server.url, dest, SIZE, MD5)
    assert len(server.asked) == 1 + download.TRIES
    assert (dest.parent / "corpus.zip.part").read_bytes() == CONTENT[:300_000]
    assert not dest.exists()


def test_a_server_that_ignores_range_and_always_breaks_is_given_up(server, dest):
    server.knows_range = False
    server.breaks_after = [300_000] * 100
    with pytest.raises(UserError, match="interrupted"):
        fetch(server.url, dest, SIZE, MD5)
    assert len(server.asked) == 1 + download.TRIES


def test_a_line_that_breaks_often_but_brings_something_is_not_given_up(server, dest):
    server.breaks_after = [100_000] * 9
    fetch(server.url, dest, SIZE, MD5)
    assert dest.read_bytes() == CONTENT


def test_a_connection_that_falls_silent_is_given_up(server, dest, monkeypatch, capsys):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    server.stalls = [0.3]
    fetch(server.url, dest, SIZE, MD5)
    assert dest.read_bytes() == CONTENT
    assert f"timed out at 0 of {SIZE} bytes; trying again" in capsys.readouterr().err


def test_no_server_at_all(server, dest):
    url = server.url.replace(str(server.server_port), "1")  # a port that nobody listens at
    with pytest.raises(UserError, match=f"{url}: interrupted at 0 .*no connection: .*refused"):
        fetch(url, dest, SIZE, MD5)


def test_waits_grow_while_nothing_comes(server, dest, monkeypatch):
    waits = []
    monkeypatch.setattr(download, "WAIT", 2.0)
    monkeypatch.setattr(time, "sleep", waits.append)
    server.breaks_after = [0, 0, 0, 300_000]
    fetch(server.url, dest, SIZE, MD5)
    assert waits == [2, 4, 8, 2]


def test_a_server_that_tells_no_length(server, dest):
    server.tells_length = False
    server.breaks_after = [300_000]
    fetch(server.url, dest, SIZE, MD5)
    assert dest.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"]


def test_a_busy_server_is_asked_again(server, dest):
    server.answers = [503, 429]
    fetch(server.url, dest, SIZE, MD5)
    assert len(server.asked) == 3


def test_a_file_that_has_moved_is_not_asked_for_again(server, dest):
    server.answers = [404]
    with pytest.raises(UserError, match=f"{server.url}: the server answered 404 Not Found.*{dest}"):
        fetch(server.url, dest, SIZE, MD5)
    assert len(server.asked) == 1


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"!"])
def test_a_file_of_another_size_is_refused(server, dest, content):
    server.content = content
    with pytest.raises(UserError, match=f"{server.url}: the file has {len(content)} bytes, not {SIZE}"):
        fetch(server.url, dest, SIZE, MD5)
    assert len(server.asked) == 1
    assert not dest.parent.exists()


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_web_page_in_place_of_the_file_is_refused(server, dest, tells_length):
    server.content, server.kind, server.tells_length = (
        b"<html>please log in</html>",
        "text/html; charset=utf-8",
        tells_length,
    )
    with pytest.raises(UserError, match=f"{server.url}: a web page instead of the file.*open the address.*{dest}"):
        fetch(server.url, dest, SIZE, MD5)
    assert len(server.asked) == 1
    assert not dest.parent.exists()


def test_a_server_whose_file_ends_before_the_part_is_refused(server, dest):
    dest.parent.mkdir()
    (dest.parent / "corpus.zip.part").write_bytes(CONTENT[:700_000])
    server.content = CONTENT[:600_000]
    with pytest.raises(UserError, match="answered 416"):
        fetch(server.url, dest, SIZE, MD5)


def test_a_wrong_md5_removes_the_file_and_says_so(server, dest):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(UserError, match=f"{server.url}: its MD5 is [0-9a-f]{{32}}, not {MD5}.*removed") as error:
        fetch(server.url, dest, SIZE, MD5)
    assert "\n" not in str(error.value)
    assert not dest.parent.exists()
    server.content = CONTENT
    fetch(server.url, dest, SIZE, MD5)
    assert dest.read_bytes() == CONTENT


def test_a_file_there_that_is_not_whole_is_fetched_again(server, dest):
    dest.parent.mkdir()
    dest.write_bytes(CONTENT[:-1] + b"!")
    fetch(server.url, dest, SIZE, MD5)
    assert dest.read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(server, dest):
    dest.parent.mkdir()
    (dest.parent / "corpus.zip.part").write_bytes(CONTENT + b"!")
    fetch(server.url, dest, SIZE, MD5)
    assert dest.read_bytes() == CONTENT
    assert server.asked == [None]


def test_a_full_disk_is_not_taken_for_a_broken_network(server, dest, monkeypatch):
    @contextlib.contextmanager
    def full(*_):
        def progress(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        yield progress

    monkeypatch.setattr(download, "_progress", full)
    with pytest.raises(OSError, match="No space left") as error:
        fetch(server.url, dest, SIZE, MD5)
    assert (
        explain(error.value) == f"{dest}.part: No space left on device; free some space and run the same command again"
    )
    assert len(server.asked) == 1


def test_a_file_whose_size_nobody_knows_has_the_size_that_the_server_says(server, dest):
    server.breaks_after = [300_000, 200_000]
    for _ in range(2):
        fetch(server.url, dest, None, None)
        assert dest.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]
    assert server.asked_for_size == 1
    assert names(dest.parent) == ["corpus.zip"]


@pytest.mark.parametrize(
    ("there", "asked"), [(CONTENT[:700_000], ["bytes=700000-"]), (CONTENT, []), (CONTENT + b"!", [None])]
)
def test_a_part_of_a_file_whose_size_nobody_knows(server, dest, there, asked):
    dest.parent.mkdir()
    (dest.parent / "corpus.zip.part").write_bytes(there)
    fetch(server.url, dest, None, None)
    assert dest.read_bytes() == CONTENT
    assert server.asked == asked


def test_a_busy_server_is_asked_for_the_size_again(server, dest, capsys):
    server.answers = [503, 429]
    fetch(server.url, dest, None, None)
    assert server.asked_for_size == 3
    assert "the server answered 503 Service Unavailable at 0 of unknown bytes; trying again" in capsys.readouterr().err
    server.answers = [404]
    with pytest.raises(UserError, match=f"{server.url}: the server answered 404 Not Found"):
        fetch(server.url, dest.with_name("other.zip"), None, None)


def test_no_server_to_ask_for_the_size(server, dest):
    url = server.url.replace(str(server.server_port), "1")
    with pytest.raises(
        UserError, match=f"{url}: interrupted at 0 of unknown bytes, 5 times in a row .no connection: .*refused"
    ):
        fetch(url, dest, None, None)


def test_a_server_that_does_not_tell_the_size_that_is_asked_for(server, dest):
    server.tells_length = False
    with pytest.raises(
        UserError, match=f"{server.url}: the server does not report the file's size; download it by hand to {dest}$"
    ):
        fetch(server.url, dest, None, None)
    fetch(server.url, dest, SIZE, None)  # a size alone will do
    assert dest.read_bytes() == CONTENT


def test_a_log_gets_plain_lines(server, dest, capsys, monkeypatch):
    monkeypatch.setattr(download, "LOG_EVERY", 0.0)
    fetch(server.url, dest, SIZE, MD5)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\r" not in err
    assert err.startswith("corpus.zip: 0.1 of 1.0 MB (6%)\n")
    assert err.endswith("corpus.zip: 1.0 of 1.0 MB (100%)\n")


def test_a_quick_download_gets_one_line(server, dest, capsys):
    fetch(server.url, dest, SIZE, MD5)
    assert capsys.readouterr().err == "corpus.zip: 1.0 of 1.0 MB (100%)\n"


def test_a_terminal_gets_a_bar(server, dest, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch(server.url, dest, SIZE, MD5)
    assert "\rcorpus.zip: 100%" in terminal.getvalue()


def zipped(path, members):
    """members: name -> content, or a ZipInfo -> content."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path, *members, mode="w:gz"):
    """members: (name, content) for a file, or a TarInfo for anything else."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_a_zip_is_unpacked(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"Actor_01/a.wav": b"one", "b.wav": b"two", "empty/": b""})
    unpack(archive, tmp_path / "corpus")
    assert (tmp_path / "corpus/Actor_01/a.wav").read_bytes() == b"one"
    assert names(tmp_path / "corpus") == ["Actor_01", "b.wav", "empty"]
    assert names(tmp_path) == ["a.zip", "corpus"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_unpacked(tmp_path, mode):
    archive = tarred(
        tmp_path / "a.tar", ("./wav/a.wav", b"one"), special("wav/b.wav", tarfile.SYMTYPE, "a.wav"), mode=mode
    )
    unpack(archive, tmp_path / "corpus")
    assert (tmp_path / "corpus/wav/a.wav").read_bytes() == b"one"
    assert (tmp_path / "corpus/wav/b.wav").read_bytes() == b"one"


def test_colleagues_can_read_what_is_unpacked(tmp_path):
    unpack(zipped(tmp_path / "a.zip", {"a.wav": b"one"}), tmp_path / "corpus")
    (tmp_path / "made").mkdir()
    assert (tmp_path / "corpus").stat().st_mode == (tmp_path / "made").stat().st_mode


def test_folders_on_the_way_are_made(tmp_path):
    unpack(zipped(tmp_path / "a.zip", {"a.wav": b"one"}), tmp_path / "new" / "corpus")
    assert names(tmp_path / "new/corpus") == ["a.wav"]


def test_what_is_unpacked_is_not_unpacked_again(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"a.wav": b"one"})
    unpack(archive, tmp_path / "corpus")
    (tmp_path / "corpus/a.wav").write_bytes(b"mine")
    unpack(archive, tmp_path / "corpus")
    assert (tmp_path / "corpus/a.wav").read_bytes() == b"mine"


OUTSIDE = ["../evil", "wav/../../evil", "/tmp/evil", "..\\evil", ".."]


def refused(tmp_path, archive, member):
    with pytest.raises(UserError) as error:
        unpack(archive, tmp_path / "inside" / "corpus")
    assert f"{archive}: member {member!r}" in str(error.value)
    assert "\n" not in str(error.value)
    assert names(tmp_path / "inside") == []  # not even what came before the bad member
    assert names(tmp_path) == sorted(["inside", archive.name])


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_zip_that_leads_out_is_refused(tmp_path, name):
    (tmp_path / "inside").mkdir()
    refused(tmp_path, zipped(tmp_path / "a.zip", {"good": b"1", name: b"2"}), name)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_tar_that_leads_out_is_refused(tmp_path, name):
    (tmp_path / "inside").mkdir()
    refused(tmp_path, tarred(tmp_path / "a.tgz", ("good", b"1"), (name, b"2")), name)


def test_a_link_in_a_zip_is_refused(tmp_path):
    (tmp_path / "inside").mkdir()
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    refused(tmp_path, zipped(tmp_path / "a.zip", {"good": b"1", link: "/etc"}), "link")


@pytest.mark.parametrize(
    "member",
    [
        special("out", tarfile.SYMTYPE, "/etc"),
        special("out", tarfile.SYMTYPE, "../.."),
        special("wav/out", tarfile.SYMTYPE, "deep/../../../x"),
        special("out", tarfile.LNKTYPE, "/etc/passwd"),
        special("out", tarfile.LNKTYPE, "../a.tgz"),
        special("out", tarfile.CHRTYPE),
        special("out", tarfile.BLKTYPE),
        special("out", tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.type}-{member.linkname}",
)
def test_links_out_and_devices_in_a_tar_are_refused(tmp_path, member):
    (tmp_path / "inside").mkdir()
    refused(tmp_path, tarred(tmp_path / "a.tgz", ("good", b"1"), member), member.name)


def test_a_link_behind_a_link_is_refused(tmp_path):
    """By its letters a/b/up leads to the archive's top; behind the link a -> . it would lead out."""
    (tmp_path / "inside").mkdir()
    links = [special("a", tarfile.SYMTYPE, "."), special("a/b/up", tarfile.SYMTYPE, "../../a/..")]
    refused(tmp_path, tarred(tmp_path / "a.tgz", *links, ("a/b/up/evil", b"1")), "a/b/up")


def test_damaged_archives_leave_nothing(tmp_path):
    noise = os.urandom(50_000)
    (tmp_path / "inside").mkdir()
    damaged = {"page.zip": b"<html>please log in</html>", "empty.tgz": b""}
    for name, content in {
        "a.zip": zipped(tmp_path / "a.zip", {"a.wav": noise}).read_bytes(),
        "a.tgz": tarred(tmp_path / "a.tgz", ("a.wav", noise)).read_bytes(),
        "a.bz2": tarred(tmp_path / "a.bz2", ("a.wav", noise), mode="w:bz2").read_bytes(),
        "a.xz": tarred(tmp_path / "a.xz", ("a.wav", noise), mode="w:xz").read_bytes(),
    }.items():
        damaged[f"short.{name}"] = content[:30_000]
        damaged[f"flipped.{name}"] = content[:30_000] + bytes(64) + content[30_064:]
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: cannot be unpacked"):
            unpack(tmp_path / name, tmp_path / "inside" / "corpus")
        assert names(tmp_path / "inside") == [], name


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_full_disk_is_not_taken_for_a_damaged_archive(tmp_path, monkeypatch, kind):
    """The error names where there is no room: a write() that fails does not say what it writes to."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = (
        zipped(tmp_path / "a.zip", {"a.wav": b"one"})
        if kind == "zip"
        else tarred(tmp_path / "a.tgz", ("a.wav", b"one"))
    )
    monkeypatch.setattr("shutil.copyfileobj" if kind == "zip" else "tarfile.copyfileobj", full)
    with pytest.raises(OSError, match="No space left") as error:
        unpack(archive, tmp_path / "corpus")
    assert (
        explain(error.value)
        == f"{tmp_path}/corpus: No space left on device; free some space and run the same command again"
    )
    assert names(tmp_path) == [archive.name]


def cannot_be_unpacked(archive, reason):
    """Unpacking it gives one line, and leaves nothing."""
    before = names(archive.parent)
    with pytest.raises(UserError) as error:
        unpack(archive, archive.parent / "corpus")
    message = str(error.value)
    assert message.startswith(f"{archive}: cannot be unpacked (") and message.endswith(
        "); remove it and fetch it again"
    )
    assert reason in message and "\n" not in message
    assert names(archive.parent) == before


def test_a_hard_link(tmp_path):
    """To a file that came before it; a link to what is not there is an archive that lacks some."""
    unpack(tarred(tmp_path / "a.tgz", ("wav/a", b"one"), special("b", tarfile.LNKTYPE, "./wav/a")), tmp_path / "corpus")
    assert (tmp_path / "corpus/b").read_bytes() == b"one"
    (tmp_path / "alone").mkdir()
    dangling = tarred(tmp_path / "alone/b.tgz", ("a", b"one"), special("b", tarfile.LNKTYPE, "none"))
    cannot_be_unpacked(dangling, "'b' is a link to 'none', which is not in the archive")


def plain(path, number=3):
    """A tar of files of one block each; return its bytes: a header and a block each, and zeros."""
    tarred(path, *((f"{place}.wav", bytes([1 + place]) * 512) for place in range(number)), mode="w")
    return path.read_bytes()


def test_a_damaged_header_is_not_the_end_of_a_tar(tmp_path):
    """All bytes of all headers: their sum stands in them. tarfile would stop at one and say nothing."""
    archive = tmp_path / "a.tar"
    content = plain(archive)
    for header in (0, 1024, 2048):
        for place in (*range(header, header + 160, 7), *range(header + 160, header + 512, 50)):
            archive.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            cannot_be_unpacked(archive, "header" if header else "could not be opened")
    archive.write_bytes(content[:1024] + bytes(512) + content[1536:])  # a block of zeros is the end
    cannot_be_unpacked(archive, "more data after its end")


def test_a_tar_cut_short_anywhere(tmp_path):
    """Between members, too, where tarfile sees nothing; only the zeros behind the last may be fewer."""
    archive = tmp_path / "a.tar"
    content = plain(archive)
    for size in (*range(1, 3072, 111), 1024, 1536, 2048, 3072):
        archive.write_bytes(content[:size])
        cannot_be_unpacked(archive, "")
    for size in (3584, 4096, len(content)):
        archive.write_bytes(content[:size])
        unpack(archive, tmp_path / f"corpus{size}")
        assert names(tmp_path / f"corpus{size}") == ["0.wav", "1.wav", "2.wav"]


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path):
    """zipfile takes for a zip what ends like one, whatever stands before it."""
    inner = zipped(tmp_path / "in.zip", {"inner.wav": b"one"}).read_bytes()
    unpack(tarred(tmp_path / "a.tar", ("a.wav", b"one"), ("in.zip", inner), mode="w"), tmp_path / "corpus")
    assert names(tmp_path / "corpus") == ["a.wav", "in.zip"]


def test_an_archive_that_unpacks_to_too_much(tmp_path, monkeypatch):
    """Both by what its members say of themselves, before they are written, and by how many there are."""
    monkeypatch.setattr(download, "MOST", 1_000_000)
    zeros = bytes(500_000)
    many = {f"{place}.wav": zeros for place in range(3)}
    empty = [special(f"{place}.wav", tarfile.REGTYPE) for place in range(300)]
    (tmp_path / "inside").mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in many.items():
            archive.writestr(name, content)
    archives = [
        tmp_path / "a.zip", tarred(tmp_path / "a.tgz", *many.items()), tarred(tmp_path / "a.xz", *many.items(), mode="w:xz"),
        tarred(tmp_path / "b.tgz", *empty),
    ]  # fmt: skip
    for archive in archives:
        size = archive.stat().st_size
        with pytest.raises(UserError) as error:
            unpack(archive, tmp_path / "inside/corpus")
        assert str(error.value) == (
            f"{archive}: has {size / 1e6:.3g} MB and unpacks to more than 1 MB, too much for a corpus, so it was not unpacked; download it "
            "from its publisher"
        )
        assert names(tmp_path / "inside") == []
    monkeypatch.setattr(download, "MOST_TIMES", 1_000_000)  # as large, in its size, as any archive may be
    for archive in archives[:3]:
        unpack(archive, tmp_path / archive.name.replace(".", "_"))


def test_an_archive_that_the_disk_has_no_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10_000_000))
    noise = os.urandom(6_000_000)
    (tmp_path / "inside").mkdir()
    for archive in (
        zipped(tmp_path / "a.zip", {"a": noise, "b": noise}),
        tarred(tmp_path / "a.tgz", ("a", noise), ("b", noise)),
    ):
        with pytest.raises(UserError) as error:
            unpack(archive, tmp_path / "inside/corpus")
        assert str(error.value) == (
            f"{archive}: unpacks to more than the 10 MB free in {tmp_path}/inside; free some space and run the same command "
            "again"
        )
        assert names(tmp_path / "inside") == []


def test_a_name_of_many_megabytes(tmp_path):
    """tarfile would read it into memory, however long a packed file of a few bytes says it is."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    tarred(tmp_path / "a.tgz", ("a.wav", b"one"), info)
    cannot_be_unpacked(tmp_path / "a.tgz", "a member's name of 1073741824 bytes")


def test_members_that_stand_in_each_others_way(tmp_path):
    cannot_be_unpacked(zipped(tmp_path / "a.zip", {"a": b"1", "a/b": b"2"}), "")
    cannot_be_unpacked(tarred(tmp_path / "a.tgz", ("a", b"1"), ("a/b", b"2")), "")
    cannot_be_unpacked(tarred(tmp_path / "b.tgz", ("a" * 300, b"1")), "File name too long")


def test_the_stage_fetches_unpacks_and_ends_with_the_folder(server, tmp_path, monkeypatch, capsys):
    archive = zipped(tmp_path / "published.zip", {"Actor_01/03-01-01-01-01-01-01.wav": CONTENT})
    server.content = archive.read_bytes()
    server.breaks_after = [1000]
    monkeypatch.setattr(ravdess, "URL", server.url)
    monkeypatch.setattr(ravdess, "SIZE", len(server.content))
    monkeypatch.setattr(ravdess, "MD5", hashlib.md5(server.content).hexdigest())
    for _ in range(2):
        get_corpus.main(["ravdess", str(tmp_path / "downloads")])
        assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "downloads/ravdess")
    assert (tmp_path / "downloads/ravdess/Actor_01/03-01-01-01-01-01-01.wav").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-"]


def test_word_vectors_are_fetched_and_unpacked(server, tmp_path, monkeypatch, capsys):
    archive = zipped(
        tmp_path / "published.zip", {f"glove.6B.{size}d.txt": f"the{' 0.1' * size}\n" for size in (50, 300)}
    )
    server.content = archive.read_bytes()
    server.breaks_after = [100]
    monkeypatch.setattr(get_vectors, "URL", server.url)
    monkeypatch.setattr(get_vectors, "SIZE", len(server.content))
    monkeypatch.setattr(get_vectors, "MD5", hashlib.md5(server.content).hexdigest())
    for _ in range(2):
        get_vectors.main([str(tmp_path / "downloads")])
        assert capsys.readouterr().out == f"{tmp_path}/downloads/glove.6B/glove.6B.300d.txt\n"
    assert (tmp_path / "downloads/glove.6B/glove.6B.300d.txt").read_text() == "the" + " 0.1" * 300 + "\n"
    assert server.asked == [None, "bytes=100-"]


def test_word_vectors_that_are_another_file_are_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(get_vectors, "URL", server.url)
    with pytest.raises(UserError, match=f"{server.url}: the file has {SIZE} bytes, not 862182613"):
        get_vectors.main([str(tmp_path / "downloads")])
    assert not (tmp_path / "downloads").exists()


def test_an_unknown_corpus_is_named_beside_those_there_are(tmp_path):
    with pytest.raises(UserError, match="no corpus 'ravdes'; available: .*ravdess"):
        get_corpus.main(["ravdes", str(tmp_path)])
