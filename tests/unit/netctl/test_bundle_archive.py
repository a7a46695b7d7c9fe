"""A bundle as a file: written whole or not at all, and read with suspicion."""

import gzip
import io
import tarfile

import msgspec
import pytest

from controlloop.client import UnreachableError
from controlloop.command import CommandError
from controlloop.errors import OperatorError
from netctl.bundle import archive
from netctl.bundle.archive import write
from netctl.bundle.question import KERNEL, OUTPUT, PAGE, TEXT, TEXTS, Question
from netctl.bundle.record import MANIFEST, Record, Said
from netctl.bundle.replay import BundledNode

STATUS = Question(PAGE, ("netproxy", "/status"))
FRONTENDS = [
    {"service": "default/web:http", "address": "10.96.0.1", "protocol": "tcp", "port": 80},
    {"service": "default/web", "address": "0.0.0.0", "protocol": "tcp", "port": 30080},
    {"service": "default/web-2", "address": "10.96.0.2", "protocol": "udp", "port": 80},
]
TABLE = {"family": "ip", "table": "t"}
LISTING = [
    {"metainfo": {"version": "1.0.6"}},
    {"table": {"family": "ip", "name": "t"}},
    {"chain": {**TABLE, "name": "c"}},
    {"map": {**TABLE, "name": "m", "elem": [["10.0.0.1", {"drop": None}]]}},
    {"rule": {**TABLE, "chain": "c", "expr": []}},
]
ANSWERS = {
    STATUS: Said(b'{"node":"node-1"}'),
    Question(PAGE, ("netproxy", "/frontends")): Said(msgspec.json.encode({"items": FRONTENDS})),
    Question(PAGE, ("netagent", "/status")): Said(error="/run/nodenet/netagent.sock: No such file or directory"),
    Question(OUTPUT, ("ss", "-s")): Said(b"Total: 7\n"),
    Question(OUTPUT, ("wg", "show")): Said(error="wg is not installed", status=127),
    Question(OUTPUT, ("nft", "-j", "list", "table", "ip", "t")): Said(msgspec.json.encode({"nftables": LISTING})),
    Question(OUTPUT, ("iptables-nft-save", "--counters")): Said(b"*nat\n:A ACCEPT [1:2]\n[1:2] -A A -j B\nCOMMIT\n"),
    Question(TEXT, ("/proc/net/snmp",)): Said(b"Udp: 1\n"),
    Question(TEXT, ("/proc/secret",)): Said(error="Permission denied", status=13),
    Question(TEXT, ("/etc/none",)): Said(error="No such file or directory", status=2),
    Question(TEXTS, ("/proc/*",)): Said(b'{"/proc/a":"1"}'),
    Question(KERNEL, ("ipsets",)): Said(b'""'),
}


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "b.tar.gz"
    record = Record(1795409855.8, ("netagent", "netproxy"), dict(ANSWERS), 0.2, "node-1")
    write(made, record.members(), record.taken_at)
    return made


@pytest.fixture
def node(path):
    return BundledNode.open(path)


def refused(path):
    with pytest.raises(OperatorError) as error:
        BundledNode.open(path).page("netproxy", "/status")
    text = str(error.value)
    assert text.startswith(f"--from {path}: ")
    assert "\n" not in text
    return text


# -- written ----------------------------------------------------------------------------------------------------------


def test_it_is_for_its_taker_alone(path):
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as made:
        assert {each.mode for each in made} == {0o600}
        assert made.getnames()[0] == MANIFEST


def test_nothing_is_overwritten(path):
    before = path.read_bytes()
    with pytest.raises(OperatorError, match="is there already"):
        write(path, [], 0)
    assert path.read_bytes() == before


def test_nor_anything_behind_a_link(path, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OperatorError):
        write(link, [], 0)
    assert not (tmp_path / "elsewhere").exists()


def test_half_a_bundle_does_not_stay(tmp_path):
    def members():
        yield "a", b"1"
        raise OSError(28, "No space left on device")

    with pytest.raises(OperatorError, match="No space left"):
        write(tmp_path / "b", members(), 0)
    assert not list(tmp_path.iterdir())


def test_two_answers_with_one_name_both_stay(tmp_path):
    twins = {Question(OUTPUT, ("ss", "-s")): Said(b"1"), Question(OUTPUT, ("ss", "-s ")): Said(b"2")}
    write(tmp_path / "b", Record(0, (), twins).members(), 0)
    node = BundledNode.open(tmp_path / "b")
    assert (node.output("ss", "-s"), node.output("ss", "-s ")) == (b"1", b"2")


# -- answers ----------------------------------------------------------------------------------------------------------


def test_answers_are_those_of_then(node):
    assert (node.is_live, node.now, node.daemons) == (False, 1795409855.8, ("netagent", "netproxy"))
    assert node.page("netproxy", "/status") == {"node": "node-1"}
    assert node.output("ss", "-s") == b"Total: 7\n"
    assert node.text("/proc/net/snmp") == "Udp: 1\n"
    assert node.texts("/proc/*") == {"/proc/a": "1"}
    assert node.kernel("ipsets") == ""


def test_so_are_failures(node):
    with pytest.raises(UnreachableError, match=r"netagent\.sock: No such file"):
        node.page("netagent", "/status")
    with pytest.raises(CommandError, match="wg is not installed") as failed:
        node.output("wg", "show")
    assert failed.value.returncode == 127
    with pytest.raises(PermissionError):
        node.text("/proc/secret")
    with pytest.raises(FileNotFoundError):
        node.text("/etc/none")


def test_what_nobody_asked_is_named(node):
    with pytest.raises(OperatorError, match="nobody asked this node for `output ip -j route`"):
        node.output("ip", "-j", "route")


def test_a_frontend_is_found_among_all(node):
    (found,) = node.page("netproxy", "/frontends/10.96.0.1/tcp/80")["items"]
    assert found == FRONTENDS[0]
    assert node.page("netproxy", "/frontends/10.96.0.1/udp/80")["items"] == []
    assert node.page("netproxy", "/frontends-of/default/web")["items"] == FRONTENDS[:2]


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ("ruleset", ["table", "chain", "map", "rule"]),
        ("ruleset ip", ["table", "chain", "map", "rule"]),
        ("ruleset ip6", []),
        ("tables", ["table"]),
        ("chains", ["chain"]),
        ("map ip t m", ["map"]),
        ("table ip t", ["metainfo", "table", "chain", "map", "rule"]),
    ],
)
def test_a_listing_of_nft_is_found_in_those_of_tables(node, words, kinds):
    listing = msgspec.json.decode(node.output("nft", "-j", "list", *words.split()))
    assert [kind for entry in listing["nftables"] for kind in entry] == kinds


def test_a_terse_one_has_no_elements(node):
    listing = msgspec.json.decode(node.output("nft", "--json", "--terse", "list", "ruleset", "ip"))
    assert [entry["map"] for entry in listing["nftables"] if "map" in entry] == [{**TABLE, "name": "m"}]


@pytest.mark.parametrize("words", ["map ip t x", "set ip t m", "table ip x"])
def test_what_nft_did_not_list_is_not_there(node, words):
    with pytest.raises(CommandError, match="No such file or directory"):
        node.output("nft", "-j", "list", *words.split())


def test_rules_without_counters(node):
    assert node.output("iptables-nft-save") == b"*nat\n:A ACCEPT [1:2]\n-A A -j B\nCOMMIT\n"


# -- suspicion --------------------------------------------------------------------------------------------------------


def packed(tmp_path, *members, name="c.tar.gz"):
    """Of TarInfo with content."""
    made = tmp_path / name
    with tarfile.open(made, "w:gz") as file:
        for info, content in members:
            file.addfile(info, io.BytesIO(content))
    return made


def plain(name, content=b"{}"):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def special(name, kind, target="/etc/shadow"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def test_a_file_that_is_not_there(tmp_path):
    assert "No such file" in refused(tmp_path / "none")


def test_a_folder(tmp_path):
    assert "Is a directory" in refused(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", bytes(range(256)) * 16, gzip.compress(b""), gzip.compress(b"hello" * 999)],
    # A gzip's header holds the time.
    ids=["empty", "text", "bytes", "gzip of nothing", "gzip of text"],
)
def test_no_bundle(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    assert "is no bundle" in refused(tmp_path / "c") or "has no" in refused(tmp_path / "c")


def told(path):
    """What is said about a bundle that may be damaged; empty when it can be read."""
    try:
        node = BundledNode.open(path)
        node.page("netproxy", "/frontends")
        node.output("ss", "-s")
    except (OperatorError, UnreachableError, CommandError) as error:
        return str(error)
    return ""


def test_cut_anywhere_it_is_one_line(path, tmp_path):
    whole = path.read_bytes()
    for length in range(0, len(whole) - 20, 37):
        (tmp_path / "cut").write_bytes(whole[:length])
        assert "\n" not in told(tmp_path / "cut")
    assert told(path) == ""


def test_every_broken_byte_is_one_line_or_none(path, tmp_path):
    whole = path.read_bytes()
    found = set()
    for place in range(0, len(whole), 7):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        (tmp_path / "broken").write_bytes(broken)
        found.add(told(tmp_path / "broken"))
    assert not [text for text in found if "\n" in text]
    assert any("is no bundle" in text for text in found)


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (plain("../../etc/cron.d/x"), "leads out of it"),
        (plain("/etc/cron.d/x"), "leads out of it"),
        (special("x", tarfile.SYMTYPE), "is no plain file"),
        (special("x", tarfile.LNKTYPE), "is no plain file"),
        (special("x", tarfile.CHRTYPE), "is no plain file"),
        (special("x", tarfile.DIRTYPE), "is no plain file"),
        (plain("something-else"), "has no nodenet-bundle/manifest.json"),
        (plain(MANIFEST, b"not json"), "is no bundle"),
        (plain(MANIFEST, b"{}"), "is no bundle"),
        (plain(MANIFEST, b"[]"), "is no bundle"),
    ],
)
def test_strange_members(tmp_path, member, words):
    assert words in refused(packed(tmp_path, member))


def manifest(tmp_path, **changes):
    document = {"apiVersion": "nodenet.io/v1alpha1", "kind": "Bundle", "version": "1", "taken_at": 1.0, "took_s": 1.0}
    document |= {"node": "n", "daemons": ["netproxy"], "answers": {}, **changes}
    return packed(tmp_path, plain(MANIFEST, msgspec.json.encode(document)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "PeerList"}, "this netctl reads nodenet.io/v1alpha1 Bundle"),
        ({"apiVersion": "nodenet.io/v9"}, "this netctl reads nodenet.io/v1alpha1 Bundle"),
        ({"taken_at": "yesterday"}, "is no bundle"),
        ({"answers": {str(STATUS): {"member": "gone.json"}}}, "gone.json is missing"),
        ({"answers": {str(STATUS): {"member": MANIFEST, "error": 7}}}, "is no bundle"),
    ],
)
def test_manifests_that_do_not_fit(tmp_path, changes, words):
    assert words in refused(manifest(tmp_path, **changes))


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST", 2**20)
    info = tarfile.TarInfo(MANIFEST)
    info.size = 2**21
    assert "at most 1 MiB" in refused(packed(tmp_path, (info, bytes(2**21))))


def test_nor_many_small_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST", 2**20)
    many = [plain(f"x/{number}", bytes(2**18)) for number in range(8)]
    assert "holds more than 1 MiB" in refused(packed(tmp_path, *many))


def test_nor_a_header_without_end(tmp_path):
    info = tarfile.TarInfo("x")
    info.pax_headers = {"comment": "x" * 2**20}
    with tarfile.open(tmp_path / "c", "w:gz", format=tarfile.PAX_FORMAT) as file:
        file.addfile(info, io.BytesIO(b""))
    assert "bytes at once" in refused(tmp_path / "c")
