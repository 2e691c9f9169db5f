"""What `pyproject.toml` cannot say: the paper's own numbers lie beside the records; an installed copy needs them."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithPaper(build_py):
    def run(self) -> None:
        super().run()
        # An editable copy reads the file of its checkout.
        if not self.editable_mode:
            target = Path(self.build_lib, "firsttoken", "records", "paper.json")
            self.mkpath(str(target.parent))
            self.copy_file("results/paper.json", str(target))


setup(cmdclass={"build_py": WithPaper})
