"""Units as Ray tasks: ``python ray_tasks.py WORKERS FOLDER``. Speaks the protocol of tests/benchmarks/units.py.

A local cluster of as many worker processes as our run has nodes; all tasks are submitted at once, as Ray's own examples
do it. Nothing phones home, and everything is on the loopback interface.
"""

from __future__ import annotations

import json
import os
import sys
import time

PAYLOAD = b'{"text": "' + b"x" * 188 + b'"}'


def main() -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray  # type: ignore[import-not-found,import-untyped,unused-ignore]

    ray.init(num_cpus=int(sys.argv[1]), include_dashboard=False, _node_ip_address="127.0.0.1", _temp_dir=sys.argv[2],
             log_to_driver=False, logging_level="ERROR")

    @ray.remote  # type: ignore[untyped-decorator,unused-ignore]
    def echo(payload: bytes) -> bytes:
        return payload

    ray.get([echo.remote(PAYLOAD) for _ in range(500)])
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        results = ray.get([echo.remote(PAYLOAD) for _ in range(int(line))])
        wall = time.perf_counter() - began
        assert all(result == PAYLOAD for result in results)
        print(json.dumps({"wall_s": wall}), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
