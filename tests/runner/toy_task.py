"""A task that does what its arguments say, under the contract of Fractal tasks. Standard library only."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def wait_for(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


def main() -> None:
    words = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    out_json = Path(words["--out-json"])
    assert not out_json.exists(), "the output file exists already"
    args = json.loads(Path(words["--args-json"]).read_text())
    url = args.get("zarr_url", "")
    do = {**args, **args.get("init_args", {}), **args.get("of_url", {}).get(url, {})}
    print("arguments:", json.dumps(args, sort_keys=True), flush=True)
    for text in do.get("print", []):
        print(text, flush=True)
    if "print_bytes" in do:
        os.write(1, bytes.fromhex(do["print_bytes"]))
    for _ in range(do.get("print_megabytes", 0)):
        os.write(1, b"x" * 99 + b"\n" + b"y" * (1_000_000 - 100))
    if "fill" in do:  # the disk, until it is full
        with Path(do["fill"]).open("wb") as file:
            while True:
                file.write(b"\0" * 65_536)
                file.flush()
    if "environment" in do:
        print("environment:", {name: os.environ.get(name) for name in do["environment"]}, flush=True)
    if "child" in do:  # a process left behind, which writes its pid
        code = f"import os,time; open({do['child']!r},'w').write(str(os.getpid())); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", code], start_new_session=do.get("child_escapes", False))
        wait_for(do["child"])
    if "touch" in do:
        Path(do["touch"]).touch()
    if do.get("ignore_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "wait_for" in do:
        wait_for(do["wait_for"])
    if "raise" in do:
        raise ValueError(do["raise"])
    if "kill" in do:
        os.kill(os.getpid(), do["kill"])
    if "exit" in do:
        sys.exit(do["exit"])
    if "raw" in do:
        out_json.write_bytes(do["raw"].encode("utf-8", "surrogateescape"))
    elif "output" in do:
        out_json.write_text(json.dumps(do["output"]).replace("{url}", url))
    elif "plan" in do:  # one item per input image, with the given init_args
        items = [{"zarr_url": u, "init_args": do["plan"]} for u in args["zarr_urls"]]
        out_json.write_text(json.dumps({"parallelization_list": items}))


if __name__ == "__main__":
    main()
