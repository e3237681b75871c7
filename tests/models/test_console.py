"""What commands print, and targets that are checked before the work for them."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from spikeport.models.atomic import check_target, write_atomic
from spikeport.models.console import emit, say, show, table
from spikeport.models.errors import TargetError


def test_json_is_valid_whatever_the_stream_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    result = {"text": "3\u00d73", "name": "half a character \udcff"}
    for encoding in ("ascii", "latin-1", "utf-8"):
        held = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(held, encoding))
        emit(result, (), as_json=True)
        assert json.loads(held.getvalue().decode(encoding)) == result


def test_text_is_taken_literally_and_a_sentence_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = f"[bold]a[/bold] :smile: {'word ' * 100}end"
    say(sentence)
    show(table("Title", ("Name", "n"), [("[red]x", 1234567)]))
    stdout, stderr = capsys.readouterr()
    assert stderr == f"{sentence}\n"
    assert "[red]x" in stdout
    assert "1,234,567" in stdout


def test_closed_streams_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    say("nobody")
    emit({}, ["nobody"], as_json=False)
    emit({}, (), as_json=True)


class Failing(io.StringIO):
    """A stream whose file cannot take more."""

    def __init__(self, cause: OSError) -> None:
        super().__init__()
        self.cause = cause

    def write(self, text: str) -> int:
        raise self.cause


def test_only_a_full_stdout_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(BrokenPipeError(32, "Broken pipe")))
    emit({}, (), as_json=True)
    monkeypatch.setattr(sys, "stdout", Failing(OSError(28, "No space left on device")))
    monkeypatch.setattr(sys, "stderr", Failing(OSError(28, "No space left on device")))
    say("nobody")
    with pytest.raises(TargetError, match="No space left"):
        emit({}, ["a line"], as_json=False)


def test_a_good_target_passes_and_each_bad_one_is_named(tmp_path: Path) -> None:
    net = tmp_path / "net.safetensors"
    net.touch()
    (tmp_path / "link.safetensors").symlink_to(net)
    (tmp_path / "folder.safetensors").mkdir()
    check_target(net, suffixes=(".safetensors",), inputs=[tmp_path / "other"])
    bad = {
        tmp_path / "link.safetensors": "same one",
        tmp_path / "x" / ".." / "net.safetensors": "expected a folder",
        tmp_path / ".." / tmp_path.name / "net.safetensors": "same one",
        tmp_path / "folder.safetensors": "found a folder",
        tmp_path / "net.SAFETENSORS": "ends in .safetensors",
        tmp_path / "net": "Try net.safetensors",
        net / "net.safetensors": "expected a folder",
        Path(): "found a folder",
    }
    for path, words in bad.items():
        with pytest.raises(TargetError, match=words):
            check_target(path, suffixes=(".safetensors",), inputs=[net])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TargetError, match="can be written to"):
        check_target(tmp_path / "a.json", suffixes=(".json",))
    tmp_path.chmod(0o700)


def test_an_error_of_a_write_is_about_its_target(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_atomic(tmp_path / "folder", b"new")
    assert caught.value.filename == str(tmp_path / "folder")
    write_atomic(tmp_path / ("n" * 250), b"a name as long as names may be")
