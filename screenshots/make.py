"""Makes the pictures of this folder: runs the demo in a real terminal (tmux) and draws what is on its screen.

    python screenshots/make.py

It needs tmux and the package index, and takes about two minutes. Everything is kept in a folder that goes at the end.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
COLUMNS, LINES = 100, 30
FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)  # the font would be fetched from elsewhere
DEADLINE = 600.0  # seconds


class Terminal:
    """A terminal of a fixed size that somebody looks at."""

    def __init__(self, home: Path) -> None:
        self._tmux = ["tmux", "-S", str(home / "tmux"), "-f", "/dev/null"]
        shell = f"env PS1='$ ' PILOTHOUSE_HOME={home}/pilothouse COLORTERM=truecolor bash --norc"
        self._run("new-session", "-d", "-s", "0", "-x", str(COLUMNS), "-y", str(LINES), shell)
        self._run("set-option", "-g", "default-terminal", "tmux-256color")

    def _run(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    def type(self, line: str) -> None:
        self._run("send-keys", "-t", "0", line, "Enter")

    def text(self) -> str:
        return self._run("capture-pane", "-t", "0", "-p")

    def wait_for(self, pattern: str) -> None:
        """Wait until the screen shows a pattern."""
        deadline = time.monotonic() + DEADLINE
        while not re.search(pattern, self.text()):
            if time.monotonic() > deadline:
                sys.exit(f"the terminal never showed {pattern!r}; it shows:\n{self.text()}")
            time.sleep(0.2)

    def draw(self, name: str, *, title: str) -> None:
        """Save what is on the screen as an SVG."""
        screen = self._run("capture-pane", "-t", "0", "-p", "-e").rstrip()
        console = Console(record=True, width=COLUMNS, file=open("/dev/null", "w"), force_terminal=True)  # noqa: PTH123,SIM115
        console.print(Text.from_ansi(screen))
        svg = console.export_svg(title=title, unique_id=name)
        (HERE / f"{name}.svg").write_text(FONT.sub("", svg), encoding="utf-8")

    def close(self) -> None:
        self._run("kill-server")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pilothouse-") as folder:
        terminal = Terminal(Path(folder))
        try:
            terminal.type(f"PATH={Path(sys.executable).parent}:$PATH; cd {folder}; clear")
            terminal.type("pilothouse demo --dir demo")
            terminal.wait_for(r"Threshold Segmentation.*[1-3]/4")
            terminal.draw("demo-running", title="pilothouse demo")
            terminal.wait_for(r"pilothouse job files \d+")
            terminal.draw("demo-done", title="pilothouse demo")
            terminal.type("clear; pilothouse job show 1")
            terminal.wait_for(r"pilothouse dataset show")
            terminal.draw("job-show", title="pilothouse job show")
        finally:
            terminal.close()


if __name__ == "__main__":
    main()
