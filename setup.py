"""Everything is in setup.cfg, save this: a wheel carries the files that lie at the top of the repository."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ASSETS = ("mappings", "pipelines", "docker/embedded")


class BuildWithAssets(build_py):
    """Copies the assets to where `app.assets` looks for them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in ASSETS:
            shutil.copytree(name, Path(self.build_lib) / "app" / "_assets" / name, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithAssets})
