"""Tiny ImageNet and Tiny ImageNet-C in the folders they are published in."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from data_files import WNIDS, write_jpeg, write_tiny_imagenet, write_tiny_imagenet_c

from selkern import data
from selkern.data import ImageSet

pytest.importorskip("PIL")

FIRST = f"train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG"
ANNOTATIONS = "val/val_annotations.txt"


def levels(images: ImageSet) -> list[int]:
    """The brightness of images of a single one."""
    pixels, _ = images.tensors()
    assert torch.equal(pixels, pixels[:, :1, :1, :1].expand_as(pixels))
    return (pixels[:, 0, 0, 0] * 255).round().int().tolist()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    write_tiny_imagenet(tmp_path)
    return tmp_path


class TestTinyImageNet:
    @pytest.mark.parametrize(
        ("val", "rows"),
        [
            ("published", [5, 4, 3, 2, 1, 0]),
            ("sorted", [0, 1, 2, 3, 4, 5]),
            ("sorted images", [0, 1, 2, 3, 4, 5]),
        ],
    )
    @pytest.mark.parametrize("inner", [".", "tiny-imagenet-200"])
    def test_holds_what_was_written(
        self, tmp_path: Path, val: str, rows: list[int], inner: str
    ) -> None:
        write_tiny_imagenet(tmp_path / inner, val)
        train, test = data.load_tiny_imagenet(tmp_path)
        assert train.classes == test.classes == WNIDS
        assert train.image_shape == test.image_shape == (3, 64, 64)
        assert levels(train) == [0, 1, 10, 11, 20, 21]
        assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert levels(test) == [[100, 101, 110, 111, 120, 121][row] for row in rows]
        assert test.labels.tolist() == [[0, 0, 1, 1, 2, 2][row] for row in rows]

    def test_decodes_only_the_rows_asked_for(self, tiny: Path) -> None:
        (tiny / FIRST).write_bytes(b"")
        train, _ = data.load_tiny_imagenet(tiny)
        assert levels(train.subset([3, 1])) == [11, 1]
        with pytest.raises(ValueError, match=f"{FIRST} must be a whole JPEG image"):
            train[0]

    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
    def test_every_image_has_three_channels(self, tiny: Path, mode: str) -> None:
        write_jpeg(tiny / FIRST, 0, mode=mode)
        image, _ = data.load_tiny_imagenet(tiny).train[0]
        assert image.shape == (3, 64, 64)

    @pytest.mark.parametrize("size", [(64, 63), (32, 64)])
    def test_an_image_of_another_size_is_refused(self, tiny: Path, size: tuple[int, int]) -> None:
        write_jpeg(tiny / FIRST, 0, size)
        width, height = size
        with pytest.raises(ValueError, match=f"{FIRST} must .* 64 x 64 .*, got {height} x {width}"):
            data.load_tiny_imagenet(tiny).train[0]

    @pytest.mark.parametrize("keep", [0.2, 0.5, 0.99])
    def test_a_truncated_image_is_refused(self, tiny: Path, keep: float) -> None:
        content = (tiny / FIRST).read_bytes()
        (tiny / FIRST).write_bytes(content[: int(keep * len(content))])
        with pytest.raises(ValueError, match=f"{FIRST} must be a whole JPEG image: "):
            data.load_tiny_imagenet(tiny).train[0]

    def test_an_image_of_another_format_is_refused(self, tiny: Path) -> None:
        from PIL import Image

        Image.new("RGB", (64, 64)).save(tiny / FIRST, format="PNG")
        with pytest.raises(ValueError, match=f"{FIRST} must be a whole JPEG image: "):
            data.load_tiny_imagenet(tiny).train[0]

    def test_an_image_gone_since_is_named(self, tiny: Path) -> None:
        train, _ = data.load_tiny_imagenet(tiny)
        (tiny / FIRST).unlink()
        with pytest.raises(FileNotFoundError, match=f"there is no .*{FIRST}"):
            train[0]

    @pytest.mark.parametrize("name", ["wnids.txt", "train", "val", "val/images", ANNOTATIONS])
    def test_missing_files_and_folders_are_named(self, tiny: Path, name: str) -> None:
        path = tiny / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with pytest.raises(FileNotFoundError, match=Path(name).name):
            data.load_tiny_imagenet(tiny)

    def test_classes_must_be_those_of_the_list(self, tiny: Path) -> None:
        (tiny / "train" / "n99999999").mkdir()
        with pytest.raises(ValueError, match=r"train must hold .* in .*wnids\.txt, got n99999999"):
            data.load_tiny_imagenet(tiny)
        (tiny / "train" / "n99999999").rmdir()
        shutil.rmtree(tiny / "train" / WNIDS[1])
        with pytest.raises(FileNotFoundError, match=f"train must hold the folder {WNIDS[1]}"):
            data.load_tiny_imagenet(tiny)
        (tiny / "train" / WNIDS[1]).mkdir()
        with pytest.raises(ValueError, match=f"{WNIDS[1]} must hold JPEG files, got none"):
            data.load_tiny_imagenet(tiny)

    @pytest.mark.parametrize(
        ("wnids", "message"),
        [
            ("", "name a class on each line, got none"),
            ("n01443537\n../secret\n", r"name classes as n and 8 digits, got '\.\./secret'"),
            ("n01443537\nn01443537\n", "name each class once, got 2 lines"),
            (b"\xff", "be a text file"),
        ],
        ids=str,
    )
    def test_another_list_is_refused(self, tiny: Path, wnids: str | bytes, message: str) -> None:
        content = wnids if isinstance(wnids, bytes) else wnids.encode()
        (tiny / "wnids.txt").write_bytes(content)
        with pytest.raises(ValueError, match=rf"wnids\.txt must {message}"):
            data.load_tiny_imagenet(tiny)

    @pytest.mark.parametrize(
        ("line", "error", "message"),
        [
            ("val_9.JPEG\tn01443537", FileNotFoundError, "line 7 names 'val_9.JPEG', which is no"),
            ("../x.JPEG\tn01443537", FileNotFoundError, "line 7 names '../x.JPEG', which is no"),
            ("val_0.JPEG\tn01443537", ValueError, "line 7 must name a file not named before"),
            ("val_0.JPEG\tn00000000", ValueError, "line 7 must name a class of .*'n00000000'"),
            ("val_0.JPEG", ValueError, "line 7 must be a file and its class"),
        ],
    )
    def test_annotations_must_match_the_images(
        self, tiny: Path, line: str, error: type[Exception], message: str
    ) -> None:
        with (tiny / ANNOTATIONS).open("a") as file:
            file.write(line)
        with pytest.raises(error, match=rf"val_annotations\.txt {message}"):
            data.load_tiny_imagenet(tiny)

    def test_every_image_must_be_annotated(self, tiny: Path) -> None:
        write_jpeg(tiny / "val" / "images" / "val_6.JPEG", 0)
        with pytest.raises(ValueError, match=r"val_annotations\.txt .* misses val_6\.JPEG"):
            data.load_tiny_imagenet(tiny)

    def test_says_which_package_it_needs(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "PIL.Image", None)
        with pytest.raises(ImportError, match=r"needs Pillow, .* pip install Pillow$"):
            data.load_tiny_imagenet(tiny)


class TestTinyImageNetC:
    @pytest.mark.parametrize("inner", [".", "Tiny-ImageNet-C"])
    def test_holds_what_was_written_at_every_severity(self, tmp_path: Path, inner: str) -> None:
        write_tiny_imagenet_c(tmp_path / inner)
        sets = data.load_tiny_imagenet_c(tmp_path)
        assert (sets.names, sets.classes) == (("gaussian_noise", "fog"), WNIDS)
        assert not sets.is_paired
        for number, name in enumerate(sets.names):
            for severity in sets.severities:
                images = sets.load(name, severity)
                level = 100 * number + 10 * severity
                assert levels(images) == [level, level + 1, level + 2]
                assert images.labels.tolist() == [0, 1, 2]

    def test_every_severity_must_be_there(self, tmp_path: Path) -> None:
        write_tiny_imagenet_c(tmp_path)
        shutil.rmtree(tmp_path / "fog" / "4")
        with pytest.raises(FileNotFoundError, match="must hold the folder fog/4"):
            data.load_tiny_imagenet_c(tmp_path)

    def test_every_severity_must_have_the_same_classes(self, tmp_path: Path) -> None:
        write_tiny_imagenet_c(tmp_path)
        shutil.rmtree(tmp_path / "fog" / "4" / WNIDS[0])
        write_jpeg(tmp_path / "fog" / "5" / "n99999999" / "test_0.JPEG", 0)
        sets = data.load_tiny_imagenet_c(tmp_path)
        with pytest.raises(FileNotFoundError, match=f"fog/4 must hold the folder {WNIDS[0]}"):
            sets.load("fog", 4)
        with pytest.raises(ValueError, match=r"fog/5 must hold .*gaussian_noise/1, got n99999999"):
            sets.load("fog", 5)

    def test_a_folder_without_corruptions_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"must hold <corruption>/1 .*, got none"):
            data.load_tiny_imagenet_c(tmp_path)
        (tmp_path / "fog" / "1").mkdir(parents=True)
        for severity in range(2, 6):
            (tmp_path / "fog" / str(severity)).mkdir()
        with pytest.raises(ValueError, match="fog/1 must hold a folder for each class, got none"):
            data.load_tiny_imagenet_c(tmp_path)
        (tmp_path / "fog" / "1" / "cats").mkdir()
        with pytest.raises(ValueError, match="fog/1 must name classes as n and 8 digits"):
            data.load_tiny_imagenet_c(tmp_path)
