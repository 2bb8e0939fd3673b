"""Pins every dependency with hashes (`make lock`). The files do not name a package index."""

import subprocess
import sys
from pathlib import Path

COMPILE = [
    str(Path(sys.executable).with_name("uv")),
    *("pip", "compile", "--quiet", "--upgrade", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--no-header", "--no-annotate", "--no-strip-extras"),
]
REQUIREMENTS = Path("requirements")
LAYER = Path("layers/dependencies")
# The Lambda runtime contains boto3 and its dependencies, so the layer does not
IN_THE_RUNTIME = ("boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3")


def compile_requirements(source: Path, *options: str) -> None:
    """Pins the requirements of a `.in` file in the `.txt` file of the same name."""
    target = source.with_suffix(".txt")
    target.unlink(missing_ok=True)
    subprocess.run([*COMPILE, str(source), "-o", str(target), *options], check=True)


def main() -> None:
    """`python -m tools.lock`."""
    run = REQUIREMENTS / "run.txt"
    compile_requirements(REQUIREMENTS / "uv.in")
    compile_requirements(REQUIREMENTS / "run.in")
    compile_requirements(REQUIREMENTS / "dev.in", "--constraint", str(run))
    compile_requirements(REQUIREMENTS / "sam.in")
    compile_requirements(REQUIREMENTS / "audit.in")
    leave_out = [option for package in IN_THE_RUNTIME for option in ("--no-emit-package", package)]
    compile_requirements(LAYER / "requirements.in", "--constraint", str(run), *leave_out)


if __name__ == "__main__":
    main()
