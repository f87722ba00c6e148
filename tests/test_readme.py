"""The README is true: its commands and programs run as they stand, in order, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_blocks_of_the_readme_run_in_order(tmp_path: Path) -> None:
    blocks = re.findall(r"```(bash|python)\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert {language for language, _ in blocks} == {"bash", "python"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": "error"}
    environment.pop("RECVAE_DATA", None)
    for language, code in blocks:
        command = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def test_every_verb_of_the_command_is_in_the_readme() -> None:
    from recvae_cli.app import app

    text = README.read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert f"recvae {command.name}" in text
