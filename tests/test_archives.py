"""Archives from the network: what is in them comes out, and nothing that is broken or malicious does."""

import gzip
import io
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

from mmvae_lite.data.archives import LONGEST, Limits, read_members
from mmvae_lite.data.idx import BadFile

FILES = {
    "set/a.wav": b"first" * 300,
    "set/deep/b.wav": b"",
    "set/README": b"read me",
    "set/" + "long " * 40 + "c.wav": bytes(range(256)) * 9,
}


def tar_bytes(files, kind=tarfile.REGTYPE, **fields):
    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content)
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
    return f.getvalue()


def tar_gz(files, **fields):
    return gzip.compress(tar_bytes(files, **fields), mtime=0)


def zipped(files, mode=0o100644):
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.filename = name  # as it is given, where ZipInfo would mend it
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return f.getvalue()


PACK = {"tar.gz": tar_gz, "zip": zipped}


@pytest.fixture
def read(tmp_path):
    """Read an archive given as bytes; whatever comes of it, its folder holds nothing else afterwards."""

    def reader(content, wanted=lambda name: True, **limits):
        path = tmp_path / "x.archive"
        path.write_bytes(content)
        try:
            return dict(read_members(path, wanted, Limits(**limits)))
        finally:
            assert [p.name for p in tmp_path.iterdir()] == ["x.archive"]

    return reader


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_members_come_out_as_they_went_in(read, pack):
    assert read(pack(FILES)) == FILES
    wavs = read(pack(FILES), lambda name: name.endswith(".wav"))
    assert wavs == {name: x for name, x in FILES.items() if name.endswith(".wav")} and len(wavs) == 3


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_a_file_may_be_longer_than_a_header(read, pack):
    files = {"long.bin": bytes(LONGEST + 1), "after": b"it"}
    assert read(pack(files)) == files


def test_members_come_one_at_a_time(tmp_path):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(tar_gz(FILES)[:-20])  # broken at its end only
    members = read_members(path, lambda name: True)
    assert next(members) == ("set/a.wav", FILES["set/a.wav"])
    with pytest.raises(BadFile, match=r"^x.tar.gz: broken or partial archive .*; delete it and fetch it again$"):
        list(members)


def test_a_tar_of_several_gzip_blocks_and_with_padding(read):
    whole = tar_bytes(FILES)
    assert read(gzip.compress(whole[:1000]) + gzip.compress(whole[1000:] + bytes(51200))) == FILES


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a/..", "C:/x", "C:x", "..\\x", "a\\x"])
def test_names_that_leave_the_folder_are_refused_wanted_or_not(read, pack, name):
    with pytest.raises(BadFile, match="leaves the archive's folder"):
        read(pack({"good": b"1", name: b"2"}), lambda n: n == "good")


def test_what_a_zip_hides_behind_a_zero_byte_is_seen(read):
    with pytest.raises(BadFile, match="leaves the archive's folder"):
        read(zipped({"good\0/../../x": b"1"}))


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_two_dots_in_a_name_are_no_harm(read, pack):
    assert read(pack({"a..b/c...d": b"1"})) == {"a..b/c...d": b"1"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(read, kind):
    with pytest.raises(BadFile, match="'x' is a link or a device"):
        read(tar_gz({"x": b""}, type=kind, linkname="/etc/passwd"), lambda name: False)


def test_sparse_files_are_refused(read):
    with pytest.raises(BadFile, match="'x' is a link or a device"):
        read(tar_gz({"x": b""}, pax_headers={"GNU.sparse.size": "1000000000000", "GNU.sparse.major": "0", "GNU.sparse.map": "0,0"}))


def test_links_in_a_zip_are_refused(read):
    with pytest.raises(BadFile, match="'x' is a link or a device"):
        read(zipped({"x": b"/etc/passwd"}, mode=0o120777), lambda name: False)


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
@pytest.mark.parametrize(
    ("limits", "sentence"),
    [({"member": 1000}, "announces 1500 bytes, wanted at most 1000"), ({"members": 3}, "holds more than 3 members")],
)
def test_limits_on_members(read, pack, limits, sentence):
    with pytest.raises(BadFile, match=sentence):
        read(pack(FILES), lambda name: False, **limits)


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_a_member_may_be_as_long_as_the_limit(read, pack):
    assert read(pack({"a": bytes(100)}), member=100) == {"a": bytes(100)}


def test_limit_on_the_whole(read):
    files = {str(i): bytes(60_000) for i in range(10)}
    for pack, sentence in ((tar_gz, "decompresses to more than is allowed"), (zipped, "announces more than the 300000 bytes")):
        with pytest.raises(BadFile, match=sentence):
            read(pack(files), total=300_000, members=10)
        assert read(pack(files), total=600_000, members=10) == files


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_that_decompresses_without_end_is_stopped(read, kind):
    """tarfile would hold it all in memory, as much as the limit on the whole allows."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, 2**24
    bomb = gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(2**24), 1)
    tracemalloc.start()
    with pytest.raises(BadFile, match="an extended header of 16777216 bytes"):
        read(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()
    header.size = 1000
    with pytest.raises(BadFile, match="decompresses to more than is allowed"):
        read(gzip.compress((header.tobuf(tarfile.GNU_FORMAT) + bytes(1024)) * 80), total=2**10, members=10)


def test_the_headers_of_many_members_are_not_kept(read):
    content = tar_gz({str(i): b"" for i in range(1500)})
    tracemalloc.start()
    read(content, lambda name: False)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_what_follows_the_end_is_counted_too(read):
    with pytest.raises(BadFile, match="decompresses to more than is allowed"):
        read(gzip.compress(tar_bytes(FILES) + bytes(2**22)), total=2**16, members=10)


def test_a_zip_that_announces_less_than_it_holds_is_refused(read):
    content, size = zipped({"x": bytes(5000)}), (5000).to_bytes(4, "little")
    assert content.count(size) == 2
    with pytest.raises(BadFile, match="Bad CRC-32"):
        read(content.replace(size, (50).to_bytes(4, "little")))


def test_a_zip_that_points_to_its_end_is_refused(read):
    content = bytearray(zipped({"x": b"1"}))
    at = content.index(b"PK\x01\x02") + 42
    content[at : at + 4] = (len(content) - 10).to_bytes(4, "little")
    with pytest.raises(BadFile, match="broken or partial archive"):
        read(bytes(content))


def test_a_zip_with_a_password_is_refused(read):
    content = bytearray(zipped({"x": b"1"}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(BadFile, match="encrypted"):
        read(bytes(content))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_a_name_that_occurs_twice_is_refused(read, pack):
    class Twice(dict):
        def items(self):
            return [("x", b"1"), ("x", b"2")]

    with pytest.raises(BadFile, match="'x' occurs twice"):
        read(pack(Twice()))
    assert read(pack(Twice()), lambda name: False) == {}


@pytest.mark.parametrize("content", [b"", b"x", b"no archive", tar_bytes(FILES)], ids=["empty", "a byte", "text", "tar"])
def test_what_is_no_archive_is_refused(read, content):
    with pytest.raises(BadFile, match="wanted a tar.gz .1f8b. or a zip .504b."):
        read(content)


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_every_truncation_is_refused(read, pack):
    whole = pack({"a": b"first" * 100, "b": np.random.default_rng(0).bytes(600)})
    for length in range(2, len(whole), 5):
        with pytest.raises(BadFile):
            read(whole[:length])


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_a_damaged_byte_is_refused_or_changes_no_content(read, pack):
    files = {"a": b"first" * 20, "b": np.random.default_rng(1).bytes(200)}
    whole, refused = pack(files), 0
    for place in range(2, len(whole), 2):
        for flip in (0x01, 0xFF):
            broken = bytearray(whole)
            broken[place] ^= flip
            try:
                found = read(bytes(broken))
            except BadFile:
                refused += 1
            else:
                assert set(found.values()) <= set(files.values()), place
    assert refused > len(whole) / 4  # a quarter of the attempts: dates, comments and the like are not covered by a checksum


@pytest.mark.parametrize("place", [0, 100, 124, 148, 156, 257])
def test_a_damaged_header_inside_a_sound_gzip_is_not_taken_for_the_end(read, place):
    whole = bytearray(tar_bytes({"a": b"1", "b": b"2", "c": b"3"}))
    whole[1024 + place] ^= 0x15
    with pytest.raises(BadFile, match="without its end mark"):
        read(gzip.compress(bytes(whole)))


@pytest.mark.parametrize("length", [512, 1024, 1536])
def test_a_tar_cut_between_members_inside_a_sound_gzip_is_refused(read, length):
    with pytest.raises(BadFile, match="broken or partial archive"):
        read(gzip.compress(tar_bytes({"a": b"1", "b": b"2"})[:length]))


@pytest.mark.parametrize("wrong", [b"99999 path=", b"-5 path=", b"x path=", b"0 path=", b"\xff\xff path="])
def test_damaged_extended_headers_end_in_one_sentence_or_do_no_harm(read, wrong):
    whole = tar_bytes({"é" * 200: b"1"})
    start = whole.index(b" path=") - 3
    try:
        assert list(read(gzip.compress(whole[:start] + wrong + whole[start + len(wrong) :])).values()) == [b"1"]
    except BadFile as e:
        assert str(e).startswith("x.archive: ") and len(str(e)) < 200


def test_every_method_of_zip_is_read_and_its_damage_seen(read):
    content = np.random.default_rng(2).bytes(400)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        f = io.BytesIO()
        with zipfile.ZipFile(f, "w", method) as archive:
            archive.writestr("a", content)
        whole = f.getvalue()
        assert read(whole) == {"a": content}
        places, refused = range(31, whole.index(b"PK\x01\x02"), 7), 0
        for place in places:
            broken = bytearray(whole)
            broken[place] ^= 0x55
            try:
                assert read(bytes(broken)) == {"a": content}
            except BadFile:
                refused += 1
        assert refused > 0.8 * len(places)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(read_members(tmp_path / "none.zip", lambda name: True))
