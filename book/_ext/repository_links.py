"""What depends on the repository's address: buttons, clone commands, links to files that are no pages of the book.

`{repository} known` and `{repository} unknown` show their content only where the address is known or is not, with the
address in place of `REPOSITORY`. `` {source-file}`CONTRIBUTING.md` `` links a file, or names it where there is
nothing to link.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst.directives import choice
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective, SphinxRole

from firsttoken.book.repository import BRANCH, repository

# The theme has buttons for these hosts only; Colab opens notebooks of the first only.
BINDER = {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"}
BUTTONS = {
    "github.com": {**BINDER, "colab_url": "https://colab.research.google.com"},
    "gitlab.com": BINDER,
}


def buttons(app: Sphinx, config: Config) -> None:
    """Give the theme the repository and its buttons; none where there is no address."""
    here = repository(Path(app.srcdir))
    if here is not None and here.host in BUTTONS:
        config.html_theme_options |= {
            "repository_url": here.address,
            "repository_branch": BRANCH,
            "use_repository_button": True,
            "use_issues_button": True,
            "launch_buttons": BUTTONS[here.host],
        }


class WhereRepository(SphinxDirective):
    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        wanted = choice(self.arguments[0], ("known", "unknown"))
        here = repository(Path(self.env.srcdir))
        if (here is not None) != (wanted == "known"):
            return []
        lines = [line.replace("REPOSITORY", here.address if here else "") for line in self.content]
        shown = nodes.container()
        self.state.nested_parse(StringList(lines, self.content.source(0)), self.content_offset, shown)
        return shown.children


class FileRole(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        here = repository(Path(self.env.srcdir))
        name = nodes.literal(self.text, self.text)
        if here is None:
            return [name], []
        return [nodes.reference("", "", name, refuri=here.file(self.text), internal=False)], []


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("config-inited", buttons)
    app.add_directive("repository", WhereRepository)
    app.add_role("source-file", FileRole())
    return {"version": "1", "parallel_read_safe": True}
