"""The address of the repository: taken from git, cleaned of who fetched it, and nowhere else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from firsttoken.book.repository import Repository, parse, repository
from firsttoken.files import ROOT

KNOWN = {
    "https://github.com/someone/sinks.git": "https://github.com/someone/sinks",
    "https://github.com/someone/sinks/": "https://github.com/someone/sinks",
    "https://someone@github.com/someone/sinks": "https://github.com/someone/sinks",
    "https://x-access-token:s3cret@github.com/someone/sinks.git": "https://github.com/someone/sinks",
    "https://gitlab.com:443/group/part/sinks.git?private_token=s3cret": "https://gitlab.com/group/part/sinks",
    "https://codeberg.org/someone/sinks.git": "https://codeberg.org/someone/sinks",
}
UNKNOWN = [
    "git@github.com:someone/sinks.git",
    "ssh://git@github.com/someone/sinks.git",
    "http://github.com/someone/sinks",
    "https://github.com.example.org/someone/sinks",
    "https://example.org/github.com/sinks",
    "https://github.com/",
    "https://[broken/someone/sinks",
    "/srv/git/sinks.git",
    "../sinks",
    "",
]


@pytest.mark.parametrize(("remote", "address"), KNOWN.items())
def test_https_remotes_of_known_hosts_give_an_address_without_secrets(remote: str, address: str) -> None:
    assert parse(remote) == Repository(address=address)


@pytest.mark.parametrize("remote", UNKNOWN)
def test_other_remotes_give_none(remote: str) -> None:
    assert parse(remote) is None


def checkout(folder: Path, **remotes: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    for name, url in remotes.items():
        subprocess.run(["git", "-C", str(folder), "remote", "add", name, url], check=True)
    return folder


def test_origin_comes_first_and_other_remotes_follow(tmp_path: Path) -> None:
    github, gitlab = "https://github.com/someone/sinks", "https://gitlab.com/other/sinks"
    assert repository(checkout(tmp_path / "two", alpha=gitlab, origin=github)) == Repository(address=github)
    assert repository(checkout(tmp_path / "one", origin="/srv/sinks", alpha=gitlab)) == Repository(address=gitlab)
    assert repository(checkout(tmp_path / "none")) is None


def test_a_folder_inside_another_checkout_has_no_address_of_its_own(tmp_path: Path) -> None:
    outer = checkout(tmp_path / "outer", origin="https://github.com/someone/else")
    (outer / "inner").mkdir()
    assert repository(outer / "inner") is None
    assert repository(tmp_path) is None


def test_files_are_addressed_as_each_host_does() -> None:
    by_host = {
        "https://github.com/a/b": "https://github.com/a/b/blob/main/x.md",
        "https://gitlab.com/a/b": "https://gitlab.com/a/b/-/blob/main/x.md",
        "https://codeberg.org/a/b": "https://codeberg.org/a/b/src/branch/main/x.md",
    }
    for address, file in by_host.items():
        assert Repository(address=address).file("x.md") == file


def test_no_source_names_an_address_of_its_own() -> None:
    tracked = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
    invented = "github.com/" + "firsttoken"
    naming = [
        name
        for name in tracked.stdout.split("\0")
        if name and (ROOT / name).is_file() and invented in (ROOT / name).read_text(encoding="utf-8", errors="ignore")
    ]
    assert not naming
