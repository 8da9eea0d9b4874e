"""Makes tests/golden/meta.mat, a small one of the form of the file in ImageNet's development kit.

    make golden          (or, in an environment with scipy: python scripts/golden_meta.py)

The form (a struct array `synsets` with these fields, in this order) is the one that torchvision reads in
torchvision/datasets/imagenet.py (parse_meta_mat) and that readme.txt of ILSVRC2012_devkit_t12 describes; ids and
words are made up. 12 leaves and 3 inner nodes, in a shuffled order. Class ILSVRC2012_ID has the id
n{10000000 + (7919 * ILSVRC2012_ID) % 1000}.

As a module: table(leaves, inner, seed) makes larger ones, and write(path, table, **options) writes them.
"""

import random
from pathlib import Path

import numpy as np
import scipy.io

FIELDS = "ILSVRC2012_ID WNID words gloss num_children children wordnet_height num_train_images".split()


def wnid(number):
    return f"n{10000000 + (7919 * number) % 1000 + number // 1000 * 1000:08}"


def table(leaves, inner, seed=1):
    """Rows of the table; the leaves have the numbers 1 to `leaves`, the others those that follow."""
    rng = random.Random(seed)
    rows = []
    for number in range(1, leaves + inner + 1):
        children = [] if number <= leaves else rng.sample(range(1, leaves + 1), rng.randint(1, min(9, leaves)))
        # A childless node has an empty array, and one child is a bare number in MATLAB too.
        rows.append((
            float(number), wnid(number), f"thing {number}, kind of {number * 7 % 13}", f"made up, number {number}",
            float(len(children)), np.array([children], dtype=float) if children else np.zeros((0, 0)),
            float(0 if not children else rng.randint(1, 18)), float(0 if children else 1300),
        ))
    rng.shuffle(rows)
    array = np.empty((len(rows), 1), dtype=[(field, object) for field in FIELDS])
    for place, row in enumerate(rows):
        array[place, 0] = row
    return array


def write(path, synsets, before=None, **options):
    """Writes the variables `before` and then the table. The date in the header is taken out."""
    scipy.io.savemat(path, {**(before or {}), "synsets": synsets}, **options)
    path = Path(path)
    contents = bytearray(path.read_bytes())
    contents[:116] = b"MATLAB 5.0 MAT-file, made by golden_meta.py".ljust(116)
    path.write_bytes(contents)


def parse_meta_mat(path):
    """As torchvision does: from numbers to ids."""
    meta = scipy.io.loadmat(path, squeeze_me=True)["synsets"]
    nums_children = list(zip(*meta))[4]
    meta = [meta[idx] for idx, num_children in enumerate(nums_children) if num_children == 0]
    idcs, wnids = list(zip(*meta))[:2]
    return {int(idx): str(wnid) for idx, wnid in zip(idcs, wnids)}


if __name__ == "__main__":
    path = Path(__file__).parent.parent / "tests/golden/meta.mat"
    write(path, table(12, 3), do_compression=True)
    assert parse_meta_mat(path) == {number: wnid(number) for number in range(1, 13)}
    print(f"{path}: {path.stat().st_size} bytes")
