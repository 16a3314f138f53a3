"""Commands of `make image`, `make image-base` and `make image-table`.

python -m harness.image build IMAGE [--base IMAGE] [--build-base IMAGE] | base | table
"""

import argparse
import subprocess
import sys
from pathlib import Path

from harness import binaries
from harness.image import contents, engines, local_base

ROOT = Path(__file__).parents[3]
ARCHIVE, DOCUMENT = ROOT / "build/image/image.tar", ROOT / "build/image/image.spdx.json"
PAGE = ROOT / "docs/reference/image.md"


def main() -> int:
    """Run a command. Return the exit code."""
    parser = argparse.ArgumentParser(prog="harness.image", description="Build the image, and list its contents.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the image, and write its contents as SPDX")
    build.add_argument("image", help="name and tag")
    build.add_argument("--base", default="", help="base of the image: it has Python 3.13")
    build.add_argument("--build-base", default="", help="image to install packages in: it also has pip")
    commands.add_parser("base", help="make both bases from Debian's packages")
    commands.add_parser("table", help="write the weights of the last image into the docs")
    options = parser.parse_args()
    try:
        if options.command == "build":
            _build(options.image, options.base, options.build_base or options.base)
        elif options.command == "base":
            local_base.make(engines.working_engine())
        else:
            contents.write_table(PAGE, contents.weights_table(contents.weights(*contents.files(ARCHIVE))))
    except subprocess.CalledProcessError as error:
        return error.returncode  # the program printed the cause
    except FileNotFoundError as error:
        sys.stderr.write(f"{error.filename} is missing\n")
        return 1
    except engines.NoEngineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except binaries.MissingBinariesError as error:
        sys.stderr.write(f"The image is built. The list of its contents is not: {error}\n")
        return 1
    return 0


def _build(image: str, base: str, build_base: str) -> None:
    engine = engines.working_engine()
    # Also the defaults: older versions of buildah do not find a stage whose name stands in a default.
    arguments = {"BASE": base or "distroless", "BUILD_BASE": build_base or "python"}
    engines.build(engine, image, ROOT, arguments=arguments)
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    engines.save(engine, image, ARCHIVE)
    contents.write_spdx(ARCHIVE, image, DOCUMENT)
    for path in (ARCHIVE, DOCUMENT):
        sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    sys.exit(main())
