"""What `make run` prepares: the token files and the printed example."""

import stat
from pathlib import Path

from tools.prepare import EXAMPLE, write_token


def test_a_token_replaces_the_file_of_an_earlier_run_and_only_its_user_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "token-customer"
    path.write_text("the token of an earlier run")
    path.chmod(0o644)

    write_token(path, "token")

    assert path.read_text() == "token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_example_fits_the_rest_of_the_first_screen() -> None:
    lines = EXAMPLE.format(products=100, url="http://127.0.0.1:30000", folder=".local").splitlines()

    assert len(lines) <= 8
    assert max(map(len, lines)) <= 80
