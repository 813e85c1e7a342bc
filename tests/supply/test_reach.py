"""What finllm reaches of packages with a known vulnerability and no mend: supply/accepted.toml names these tests."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator

from supply.check import ROOT

PRODUCT = ("agents", "graphs", "guardrails", "memory", "models", "scenarios", "scheduler", "src", "tools", "training")


def names() -> Iterator[tuple[str, str]]:
    """Every name, attribute, imported module and text in the product's code, with its file."""
    for top in PRODUCT:
        for path in sorted((ROOT / top).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for field in ("id", "attr", "module", "name", "arg", "value"):
                    if isinstance(said := getattr(node, field, None), str):
                        yield said, f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', '?')}"


def test_no_prompt_cache_on_disk_is_ever_made() -> None:
    """llama-cpp-python's cache on disk is diskcache, which unpickles; and its server, which may be told to make one."""
    bad = ("diskcache", "LlamaDiskCache", "set_cache", "llama_cpp.server", "llama_cpp.llama_cache", "cache_type")
    assert [place for said, place in names() if said in bad] == []


def test_the_knowledge_base_is_a_store_in_process_without_a_server() -> None:
    imports = [(said, place.partition(":")[0]) for said, place in names() if said.partition(".")[0] == "chromadb"]
    assert {place for _, place in imports} == {"memory/knowledge.py"}
    assert {said for said, _ in imports} == {"chromadb", "chromadb.config"}
    clients = [said for said, place in names() if place.startswith("memory/knowledge.py") and said.endswith("Client")]
    assert clients == ["PersistentClient"]
    assert [place for said, place in names() if said == "trust_remote_code"] == []


OPENED = """
import json, os, sys, tempfile
import chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient(path=tempfile.mkdtemp(), settings=Settings(anonymized_telemetry=False))
store = client.create_collection("made", embedding_function=None)
store.add(ids=["a"], embeddings=[[1.0, 0.0]], documents=["a"])
store.query(query_embeddings=[[1.0, 0.0]], n_results=1)
held = {os.readlink(one.path) for one in os.scandir("/proc/self/fd") if os.path.lexists(one.path)}
network = [line.split()[9] for kind in ("tcp", "tcp6", "udp", "udp6") if os.path.exists("/proc/self/net/" + kind)
           for line in open("/proc/self/net/" + kind).readlines()[1:]]
print(json.dumps({
    "server": [name for name in sys.modules if name.startswith(("chromadb.server", "uvicorn", "fastapi"))],
    "sockets": [inode for inode in network if f"socket:[{inode}]" in held],
}))
"""


def test_a_store_in_process_loads_no_server_and_opens_nothing_to_the_network() -> None:
    done = subprocess.run([sys.executable, "-c", OPENED], capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {"server": [], "sockets": []}
