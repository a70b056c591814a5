"""Build the extension against the liblarder that pkg-config finds."""

import os
import shlex
import subprocess
from glob import glob

from setuptools import Extension, setup


def pkg_config(option):
    command = [os.environ.get("PKG_CONFIG", "pkg-config"), option, "larder"]
    try:
        return shlex.split(subprocess.check_output(command, text=True))
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"liblarder is needed to build this, and {shlex.join(command)} failed: {error}")


os.chdir(os.path.dirname(os.path.abspath(__file__)))
setup(
    ext_modules=[
        Extension(
            "larder._larder",
            sorted(glob("src/*.c")),
            depends=glob("src/*.h"),
            define_macros=[("_GNU_SOURCE", None)],
            extra_compile_args=["-std=c11", "-fvisibility=hidden", *pkg_config("--cflags")],
            extra_link_args=pkg_config("--libs"),
            py_limited_api=True,
        )
    ],
)
