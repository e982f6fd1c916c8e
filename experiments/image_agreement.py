"""Our decoding beside independent decoders, over a folder of images: pypng for PNG, libjpeg's djpeg for JPEG.

    python -m experiments.image_agreement FOLDER       # e.g. Tests/images of Pillow's source distribution

`djpeg` is looked for on the PATH (Debian: libjpeg-turbo-progs). Files that either refuses are counted, and
listed where only we refuse. EXIF's orientation, which those decoders leave to others, is undone before.
"""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import png
from PIL import Image

from engine.errors import ImageError
from engine.vision.decode import WHITE, Undecodable, image_format
from engine.vision.io import read_image


def main() -> None:
    folder = Path(sys.argv[1])
    kinds = {"PNG": from_pypng, **({"JPEG": from_djpeg} if shutil.which("djpeg") else {})}
    for kind, decoder in kinds.items():
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and format_of(path) == kind]
        compare(kind, files, decoder)


def format_of(path: Path) -> str:
    try:
        return image_format(path.read_bytes()[:64])
    except Undecodable:
        return ""


def compare(kind, files, decoder) -> None:
    equal, near, refused, differ = 0, 0, 0, []
    for path in files:
        theirs = decoder(path.read_bytes())
        try:
            ours = read_image(path)
        except ImageError as error:
            refused += theirs is None
            if theirs is not None:
                differ.append(str(error))
            continue
        if theirs is None:
            refused += 1
        elif theirs.shape != ours.shape:
            differ.append(f"{path.name}: {ours.shape}, theirs {theirs.shape}")
        else:
            most = int(np.abs(ours.astype(int) - theirs.astype(int)).max())
            equal += most == 0
            near += most == 1
            if most > 1:
                differ.append(f"{path.name}: up to {most} apart")
    print(f"{kind}: {len(files)} files, {equal} equal, {near} within 1, {refused} that theirs refuses")
    for line in differ:
        print(f"  {line}")


def from_pypng(data: bytes):
    """RGB over white, as `decode` says it: None where pypng refuses the file."""
    try:
        reader = png.Reader(bytes=data)
        reader.preamble()
        reader.sbit = None  # by which pypng would drop bits that were there
        width, height, rows, info = reader.asDirect()
        values = np.array([list(row) for row in rows], np.int64).reshape(height, width, info["planes"])
    except Exception:  # of a damaged file; its asserts too
        return None
    bits, color = info["bitdepth"], info["planes"] > 2
    alpha = values[..., -1:] if info["alpha"] else None
    base = values[..., :-1] if info["alpha"] else values
    if bits == 16:
        direct = base >> 8 if color or (info["alpha"] and not has_clear_grey(data)) else np.rint(base / 257)
        alpha = None if alpha is None else alpha >> 8
    else:
        direct = base * 255 // (2**bits - 1)
        alpha = None if alpha is None else alpha * 255 // (2**bits - 1)
    rgb = np.broadcast_to(direct.astype(np.int64), (height, width, 3))
    if alpha is not None:
        rgb = (rgb * alpha + np.array(WHITE) * (255 - alpha) + 127) // 255
    return upright(rgb, data)


def has_clear_grey(data: bytes) -> bool:
    """Whether its transparency is one value of grey, in a chunk of its own."""
    return b"tRNS" in data


def from_djpeg(data: bytes):
    done = subprocess.run(["djpeg", "-ppm"], input=data, capture_output=True, check=False)
    if done.returncode != 0 or done.stderr:
        return None
    image = np.asarray(Image.open(io.BytesIO(done.stdout)).convert("RGB"))
    return upright(image, data)


def upright(image, data: bytes):
    try:
        turn = Image.open(io.BytesIO(data)).getexif().get(0x0112, 1)
    except Exception:
        turn = 1
    turns = {
        2: lambda x: x[:, ::-1],
        3: lambda x: np.rot90(x, 2),
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
        8: np.rot90,
    }
    return turns.get(turn, lambda x: x)(image)


if __name__ == "__main__":
    main()
