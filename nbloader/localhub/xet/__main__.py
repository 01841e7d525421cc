"""`python -m nbloader.localhub.xet`: upload files with the real client, as `handle` has it do."""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Upload the files of the plan that comes on stdin as JSON."""
    from hf_xet import XetSession

    plan = json.load(sys.stdin)
    commit = XetSession().new_upload_commit(
        endpoint=plan["endpoint"], token=plan["token"], token_expiry_unix_secs=plan["expires"]
    )
    with commit:
        for file in plan["files"]:
            commit.start_upload_file(file["content"], sha256=file["sha256"])


if __name__ == "__main__":
    main()
