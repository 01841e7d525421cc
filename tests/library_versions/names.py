"""What one unpacked library says of itself, by `python -P names.py FOLDER LIBRARY NAME...`.

The answer is one line of JSON on stdout: the public names, and which of NAME... it gives although
it does not list them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import types


def main(folder: str, library: str, *asked: str) -> dict[str, list[str]]:
    sys.path.insert(0, folder)
    if library == "transformers":
        # It refuses to be imported beside other versions of what it requires. Its lists of names
        # do not depend on them.
        check = types.ModuleType("transformers.dependency_versions_check")
        check.dep_version_check = lambda *_arguments: None  # type: ignore[attr-defined]
        sys.modules[check.__name__] = check
    module = importlib.import_module(library)
    assert str(module.__file__).startswith(folder), module.__file__
    listed = [name for name in dir(module) if name[0].isupper() and name != "DummyObject"]
    given = []
    for name in set(asked).difference(listed):
        with contextlib.suppress(Exception):
            getattr(module, name)
            given.append(name)
    return {"listed": listed, "given": given}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
