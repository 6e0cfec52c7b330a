#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""disk.py BEFORE AFTER - what disk.c prints that turns one image into the other; fails when they are no such pair."""
import struct
import sys
import zlib

SECTOR = 512


def scrambled(image):
    """Each 64-bit word of sector s XORed with (s + 1) * 0x9e3779b97f4a7c15; what is no whole sector stays."""
    out = bytearray(image)
    words = struct.Struct("<64Q")
    for s in range(len(image) // SECTOR):
        key = (s + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
        words.pack_into(out, s * SECTOR, *(w ^ key for w in words.unpack_from(image, s * SECTOR)))
    return bytes(out)


with open(sys.argv[1], "rb") as f:
    before = f.read()
with open(sys.argv[2], "rb") as f:
    after = f.read()
if after != scrambled(before):
    sys.exit(f"{sys.argv[2]} is not what {sys.argv[1]} becomes")
whole = len(before) // SECTOR * SECTOR
print(f"disk of {whole // 1000000} MB, {whole // SECTOR} sectors")
print(f"CRC-32 {zlib.crc32(before[:whole]):08x}")
print(f"CRC-32 {zlib.crc32(after[:whole]):08x}")
print("rewritten")
