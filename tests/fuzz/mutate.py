"""Damage to files: blind changes of bytes, and changes that keep a format's outer form valid.

Everything is drawn from a `random.Random`, so a seed gives the same file again.
"""

import io
import json
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import onnx
import pyarrow
import pyarrow.parquet

INTERESTING = (
    0,
    1,
    127,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**64 - 1,
)
HOSTILE = ("../../../etc/passwd", "/etc/passwd", "a" * 100_000, "\ud800", "\0", "\u202e", "{{ 1/0 }}")
VALUES: tuple[Callable[[Random], Any], ...] = (
    lambda random: None,
    lambda random: True,
    lambda random: -1,
    lambda random: 0,
    lambda random: random.choice(INTERESTING),
    lambda random: 10 ** random.randrange(1, 30),
    lambda random: random.choice((1e308, -0.5, float("nan"), float("inf"))),
    lambda random: "",
    lambda random: random.choice(HOSTILE),
    lambda random: [],
    lambda random: {},
    lambda random: [0] * random.choice((1, 10, 10_000)),
    lambda random: {str(one): one for one in range(random.choice((1, 100)))},
    lambda random: nested(random.choice((3, 60, 300))),
)
KEYS = (
    "auto_map",
    "trust_remote_code",
    "custom_pipelines",
    "attn_implementation",
    "quantization_config",
    "secateur",
)


def nested(depth: int) -> Any:
    """`depth` lists, one in the other."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def mutate(name: str, data: bytes, random: Random) -> bytes:
    """One damaged version of the file `name`, four in ten by blind changes, else by what its ending says."""
    structured = next((change for ending, change in _BY_ENDING.items() if name.endswith(ending)), None)
    if structured is None or random.random() < 0.4:
        return blind(data, random)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return structured(data, random)


def blind(data: bytes, random: Random) -> bytes:
    """Up to eight changes of bytes, at any place."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 8))):
        random.choice(_BLIND)(found, random)
    return bytes(found)


def _flip(data: bytearray, random: Random) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _number(data: bytearray, random: Random) -> None:
    """A number of 1 to 8 bytes that lengths and counts may be, at the ends more often than in the middle."""
    width = random.choice((1, 2, 4, 8))
    value = random.choice(INTERESTING) % 2 ** (8 * width)
    where = random.choice((64, 4096, len(data) or 1))
    at = random.randrange(min(where, len(data) or 1))
    at = at if random.random() < 0.5 else max(0, len(data) - at - width)
    data[at : at + width] = value.to_bytes(width, random.choice(("little", "big")))


def _cut(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data) + 1) :]


def _remove(data: bytearray, random: Random) -> None:
    start = random.randrange(len(data) + 1)
    del data[start : start + random.choice((1, 4, 64, 1024))]


def _repeat(data: bytearray, random: Random) -> None:
    start = random.randrange(len(data) + 1)
    piece = data[start : start + random.choice((1, 16, 512))]
    data[start:start] = piece * random.choice((1, 2, 50))


def _insert(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = random.randbytes(random.choice((1, 8, 64)))


def _move(data: bytearray, random: Random) -> None:
    """A piece of the file over another place of it."""
    start, to = random.randrange(len(data) + 1), random.randrange(len(data) + 1)
    piece = data[start : start + random.choice((4, 32, 256))]
    data[to : to + len(piece)] = piece


_NAMES = (
    "../x.png",
    "/etc/x.png",
    "a" * 5000 + ".png",
    "x.png",
    "\u202e.png",
    "._0.png",
    "a\nb.png",
    "0.json",
)
_FIELDS = (
    (124, b"77777777777\0"),
    (124, b"\x80" + b"\xff" * 11),
    (124, b"-0000000001\0"),
    (156, b"L"),
    (156, b"g"),
    (156, b"x"),
    (156, b"S"),
)
"""Sizes and types in the header of a tar's member, and where they are."""
_BLIND = (_flip, _flip, _number, _number, _cut, _remove, _repeat, _insert, _move)


def change_value(value: Any, random: Random) -> Any:
    """A copy of a JSON value with one to three entries changed, gone, renamed, or new."""
    found = json.loads(json.dumps(value))
    for _ in range(random.choice((1, 1, 2, 3))):
        found = _change_once(found, random)
    return found


def _change_once(value: Any, random: Random) -> Any:
    places = list(_places(value))
    if not places:
        return random.choice(VALUES)(random)
    holder, key = random.choice(places)
    action = random.random()
    if action < 0.15:
        del holder[key]
    elif action < 0.3 and isinstance(holder, dict):
        holder[random.choice((*KEYS, *map(str, holder)))] = random.choice(VALUES)(random)
    elif action < 0.4:
        holder[key] = [holder[key]]
    elif action < 0.6 and isinstance(holder[key], int | float):
        holder[key] = holder[key] * random.choice((-1, 2, 1000, 10**9)) + random.choice((-1, 0, 1))
    else:
        holder[key] = random.choice(VALUES)(random)
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every holder and key or index in a JSON value."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        keys = one.keys() if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        found += [(one, key) for key in keys]
        waiting += [one[key] for key in keys]
    return found


def change_json(data: bytes, random: Random) -> bytes:
    """Valid JSON that says something else, or text that is nearly JSON."""
    if random.random() < 0.1:
        absurd = (
            b"[" * 100_000,
            b"9" * 1_000_000,
            b'{"a":' * 5000,
            b'{"a":1,"a":2}',
            b"NaN",
            b"\xff\xfe{}",
            b"",
        )
        return random.choice(absurd)
    text = json.dumps(change_value(json.loads(data), random))
    if random.random() < 0.1 and text.startswith("{"):
        text = '{"model_type": "bert", "model_type": "vit", ' + text[1:]
    return text.encode("utf-8", "surrogatepass")


def change_text(data: bytes, random: Random) -> bytes:
    """Lines that are absurdly long, or of characters that are no text."""
    absurd = (b"\xff" * 50, b"a" * 200_000, b"\0" * 1000, "\u202e\U0010ffff".encode() * 500, b"\n" * 5000)
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(absurd) + data[at:]


def change_safetensors(data: bytes, random: Random) -> bytes:
    """Another header, with its true length."""
    length = int.from_bytes(data[:8], "little")
    header = change_json(data[8 : 8 + length], random)
    if random.random() < 0.3:
        kinds = (b'"F16"', b'"BF16"', b'"F64"', b'"F8_E4M3"', b'"BOOL"', b'"C64"', b'"I8"', b'"F4"', b'"U64"')
        header = header.replace(b'"F32"', random.choice(kinds), random.choice((1, 100)))
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def change_zip(data: bytes, random: Random) -> bytes:
    """Another archive: members changed, renamed, doubled, gone, packed otherwise, or huge once unpacked."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = random.randrange(len(members))
    name, content = members[at]
    action = random.randrange(6)
    if action <= 2:
        members[at] = (name, mutate(name, content, random))
    elif action == 3:
        members[at] = (random.choice(("../" + name, "/" + name, name.upper(), "a" * 60_000)), content)
    elif action == 4:
        members.append((name, mutate(name, content, random)))
    else:
        members[at] = (name, content + bytes(random.choice((2**20, 2**26))))
    packing = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in members:
            archive.writestr(name, content)
    made = buffer.getvalue()
    return made if random.random() < 0.7 else blind(made, random)


def change_npy(data: bytes, random: Random) -> bytes:
    """Another header of an array, of the same form."""
    length = int.from_bytes(data[8:10], "little")
    shapes = (
        "(-1,)",
        "(4, 1000000000, 16)",
        "(4, 4611686018427387904, 4)",
        "()",
        "(0,)",
        "(4.0,)",
        "(" * 200,
    )
    kinds = ("|O", "<U1000000", "<f2", "<c16", "|V100000", "<M8[s]", "|b1", ">i4", "<i8", "x")
    kind = random.choice(kinds)
    text = random.choice(
        (
            f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {random.choice(shapes)}, }}",
            f"{{'descr': '<f4', 'fortran_order': {random.choice(('True', '1', 'None'))}, 'shape': (4,), }}",
            f"{{'descr': [('a', '<f4')] * {random.randrange(9)}, 'shape': (4L,)}}",
            "{" * 50,
            "[" * 9000,
        )
    ).encode()
    return data[:8] + len(text).to_bytes(2, "little") + text + data[10 + length :]


def change_parquet(data: bytes, random: Random) -> bytes:
    """Another table: cells changed, columns renamed, retyped or gone, another packing; or another footer."""
    if random.random() < 0.35:
        return _change_footer(data, random)
    table = pyarrow.parquet.read_table(io.BytesIO(data))
    place = random.randrange(table.num_columns)
    name, values = table.column_names[place], table.column(place).to_pylist()
    row = random.randrange(len(values))
    if random.random() < 0.6:
        values[row] = _change_cell(values[row], random)
    else:
        values = [random.choice((None, -1, 2**40, "text", b"\xff\xfe", [1], float("nan")))] * len(values)
    try:
        table = table.set_column(
            place, random.choice((name, name, name, "x", "label")), pyarrow.array(values)
        )
    except (pyarrow.ArrowException, TypeError, OverflowError, UnicodeError):
        table = table.remove_column(place)
    table = table.replace_schema_metadata({b"huggingface": _features(name, random)})
    buffer = io.BytesIO()
    packing = random.choice(("snappy", "zstd", "gzip", "none", "brotli", "lz4"))
    pyarrow.parquet.write_table(
        table, buffer, compression=packing, row_group_size=random.choice((1, 7, 1000))
    )
    return buffer.getvalue()


def _change_footer(data: bytes, random: Random) -> bytes:
    length = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - length
    footer = blind(data[start:-8], random)
    return data[:start] + footer + len(footer).to_bytes(4, "little") + data[-4:]


def _features(name: str, random: Random) -> bytes:
    names = random.choice((["a", "b", "c", "d"], [None, 1], "abc", [], ["a"] * 4, ["x"] * 100_000))
    return change_json(
        json.dumps({"info": {"features": {name: {"names": names, "_type": "ClassLabel"}}}}).encode(), random
    )


def _change_cell(value: Any, random: Random) -> Any:
    if isinstance(value, dict):
        key = random.choice(list(value))
        return {**value, key: _change_cell(value[key], random)}
    if isinstance(value, bytes):
        return mutate(_ending_of(value), value, random)
    if isinstance(value, str):
        return random.choice(("", "a" * 100_000, "\0", value * 500, "\u202e"))
    if isinstance(value, list) and value:
        at = random.randrange(len(value))
        return random.choice(
            ([], value * 50, [*value[:at], _change_cell(value[at], random), *value[at + 1 :]])
        )
    if isinstance(value, int | float):
        return type(value)(random.choice((-1, 0, 2**31, 2**62, 10**9)))
    return None


def _ending_of(data: bytes) -> str:
    return "x.png" if data.startswith(b"\x89PNG") else "x.wav" if data.startswith(b"RIFF") else "x"


def change_png(data: bytes, random: Random) -> bytes:
    """Chunks changed, doubled, gone or new, with true checksums: huge sizes, packed text, animations."""
    chunks = _chunks(data)
    at = random.randrange(len(chunks))
    kind, content = chunks[at]
    huge = zlib.compress(bytes(2**26))
    new = random.choice(
        (
            (b"zTXt", b"a\0\0" + huge),
            (b"iCCP", b"a\0\0" + huge),
            (b"iTXt", b"a\0\1\0\0\0" + huge),
            (b"tEXt", b"a\0" + bytes(2**20)),
            (b"acTL", struct.pack(">II", random.choice((1, 2**31)), 0)),
            (
                b"fcTL",
                struct.pack(">IIIIIHHBB", 0, 16, 16, 0, 0, 1, 1, random.randrange(4), random.randrange(3)),
            ),
            (b"eXIf", random.randbytes(64)),
            (b"PLTE", random.randbytes(random.choice((3, 768, 5)))),
            (b"tRNS", random.randbytes(random.choice((1, 2, 6)))),
        )
    )
    sizes = struct.pack(">II", *(random.choice((1, 16, 4096, 7071, 60_000, 2**31 - 1)) for _ in range(2)))
    action = random.randrange(5)
    if action == 0:
        chunks.insert(random.randrange(1, len(chunks) + 1), new)
    elif action == 1:
        chunks[0] = (b"IHDR", sizes + chunks[0][1][8:])
    elif action == 2:
        kinds = bytes((random.choice((1, 2, 4, 8, 16)), random.randrange(8), 0, 0, random.randrange(2)))
        chunks[0] = (b"IHDR", chunks[0][1][:8] + kinds)
    elif action == 3:
        chunks[at] = (kind, blind(content, random))
    else:
        chunks = chunks[:at] + chunks[at + 1 :] + [chunks[at]] * random.randrange(3)
    return data[:8] + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def change_tar(data: bytes, random: Random) -> bytes:
    """Members renamed, of other kinds, with other sizes or contents, and headers with true checksums."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [(info, (archive.extractfile(info) or io.BytesIO()).read()) for info in archive]
    at = random.randrange(len(members))
    info, content = members[at]
    action = random.randrange(5)
    if action == 0:
        info.name = random.choice(_NAMES)
    elif action == 1:
        info.type = random.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE))
        info.linkname = "/etc/passwd"
    elif action == 2:
        content = mutate(_ending_of(content), content, random)
    elif action == 3:
        info.pax_headers = {
            random.choice(("path", "size", "GNU.sparse.name")): random.choice(("9" * 5000, "-1", "x"))
        }
    else:
        members.insert(random.randrange(len(members)), (info, content))
    members[at] = (info, content)
    buffer = io.BytesIO()
    layout = random.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as archive:
        for one, stored in members:
            one.size = len(stored)
            archive.addfile(one, io.BytesIO(stored))
    made = bytearray(buffer.getvalue())
    if random.random() < 0.3:
        _header_field(made, random)
    return bytes(made)


def _header_field(data: bytearray, random: Random) -> None:
    """Another size or type in one header, with a true checksum."""
    at = random.randrange(max(1, len(data) // 512)) * 512
    place, value = random.choice(_FIELDS)
    data[at + place : at + place + len(value)] = value
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % (sum(data[at : at + 512]) % 8**6)


def change_onnx(data: bytes, random: Random) -> bytes:
    """Another graph: sizes, types, names and attributes changed, in valid protobuf."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    node, tensor = random.choice(graph.node), random.choice(graph.initializer)
    action = random.randrange(8)
    number = random.choice((-1, 0, 1, 3, 10**6, 2**31, 2**62))
    if action == 0 and tensor.dims:
        tensor.dims[random.randrange(len(tensor.dims))] = number
    elif action == 1:
        tensor.data_type = random.randrange(24)
    elif action == 2:
        node.op_type = random.choice(
            ("Loop", "If", "Tile", "Expand", "Range", "ConstantOfShape", "Conv", "MatMul", "x")
        )
    elif action == 3 and node.input:
        node.input[random.randrange(len(node.input))] = random.choice(("", "x", tensor.name, node.output[0]))
    elif action == 4 and node.attribute:
        attribute = random.choice(node.attribute)
        attribute.i = number
        attribute.ints[:] = [number] * random.choice((0, 1, 2, 4))
    elif action == 5:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(
            key="location", value=random.choice(("/etc/passwd", "../x", "model.onnx", ""))
        )
    elif action == 6:
        graph.node.add().CopyFrom(node)
    else:
        random.choice((graph.input, graph.output))[0].type.tensor_type.shape.dim[0].dim_value = number
    made: bytes = model.SerializeToString()
    return made


_BY_ENDING: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": change_json,
    ".safetensors": change_safetensors,
    ".npz": change_zip,
    ".pt2": change_zip,
    ".npy": change_npy,
    ".parquet": change_parquet,
    ".png": change_png,
    ".tar": change_tar,
    ".onnx": change_onnx,
    ".txt": change_text,
}
