"""Where this repository is on the web: the one place that knows its address.

The address is that of an https remote of a known host. A checkout without one has no address, and the book then has
no clone command and no buttons that lead to a repository: an invented address may belong to somebody else one day.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from firsttoken.files import ROOT

# How each host addresses a file of a branch.
FILES: Mapping[str, str] = {
    "github.com": "{address}/blob/{branch}/{file}",
    "gitlab.com": "{address}/-/blob/{branch}/{file}",
    "codeberg.org": "{address}/src/branch/{branch}/{file}",
}
BRANCH = "main"


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository on the web."""

    address: str  # for example https://github.com/owner/name

    @property
    def host(self) -> str:
        return self.address.split("/")[2]

    def file(self, path: str) -> str:
        """The address of a file, by its path from the root of the repository."""
        return FILES[self.host].format(address=self.address, branch=BRANCH, file=path)


def parse(remote: str) -> Repository | None:
    """The repository of a git remote, without user name, token, port or query; None where it is no https address of
    a known host."""
    try:
        parts = urlsplit(remote.strip())
        host = (parts.hostname or "").removeprefix("www.")
    except ValueError:
        return None
    path = [part for part in parts.path.removesuffix("/").removesuffix(".git").split("/") if part]
    if parts.scheme != "https" or host not in FILES or len(path) < 2:
        return None
    return Repository(address=f"https://{host}/{'/'.join(path)}")


def repository(root: Path = ROOT) -> Repository | None:
    """The repository that the checkout in `root` came from, `origin` before other remotes; None where no remote says.

    A folder that merely lies inside somebody else's checkout has none.
    """
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "config", "--get-regexp", r"^remote\..*\.url$"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    remotes = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if len(line.split(maxsplit=1)) == 2)
    for name in sorted(remotes, key=lambda name: (name != "remote.origin.url", name)):
        if (known := parse(remotes[name])) is not None:
            return known
    return None
