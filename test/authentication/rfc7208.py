# SPDX-License-Identifier: Apache-2.0
"""Prints the test suite of RFC 7208 (openspf.org, release 2014.04) as JSON. Argument: the folder of
pyspf's source archive, which has it.

One scenario a line: its records by name in lower case, and its tests. An address that DNS does not answer for is TIMEOUT.
"""

import json
import pathlib
import sys
import tarfile

import yaml


def main() -> None:
    [file] = pathlib.Path(sys.argv[1]).glob("pyspf-*.tar.gz")
    with tarfile.open(file) as archive:
        member = next(name for name in archive.getnames() if name.endswith("/test/rfc7208-tests.yml"))
        suite = archive.extractfile(member)
        assert suite
        # Base: everything that is no list or table stays the text that it is, such as 1.2.3.4 and TIMEOUT.
        for scenario in yaml.load_all(suite, Loader=yaml.BaseLoader):
            print(json.dumps(scenario))


if __name__ == "__main__":
    main()
