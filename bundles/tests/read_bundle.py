#!/usr/bin/env python3
"""Reads a bundle as docs/bundle-format.md describes it, over other software and without any code of Postern's.

    python3 -m venv venv && venv/bin/pip install cbor2 pyrage zstandard cryptography
    venv/bin/python bundles/tests/read_bundle.py FILE LINK_PUBLIC_KEY_HEX IDENTITY

It prints what is in the bundle, and fails if anything does not verify. Without arguments it reads the vectors beside it.
"""

import hashlib
import io
import pathlib
import sys

import cbor2
import pyrage
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TYPES = {1: "key", 2: "authpdu", 3: "state_snapshot", 4: "pdu", 5: "edu", 6: "media", 7: "media_piece", 8: "device_keys",
         9: "otk", 10: "policy", 11: "request", 12: "ceremony", 128: "note"}


def sha256(data):
    return hashlib.sha256(data).digest()


def verify(sign1, purpose, public):
    """The payload of a COSE_Sign1, as RFC 9052 section 4.4 says."""
    assert sign1.tag == 18
    protected, unprotected, payload, signature = sign1.value
    assert unprotected == {} and cbor2.loads(protected) == {1: -8, 4: sha256(public)[:8]}
    signed = cbor2.dumps(["Signature1", protected, purpose.encode(), payload])
    Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    return cbor2.loads(payload)


def root(leaves):
    """RFC 6962 section 2.1."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:]))


def read(bundle, public, identity):
    assert bundle[:4] == b"MFB1"
    length = int.from_bytes(bundle[4:8], "big")
    cover = verify(cbor2.loads(bundle[8:8 + length]), "postern bundle cover 1", public)
    (version, link, epoch, seq, bundle_id, kind, created, not_after, header_hash, seal,
     head_len, head_hash, body_len, body_hash) = cover
    assert version == 1 and seal == 1
    head, body = bundle[8 + length:][:head_len], bundle[8 + length + head_len:]
    assert len(body) == body_len and sha256(head) == head_hash and sha256(body) == body_hash

    stream = io.BytesIO(pyrage.decrypt(head, [identity]))
    sign1 = cbor2.CBORDecoder(stream).decode()
    assert sha256(stream.getvalue()[:stream.tell()]) == header_hash
    header = verify(sign1, "postern bundle header 1", public)
    assert header[:6] == [1, link, epoch, seq, bundle_id, kind] and header[9:11] == [created, not_after]
    count, merkle_root = header[15:17]
    index = cbor2.CBORDecoder(stream).decode()
    assert stream.read() == b""

    packed, at, leaves, records = pyrage.decrypt(body, [identity]), 0, [], []
    for packing, packed_len, plain_len, hashes in index:
        frame, at = packed[at:at + packed_len], at + packed_len
        if packing == 1:
            frame = zstandard.ZstdDecompressor().decompress(frame, max_output_size=plain_len)
        assert len(frame) == plain_len
        stream = io.BytesIO(frame)
        for i in range(0, len(hashes), 32):
            start = stream.tell()
            record = cbor2.CBORDecoder(stream).decode()
            assert sha256(b"\x00" + frame[start:stream.tell()]) == hashes[i:i + 32]
            leaves.append(hashes[i:i + 32])
            records.append(record)
        assert stream.read() == b""
    assert at == len(packed) and len(records) == count and root(leaves) == merkle_root
    counts = {}
    for kind, _ in records:
        counts[kind] = counts.get(kind, 0) + 1
    assert sorted(counts.items()) == [tuple(pair) for pair in header[13]]
    return header_hash, header, records


def main():
    if len(sys.argv) == 4:
        sources = [(sys.argv[1], bytes.fromhex(sys.argv[2]), pyrage.x25519.Identity.from_str(sys.argv[3]))]
    else:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        key = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32).public_key()
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        identity = pyrage.x25519.Identity.from_str(pathlib.Path(__file__).with_name("vectors").joinpath("identity.txt").read_text().strip())
        folder = pathlib.Path(__file__).with_name("vectors")
        sources = [(folder / name, raw, identity) for name in ("stored.mfb", "packed.mfb")]
    for path, public, identity in sources:
        header_hash, header, records = read(pathlib.Path(path).read_bytes(), public, identity)
        print(path, "hash", header_hash.hex(), "from", header[6], "for", header[7])
        for number, (kind, payload) in enumerate(records):
            print(f"  {number}: {TYPES.get(kind, kind)}, {len(payload)} bytes")


main()
